"""The dashboard as a process; `openai-meter serve` and `openai-meter dashboard` start it."""

import argparse
import sys
from collections.abc import Sequence

from dashboard import logs
from dashboard.app import run_dashboard
from dashboard.commanding import COMMANDS, command
from dashboard.errors import DashboardError
from dashboard.passwords import make_password
from dashboard.settings import read_settings

REFUSED = 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the dashboard, a command, or only make the password; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m dashboard", allow_abbrev=False)
    parser.add_argument("--listen-fd", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--supervised", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument(
        "--make-password", action="store_true", help="make it, print it if it is new, and end"
    )
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        if given and given[0] in COMMANDS:
            command(read_settings(), given)
            return 0
        options = parser.parse_args(given)
        settings = read_settings()
        password = make_password(settings)
        if options.make_password:
            sys.stdout.write(password or "")
            return 0
        if password is not None:
            sys.stderr.write(f"user {settings.admin_user}, password {password} (shown only now)\n")
        logs.configure(settings.log_format)
        run_dashboard(settings, listen_fd=options.listen_fd, supervised=options.supervised)
    except DashboardError as exc:
        sys.stderr.write(f"openai-meter: {exc}\n")
        return REFUSED
    return 0


if __name__ == "__main__":
    sys.exit(main())
