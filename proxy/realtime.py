"""One WebSocket exchange: what is billed in a session is noted before the client can know of it.

The relay passes bytes on as they come; here a copy of what the upstream says is read. The session
itself is the account's row. Whatever is billed in it, a response or a transcription, is a row of
its own: a record with an id of its own, written before the bytes that end it go out. A response
that has begun is in the journal from then on, so that a worker that dies leaves no silence; one
that the session did not live to see the end of is a row without usage. A read full of tiny frames
is looked at, and passed on, in portions, so that other calls need not wait for all of it.
"""

from typing import NamedTuple

import msgspec

from proxy.accounting import Account
from proxy.books import tell
from proxy.core import attribution
from proxy.core.dialects import DIALECTS
from proxy.core.inflating import extensions_of
from proxy.core.metering import FAULT, Observation
from proxy.core.model import Attribution, Closing, Opening, Outcome
from proxy.core.sessions import Begun, Billed, SessionMeter
from proxy.framing import AnswerHead

ENDED_FIRST = "session_ended_first"
AT_ONCE = 512  # frames of one read that are looked at before others have their turn
MAX_OPEN = 256  # responses of one session that are being made at once


class _Turn(NamedTuple):
    """A response that is being made."""

    opening: Opening
    model: str | None
    began_ns: int


class Session:
    """What is noted within one WebSocket."""

    __slots__ = ("_account", "_books", "_call_id", "_fault", "_head", "_meter", "_open", "_opening")

    def __init__(self, account: Account, head: AnswerHead) -> None:
        self._account = account
        self._books = account.books
        self._opening = account.opening
        self._call_id = account.call_id
        self._head = head
        self._open: dict[str, _Turn] = {}
        self._fault = False
        dialect = DIALECTS.get(account.operation.name)
        self._meter: SessionMeter | None = None
        if dialect is not None:
            self._meter = SessionMeter(
                dialect,
                extensions_of(head.raw),
                max_event_bytes=self._books.event_bytes,
                at_once=AT_ONCE,
            )
        account.session_begins(head, self)

    @property
    def is_busy(self) -> bool:
        """Whether a response is being made."""
        return bool(self._open)

    def look(self, data: bytes) -> bytes:
        """Note what is billed in these bytes of the upstream's; never raises.

        Return those at their end for which there was no time: they are for the next turn.
        """
        if self._meter is None or self._opening is None:
            return b""
        for found in self._meter.feed(data):
            try:
                if isinstance(found, Begun):
                    self._begin(found, self._opening)
                else:
                    self._bill(found, self._opening)
            except Exception:  # noqa: BLE001 (metering never fails a call)
                self._fault = True
        return _end_of(data, self._meter.unread)

    def look_at_all(self, data: bytes) -> None:
        """Note what is billed in these bytes, however long it takes: the session ends."""
        while data:
            data = self.look(data)

    def hear(self, data: bytes) -> bytes:
        """Look at what the client says, which bills nothing; never raises.

        Return what is for the next turn.
        """
        return _end_of(data, self._meter.feed_client(data)) if self._meter is not None else b""

    def end(self, outcome: Outcome) -> Observation:
        """Note what did not come to its end, and tell what is known of the session itself."""
        if self._meter is None:
            return Observation()
        seen = self._meter.finish()
        if self._fault:
            seen = msgspec.structs.replace(seen, usage_problem=FAULT)
        over, self._open = self._open, {}
        unfinished = Outcome.UPSTREAM_ERROR if outcome is Outcome.OK else outcome
        for response_id, turn in over.items():
            nothing = Observation(
                response_model=turn.model or seen.response_model,
                response_id=response_id,
                usage_problem=seen.usage_problem or ENDED_FIRST,
            )
            self._write(turn.opening, nothing, unfinished, turn.began_ns)
        return seen

    def _begin(self, begun: Begun, session: Opening) -> None:
        if self._meter is None or len(self._open) >= MAX_OPEN or begun.response_id in self._open:
            return
        name = DIALECTS[self._account.operation.name].operation_name
        opening = self._opening_of(session, name, begun.request_model)
        self._open[begun.response_id] = _Turn(opening, begun.model, self._books.now_ns())
        self._books.journal.append(opening)

    def _bill(self, billed: Billed, session: Opening) -> None:
        turn = self._open.pop(billed.seen.response_id or "", None)
        opening = turn.opening if turn else None
        if opening is None:
            opening = self._opening_of(session, billed.operation_name, billed.request_model)
        if billed.user or billed.metadata:
            opening = _attributed(opening, billed)
        outcome = Outcome.UPSTREAM_ERROR if billed.seen.failed else Outcome.OK
        self._write(opening, billed.seen, outcome, turn.began_ns if turn else None)

    def _opening_of(
        self, session: Opening, operation_name: str, request_model: str | None
    ) -> Opening:
        return msgspec.structs.replace(
            session,
            event_id=self._books.new_id(),
            operation_name=operation_name,
            request_model=request_model or session.request_model,
            request_bytes=None,  # a response over WebSocket has no request of its own
        )

    def _write(
        self, opening: Opening, seen: Observation, outcome: Outcome, began_ns: int | None
    ) -> None:
        books = self._books
        closing = Closing(
            opening=opening,
            outcome=outcome.value,
            status=self._head.status,
            response_model=seen.response_model,
            response_service_tier=seen.response_service_tier,
            response_id=seen.response_id,
            response_status=seen.response_status,
            upstream_request_id=self._head.request_id,
            usage=seen.usage,
            usage_problem=seen.usage_problem,
            error_type=seen.error_type,
            latency_us=None if began_ns is None else (books.now_ns() - began_ns) // 1000,
            answer_units=seen.units,
            call_id=self._call_id,
        )
        books.journal.append(closing)
        tell(books, closing)


def _end_of(data: bytes, size: int) -> bytes:
    return data[-size:] if size else b""


def _attributed(opening: Opening, billed: Billed) -> Opening:
    """Return the opening with what the response itself says of whom it is for."""
    who = attribution.with_body(
        Attribution(
            user_id=opening.user_id,
            endpoint=opening.endpoint,
            metadata=opening.metadata,
            problem=opening.attribution_problem,
        ),
        user=billed.user,
        metadata=billed.metadata,
    )
    return msgspec.structs.replace(
        opening,
        user_id=who.user_id,
        metadata=who.metadata,
        attribution_problem=who.problem,
    )
