"""The processes that `serve` consists of: how each is started, and which settings it sees."""

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from proxy.children import Child
from proxy.errors import ConfigurationError
from proxy.settings import PREFIX, Settings, variable

PASSWORD_SECONDS = 60.0
PYTHON = (sys.executable, "-P", "-m")
_ADMIN = (  # for the dashboard alone
    *("admin_password", "api_tokens", "dashboard_database_url", "oidc_client_secret"),
)
_UPSTREAM = ("upstreams",)  # may hold keys, for the workers alone


class Parts:
    """Makes the children of one `serve`; `held` is a descriptor that every child keeps open."""

    def __init__(self, settings: Settings, *, dsn: str, held: int) -> None:
        self._environment = environment(settings, dsn=dsn)
        self._held = held

    def worker(self, number: int, generation: int = 1, *, listener: int) -> Child:
        """Return a worker: it needs no database, so it does not know one."""
        name = f"worker-{number}" if generation == 1 else f"worker-{number}-{generation}"
        command = ("proxy", "proxy", "--name", name)
        return self._child(name, command, hidden=("database_url", *_ADMIN), listener=listener)

    def recorder(self) -> Child:
        """Return the recorder: whenever it is stopped, it records first what is there."""
        child = self._child("recorder", ("proxy", "recorder"), hidden=(*_ADMIN, *_UPSTREAM))
        return replace(child, blocks_sigterm=True)

    def dashboard(self, *, listener: int) -> Child:
        """Return the dashboard; it is another package and is only ever started, never imported."""
        return self._child("dashboard", ("dashboard",), hidden=_UPSTREAM, listener=listener)

    def make_password(self) -> str | None:
        """Have the dashboard make the admin's password; None: there is one already."""
        try:
            made = subprocess.run(  # noqa: S603 - our own command
                (*PYTHON, "dashboard", "--make-password"),
                env=_without(self._environment, _UPSTREAM),
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=PASSWORD_SECONDS,
                check=True,
            )
        except subprocess.CalledProcessError as exc:
            said = exc.stderr.decode(errors="replace").strip().splitlines()
            raise ConfigurationError(said[-1] if said else "the dashboard does not start") from exc
        except subprocess.TimeoutExpired as exc:
            raise ConfigurationError("the dashboard does not start") from exc
        return made.stdout.decode().strip() or None

    def _child(
        self,
        name: str,
        command: Sequence[str],
        *,
        hidden: Sequence[str] = (),
        listener: int | None = None,
    ) -> Child:
        listening = () if listener is None else ("--listen-fd", str(listener))
        return Child(
            name=name,
            command=(*PYTHON, *command, "--supervised", *listening),
            environment=_without(self._environment, hidden),
            descriptors=(self._held,) if listener is None else (self._held, listener),
        )


def _without(variables: Mapping[str, str], hidden: Sequence[str]) -> dict[str, str]:
    secret = {variable(setting) for setting in hidden}
    return {name: value for name, value in variables.items() if name not in secret}


def environment(settings: Settings, *, dsn: str) -> dict[str, str]:
    """Return what children read their settings from: flags and environment in one."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(PREFIX)}
    place = str(Path(__file__).parents[1])  # so that children find what we were imported from
    path = os.pathsep.join(filter(None, (place, inherited.get("PYTHONPATH"))))
    ours = settings.environment() | {variable("database_url"): dsn}
    return inherited | ours | {"PYTHONPATH": path}
