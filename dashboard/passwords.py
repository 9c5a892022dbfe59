"""The admin's password: made at first start, kept as an argon2 hash in a file of mode 0600."""

import os
import secrets
from pathlib import Path

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from dashboard.errors import ConfigurationError
from dashboard.settings import Settings

FILE_NAME = "admin-password"

_hasher = PasswordHasher()


def make_password(settings: Settings) -> str | None:
    """Make and keep a password; None: there is one already, chosen or made before."""
    path = settings.data_dir / FILE_NAME
    if settings.admin_password is not None or path.exists():
        return None
    password = secrets.token_urlsafe(12)
    try:
        _keep(path, _hasher.hash(password))
    except FileExistsError:  # another process was faster
        return None
    except OSError as exc:
        raise ConfigurationError(
            f"METER_DATA_DIR: {path} cannot be written: {exc.strerror}"
        ) from exc
    return password


def password_hash(settings: Settings) -> str:
    """Return the hash to compare with; raise ConfigurationError if it cannot be read."""
    if settings.admin_password is not None:
        return _hasher.hash(settings.admin_password)
    path = settings.data_dir / FILE_NAME
    try:
        return path.read_text(encoding="ascii").strip()
    except (OSError, ValueError) as exc:
        raise ConfigurationError(f"METER_DATA_DIR: {path} cannot be read ({exc})") from exc


def hash_of(password: str) -> str:
    """Return what is kept of a password; takes about a tenth of a second."""
    return _hasher.hash(password)


def matches(hashed: str, password: str) -> bool:
    """Whether a password is the one; takes about a tenth of a second, so call it in a thread."""
    try:
        return _hasher.verify(hashed, password)
    except (VerificationError, InvalidHashError):
        return False


def _keep(path: Path, hashed: str) -> None:
    """Write the whole file or none, and never over another one."""
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        with open(descriptor, "w", encoding="ascii") as file:  # noqa: PTH123 - a descriptor
            file.write(f"{hashed}\n")
            file.flush()
            os.fsync(descriptor)
        path.hardlink_to(fresh)
    finally:
        fresh.unlink()
