// What the pages can do beyond links and forms: follow the ledger, filter while one types, and show
// numbers where the pointer is. Without it nothing is missing, only slower. No text that came from
// elsewhere is ever put in as markup, except whole regions of pages of our own.
"use strict";

(() => {
  const root = document.documentElement;
  root.classList.add("scripted");

  // Regions: parts of a page that a newer copy of the same page may replace.

  let asked = null;

  async function renew(address, { fresh }) {
    asked?.abort();
    asked = new AbortController();
    const answer = await fetch(address, { signal: asked.signal, headers: { Accept: "text/html" } });
    if (answer.redirected || !answer.ok) {
      if (answer.redirected || answer.status === 401) location.reload();
      return false;
    }
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    const grown = [...page.querySelectorAll("main [data-live][id]")]
      .some((newer) => !document.getElementById(newer.id));
    const writing = document.activeElement?.matches("main input, main select");
    if (grown && !writing) rebuild(page);
    for (const region of document.querySelectorAll("[data-live][id]")) {
      const newer = page.getElementById(region.id);
      if (newer) replace(region, newer, fresh);
    }
    dress(document);
    return true;
  }

  // A page that has other regions now than it had, as with the first call of all, is made anew.
  function rebuild(page) {
    const main = document.getElementById("main");
    main.replaceChildren(...document.importNode(page.getElementById("main"), true).childNodes);
    begin(main);
  }

  function replace(region, newer, fresh) {
    if (region.dataset.was === newer.innerHTML) return;
    const known = new Set([...region.querySelectorAll("[data-key]")].map((row) => row.dataset.key));
    const open = [...region.querySelectorAll("details")].map((each) => each.open);
    const held = region.contains(document.activeElement) ? document.activeElement : null;
    const scrolled = [region.scrollLeft, region.scrollTop];
    region.dataset.was = newer.innerHTML;
    region.replaceChildren(...document.importNode(newer, true).childNodes);
    region.querySelectorAll("details").forEach((each, index) => { each.open = open[index] ?? false; });
    region.hidden = newer.hidden;
    [region.scrollLeft, region.scrollTop] = scrolled;
    if (held && held !== region) again(region, held)?.focus({ preventScroll: true });
    if (fresh && known.size) {
      for (const row of region.querySelectorAll("[data-key]")) {
        if (!known.has(row.dataset.key)) row.classList.add("fresh");
      }
    }
  }

  function again(region, held) {
    if (held.id) return document.getElementById(held.id);
    const links = [...region.querySelectorAll("a[href]")];
    return links.find((link) => link.getAttribute("href") === held.getAttribute("href"))
      ?? region.querySelector("a[href], button, summary");
  }

  // The ledger: whoever looks at a page sees the newest call without asking.

  function follow(source) {
    const stream = new EventSource(source);
    let waiting = 0, last = 0, owed = false, heard = false;
    const look = async () => {
      waiting = 0;
      if (document.hidden) { owed = true; return; }
      last = Date.now();
      try { await renew(location.href, { fresh: true }); } catch { /* the next event asks again */ }
    };
    stream.addEventListener("open", () => root.classList.add("live"));
    stream.addEventListener("error", () => { 
      root.classList.remove("live");
      heard = false;
      if (stream.readyState === EventSource.CLOSED) { // refused, and it will not come again by itself
        look();
        setTimeout(() => follow(source), 10_000);
      }
    });
    stream.addEventListener("ledger", (event) => {
      const told = JSON.parse(event.data);
      const pause = 1000 * (told.pause ?? 1);
      const known = document.querySelector("#freshness time")?.dateTime ?? null;
      if (!heard && told.newest_call === known) { heard = true; return; } // as the page has it
      heard = true;
      if (!waiting) waiting = setTimeout(look, Math.max(0, last + pause - Date.now()));
    });
    document.addEventListener("visibilitychange", () => {
      if (!document.hidden && owed) { owed = false; look(); }
    });
    addEventListener("pagehide", () => stream.close());
    addEventListener("pageshow", (event) => { if (event.persisted) location.reload(); });
  }

  // Filters: a list is narrowed while one types.

  function narrow(form) {
    let waiting = 0;
    const look = async () => {
      const pairs = [...new FormData(form)].filter(([, value]) => value !== "");
      const address = `${form.getAttribute("action")}?${new URLSearchParams(pairs)}`;
      history.replaceState(null, "", address);
      try { await renew(address, { fresh: false }); } catch { /* a newer question is under way */ }
    };
    form.addEventListener("input", () => { clearTimeout(waiting); waiting = setTimeout(look, 200); });
    form.addEventListener("submit", (event) => { event.preventDefault(); clearTimeout(waiting); look(); });
  }

  function within(box) {
    const table = document.getElementById(box.dataset.within);
    box.querySelector("input").addEventListener("input", (event) => {
      const wanted = event.target.value.trim().toLowerCase();
      for (const row of table.querySelectorAll("tbody tr")) {
        row.hidden = !row.cells[0].textContent.toLowerCase().includes(wanted);
      }
    });
  }

  // Menus close when one goes elsewhere.

  document.addEventListener("click", (event) => {
    for (const menu of document.querySelectorAll("details[data-menu][open]")) {
      if (!menu.contains(event.target)) menu.open = false;
    }
  });
  document.addEventListener("keydown", (event) => {
    const menu = event.key === "Escape" && document.querySelector("details[data-menu][open]");
    if (menu) { menu.open = false; menu.querySelector("summary").focus(); }
  });

  // Moments: how long ago, beside what the clock said.

  function ago(moment) {
    const seconds = Math.max(0, Math.round((Date.now() - Date.parse(moment)) / 1000));
    if (seconds < 60) return `${seconds} s ago`;
    if (seconds < 3600) return `${Math.floor(seconds / 60)} min ago`;
    return seconds < 86400 ? `${Math.floor(seconds / 3600)} h ago` : null;
  }

  function tell() {
    for (const time of document.querySelectorAll("time[data-ago]")) {
      time.dataset.clock ??= time.textContent;
      time.textContent = ago(time.dateTime) ?? time.dataset.clock;
    }
  }

  // Charts: the drawing of the page gives way to one that answers the pointer.

  const dollars = (value) => value >= 0.1 || value === 0
    ? `$${value.toLocaleString("en", { minimumFractionDigits: 2, maximumFractionDigits: 2 })}`
    : `$${value.toFixed(Math.max(4, 1 - Math.floor(Math.log10(value))))}`;

  // Along an axis: all with as many places, none or two at least.
  function ticks(at) {
    const most = Math.max(0, ...at.map((value) => `${+value.toPrecision(6)}`.split(".")[1]?.length ?? 0));
    const places = most && Math.max(2, most);
    return at.map((value) => `$${value.toLocaleString("en", { minimumFractionDigits: places, maximumFractionDigits: places })}`);
  }

  function colour(name) { return getComputedStyle(root).getPropertyValue(name).trim(); }

  function draw(figure) {
    const plot = figure.querySelector(".plot");
    const points = plot.querySelector("[data-points]");
    if (!points || typeof uPlot === "undefined") return;
    const drawing = plot.querySelector("[data-drawing]");
    const key = points.textContent + matchMedia("(prefers-color-scheme: dark)").matches;
    if (figure.drawnKey === key && plot.contains(figure.drawnBox)) return;
    const told = JSON.parse(points.textContent);
    const width = Math.max(240, plot.clientWidth - 36);
    const times = told.days.map((day) => Date.parse(`${day}T00:00:00Z`) / 1000);
    const values = told.series.map((series) => series.values.map(Number));
    const stacked = values.map(() => []);
    times.forEach((_, index) => {
      let sum = 0;
      values.forEach((series, number) => { sum += Math.max(0, series[index]); stacked[number].push(sum); });
    });
    const order = stacked.map((_, number) => number).reverse(); // the tallest first, behind the others
    const box = document.createElement("div");
    box.className = "hovering";
    box.setAttribute("aria-hidden", "true"); // the table below says the same
    const label = (time, long) => new Date(time * 1000).toLocaleDateString("en", told.monthly
      ? { month: "short", year: "numeric", timeZone: "UTC" }
      : { month: "short", day: "numeric", timeZone: "UTC", ...(long ? { weekday: "short", year: "numeric" } : {}) });
    const step = times.length > 1 ? times[1] - times[0] : 86400;
    const line = colour("--line"), soft = colour("--soft");
    const axis = { stroke: soft, font: "12px sans-serif", ticks: { show: false }, border: { show: false } };
    const chart = new uPlot({
      width, height: 316, legend: { show: false }, padding: [8, 20, 0, 0],
      cursor: { drag: { x: false, y: false }, points: { show: false } },
      scales: {
        x: { time: true, range: [times[0] - step / 2, times[times.length - 1] + step / 2] },
        y: { range: (_, low, high) => [0, (high || 1) * 1.06] },
      },
      axes: [
        { ...axis, size: 28, grid: { show: false }, splits: () => splits(times, width), values: (_, at) => at.map((time) => label(time)) },
        { ...axis, size: 56, grid: { stroke: line, width: 1 }, values: (_, at) => ticks(at) },
      ],
      tzDate: (time) => uPlot.tzDate(new Date(time * 1000), "Etc/UTC"),
      series: [{}, ...order.map((number) => ({
        fill: colour(`--s${told.colours[number]}`), stroke: "transparent", width: 0,
        paths: uPlot.paths.bars({ size: [0.76, 64], radius: 0 }), points: { show: false },
      }))],
      hooks: { setCursor: [(self) => hover(self, box, told, values, label)] },
    }, [times, ...order.map((number) => stacked[number])], box);
    figure.chart?.destroy();
    figure.drawnBox?.remove();
    Object.assign(figure, { chart, drawnBox: box, drawnKey: key });
    drawing.hidden = true;
    drawing.after(box);
  }

  function splits(times, width) {
    const most = Math.max(2, Math.min(8, Math.floor(width / 90)));
    if (times.length <= most) return times;
    const step = (times.length - 1) / (most - 1);
    return Array.from({ length: most }, (_, number) => times[Math.round(number * step)]);
  }

  function hover(self, box, told, values, label) {
    let hint = box.querySelector(".hint-box");
    const { idx, left } = self.cursor;
    if (idx == null || left < 0) { hint?.remove(); return; }
    if (!hint) { hint = document.createElement("div"); hint.className = "hint-box"; box.append(hint); }
    const rows = told.series.map((series, number) => ({
      name: series.name ?? "(none)", value: values[number][idx], mark: `s${told.colours[number]}`,
    })).filter((row) => row.value);
    const head = document.createElement("b");
    head.textContent = label(self.data[0][idx], true);
    const total = { name: "Total", value: rows.reduce((sum, row) => sum + row.value, 0) };
    const lines = [...rows.reverse(), ...(rows.length === 1 && told.series.length === 1 ? [] : [total])].map((row) => {
      const line = document.createElement("div");
      if (row.mark) { const mark = document.createElement("i"); mark.className = row.mark; line.append(mark); } else line.className = "sum";
      for (const text of [row.name, dollars(row.value)]) {
        const part = document.createElement("span");
        part.textContent = text;
        line.append(part);
      }
      if (!row.mark) line.prepend(document.createElement("span"));
      return line;
    });
    hint.replaceChildren(head, ...lines);
    const room = box.clientWidth - hint.offsetWidth;
    const offset = self.bbox.left / devicePixelRatio;
    const right = left + offset + 16;
    hint.style.left = `${Math.max(0, right < room ? right : left + offset - hint.offsetWidth - 16)}px`;
  }

  // Everything that has to be done again after a region was replaced.

  function dress(page) {
    tell();
    for (const figure of page.querySelectorAll("[data-chart]")) draw(figure);
    for (const button of page.querySelectorAll("[data-copy][hidden]")) {
      button.hidden = false;
      button.addEventListener("click", async () => {
        await navigator.clipboard?.writeText(button.dataset.copy);
        button.querySelector(".unseen").textContent = "Copied";
      });
    }
  }

  function begin(part) {
    part.querySelectorAll("form[data-search]").forEach(narrow);
    part.querySelectorAll("[data-within]").forEach(within);
    part.querySelectorAll("[data-live][id]").forEach((region) => { region.dataset.was = region.innerHTML; });
    dress(document);
  }

  begin(document);
  setInterval(tell, 1000);
  const redraw = () => document.querySelectorAll("[data-chart]").forEach((figure) => { figure.drawnKey = null; draw(figure); });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
  let resizing = 0;
  addEventListener("resize", () => { clearTimeout(resizing); resizing = setTimeout(redraw, 150); });
  const source = document.body.dataset.liveSource;
  if (source) follow(source);
})();
