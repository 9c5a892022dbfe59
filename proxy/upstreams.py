"""The upstreams of a worker: the one at `/`, and those that are mounted under a name.

Each has a pool, trust, patience and header fields of its own; journal, attribution, metering and
whatever else a relay does are the same for all.
"""

import ssl
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

from proxy.abandoned import Abandoned
from proxy.accounting import Books
from proxy.core.attribution import AttributionFields
from proxy.core.mounts import Mount, place_of
from proxy.core.passage import Destination
from proxy.forwarding import Limits, Relay
from proxy.framing import Request
from proxy.settings import Settings
from proxy.tls import mount_context, upstream_context
from proxy.upstream import Address, Pool


@dataclass(frozen=True, slots=True, kw_only=True)
class Shared:
    """What the relays to all upstreams have in common."""

    books: Books
    fields: AttributionFields
    abandoned: Abandoned
    spawn: Callable[[Coroutine[None, None, None]], object]
    report_fault: Callable[[BaseException], None]


class Contexts(NamedTuple):
    """Whom to trust: files are read for it, so it is made before an event loop runs."""

    main: ssl.SSLContext | None
    mounted: dict[str, ssl.SSLContext | None]

    @classmethod
    def of(cls, settings: Settings) -> "Contexts":
        """Read what the settings name; None for an upstream that is spoken to in the clear."""
        main = upstream_context(settings) if _is_tls(settings.upstream_url) else None
        return cls(main, dict(_contexts(settings)))


def _contexts(settings: Settings) -> Iterator[tuple[str, ssl.SSLContext | None]]:
    for mount in settings.upstreams.upstreams:
        yield mount.name, mount_context(settings, mount) if _is_tls(mount.url) else None


def _is_tls(url: str) -> bool:
    return Address.of(url).tls


class Upstreams:
    """The relays of a worker by the beginning of a target."""

    __slots__ = ("_mounted", "main")

    def __init__(self, settings: Settings, contexts: Contexts, shared: Shared) -> None:
        at_root = Mount(name="", url=settings.upstream_url)
        self.main = _relay(settings, at_root, contexts.main, shared)
        self._mounted = {
            mount.name.encode(): _relay(settings, mount, contexts.mounted[mount.name], shared)
            for mount in settings.upstreams.upstreams
        }

    def chosen(self, request: Request) -> tuple[Relay, Request]:
        """Return the relay for a request, and the request as its upstream is to see it."""
        place = place_of(request.line.target) if self._mounted else None
        relay = self._mounted.get(place.name) if place else None
        if relay is None or place is None:
            return self.main, request
        return relay, request._replace(line=request.line._replace(target=place.target))

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


def _relay(
    settings: Settings, mount: Mount, context: ssl.SSLContext | None, shared: Shared
) -> Relay:
    address, fields = Address.of(mount.url), shared.fields
    patience = mount.connect_timeout_seconds or settings.upstream_connect_timeout_seconds
    return Relay(
        pool=Pool(
            address,
            spawn=shared.spawn,
            report_fault=shared.report_fault,
            tls=context,
            connect_timeout_seconds=patience,
        ),
        destination=Destination(
            authority=address.authority,
            base_path=address.base_path,
            own_names=fields.names,
            own_prefixes=fields.metadata_prefixes,
            left_out=mount.left_out,
            added=mount.added,
        ),
        books=replace(
            shared.books,
            upstream=address.host,
            base_path=address.base_path.decode(),
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
