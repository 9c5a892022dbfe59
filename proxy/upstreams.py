"""The upstreams of a worker: the one at `/`, and those that are mounted under a name.

Each has a pool, trust, patience and header fields of its own; journal, attribution, metering and
whatever else a relay does are the same for all.
"""

from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

from proxy.abandoned import Abandoned
from proxy.books import Books
from proxy.core import headers
from proxy.core.attribution import AttributionFields
from proxy.core.mounts import Mount
from proxy.core.passage import Destination
from proxy.core.plans import RequestPlans
from proxy.forwarding import Limits, Relay
from proxy.framing import Request
from proxy.pool import Address, Pool
from proxy.resuming import ResumingContext
from proxy.settings import Settings
from proxy.tls import mount_context, upstream_context


@dataclass(frozen=True, slots=True, kw_only=True)
class Shared:
    """What the relays to all upstreams have in common."""

    books: Books
    abandoned: Abandoned
    spawn: Callable[[Coroutine[None, None, None]], object]
    report_fault: Callable[[BaseException], None]


class Contexts(NamedTuple):
    """Whom to trust: files are read for it, so it is made before an event loop runs."""

    main: ResumingContext | None
    mounted: dict[str, ResumingContext | None]

    @classmethod
    def of(cls, settings: Settings) -> "Contexts":
        """Read what the settings name; None for an upstream that is spoken to in the clear."""
        main = upstream_context(settings) if _is_tls(settings.upstream_url) else None
        return cls(main, dict(_contexts(settings)))


def _contexts(settings: Settings) -> Iterator[tuple[str, ResumingContext | None]]:
    for mount in settings.upstreams.upstreams:
        yield mount.name, mount_context(settings, mount) if _is_tls(mount.url) else None


def _is_tls(url: str) -> bool:
    return Address.of(url).tls


class Upstreams:
    """The relays of a worker by the beginning of a target."""

    __slots__ = ("_mounted", "main")

    def __init__(self, settings: Settings, contexts: Contexts, shared: Shared) -> None:
        self.main = _relay(settings, _at_root(settings), contexts.main, shared)
        self._mounted = {
            mount.name.encode(): _relay(settings, mount, contexts.mounted[mount.name], shared)
            for mount in settings.upstreams.upstreams
        }

    def chosen(self, request: Request) -> Relay:
        """Return the relay for a request."""
        mount = request.plan.mount
        return self._mounted[mount] if mount else self.main

    @property
    def kept(self) -> int:
        """How many connections are kept for the next calls."""
        return sum(len(relay.pool) for relay in self._relays())

    def sweep(self, now: float) -> None:
        """Close connections that have been idle for too long."""
        for relay in self._relays():
            relay.pool.sweep(now)

    def close(self) -> None:
        """Close all kept connections."""
        for relay in self._relays():
            relay.pool.close()

    def _relays(self) -> tuple[Relay, ...]:
        return self.main, *self._mounted.values()


def request_plans(settings: Settings, fields: AttributionFields) -> RequestPlans:
    """Return what works out how requests go up, to whichever upstream they go."""
    return RequestPlans(
        headers.request_pattern(fields.names, fields.metadata_prefixes),
        _destination(_at_root(settings), fields),
        {
            mount.name.encode(): _destination(mount, fields)
            for mount in settings.upstreams.upstreams
        },
    )


def _at_root(settings: Settings) -> Mount:
    return Mount(name="", url=settings.upstream_url)


def _destination(mount: Mount, fields: AttributionFields) -> Destination:
    address = Address.of(mount.url)
    return Destination(
        authority=address.authority,
        base_path=address.base_path,
        own_names=fields.names,
        own_prefixes=fields.metadata_prefixes,
        left_out=mount.left_out,
        added=mount.added,
    )


def _relay(
    settings: Settings, mount: Mount, context: ResumingContext | None, shared: Shared
) -> Relay:
    address = Address.of(mount.url)
    patience = mount.connect_timeout_seconds or settings.upstream_connect_timeout_seconds
    return Relay(
        pool=Pool(
            address,
            spawn=shared.spawn,
            report_fault=shared.report_fault,
            tls=context,
            connect_timeout_seconds=patience,
        ),
        books=replace(
            shared.books,
            upstream=address.host,
            mount=mount.name or None,
        ),
        limits=Limits(
            upstream_idle_seconds=mount.idle_timeout_seconds
            or settings.upstream_idle_timeout_seconds,
            client_idle_seconds=settings.client_idle_timeout_seconds,
            held_bytes=settings.max_held_bytes,
        ),
        require_user=settings.require_user,
        abandoned=shared.abandoned,
        asks_usage=mount.ask_usage,
    )
