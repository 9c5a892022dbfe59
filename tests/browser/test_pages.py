"""What an admin does with the pages, in a browser: with scripts and without."""

import asyncio
import csv
import json
import re
import time
from decimal import Decimal
from pathlib import Path
from zoneinfo import ZoneInfo

import aiohttp
import pytest
from axe_playwright_python.async_playwright import Axe
from playwright.async_api import Page, expect

from tests.browser.conftest import PASSWORD, Dashboard, Open, log_in, month
from tests.fakes.answers import answer
from tests.fakes.rows import ledger_row
from tests.fakes.running import metering
from tests.fakes.upstream import Upstream

USAGE = b'{"prompt_tokens":1200,"completion_tokens":300,"total_tokens":1500}'
HOSTILE = (
    "<img src=x onerror=alert(1)>",
    "\"'><script>alert(1)</script>",
    "=cmd()|' /C calc'!A0",
    "two\nlines",
    "x" * 256,
    "\N{RIGHT-TO-LEFT OVERRIDE}gpj.exe",
    "👩‍🏫 שלום",
)
PAGES = (
    "/admin",
    "/admin?compare=previous&range=this_month",
    "/admin/users",
    "/admin/users?search=nobody-at-all",
    "/admin/user?user=pupil-004",
    "/admin/endpoints?compare=previous",
    "/admin/endpoint?endpoint=generate_hint",
    "/admin/models",
    "/admin/daily",
    "/admin/calls?metadata=course%3Dc1&outcome=ok",
    "/admin/pricing",
    "/admin/exports",
    "/admin/users?range=nonsense",
)
GAP = """
INSERT INTO metering_gap (writer, started_at, ended_at, calls)
VALUES ('worker-0', '2026-11-20 10:00Z', '2026-11-20 10:05Z', 12)
"""
scripts = pytest.mark.parametrize("scripts", [True, False], ids=["scripts", "no scripts"])


@pytest.fixture(autouse=True)
def _zone() -> None:
    """Read the time zone of the worker's settings before the loop runs; it is kept from then on."""
    ZoneInfo("UTC")


@scripts
async def test_one_logs_in_and_out(dashboard: Dashboard, open_page: Open, *, scripts: bool) -> None:
    """A wrong password is said to be one; the page that was asked for comes after the right one."""
    await dashboard.record(ledger_row(0))
    async with open_page(
        "/admin/users?range=7d", logged_in=False, java_script_enabled=scripts
    ) as page:
        await log_in(page, "wrong")
        await expect(page.get_by_role("alert")).to_contain_text("wrong")
        await log_in(page)
        await expect(page.get_by_role("heading", level=1)).to_have_text("Users")
        assert page.url.endswith("/admin/users?range=7d")
        await page.get_by_role("button", name="Log out").click()
        await expect(page.get_by_role("heading", level=1)).to_have_text("Log in")
        await page.goto("/admin")
        await expect(page.get_by_role("heading", level=1)).to_have_text("Log in")


@scripts
async def test_a_list_is_sorted_searched_and_paged(
    dashboard: Dashboard, open_page: Open, *, scripts: bool
) -> None:
    """Everything is in the address, and the totals are those of the whole filter."""
    await dashboard.record(*month())
    async with open_page("/admin/users", java_script_enabled=scripts) as page:
        table = page.get_by_role("table", name="Users")
        await expect(table.locator("tbody tr")).to_have_count(50)
        await expect(table.locator("tfoot td").first).to_have_text("180")
        await table.get_by_role("link", name="User", exact=True).click()
        assert "sort=name" in page.url
        head = page.get_by_role("columnheader", name="User", exact=True)
        await expect(head).to_have_attribute("aria-sort", "ascending")
        await expect(table.locator("tbody th").first).to_have_text("pupil-000")
        await page.get_by_role("link", name="Next page").click()
        await expect(table.locator("tbody th").first).to_have_text("pupil-050")
        await expect(table.locator("tbody tr")).to_have_count(10)
        await page.get_by_label("Search users").fill("04")
        if not scripts:
            await page.get_by_role("button", name="Search").click()
        await expect(table.locator("tbody tr")).to_have_count(11)
        await expect(page).to_have_url(re.compile(r"search=04"))
        await expect(table.locator("tfoot td").first).to_have_text("35")


@scripts
async def test_one_drills_down_to_how_a_cost_is_made(
    dashboard: Dashboard, open_page: Open, *, scripts: bool
) -> None:
    """From the overview by endpoint, user and call; each is a link."""
    await dashboard.record(*month(5))
    async with open_page("/admin", java_script_enabled=scripts) as page:
        await (
            page.get_by_role("table", name="Endpoints")
            .get_by_role("link", name="generate_hint")
            .click()
        )
        await expect(page.get_by_role("heading", level=1)).to_have_text("Endpoint generate_hint")
        await (
            page.get_by_role("table", name="Top users")
            .get_by_role("link", name="pupil-004")
            .click()
        )
        await expect(page.get_by_role("heading", level=1)).to_have_text("User pupil-004")
        await page.get_by_role("table", name="Last calls").locator("tbody a").first.click()
        made = page.get_by_role("table", name="How the cost is made")
        await expect(made.locator("tfoot")).to_contain_text("$0.000285000001")
        await expect(page.get_by_text("Prices of gpt-4o-mini@2024-07-18/default")).to_be_visible()
        await page.get_by_title("Calls with the same").click()
        await expect(page).to_have_url(re.compile(r"/admin/calls\?range=all&metadata=course%3Dc"))


@scripts
async def test_filters_are_added_by_a_form_and_taken_away_by_a_click(
    dashboard: Dashboard, open_page: Open, *, scripts: bool
) -> None:
    """Metadata among them; a range of one's own too."""
    await dashboard.record(*month(5))
    async with open_page("/admin/calls", java_script_enabled=scripts) as page:
        calls = page.get_by_role("table", name="Calls")
        await page.get_by_text("Filter", exact=True).click()
        await page.get_by_label("Metadata").fill("course=c2")
        await page.get_by_label("From").fill("2026-11-01")
        await page.get_by_label("To").fill("2026-11-22")
        await page.get_by_role("button", name="Show").click()
        await expect(page).to_have_url(re.compile("metadata=course%3Dc2"))
        await expect(page.get_by_text("Nov 1 – Nov 22, 2026")).to_be_visible()
        await expect(calls.locator("tbody tr")).to_have_count(3)
        await page.get_by_role("link", name="metadata course=c2").click()
        await expect(calls.locator("tbody tr")).to_have_count(15)


async def test_what_is_shown_can_be_taken_away_as_a_file(
    dashboard: Dashboard, open_page: Open, tmp_path: Path
) -> None:
    """With the same filter, whole, and adding up to what the page says."""
    await dashboard.record(*month(), ledger_row(9999, user_id=HOSTILE[2]))
    async with open_page("/admin/users?range=90d") as page:
        cost = await page.locator("tfoot td span[title^='$']").first.get_attribute("title")
        await page.get_by_text("Export", exact=True).click()
        async with page.expect_download() as download:
            await page.get_by_role("link", name="CSV for Excel").click()
        path = tmp_path / "users.csv"
        await (await download.value).save_as(path)
    text = await asyncio.to_thread(path.read_text, encoding="utf-8")
    assert text.startswith("\ufeff")
    rows = list(csv.DictReader(text.removeprefix("\ufeff").splitlines()))
    assert len(rows) == 61
    total = sum((Decimal(row["cost_usd"] or 0) for row in rows), Decimal(0))
    assert cost == f"${total.normalize():f}"
    assert f"'{HOSTILE[2]}" in {row["user_id"] for row in rows}


async def test_a_call_is_on_the_page_as_soon_as_it_is_over(
    dashboard: Dashboard, open_page: Open, tmp_path: Path
) -> None:
    """Two seconds later at most where a machine has nothing else to do, and without a reload."""
    await dashboard.record(*month(3))
    body = {"model": "gpt-5.4-mini", "messages": []}
    headers = {"X-Meter-User": "just-now", "X-Meter-Endpoint": "chat_response"}
    async with (
        Upstream(script=answer(USAGE)) as upstream,
        metering(tmp_path / "meter", upstream.url, dashboard.dsn) as meter,
        open_page("/admin") as page,
        aiohttp.ClientSession(meter.url) as session,
    ):
        await expect(page.locator("html")).to_have_class(re.compile("live"))
        await page.evaluate("window.untouched = true")
        async with session.post("/v1/chat/completions", json=body, headers=headers) as given:
            assert given.status == 200
        ended = time.monotonic()
        await expect(page.locator("#latest-calls")).to_contain_text("just-now")
        passed = time.monotonic() - ended
        await expect(page.get_by_role("table", name="Endpoints")).to_contain_text("chat_response")
        assert await page.evaluate("window.untouched")
    assert passed < 20, "far more than the two seconds, even on a busy machine"


async def test_the_chart_answers_the_pointer(dashboard: Dashboard, open_page: Open) -> None:
    """With the numbers of a day; keyboards and screen readers have the table."""
    await dashboard.record(*month())
    async with open_page("/admin") as page:
        chart = page.locator(".u-over")
        box = await chart.bounding_box()
        assert box is not None
        await page.mouse.move(box["x"] + box["width"] - 8, box["y"] + box["height"] / 2)
        await expect(page.locator(".hint-box")).to_contain_text("Sun, Nov 22, 2026")
        await page.get_by_text("The numbers of this chart").click()
        await expect(page.get_by_role("table", name="Cost by day")).to_contain_text("Nov 22")


@scripts
async def test_what_clients_call_themselves_is_text_everywhere(
    dashboard: Dashboard, open_page: Open, *, scripts: bool
) -> None:
    """It is shown, searched, led to and never run."""
    rows = [
        ledger_row(n, user_id=name, endpoint=name, metadata={name[:64]: name})
        for n, name in enumerate(HOSTILE)
    ]
    await dashboard.record(*rows)
    async with open_page("/admin", java_script_enabled=scripts) as page:
        for name in HOSTILE[:2]:
            await expect(page.get_by_role("table", name="Top users")).to_contain_text(name)
        for number, row in enumerate(rows):
            await page.goto(f"/admin/call?call={row.event_id}")
            await page.locator("dt:text-is('User') + dd a").click()
            await expect(page.get_by_role("heading", level=1)).to_contain_text("User")
            await expect(
                page.get_by_role("table", name="Last calls").locator("tbody tr")
            ).to_have_count(1)
            if number < 3:
                await page.goto("/admin/users")
                await page.get_by_label("Search users").fill(HOSTILE[number])
                await page.get_by_label("Search users").press("Enter")
                await expect(page.locator("tbody tr")).to_have_count(1)
                await expect(page.locator("tbody th")).to_have_text(HOSTILE[number])


async def _problems(page: Page) -> list[str]:
    found = await Axe().run(page)
    return [
        f"{page.url} {each['id']}: {json.dumps(each['nodes'][0]['html'])[:200]}"
        for each in found.response["violations"]
    ]


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_nothing_stands_in_anybodys_way(
    dashboard: Dashboard, open_page: Open, scheme: str
) -> None:
    """Every page, with axe-core: contrast, names, landmarks, tables, order."""
    rows = month(8)
    await dashboard.record(*rows)
    await dashboard.execute(GAP)
    problems: list[str] = []
    async with open_page("/admin", logged_in=False, color_scheme=scheme) as page:
        problems += await _problems(page)
        await log_in(page)
        await page.wait_for_url("**/admin")
        for path in (*PAGES, f"/admin/call?call={rows[0].event_id}"):
            await page.goto(path)
            problems += await _problems(page)
        await page.goto("/admin/calls")
        await page.get_by_text("Filter", exact=True).click()
        problems += await _problems(page)
    assert problems == []


async def test_pages_fit_a_phone(dashboard: Dashboard, open_page: Open) -> None:
    """What is wider scrolls by itself, and not the page."""
    rows = month()
    await dashboard.record(*rows, ledger_row(9999, user_id="x" * 256, endpoint="y" * 256))
    wide = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
    async with open_page("/admin", viewport={"width": 360, "height": 740}) as page:
        await page.wait_for_url("**/admin")
        for path in (*PAGES, f"/admin/call?call={rows[0].event_id}"):
            await page.goto(path)
            assert await page.evaluate(wide) <= 0, path


async def test_how_a_cost_is_made_fits_a_phone_whole(dashboard: Dashboard, open_page: Open) -> None:
    """Also its sum, which is what one looks for."""
    rows = month(2)
    await dashboard.record(*rows)
    hidden = "table => table.parentElement.scrollWidth - table.parentElement.clientWidth"
    async with open_page("/admin", viewport={"width": 375, "height": 740}) as page:
        await page.wait_for_url("**/admin")
        await page.goto(f"/admin/call?call={rows[0].event_id}")
        table = page.get_by_role("table", name="How the cost is made")
        assert await table.evaluate(hidden) <= 0


async def test_a_page_can_be_printed(dashboard: Dashboard, open_page: Open) -> None:
    """On A4 nothing is cut, whatever clients call themselves; the chart is the one that scales."""
    await dashboard.record(*month(), ledger_row(9999, user_id="x" * 256, endpoint="y" * 256))
    wide = """() => [...document.querySelectorAll("main table")].filter(
        (table) => table.checkVisibility()
            && table.getBoundingClientRect().right > document.documentElement.clientWidth + 1
    ).map((table) => table.caption.textContent)"""
    async with open_page("/admin", viewport={"width": 1280, "height": 900}) as page:
        await page.wait_for_url("**/admin")
        for path in ("/admin?range=this_month&compare=previous", "/admin/users", "/admin/calls"):
            await page.goto(path)
            await page.set_viewport_size({"width": 1280, "height": 900})
            if path.startswith("/admin?"):
                await expect(page.locator(".hovering")).to_be_visible()
            await page.emulate_media(media="print")
            await page.set_viewport_size({"width": 720, "height": 1000})  # A4 within its margins
            assert await page.evaluate(wide) == [], path
            await expect(page.get_by_role("navigation")).to_be_hidden()
            await expect(page.locator(".hovering")).to_be_hidden()
            if path.startswith("/admin?"):
                await expect(page.locator("svg.bars")).to_be_visible()
            await page.emulate_media(media="screen")


async def test_what_is_in_no_sum_is_said_above_them(dashboard: Dashboard, open_page: Open) -> None:
    """Also where the page was open when it became known; what to do stands beside it."""
    await dashboard.record(*month(3))
    async with open_page("/admin") as page:
        notice = page.get_by_role("note")
        await expect(page.locator("html")).to_have_class(re.compile("live"))
        await expect(notice).to_be_hidden()
        await dashboard.execute(GAP)
        await dashboard.record(ledger_row(9999))
        await expect(notice).to_contain_text("12 calls were not metered")
        await expect(notice).to_contain_text("METER_DATA_DIR")
        await page.get_by_role("link", name="7 days").click()
        await expect(notice).to_be_visible()
        await page.get_by_role("link", name="Today", exact=True).first.click()
        await expect(notice).to_be_hidden()


async def test_the_keyboard_reaches_everything(dashboard: Dashboard, open_page: Open) -> None:
    """The first stop skips the navigation; menus open, and close where they were opened."""
    await dashboard.record(*month(3))
    async with open_page("/admin") as page:
        await page.wait_for_url("**/admin")
        await page.keyboard.press("Tab")
        await expect(page.get_by_role("link", name="Skip to the numbers")).to_be_focused()
        await page.keyboard.press("Enter")
        await page.keyboard.press("Tab")
        summary = page.locator(".headline summary")
        await expect(summary).to_be_focused()
        await page.keyboard.press("Enter")
        await expect(page.get_by_role("link", name="Raw CSV")).to_be_visible()
        await page.keyboard.press("Escape")
        await expect(page.get_by_role("link", name="Raw CSV")).to_be_hidden()
        await expect(summary).to_be_focused()


async def test_an_empty_ledger_teaches_and_fills_before_ones_eyes(
    dashboard: Dashboard, open_page: Open
) -> None:
    """The first call takes the lesson's place."""
    async with open_page("/admin") as page:
        await expect(page.get_by_text("No call has come through yet")).to_be_visible()
        await expect(page.locator("html")).to_have_class(re.compile("live"))
        await dashboard.record(ledger_row(0))
        await expect(page.get_by_role("table", name="Endpoints")).to_be_visible()


async def test_a_session_that_is_over_leads_to_the_form(
    dashboard: Dashboard, open_page: Open
) -> None:
    """Also where the page was open all the time."""
    await dashboard.record(ledger_row(0))
    async with open_page("/admin/users") as page:
        await page.wait_for_url("**/admin/users")
        await page.context.clear_cookies()
        await page.get_by_label("Search users").fill("a")
        await expect(page.get_by_role("heading", level=1)).to_have_text("Log in")
        await log_in(page, PASSWORD)
        await expect(page.get_by_role("heading", level=1)).to_have_text("Users")
