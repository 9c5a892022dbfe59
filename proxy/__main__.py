"""The command line of openai-meter: read the settings, set up the log, run one command.

Every setting is a flag of the commands that use it. What cannot be used is said in one line on
standard error, with exit status 2.
"""

import argparse
import asyncio
import os
import re
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from datetime import date
from pathlib import Path

from proxy import logs
from proxy.banner import release
from proxy.errors import ConfigurationError, MeterError
from proxy.settings import Settings, flag, read_settings, unknown_variables, variable
from proxy.values import Address

REFUSED = 2
INTERRUPTED = 128 + signal.SIGINT

_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
_DAY = "a day (2026-10-01) or month (2026-10) of the report time zone"
_FLAGS = {variable(name): name for name in Settings.model_fields}


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


def _serve(options: argparse.Namespace) -> None:
    from proxy.supervisor import serve  # noqa: PLC0415 - no other command needs it

    settings = _settings(options)
    for name in unknown_variables(os.environ):
        sys.stderr.write(f"openai-meter: {name} is no setting, it changes nothing\n")
    log = logs.configure(settings.log_format, process="supervisor", threaded=False)
    serve(settings)
    log.close()


def _proxy(options: argparse.Namespace) -> None:
    from proxy.app import run_worker  # noqa: PLC0415 - no other command needs it

    settings = _settings(options)
    if not _NAME.fullmatch(options.name):  # files are called by it
        raise ConfigurationError(
            f"--name is {options.name!r}: expected letters, digits, hyphens and underscores"
        )
    _follow_parent(options)
    log = logs.configure(settings.log_format, process=options.name)
    run_worker(settings, listen_fd=options.listen_fd, name=options.name, log_call=log.log)
    log.close()


def _recorder(options: argparse.Namespace) -> None:
    from proxy.recorder import run_recorder  # noqa: PLC0415 - no other command needs it

    settings = _settings(options)
    _database_url(settings)
    _follow_parent(options)
    log = logs.configure(settings.log_format, process="recorder")
    run_recorder(settings)
    log.close()


def _dashboard(options: argparse.Namespace) -> None:
    """Become the dashboard: it is another package, which is never imported here."""
    from proxy.parts import PYTHON, environment  # noqa: PLC0415 - no other command needs it

    settings = _settings(options)
    variables = environment(settings, dsn=_database_url(settings))
    os.execve(sys.executable, (*PYTHON, "dashboard"), variables)  # noqa: S606 - our own command


def _demo(options: argparse.Namespace) -> None:
    from proxy.demo.running import run_demo  # noqa: PLC0415 - no other command needs it

    try:
        run_demo(
            listen=Address.parse(options.listen),
            dashboard_listen=Address.parse(options.dashboard_listen),
            calls=options.calls,
        )
    except ValueError as exc:
        raise ConfigurationError(f"--listen, --dashboard-listen: {exc}") from None


def _pass_on(options: argparse.Namespace) -> None:
    """Become a command of the dashboard; only an export needs the ledger."""
    from proxy.parts import PYTHON, environment  # noqa: PLC0415 - no other command needs it

    settings = _settings(options)
    needed = options.passes == "export" and "--help" not in options.rest
    dsn = _any_database_url(settings) if needed else settings.database_url or "postgresql:///"
    settings.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    command = (*PYTHON, "dashboard", options.passes, *options.rest)
    os.execve(sys.executable, command, environment(settings, dsn=dsn))  # noqa: S606 - our own command


def _migrate(options: argparse.Namespace) -> None:
    from proxy.database import prepare  # noqa: PLC0415 - no other command needs it

    applied = asyncio.run(prepare(_any_database_url(_settings(options))))
    sys.stdout.write("schema applied\n" if applied else "the schema is up to date\n")


def _check_prices(options: argparse.Namespace) -> None:
    from proxy.bookkeeping import check_prices  # noqa: PLC0415 - no other command needs it

    check_prices(options.file, _ledger_url(_settings(options)), first=options.first)


def _reprice(options: argparse.Namespace) -> None:
    from proxy.bookkeeping import reprice_calls  # noqa: PLC0415 - no other command needs it

    settings = _settings(options)
    days = (options.first, options.until)
    dsn = _any_database_url(settings)
    reprice_calls(settings.pricing_file, dsn, days, model=options.model, dry_run=options.dry_run)


def _close(options: argparse.Namespace) -> None:
    from proxy.bookkeeping import close_month, verify_months  # noqa: PLC0415 - as above

    dsn = _any_database_url(_settings(options))
    if options.verify:
        verify_months(dsn, options.month)
    elif options.month is None:
        raise ConfigurationError("close: which month? openai-meter close 2026-10")
    else:
        close_month(dsn, options.month, export=options.export)


def _verify(options: argparse.Namespace) -> None:
    from proxy.rollups import Period  # noqa: PLC0415 - no other command needs it
    from proxy.verifying import run_verify  # noqa: PLC0415 - no other command needs it

    dsn = _any_database_url(_settings(options))
    period = Period(first=options.first, past=options.past)
    if found := run_verify(dsn, period, lambda line: sys.stdout.write(line + "\n")):
        raise MeterError(f"{found} found that {'is' if found == 1 else 'are'} not as it should be")


def _retain(options: argparse.Namespace) -> None:
    from proxy.retaining import (  # noqa: PLC0415 - no other command needs it
        Retired,
        oldest_kept,
        run_retain,
        today,
    )

    def tell(retired: Retired) -> None:
        where = f"its rows are in {retired.path}" if retired.path else "they were not exported"
        sys.stdout.write(f"{retired.month:%Y-%m}: let go of {retired.rows} rows, {where}\n")

    dsn = _any_database_url(_settings(options))
    if options.export is None and not options.no_export:
        raise ConfigurationError("--export DIR says where the rows go first; --no-export: nowhere")
    before = oldest_kept(options.months, today())
    run_retain(dsn, before, options.export, tell)
    sys.stdout.write(f"all months before {before:%Y-%m} are let go of; their sums are kept\n")


def _version(_options: argparse.Namespace) -> None:
    sys.stdout.write(f"openai-meter {release()}\n")


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
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add(commands, "serve", _serve, "run everything: proxy, recorder, dashboard and Postgres")
    worker = _add(commands, "proxy", _proxy, "run one proxy process alone")
    worker.add_argument("--name", default="worker-0", help="its name in journal, log and metrics")
    worker.add_argument("--listen-fd", type=int, help=argparse.SUPPRESS)
    recorder = _add(commands, "recorder", _recorder, "run the recorder alone")
    _add(commands, "dashboard", _dashboard, "run the dashboard alone")
    for child in (worker, recorder):
        child.add_argument("--supervised", action="store_true", help=argparse.SUPPRESS)
    _add_demo(commands)
    retain = _add(commands, "retain", _retain, "let go of the rows of old months")
    retain.usage = "openai-meter retain --months N (--export DIR | --no-export) [--SETTING VALUE …]"
    retain.add_argument("--months", type=int, required=True, help="how many months are kept")
    retain.add_argument("--export", type=Path, metavar="DIR", help="where the rows go first")
    retain.add_argument("--no-export", action="store_true", help="let the rows go for ever")
    verify = _add(commands, "verify", _verify, "check the ledger against itself")
    verify.usage = "openai-meter verify [--from DAY] [--to DAY] [--SETTING VALUE …]"
    verify.add_argument(
        "--from",
        dest="first",
        type=day,
        default=date.min,
        metavar="DAY",
        help="first day to look at, in the report time zone",
    )
    verify.add_argument(
        "--to",
        dest="past",
        type=day,
        default=date.max,
        metavar="DAY",
        help="first day not to look at any more",
    )
    _add_bookkeeping(commands)
    _add(commands, "migrate", _migrate, "bring the schema of the ledger up to date")
    passed_on = {
        "export": "write calls, sums of users or FOCUS 1.2 to a file",
        "token": "make, list and revoke tokens; sign links for users",
        "account": "add, list and remove people who can log in to the dashboard",
    }
    for name, words in passed_on.items():
        _add(commands, name, _pass_on, words, add_help=False).set_defaults(passes=name)
    commands.add_parser("version", help="print the version").set_defaults(command=_version)
    return parser


def _add_demo(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    words = "show it all on invented traffic: no key, no network, nothing is kept"
    demo = commands.add_parser("demo", help=words, description=words, allow_abbrev=False)
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
    demo.set_defaults(command=_demo)


def _add_bookkeeping(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add what is done now and then with prices and the ledger."""
    pricing = commands.add_parser("pricing", help="look after the pricing file").add_subparsers(
        required=True, metavar="COMMAND"
    )
    words = "say whether a pricing file can be used, and what it would change in the ledger"
    check = _add(pricing, "check", _check_prices, words)
    check.usage = "openai-meter pricing check [FILE] [--from DAY] [--SETTING VALUE …]"
    check.add_argument("file", nargs="?", type=Path, help="default: the one that is shipped")
    check.add_argument("--from", dest="first", type=day, help=f"{_DAY} (default: last month)")
    reprice = _add(commands, "reprice", _reprice, "price calls anew; rows are only ever added")
    reprice.usage = "openai-meter reprice --from DAY --to DAY [--model NAME] [--dry-run]"
    reprice.add_argument("--from", dest="first", type=day, required=True, help=_DAY)
    reprice.add_argument(
        "--to", dest="until", type=day, required=True, help=f"{_DAY}, which is not included"
    )
    reprice.add_argument("--model", metavar="NAME", help="only calls of it, by any of its names")
    reprice.add_argument("--dry-run", action="store_true", help="only say what would change")
    close = _add(commands, "close", _close, "freeze a month; what comes for it later counts later")
    close.usage = "openai-meter close MONTH [--export FILE] | close --verify [MONTH]"
    close.add_argument("month", nargs="?", type=month, help="2026-10, of the report time zone")
    close.add_argument("--export", type=Path, metavar="FILE", help="write its rows there, as CSV")
    close.add_argument("--verify", action="store_true", help="say whether it is as it was closed")


def day(text: str) -> date:
    """Return a day; a month stands for its first one."""
    return date.fromisoformat(f"{text}-01" if text.count("-") == 1 else text)


def month(text: str) -> date:
    """Return the first day of a month."""
    return date.fromisoformat(f"{text}-01")


def _add(
    commands: "argparse._SubParsersAction[argparse.ArgumentParser]",
    name: str,
    command: Callable[[argparse.Namespace], None],
    words: str,
    *,
    add_help: bool = True,
) -> argparse.ArgumentParser:
    """Add a command that takes every setting as a flag."""
    parser = commands.add_parser(
        name,
        help=words,
        description=words,
        usage=f"openai-meter {name} [--SETTING VALUE …]",
        allow_abbrev=False,
        add_help=add_help,
    )
    parser.set_defaults(command=command)
    group = parser.add_argument_group("settings", "each is also an environment variable")
    for setting, field in Settings.model_fields.items():
        description = (field.description or "").replace("%", "%%")
        group.add_argument(
            flag(setting),
            dest=variable(setting),
            default=argparse.SUPPRESS,
            help=f"{description}{_default(setting)} [{variable(setting)}]",
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


def _settings(options: argparse.Namespace) -> Settings:
    given = {_FLAGS[name]: value for name, value in vars(options).items() if name in _FLAGS}
    return read_settings(given)


def _ledger_url(settings: Settings) -> str | None:
    """Return where the ledger is: the database of the settings, or the embedded one that runs."""
    from proxy.embedded import running_dsn  # noqa: PLC0415 - no other command needs it

    return settings.database_url or running_dsn(settings.data_dir / "postgres")


def _database_url(settings: Settings) -> str:
    if settings.database_url is None:
        raise ConfigurationError(
            "METER_DATABASE_URL (--database-url) is not set: a part that runs alone needs a "
            "Postgres that is there; `openai-meter serve` brings its own"
        )
    return settings.database_url


def _any_database_url(settings: Settings) -> str:
    dsn = _ledger_url(settings)
    if dsn is None:
        raise ConfigurationError(
            f"no Postgres runs in {settings.data_dir}: start `openai-meter serve` with the same "
            "METER_DATA_DIR, or set METER_DATABASE_URL (--database-url)"
        )
    return dsn


def _follow_parent(options: argparse.Namespace) -> None:
    """Stop as on SIGTERM when the pipe that the supervisor holds is closed."""
    if options.supervised:
        threading.Thread(target=_await_end_of_input, name="lifeline", daemon=True).start()


def _await_end_of_input() -> None:
    while os.read(0, 64):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    sys.exit(main())
