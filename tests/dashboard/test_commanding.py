import csv
import os
import subprocess
import sys
from pathlib import Path

import pytest

from dashboard.register import Register
from tests.dashboard.conftest import ROWS, record


def _run(directory: Path, dsn: str, *arguments: str) -> "subprocess.CompletedProcess[str]":
    environment = {name: value for name, value in os.environ.items() if name[:6] != "METER_"}
    environment |= {"METER_DATA_DIR": str(directory), "METER_DATABASE_URL": dsn}
    return subprocess.run(  # noqa: S603 - our own command
        [sys.executable, "-m", "proxy", *arguments],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.fixture
async def dsn(database: str) -> str:
    """Return a ledger with a few rows."""
    await record(database, ROWS)
    return database


def test_a_file_is_written_whole_and_says_so(tmp_path: Path, dsn: str) -> None:
    """Under the name that the dashboard gives it; nothing else is left behind."""
    days = ("--from", "2026-11-01", "--to", "2026-11-30", "--output", str(tmp_path))
    done = _run(tmp_path / "data", dsn, "export", *days)
    assert done.returncode == 0, done.stderr
    [path] = tmp_path.glob("*.csv")
    assert path.name == "usage-calls_2026-11-01_2026-11-30_UTC_v1.csv"
    assert done.stderr == f"{path}: 4 rows\n"
    rows = list(csv.DictReader(path.read_text(encoding="utf-8-sig").splitlines()))
    assert len(rows) == len(ROWS)
    assert [found.name for found in tmp_path.iterdir()] == [path.name]


def test_a_directory_is_made(tmp_path: Path, dsn: str) -> None:
    """What ends in a slash is one, so that a second file does not replace the first."""
    days = ("--from", "2026-11-01", "--to", "2026-11-30", "--output", f"{tmp_path}/reports/")
    for form in ("calls", "summary"):
        done = _run(tmp_path, dsn, "export", "--format", form, *days)
        assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in (tmp_path / "reports").iterdir()) == [
        "usage-calls_2026-11-01_2026-11-30_UTC_v1.csv",
        "usage-summary_2026-11-01_2026-11-30_UTC_v1.csv",
    ]


def test_a_file_that_cannot_be_written_is_named(tmp_path: Path, dsn: str) -> None:
    """It is not the database that is at fault."""
    path = tmp_path / "nowhere" / "calls.csv"
    done = _run(tmp_path, dsn, "export", "--output", str(path))
    assert done.returncode == 2
    assert done.stderr == f"openai-meter: {path} cannot be written: No such file or directory\n"


def test_what_fails_halfway_leaves_nothing(tmp_path: Path, dsn: str) -> None:
    """Here a limit on the size of files; what was there before stays."""
    reports = tmp_path / "reports"
    reports.mkdir()
    (reports / "calls.csv").write_text("of yesterday")
    path = str(reports / "calls.csv")
    limited = ("/bin/sh", "-c", 'ulimit -f 1; exec "$@"', "sh", sys.executable, "-m", "proxy")
    environment = {"METER_DATA_DIR": str(tmp_path), "METER_DATABASE_URL": dsn}
    done = subprocess.run(  # noqa: S603 - our own command
        [*limited, "export", "--from", "2026-11-01", "--to", "2026-11-30", "--output", path],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.endswith("calls.csv cannot be written: File too large\n")
    assert [found.name for found in reports.iterdir()] == ["calls.csv"]
    assert (reports / "calls.csv").read_text() == "of yesterday"


def test_a_file_may_go_to_standard_output(tmp_path: Path, dsn: str) -> None:
    """In any format."""
    days = ("--from", "2026-11-01", "--to", "2026-11-30", "--dialect", "raw", "--output", "-")
    done = _run(tmp_path, dsn, "export", "--format", "summary", *days)
    assert done.stdout.splitlines()[0].startswith("user_id,calls,")
    done = _run(tmp_path, dsn, "export", "--format", "focus-1.2", *days)
    assert done.stdout.startswith("AvailabilityZone,BilledCost,")


def test_tokens_are_made_listed_and_revoked(tmp_path: Path) -> None:
    """Without a database."""
    made = _run(tmp_path, "", "token", "--name", "ci", "--role", "viewer", "--days", "7")
    assert made.stdout.startswith("mtr_"), made.stderr
    assert "\ntoken 'ci' (viewer, until " in made.stderr
    assert made.stderr.endswith("), shown only now:\n")
    listed = _run(tmp_path, "", "token", "--list").stdout.split()
    assert listed[1] == "viewer"
    assert _run(tmp_path, "", "token", "--revoke", listed[0]).returncode == 0
    assert "revoked" in _run(tmp_path, "", "token", "--list").stdout
    wrong = _run(tmp_path, "", "token", "--revoke", "nobody")
    assert (wrong.returncode, wrong.stderr) == (2, "openai-meter: There is no token 'nobody'.\n")


def test_a_link_is_signed_for_a_user(tmp_path: Path) -> None:
    """With the address at which browsers reach the dashboard."""
    Register(tmp_path).note_address("http://127.0.0.1:8081")
    flags = ("--dashboard-url", "https://meter.example")
    done = _run(tmp_path, "", "token", "--user", "ada", "--days", "30", *flags)
    page, data = done.stdout.splitlines()
    assert page.startswith("page  https://meter.example/usage/user?link=")
    assert data.startswith("json  https://meter.example/usage/user.json?link=")


def test_accounts_are_added_and_removed(tmp_path: Path) -> None:
    """Their password is shown once."""
    made = _run(tmp_path, "", "account", "--add", "flo", "--role", "finance")
    assert len(made.stdout.strip()) == 16, made.stderr
    assert made.stderr.endswith("\npassword of 'flo' (finance), shown only now:\n")
    assert "finance  flo" in _run(tmp_path, "", "account", "--list").stdout
    assert _run(tmp_path, "", "account", "--remove", "flo").returncode == 0
    assert _run(tmp_path, "", "account", "--add", "admin").returncode == 2


def test_what_changes_access_is_in_the_audit_log(tmp_path: Path) -> None:
    """As if it had been asked of the dashboard; without the secrets."""
    Register(tmp_path).key()
    made = _run(tmp_path, "", "token", "--name", "ci", "--scope", "usage:read").stdout.strip()
    identity = made.split("_")[1]
    for arguments in (
        ("token", "--revoke", identity),
        ("token", "--user", "ada", "--days", "3"),
        ("account", "--add", "flo", "--role", "finance"),
        ("account", "--remove", "flo"),
    ):
        assert _run(tmp_path, "", *arguments).returncode == 0
    noted = Register(tmp_path).audited(limit=9)
    assert [(entry.what, entry.detail) for entry in reversed(noted)] == [
        ("token made", "ci (finance) usage:read"),
        ("token revoked", identity),
        ("link made", "'ada' for 3 days"),
        ("account added", "flo (finance)"),
        ("account removed", "flo"),
    ]
    assert {entry.who for entry in noted} == {"(command line)"}


@pytest.mark.parametrize("flag", ["--user", "--name"])
def test_a_name_that_says_nothing_is_refused(tmp_path: Path, flag: str) -> None:
    """Mostly it is a variable of a script that was not set."""
    Register(tmp_path).key()
    done = _run(tmp_path, "", "token", flag, "")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"openai-meter: {flag}: expected ")


def test_a_link_has_the_address_at_which_the_dashboard_was_reached(tmp_path: Path) -> None:
    """Unless another one is set; the dashboard may have been started by other flags."""
    Register(tmp_path).note_address("http://127.0.0.1:9000")
    assert "page  http://127.0.0.1:9000/usage" in _run(tmp_path, "", "token", "--user", "a").stdout
    told = ("--dashboard-listen", "127.0.0.1:7000")
    printed = _run(tmp_path, "", "token", "--user", "a", *told).stdout
    assert "page  http://127.0.0.1:7000/usage" in printed


def test_a_token_may_be_narrowed(tmp_path: Path) -> None:
    """The list says to what; a scope that is none is named."""
    scopes = ("--scope", "exports:read", "--scope", "user:u-17")
    assert _run(tmp_path, "", "token", "--name", "ci", *scopes).returncode == 0
    assert "ci  (exports:read, user:u-17)" in _run(tmp_path, "", "token", "--list").stdout
    wrong = _run(tmp_path, "", "token", "--name", "ci", "--scope", "all")
    assert (wrong.returncode, wrong.stderr) == (
        2,
        "openai-meter: scopes: expected some of usage:read, exports:read, user:ID\n",
    )


@pytest.mark.parametrize(
    "arguments",
    [
        ("token", "--list"),
        ("token", "--revoke", "abcd"),
        ("token", "--user", "ada"),
        ("account", "--list"),
        ("account", "--remove", "flo"),
    ],
    ids=" ".join,
)
def test_a_directory_in_which_no_dashboard_ran_is_refused(
    tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    """An empty list would be taken for the truth, and a link would open nothing."""
    data = tmp_path / "elsewhere"
    done = _run(data, "", *arguments)
    assert done.returncode == 2
    assert done.stderr == (
        f"openai-meter: no dashboard has run in {data}: expected METER_DATA_DIR (--data-dir) to be "
        "the data directory of `openai-meter serve`\n"
    )
    assert not data.exists()


def test_what_is_made_before_the_first_start_says_where(tmp_path: Path) -> None:
    """Whoever mistypes the directory sees it; in one that is known there is nothing to say."""
    data = tmp_path / "data"
    words = f"{data} is new: it is for a dashboard with METER_DATA_DIR={data}\n"
    assert _run(data, "", "account", "--add", "flo").stderr.startswith(words)
    assert not _run(data, "", "account", "--add", "ada").stderr.startswith(words)


@pytest.mark.parametrize("name", ["export", "token", "account"])
def test_help_says_which_ledger_it_is_about(tmp_path: Path, name: str) -> None:
    """And needs neither a database nor a directory."""
    done = _run(tmp_path / "none", "", name, "--help")
    assert done.returncode == 0
    assert "METER_DATA_DIR" in done.stdout
