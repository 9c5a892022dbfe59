"""What the command line does with the ledger and with access: export, token, account.

`openai-meter` becomes this process, because it never imports the dashboard. A file is written
under another name first, so that half of one never looks whole; where it fails, nothing is left.
"""

import argparse
import contextlib
import getpass
import secrets
import sys
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Self, TypeAlias
from zoneinfo import ZoneInfo, available_timezones

import uvloop

from dashboard import exports
from dashboard.copying import copy_file
from dashboard.errors import ConfigurationError, DashboardError, ParameterError
from dashboard.exports import BYTE_ORDER_MARK, DIALECTS, FORMS
from dashboard.filters import PRESETS, Filter
from dashboard.links import DAYS, demand_scopes, paths_of, span
from dashboard.parsing import parse
from dashboard.passwords import hash_of
from dashboard.queries import Ledger
from dashboard.register import Account, Entry, Register
from dashboard.roles import ROLES
from dashboard.settings import LISTEN, Settings
from dashboard.snapshot import Snapshot, Write
from dashboard.tables import SORTABLE

COMMANDS = ("export", "token", "account")
DAY_SECONDS = 86_400.0
LOOK_SECONDS = 0.2
COMMAND_LINE = "(command line)"  # who changed access, in the audit log


_WHERE = (
    "It is about the `openai-meter serve` that has the same METER_DATA_DIR (--data-dir) and, if it "
    "has one, METER_DATABASE_URL (--database-url). More: docs/api.md"
)
_AddParser: TypeAlias = Callable[..., argparse.ArgumentParser]
_Run: TypeAlias = Callable[[Settings, argparse.Namespace], None]


def command(settings: Settings, arguments: Sequence[str]) -> None:
    """Run a command; raise DashboardError if that cannot be done."""
    options = _parser().parse_args(arguments)
    options.run(settings, options)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="openai-meter", allow_abbrev=False)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_export(commands.add_parser)
    _add_token(commands.add_parser)
    _add_account(commands.add_parser)
    return parser


def _add_export(add_parser: _AddParser) -> None:
    export = _add(
        add_parser, "export", "write calls, sums of users or FOCUS 1.2 to a file", _export
    )
    export.add_argument(
        "--range",
        help=f"{', '.join(name for name in PRESETS if name != 'custom')} (default: 30d); or:",
    )
    export.add_argument("--from", metavar="DAY", help="first day (2026-10-01)")
    export.add_argument("--to", metavar="DAY", help="last day, included (default: today)")
    export.add_argument("--tz", metavar="ZONE", help="where days begin (default: the report's)")
    export.add_argument("--format", choices=FORMS, default="calls", help="(default: calls)")
    export.add_argument(
        "--dialect",
        choices=DIALECTS,
        default="excel",
        help="excel: safe to open in a spreadsheet; raw: for machines (default: excel)",
    )
    export.add_argument(
        "--output",
        metavar="FILE",
        help="file or directory (DIR/ is made); - is standard output (default: here, by a name "
        "that says what it holds)",
    )


def _add_token(add_parser: _AddParser) -> None:
    token = _add(add_parser, "token", "make, list and revoke tokens; sign links for users", _token)
    what = token.add_mutually_exclusive_group(required=True)
    what.add_argument("--user", help="sign a link that opens this user's numbers")
    what.add_argument("--name", help="make a bearer token of this name")
    what.add_argument("--list", action="store_true", help="list all tokens")
    what.add_argument("--revoke", metavar="ID", help="let a token open nothing any more")
    token.add_argument(
        "--role", choices=ROLES, default="finance", help="of a bearer token (default: finance)"
    )
    token.add_argument(
        "--scope",
        action="append",
        default=[],
        help="of a bearer token: usage:read, exports:read or user:ID; again for more (default: all "
        "that the role may)",
    )
    token.add_argument(
        "--days", type=int, metavar="N", help=f"how long it is good (of a link: {DAYS})"
    )


def _add_account(add_parser: _AddParser) -> None:
    words = "add, list and remove people who can log in to the dashboard"
    account = _add(add_parser, "account", words, _account)
    who = account.add_mutually_exclusive_group(required=True)
    who.add_argument("--add", metavar="NAME", help="add somebody, or give a new password")
    who.add_argument("--list", action="store_true", help="list everybody")
    who.add_argument("--remove", metavar="NAME", help="remove somebody and end their sessions")
    account.add_argument("--role", choices=ROLES, default="viewer", help="(default: viewer)")
    account.add_argument("--ask", action="store_true", help="ask for the password, make none")


def _add(add_parser: _AddParser, name: str, words: str, run: _Run) -> argparse.ArgumentParser:
    parser = add_parser(name, help=words, description=words, epilog=_WHERE)
    parser.set_defaults(run=run)
    return parser


def _export(settings: Settings, options: argparse.Namespace) -> None:
    uvloop.run(_write(settings, options))


async def _write(settings: Settings, options: argparse.Namespace) -> None:
    zones = {name: ZoneInfo(name) for name in available_timezones()}
    ledger = Ledger(settings.dashboard_database_url or settings.database_url, connections=2)
    try:
        async with ledger.copying() as snapshot:
            wanted = _wanted(options, snapshot, zones)
            total = int((await snapshot.totals(wanted))["calls"])
            target = _target(options, wanted)
            with _Progress(total if options.format == "calls" else None) as progress:
                copy = partial(copy_file, ledger, snapshot, options.format, options.dialect, wanted)
                await _copy(copy, target, options.dialect, progress)
    finally:
        await ledger.close()


def _wanted(options: argparse.Namespace, snapshot: Snapshot, zones: dict[str, ZoneInfo]) -> Filter:
    focus = options.format == "focus-1.2"
    if focus and options.tz not in {None, "UTC"}:
        raise ParameterError("--tz", "the days of FOCUS are those of UTC")
    given = {name: getattr(options, name) for name in ("range", "from", "to", "tz")}
    return parse(
        [(name, value) for name, value in given.items() if value is not None],
        now=datetime.fromtimestamp(time.time(), UTC),
        report_zone=zones["UTC"] if focus else snapshot.report_zone,
        zones=zones,
        columns=SORTABLE,
    )


def _target(options: argparse.Namespace, wanted: Filter) -> Path | None:
    """Return the file to write; None: standard output."""
    name = exports.file_name(options.format, wanted)
    if options.output is None:
        return Path(name)
    if options.output == "-":
        return None
    chosen = Path(options.output)
    if options.output.endswith("/"):
        with _said_when_unwritable(chosen):
            chosen.mkdir(parents=True, exist_ok=True)
    return chosen / name if chosen.is_dir() else chosen


async def _copy(
    copy: Callable[[Write], Awaitable[int]],
    target: Path | None,
    dialect: exports.Dialect,
    progress: "_Progress",
) -> None:
    change = exports.chunked(dialect)
    fresh = None if target is None else target.with_name(f".{target.name}.part")
    rows = 0
    with _removed_when_half(fresh), _said_when_unwritable(target):
        with open(fresh or sys.stdout.fileno(), "wb", closefd=fresh is not None) as file:  # noqa: ASYNC230 - nothing else runs

            async def write(chunk: bytes) -> None:
                file.write(change(chunk))
                progress.add(chunk.count(b"\n"))

            if dialect == "excel":
                file.write(BYTE_ORDER_MARK)
            rows = await copy(write)
        if fresh is not None and target is not None:
            fresh.replace(target)
            progress.end(f"{target}: {rows:,} rows")


@contextlib.contextmanager
def _removed_when_half(fresh: Path | None) -> Iterator[None]:
    try:
        yield
    except BaseException:
        if fresh is not None:
            fresh.unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def _said_when_unwritable(target: Path | None) -> Iterator[None]:
    """Translate what the file raises."""
    try:
        yield
    except OSError as exc:
        where = target or "standard output"
        raise ConfigurationError(f"{where} cannot be written: {exc.strerror}") from exc


class _Progress:
    """A bar on standard error while a file is written, if a person is looking."""

    def __init__(self, total: int | None) -> None:
        self._total, self._lines, self._shown_at = total, -1, 0.0
        self._visible = sys.stderr.isatty()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._visible:
            sys.stderr.write("\r\x1b[K")

    def add(self, lines: int) -> None:
        """Count lines, the head among them."""
        self._lines += lines
        now = time.monotonic()
        if self._visible and now - self._shown_at >= LOOK_SECONDS:
            self._shown_at = now
            sys.stderr.write(f"\r\x1b[K{self._bar()}")
            sys.stderr.flush()

    def end(self, words: str) -> None:
        """Say what came of it."""
        sys.stderr.write(("\r\x1b[K" if self._visible else "") + words + "\n")

    def _bar(self) -> str:
        if not self._total:
            return f"{self._lines:,} rows"
        part = min(1.0, self._lines / self._total)
        return f"{'█' * int(30 * part):<30} {part:4.0%}  {self._lines:,} of {self._total:,} rows"


def _token(settings: Settings, options: argparse.Namespace) -> None:
    if "" in {options.user, options.name}:
        raise ParameterError("--name" if options.user is None else "--user", "expected some text")
    register, now = _register(settings, makes=options.name is not None), time.time()
    if options.list:
        for token in register.tokens():
            state = "revoked" if token.revoked_at else _until(token.expires_at)
            scopes = f"  ({', '.join(token.scopes)})" if token.scopes else ""
            sys.stdout.write(f"{token.id}  {token.role:8} {state:22} {token.name}{scopes}\n")
    elif options.revoke is not None:
        register.revoke_token(options.revoke, now=now)
        _note(register, "token revoked", options.revoke)
    elif options.user is not None:
        days = span(DAYS if options.days is None else options.days)
        expires_at = now + days * DAY_SECONDS
        _note(register, "link made", f"{options.user!r} for {days} days")
        base, paths = _base(settings, register), paths_of(register.key(), options.user, expires_at)
        sys.stdout.write("".join(f"{name}  {base}{path}\n" for name, path in paths))
    else:
        expires_at_or_never = (
            None if options.days is None else now + span(options.days) * DAY_SECONDS
        )
        narrowed = demand_scopes(options.scope, options.role)
        made = register.add_token(
            options.name, options.role, now=now, expires_at=expires_at_or_never, scopes=narrowed
        )
        _note(register, "token made", " ".join((options.name, f"({options.role})", *narrowed)))
        _show_once(f"token {options.name!r} ({options.role}, {_until(expires_at_or_never)})", made)


def _account(settings: Settings, options: argparse.Namespace) -> None:
    register = _register(settings, makes=options.add is not None)
    if options.list:
        sys.stdout.write(f"{'admin':8} {settings.admin_user}\n")
        for account in register.accounts():
            sys.stdout.write(f"{account.role:8} {account.name}\n")
    elif options.remove is not None:
        register.remove_account(options.remove)
        _note(register, "account removed", options.remove)
    else:
        if options.add == settings.admin_user:
            raise DashboardError("The admin's password is METER_ADMIN_PASSWORD.")
        password = getpass.getpass() if options.ask else secrets.token_urlsafe(12)
        made = Account(name=options.add, role=options.role, hashed=hash_of(password))
        register.add_account(made, now=time.time())
        _note(register, "account added", f"{options.add} ({options.role})")
        if not options.ask:
            _show_once(f"password of {options.add!r} ({options.role})", password)


def _register(settings: Settings, *, makes: bool) -> Register:
    """Return the register; one that is not there yet is only made for what is put into it.

    What is looked for or signed in a new one would be right nowhere.
    """
    directory, register = settings.data_dir, Register(settings.data_dir)
    if register.is_there:
        return register
    if not makes:
        raise ConfigurationError(
            f"no dashboard has run in {directory}: expected METER_DATA_DIR (--data-dir) to be the "
            "data directory of `openai-meter serve`"
        )
    with _said_when_unwritable(directory):
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    sys.stderr.write(f"{directory} is new: it is for a dashboard with METER_DATA_DIR={directory}\n")
    return register


def _note(register: Register, what: str, detail: str) -> None:
    """Add a line to the audit log, as the dashboard does for what is asked of it."""
    entry = Entry(at=time.time(), who=COMMAND_LINE, address="", what=what, detail=detail)
    register.note(entry)


def _base(settings: Settings, register: Register) -> str:
    """Return where browsers reach the dashboard: as it is set, else as it was reached last."""
    told = settings.dashboard_url is not None or settings.dashboard_listen != LISTEN
    return settings.base_url if told else register.address() or settings.base_url


def _show_once(what: str, secret: str) -> None:
    """Print a secret for whoever reads it, and say to a person what it is."""
    sys.stderr.write(f"{what}, shown only now:\n")
    sys.stderr.flush()
    sys.stdout.write(f"{secret}\n")


def _until(expires_at: float | None) -> str:
    if expires_at is None:
        return "for ever"
    return f"until {datetime.fromtimestamp(expires_at, UTC):%Y-%m-%d %H:%M}"
