"""What can be known to be wrong before anything is started, said in one sentence each."""

import os
import time
from pathlib import Path

from proxy.durability import lock_file
from proxy.errors import ConfigurationError, DirectoryInUseError
from proxy.pricefile import load_price_book
from proxy.resources import resource
from proxy.settings import Settings
from proxy.tls import listening_context, mount_context, upstream_context

_RETRY_SECONDS = 0.05


def check(settings: Settings) -> list[str]:
    """Look at the files that settings only point at; return what is odd and no mistake."""
    book = load_price_book(settings.pricing_file or resource("pricing.yaml"))
    upstream_context(settings)
    for mount in settings.upstreams.upstreams:
        mount_context(settings, mount)
    listening_context(settings)
    mounted = {mount.name for mount in settings.upstreams.upstreams}
    return [
        f"the pricing file has a section for the upstream {name!r}, which METER_UPSTREAMS does not "
        "have: its prices are used for nothing"
        for name in book.upstreams
        if name not in mounted
    ]


def claim(directory: Path, *, patience_seconds: float) -> int:
    """Make the data directory ours until the returned descriptor is closed everywhere.

    Children inherit the descriptor. Where the owner is dead but its children still finish their
    work, wait for them; where it lives, raise DirectoryInUseError naming it.
    """
    try:
        directory.mkdir(mode=0o755, parents=True, exist_ok=True)
        return _locked(directory / "lock", time.monotonic() + patience_seconds)
    except OSError as exc:
        raise ConfigurationError(
            f"METER_DATA_DIR is {str(directory)!r}: {exc.strerror}; "
            "expected a directory that this user may write to"
        ) from exc


def _locked(path: Path, deadline: float) -> int:
    while True:
        try:
            descriptor = lock_file(path)
        except BlockingIOError:
            owner = _owner(path)
            if _lives(owner) or time.monotonic() > deadline:
                raise DirectoryInUseError(
                    f"METER_DATA_DIR is {str(path.parent)!r}: process {owner or '(unknown)'} "
                    "uses it; stop that one or choose another directory"
                ) from None
            time.sleep(_RETRY_SECONDS)
        else:
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
            return descriptor


def _owner(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except ValueError:
        return None


def _lives(pid: int | None) -> bool:
    if pid is None:  # it has only just taken the lock
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
