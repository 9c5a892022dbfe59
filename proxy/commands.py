"""What the commands of openai-meter do with their options: one function for each.

Each takes what argparse made of the command line, and raises MeterError with the one line that is
said. What only one command needs is imported by it alone, so that the others start at once.
"""

import argparse
import asyncio
import os
import re
import select
import signal
import sys
import threading
from datetime import date, timedelta

from proxy import logs
from proxy.banner import release
from proxy.errors import ConfigurationError, MeterError
from proxy.settings import Settings, read_settings, unknown_variables, variable
from proxy.values import Address

_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
_FLAGS = {variable(name): name for name in Settings.model_fields}


def serve(options: argparse.Namespace) -> None:
    """Run everything, until told to stop."""
    from proxy.supervisor import serve as serve_all  # noqa: PLC0415 - no other command needs it

    settings = _settings(options)
    for name in unknown_variables(os.environ):
        sys.stderr.write(f"openai-meter: {name} is no setting, it changes nothing\n")
    log = logs.configure(settings.log_format, process="supervisor", threaded=False)
    serve_all(settings)
    log.close()


def proxy(options: argparse.Namespace) -> None:
    """Run one worker, until told to stop."""
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


def recorder(options: argparse.Namespace) -> None:
    """Run the recorder, until told to stop."""
    from proxy.recorder import run_recorder  # noqa: PLC0415 - no other command needs it

    settings = _settings(options)
    _database_url(settings)
    _follow_parent(options)
    log = logs.configure(settings.log_format, process="recorder")
    run_recorder(settings)
    log.close()


def dashboard(options: argparse.Namespace) -> None:
    """Become the dashboard: it is another package, which is never imported here."""
    from proxy.parts import PYTHON, environment  # noqa: PLC0415 - no other command needs it

    settings = _settings(options)
    variables = environment(settings, dsn=_database_url(settings))
    os.execve(sys.executable, (*PYTHON, "dashboard"), variables)  # noqa: S606 - our own command


def demo(options: argparse.Namespace) -> None:
    """Show everything on invented traffic, until told to stop."""
    from proxy.demo.running import run_demo  # noqa: PLC0415 - no other command needs it

    try:
        run_demo(
            listen=Address.parse(options.listen),
            dashboard_listen=Address.parse(options.dashboard_listen),
            calls=options.calls,
        )
    except ValueError as exc:
        raise ConfigurationError(f"--listen, --dashboard-listen: {exc}") from None


def pass_on(options: argparse.Namespace) -> None:
    """Become a command of the dashboard; only an export needs the ledger."""
    from proxy.parts import PYTHON, environment  # noqa: PLC0415 - no other command needs it

    settings = _settings(options)
    needed = options.passes == "export" and "--help" not in options.rest
    dsn = _any_database_url(settings) if needed else settings.database_url or "postgresql:///"
    command = (*PYTHON, "dashboard", options.passes, *options.rest)
    os.execve(sys.executable, command, environment(settings, dsn=dsn))  # noqa: S606 - our own command


def migrate(options: argparse.Namespace) -> None:
    """Bring the schema up to date, and say whether there was anything to do."""
    from proxy.database import prepare  # noqa: PLC0415 - no other command needs it

    applied = asyncio.run(prepare(_any_database_url(_settings(options))))
    sys.stdout.write("schema applied\n" if applied else "the schema is up to date\n")


def check_prices(options: argparse.Namespace) -> None:
    """Say whether a pricing file can be used, and what it would change."""
    from proxy.bookkeeping import check_prices  # noqa: PLC0415 - no other command needs it

    check_prices(options.file, _ledger_url(_settings(options)), first=options.first)


def reprice(options: argparse.Namespace) -> None:
    """Append what prices of today change, or only say what they would."""
    from proxy.bookkeeping import reprice_calls  # noqa: PLC0415 - no other command needs it

    settings = _settings(options)
    days = _days(options.first, options.last)
    dsn = _any_database_url(settings)
    reprice_calls(settings.pricing_file, dsn, days, model=options.model, dry_run=options.dry_run)


def close(options: argparse.Namespace) -> None:
    """Freeze a month, or say whether frozen ones are as they were."""
    from proxy.bookkeeping import close_month, verify_months  # noqa: PLC0415 - as above

    dsn = _any_database_url(_settings(options))
    if options.verify:
        verify_months(dsn, options.month)
    elif options.month is None:
        raise ConfigurationError("close: which month? openai-meter close 2026-10")
    else:
        close_month(dsn, options.month, export=options.export)


def verify(options: argparse.Namespace) -> None:
    """Check the ledger against itself; raise MeterError where something is found."""
    from proxy.rollups import Period, rebuild  # noqa: PLC0415 - no other command needs it
    from proxy.verifying import run_verify  # noqa: PLC0415 - no other command needs it

    dsn = _any_database_url(_settings(options))
    first, past = _days(options.first, options.last)
    period = Period(first=first, past=past)
    if options.rebuild:
        asyncio.run(rebuild(dsn, period))
        sys.stdout.write("sums: made anew from the rows\n")
    if found := run_verify(dsn, period, lambda line: sys.stdout.write(line + "\n")):
        raise MeterError(f"{found} found that {'is' if found == 1 else 'are'} not as it should be")


def retain(options: argparse.Namespace) -> None:
    """Let go of the rows of old months, exported first unless told otherwise."""
    from proxy.retaining import (  # noqa: PLC0415 - no other command needs it
        Retired,
        oldest_kept,
        run_retain,
        today,
    )

    def tell(retired: Retired) -> None:
        where = f"its rows are in {retired.path}" if retired.path else "they were not exported"
        sys.stdout.write(f"{retired.month:%Y-%m}: let go of {retired.rows} rows, {where}\n")
        for path in retired.exports:
            sys.stdout.write(f"{path} is the export of a closed month that had some of them\n")

    dsn = _any_database_url(_settings(options))
    if options.export is None and not options.no_export:
        raise ConfigurationError("--export DIR says where the rows go first; --no-export: nowhere")
    before = oldest_kept(options.months, today())
    run_retain(dsn, before, options.export, tell)
    sys.stdout.write(f"all months before {before:%Y-%m} are let go of; their sums are kept\n")


def version(_options: argparse.Namespace) -> None:
    """Print the version."""
    sys.stdout.write(f"openai-meter {release()}\n")


def _settings(options: argparse.Namespace) -> Settings:
    given = {_FLAGS[name]: value for name, value in vars(options).items() if name in _FLAGS}
    return read_settings(given)


def _days(first: date, last: date | None) -> tuple[date, date]:
    """Return a range of days, at least one, and the day after it: of none all could be said."""
    past = date.max if last in {None, date.max} else last + timedelta(days=1)
    if first >= past:
        raise ConfigurationError(f"--from {first} --to {last} is no day at all")
    return first, past


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
    poller = select.poll()  # all children share the pipe: one of them may have made it non-blocking
    poller.register(0, select.POLLIN)
    while not poller.poll() or os.read(0, 64):
        pass
    os.kill(os.getpid(), signal.SIGTERM)
