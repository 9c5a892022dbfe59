from pathlib import Path

import pytest

from dashboard.errors import ConfigurationError
from dashboard.passwords import FILE_NAME, make_password, matches, password_hash
from dashboard.settings import Settings


def _settings(directory: Path, password: str | None = None) -> Settings:
    return Settings(
        data_dir=directory, database_url="postgresql:///unused", admin_password=password
    )


def test_a_password_is_made_once_and_only_its_hash_is_kept(tmp_path: Path) -> None:
    """The file is for this user alone and does not hold the password."""
    settings = _settings(tmp_path)
    password = make_password(settings)
    assert password is not None
    assert make_password(settings) is None
    kept = tmp_path / FILE_NAME
    assert kept.stat().st_mode & 0o777 == 0o600
    assert password not in kept.read_text()
    assert [path.name for path in tmp_path.iterdir()] == [FILE_NAME]
    assert matches(password_hash(settings), password)
    assert not matches(password_hash(settings), "another")


def test_a_chosen_password_is_used_and_not_kept(tmp_path: Path) -> None:
    """It comes from the setting at every start."""
    settings = _settings(tmp_path, "correct horse")
    assert make_password(settings) is None
    assert not list(tmp_path.iterdir())
    assert matches(password_hash(settings), "correct horse")


def test_a_file_that_holds_no_hash_lets_nobody_in(tmp_path: Path) -> None:
    """Somebody has edited it."""
    (tmp_path / FILE_NAME).write_text("swordfish")
    assert not matches(password_hash(_settings(tmp_path)), "swordfish")


def test_a_directory_that_is_not_there_is_named(tmp_path: Path) -> None:
    """Both for writing and for reading."""
    settings = _settings(tmp_path / "gone")
    with pytest.raises(ConfigurationError, match=r"METER_DATA_DIR: .*gone/admin-password"):
        make_password(settings)
    with pytest.raises(ConfigurationError, match=r"METER_DATA_DIR: .*gone/admin-password"):
        password_hash(settings)
