"""The command line of openai-meter: read the settings, set up the log, run one command.

Every setting is a flag of the commands that use it. What cannot be used is said in one line on
standard error, with exit status 2.
"""

import argparse
import signal
import sys
from calendar import monthrange
from collections.abc import Callable, Container, Sequence
from datetime import date
from pathlib import Path

from proxy import commands
from proxy.banner import release
from proxy.errors import MeterError
from proxy.settings import Settings, flag, variable

REFUSED = 2
INTERRUPTED = 128 + signal.SIGINT

_LEDGER = ("database_url", "data_dir")  # the settings that tell where the ledger is
_PRICED = (*_LEDGER, "pricing_file")
_FIRST = "first day (2026-10-01, or 2026-10: the first of that month), in the report time zone"
_LAST = "last day, included (2026-10-31, or 2026-10: the last of that month)"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit status."""
    parser = _parser()
    options, rest = parser.parse_known_args(arguments)
    if rest and not hasattr(options, "passes"):
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    options.rest = rest
    command: Callable[[argparse.Namespace], None] = options.command
    try:
        command(options)
    except MeterError as exc:
        sys.stderr.write(f"openai-meter: {exc}\n")
        return REFUSED
    except KeyboardInterrupt:  # before a command listens to signals, there is nothing to stop
        return INTERRUPTED
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="openai-meter",
        description="A transparent proxy that meters OpenAI calls into your own Postgres.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "--version",
        action="version",
        version=f"openai-meter {release()}",
        help="print the version and exit",
    )
    parsers = parser.add_subparsers(required=True, metavar="COMMAND")
    _add(
        parsers, "serve", commands.serve, "run everything: proxy, recorder, dashboard and Postgres"
    )
    worker = _add(parsers, "proxy", commands.proxy, "run one proxy process alone")
    worker.add_argument("--name", default="worker-0", help="its name in journal, log and metrics")
    worker.add_argument("--listen-fd", type=int, help=argparse.SUPPRESS)
    recorder = _add(parsers, "recorder", commands.recorder, "run the recorder alone")
    _add(parsers, "dashboard", commands.dashboard, "run the dashboard alone")
    for child in (worker, recorder):
        child.add_argument("--supervised", action="store_true", help=argparse.SUPPRESS)
    _add_demo(parsers)
    _add_checks(parsers)
    _add_bookkeeping(parsers)
    words = "bring the schema of the ledger up to date"
    _add(parsers, "migrate", commands.migrate, words, shown=_LEDGER)
    passed_on = {
        "export": "write calls, sums of users or FOCUS 1.2 to a file",
        "token": "make, list and revoke tokens; sign links for users",
        "account": "add, list and remove people who can log in to the dashboard",
    }
    for name, words in passed_on.items():
        _add(parsers, name, commands.pass_on, words, add_help=False).set_defaults(passes=name)
    parsers.add_parser("version", help="print the version").set_defaults(command=commands.version)
    return parser


def _add_demo(parsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    words = "show it all on invented traffic: no key, no network, nothing is kept"
    demo = parsers.add_parser("demo", help=words, description=words, allow_abbrev=False)
    addresses = {"listen": "the proxy", "dashboard_listen": "the dashboard"}
    for setting, part in addresses.items():
        demo.add_argument(
            flag(setting),
            default=str(Settings.model_fields[setting].get_default()),
            metavar="HOST:PORT",
            help=f"where {part} listens; another port if this one is taken (default: %(default)s)",
        )
    demo.add_argument(
        "--calls", type=int, default=12_000, help="how many calls the past has (default: 12000)"
    )
    demo.set_defaults(command=commands.demo)


def _add_checks(parsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add what looks after the ledger's rows."""
    words = "let go of the rows of old months"
    retain = _add(parsers, "retain", commands.retain, words, shown=_LEDGER)
    retain.epilog = "Sums are kept. Read first: docs/operating.md, Backup."
    retain.usage = "openai-meter retain --months N (--export DIR | --no-export) [--SETTING VALUE …]"
    retain.add_argument("--months", type=int, required=True, help="how many months are kept")
    retain.add_argument("--export", type=Path, metavar="DIR", help="where the rows go first")
    retain.add_argument("--no-export", action="store_true", help="let the rows go for ever")
    words = "check the ledger against itself"
    verify = _add(parsers, "verify", commands.verify, words, shown=_LEDGER)
    verify.epilog = (
        "Exit status 0: all is well; 2: something is not, and was said. It only reads, unless "
        "--rebuild is given. More: docs/operating.md, Is the ledger right?"
    )
    verify.usage = "openai-meter verify [--from DAY] [--to DAY] [--rebuild] [--SETTING VALUE …]"
    verify.add_argument(
        "--rebuild",
        action="store_true",
        help="make the sums of these days anew from their rows first; recorders wait meanwhile",
    )
    verify.add_argument(
        "--from",
        dest="first",
        type=day,
        default=date.min,
        metavar="DAY",
        help=f"{_FIRST} (default: all)",
    )
    verify.add_argument(
        "--to", dest="last", type=last_day, metavar="DAY", help=f"{_LAST} (default: all)"
    )


def _add_bookkeeping(parsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add what is done now and then with prices and the ledger."""
    pricing = parsers.add_parser("pricing", help="look after the pricing file").add_subparsers(
        required=True, metavar="COMMAND"
    )
    words = "say whether a pricing file can be used, and what it would change in the ledger"
    check = _add(pricing, "check", commands.check_prices, words, shown=_PRICED)
    check.epilog = "It only reads. More: docs/pricing.md."
    check.usage = "openai-meter pricing check [FILE] [--from DAY] [--SETTING VALUE …]"
    check.add_argument("file", nargs="?", type=Path, help="default: the one that is shipped")
    check.add_argument("--from", dest="first", type=day, help=f"{_FIRST} (default: last month)")
    words = "price calls anew; rows are only ever added"
    reprice = _add(parsers, "reprice", commands.reprice, words, shown=_PRICED)
    reprice.usage = (
        "openai-meter reprice --from DAY --to DAY [--model NAME] [--dry-run] [--SETTING VALUE …]"
    )
    reprice.epilog = (
        "Begin with --dry-run, which writes nothing. More: docs/ledger.md, Corrections."
    )
    reprice.add_argument(
        "--from", dest="first", type=day, required=True, metavar="DAY", help=_FIRST
    )
    reprice.add_argument(
        "--to", dest="last", type=last_day, required=True, metavar="DAY", help=_LAST
    )
    reprice.add_argument("--model", metavar="NAME", help="only calls of it, by any of its names")
    reprice.add_argument("--dry-run", action="store_true", help="only say what would change")
    words = "freeze a month; what comes for it later counts later"
    close = _add(parsers, "close", commands.close, words, shown=_LEDGER)
    close.usage = (
        "openai-meter close (MONTH [--export FILE] | --verify [MONTH]) [--SETTING VALUE …]"
    )
    close.epilog = "A month cannot be opened again. More: docs/ledger.md, Closed months."
    close.add_argument("month", nargs="?", type=month, help="2026-10, of the report time zone")
    close.add_argument("--export", type=Path, metavar="FILE", help="write its rows there, as CSV")
    close.add_argument("--verify", action="store_true", help="say whether it is as it was closed")


def day(text: str) -> date:
    """Return a day; a month stands for its first one."""
    return date.fromisoformat(f"{text}-01" if text.count("-") == 1 else text)


def last_day(text: str) -> date:
    """Return a day that is included; a month stands for its last one."""
    if text.count("-") != 1:
        return date.fromisoformat(text)
    first = month(text)
    return first.replace(day=monthrange(first.year, first.month)[1])


def month(text: str) -> date:
    """Return the first day of a month."""
    return date.fromisoformat(f"{text}-01")


def _add(
    parsers: "argparse._SubParsersAction[argparse.ArgumentParser]",
    name: str,
    command: Callable[[argparse.Namespace], None],
    words: str,
    *,
    add_help: bool = True,
    shown: Container[str] = tuple(Settings.model_fields),
) -> argparse.ArgumentParser:
    """Add a command that takes every setting as a flag; its help shows those that matter to it."""
    parser = parsers.add_parser(
        name,
        help=words,
        description=words,
        usage=f"openai-meter {name} [--SETTING VALUE …]",
        allow_abbrev=False,
        add_help=add_help,
    )
    parser.set_defaults(command=command)
    all_of_them = all(setting in shown for setting in Settings.model_fields)
    words = "" if all_of_them else "; all of them: openai-meter serve --help"
    group = parser.add_argument_group("settings", f"each is also an environment variable{words}")
    for setting, field in Settings.model_fields.items():
        description = (field.description or "").replace("%", "%%")
        group.add_argument(
            flag(setting),
            dest=variable(setting),
            default=argparse.SUPPRESS,
            help=f"{description}{_default(setting)} [{variable(setting)}]"
            if setting in shown
            else argparse.SUPPRESS,
            metavar="VALUE",
            nargs="?" if field.annotation is bool else None,
            const="true" if field.annotation is bool else None,
        )
    return parser


def _default(setting: str) -> str:
    field = Settings.model_fields[setting]
    default = field.get_default()
    if default is None or default == () or default is False or field.default_factory is not None:
        return ""  # nothing, or made when it is needed: the description says how
    shown = ", ".join(default) if isinstance(default, tuple) else default
    return f" (default: {shown})"


if __name__ == "__main__":
    sys.exit(main())
