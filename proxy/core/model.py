"""The nouns that all rooms share, frozen and checked once on entry.

`Opening` and `Closing` are what a worker writes to the journal; they carry *facts*, never prices
and never content. `Usage` is a provider's usage object in one vocabulary. `LedgerRow` is one row of
`user_api_usage` before it becomes SQL. Records that are made for every call are `msgspec.Struct`s
(a frozen dataclass of this size takes several microseconds to make), the others are dataclasses.
"""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from enum import StrEnum
from functools import lru_cache
from typing import Any
from uuid import UUID

import msgspec

BACKGROUND_TIER = "background_"  # and the hours within which an answer is wanted
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Outcome(StrEnum):
    """How an exchange ended, as seen by the proxy."""

    OK = "ok"
    UPSTREAM_ERROR = "upstream_error"
    CLIENT_DISCONNECTED = "client_disconnected"
    TIMEOUT = "timeout"
    INTERRUPTED = "interrupted"
    REFUSED = "refused"


class UsageSource(StrEnum):
    """How the usage of a row is known."""

    REPORTED = "reported"
    ESTIMATED = "estimated"
    UNAVAILABLE = "unavailable"


class Attribution(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Who a call is for; `problem` says which part of it could not be read, and why."""

    user_id: str | None = None
    endpoint: str | None = None
    metadata: dict[str, Any] | None = None
    problem: str | None = None


class Opening(msgspec.Struct, frozen=True, kw_only=True, gc=False, array_like=True, tag=1):
    """What is known before a request is sent upstream. New fields go last, with defaults."""

    event_id: bytes  # the 16 bytes of a UUIDv7; its timestamp is the row's created_at
    operation_name: str
    method: str
    api_path: str  # the path without its query, at most 512 characters
    upstream: str  # host of the upstream
    user_id: str | None = None
    endpoint: str | None = None
    metadata: dict[str, Any] | None = None
    attribution_problem: str | None = None
    request_model: str | None = None
    request_service_tier: str | None = None
    stream: bool | None = None
    request_bytes: int | None = None  # Content-Length, None when chunked
    retry_count: int | None = None  # x-stainless-retry-count
    worker: str | None = None
    deployment: str | None = None  # of an Azure path
    mount: str | None = None  # the upstream's name, where it is not the one at `/`


class RequestUnits(msgspec.Struct, frozen=True, kw_only=True, gc=False, array_like=True):
    """What a request asks for that is billed by another unit than the token. Never content."""

    images: int | None = None  # how many
    size: str | None = None  # of an image: 1024x1024
    quality: str | None = None  # of an image
    characters: int | None = None  # of the text to be spoken
    audio_seconds: float | None = None  # how long the uploaded file plays
    video_seconds: int | None = None  # by how much a video is to be extended


class Container(msgspec.Struct, frozen=True, kw_only=True, gc=False, array_like=True):
    """A container of OpenAI's that an answer has made, or in which it ran code."""

    container_id: str  # empty: not told
    size: str | None = None  # 1g, 4g, …; None: the answer does not tell


class AnswerUnits(msgspec.Struct, frozen=True, kw_only=True, gc=False, array_like=True):
    """What an answer tells of things that are billed beside its tokens, or instead of them."""

    images: int | None = None  # how many it holds
    audio_seconds: float | None = None  # how long the audio plays that was heard
    web_searches: int = 0  # searches, not pages opened
    web_search_tool: str | None = None  # the type of the tool: web_search, web_search_preview, …
    file_searches: int = 0
    containers: tuple[str, ...] = ()  # of earlier releases: the size of each, billed by session
    image_calls: int = 0  # of the image_generation tool
    image_model: str | None = None  # that this tool uses
    image_usage: bytes | None = None  # tool_usage.image_gen as it came (JSON)
    is_partial: bool = False  # too large to be counted in full
    ran_in: tuple[Container, ...] = ()
    container_minutes: tuple[tuple[str, int], ...] | None = None  # by size; None: not claimed yet
    authored: tuple[bytes, ...] = ()  # `svg_usage` as it came: by a model that it names (JSON)


class Estimate(msgspec.Struct, frozen=True, kw_only=True, gc=False, array_like=True):
    """What a call has used as far as we could count it ourselves; None: that could not be told."""

    input_tokens: int | None = None
    output_tokens: int | None = None
    audio_input_tokens: int | None = None
    audio_output_tokens: int | None = None
    note: str | None = None  # what could not be counted, or only by an assumption

    @property
    def is_known(self) -> bool:
        """Whether anything was counted."""
        return self.input_tokens is not None or self.output_tokens is not None


class Sighting(msgspec.Struct, frozen=True, kw_only=True, gc=False, array_like=True):
    """What an answer tells of an object that is billed when it is done. Never content."""

    kind: str  # response, run, batch, job, video, eval_run; output: a file of a batch
    object_id: str
    part: str = ""  # which of several charges: a line of a batch, a model of an eval
    is_new: bool = False  # this call has made the object
    state: str | None = None  # as the answer names it
    model: str | None = None
    service_tier: str | None = None
    usage: bytes | None = None  # JSON; None: the object is not done, or does not say
    units: AnswerUnits | None = None
    requests: int = 1  # that the usage is the sum of
    endpoint: str | None = None  # of a batch: the path that its lines ask
    file_id: str | None = None  # of a batch: its output
    response_id: str | None = None  # of a line: the id of its answer
    custom_id: str | None = None  # of a line: how the client calls it
    seconds: int | None = None  # of a response: how long it was made


class Lines(msgspec.Struct, frozen=True, kw_only=True, gc=False, array_like=True, tag=3):
    """Lines of a batch's output that pass by; the closing of the call tells whether all did."""

    event_id: bytes  # of the call
    upstream: str
    file_id: str
    lines: tuple[Sighting, ...]


class Closing(msgspec.Struct, frozen=True, kw_only=True, gc=False, array_like=True, tag=2):
    """What is known when an exchange is over. With its opening inside it makes a row by itself."""

    opening: Opening
    outcome: str  # an Outcome
    status: int | None = None
    response_model: str | None = None
    response_service_tier: str | None = None
    response_id: str | None = None
    response_status: str | None = (
        None  # of a Responses object: completed, incomplete, failed, queued
    )
    upstream_request_id: str | None = None
    usage: bytes | None = None  # the provider's usage object, as it came (JSON)
    usage_problem: str | None = None  # why usage could not be read although the answer came
    error_type: str | None = None  # error.type of the answer, or our own
    latency_us: int | None = None
    time_to_first_byte_us: int | None = None
    request_body_bytes: int | None = None
    response_body_bytes: int | None = None
    request_units: RequestUnits | None = None
    answer_units: AnswerUnits | None = None  # None: nobody has looked
    estimate: Estimate | None = None  # where the answer does not say what was used
    sightings: tuple[Sighting, ...] = ()
    requests: int = 1  # that the usage is the sum of
    call_id: str | None = None  # of a realtime call that several sockets may attend


Record = Opening | Closing | Lines


@dataclass(slots=True, kw_only=True)  # not frozen, for the same reason as LedgerRow
class Usage:
    """Token counts of one answer; totals include parts (cached in input, reasoning in output).

    None: the provider did not say. `input_tokens` counts text, audio and image tokens, cached and
    written ones too. Source: the `usage` objects of OpenAI's API reference.
    """

    input_tokens: int | None = None
    output_tokens: int | None = None
    total_tokens: int | None = None
    cache_read_input_tokens: int | None = None
    cache_write_input_tokens: int | None = None  # all writes, the 12-hour ones included
    cache_write_12h_input_tokens: int | None = None
    audio_input_tokens: int | None = None
    cache_read_audio_input_tokens: int | None = None
    image_input_tokens: int | None = None
    cache_read_image_input_tokens: int | None = None
    reasoning_output_tokens: int | None = None
    audio_output_tokens: int | None = None
    image_output_tokens: int | None = None
    audio_seconds: Decimal | None = None  # where audio is billed by its length
    unknown_members: tuple[str, ...] = ()  # numeric members with a count that no rule covers


class PriceLine(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One factor of a sum: component × unit price = amount."""

    component: str  # input, cached_input, output, audio_second, image/standard/1024x1024, …
    quantity: int | Decimal
    list_unit_price: Decimal  # USD per token, or whatever the component counts
    amount: Decimal  # USD


@dataclass(frozen=True, slots=True, kw_only=True)
class BilledUnit:
    """What a row bills by the unit, and where its price stands; None: it has none."""

    component: str  # audio_second, image/standard/1024x1024, web_search, …
    quantity: int | Decimal
    price_id: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolCost:
    """What the hosted tools of one answer cost; None: that is not known."""

    cost_usd: Decimal | None
    list_cost_usd: Decimal | None
    units: tuple[BilledUnit, ...] = ()


class Cost(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The list cost of one answer and how it was made."""

    cost_usd: Decimal
    price_id: str  # model@from/tier/context, names the entry in the catalogue
    catalog_version: str
    lines: tuple[PriceLine, ...]


@dataclass(slots=True, kw_only=True)  # not frozen: making one would take 15 µs instead of 3
class LedgerRow:
    """One row of `user_api_usage`; field names are its columns. Nobody changes it."""

    event_id: UUID
    created_at: datetime
    user_id: str | None
    endpoint: str | None
    api_path: str
    operation_name: str
    upstream: str
    model: str | None
    request_model: str | None
    service_tier: str | None
    prompt_tokens: int | None
    completion_tokens: int | None
    total_tokens: int | None
    cached_tokens: int | None
    cache_write_tokens: int | None
    reasoning_tokens: int | None
    audio_prompt_tokens: int | None
    audio_completion_tokens: int | None
    cost_usd: Decimal | None
    price_id: str | None
    catalog_version: str | None
    unpriced_reason: str | None
    usage_source: str
    usage_problem: str | None
    status: int | None
    outcome: str
    error_type: str | None
    stream: bool | None
    latency_ms: int | None
    time_to_first_byte_ms: int | None
    upstream_request_id: str | None
    response_id: str | None
    metadata: dict[str, Any] | None
    attribution_problem: str | None
    raw_usage: bytes | None  # JSON
    retry_count: int | None
    request_bytes: int | None
    response_bytes: int | None
    tool_cost_usd: Decimal | None = None
    list_cost_usd: Decimal | None = None
    billed_units: bytes | None = None  # JSON
    corrects: UUID | None = None  # event_id of the row that this one corrects
    settles: UUID | None = None  # event_id of the call whose object this row charges
    upstream_name: str | None = None  # of a mounted upstream


@dataclass(frozen=True, slots=True, kw_only=True)
class Correction:
    """A row that corrects a call: counts and costs are differences, the rest is as it is now.

    None in a difference: nothing to add. Field names are columns of `user_api_usage`.
    """

    event_id: UUID
    created_at: datetime  # that of the call
    corrects: UUID
    correction_number: int  # from 1 on
    usage_source: str
    prompt_tokens: int | None
    completion_tokens: int | None
    total_tokens: int | None
    cached_tokens: int | None
    cache_write_tokens: int | None
    reasoning_tokens: int | None
    audio_prompt_tokens: int | None
    audio_completion_tokens: int | None
    cost_usd: Decimal | None
    tool_cost_usd: Decimal | None
    list_cost_usd: Decimal | None
    price_id: str | None
    catalog_version: str | None
    unpriced_reason: str | None
    usage_problem: str | None
    billed_units: bytes | None  # JSON
    unpriced_change: int  # -1, 0 or 1: whether the call counts as one without a price
    estimated_change: int
    unavailable_change: int


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredCall:
    """A call as it stands in the ledger: the sum of its rows, the rest as the last one says.

    `is_reversed`: it was taken back, so that nothing is left to be priced.
    """

    event_id: UUID
    created_at: datetime
    api_path: str
    operation_name: str
    upstream: str
    upstream_name: str | None
    model: str | None
    request_model: str | None
    service_tier: str | None
    status: int | None
    outcome: str
    raw_usage: bytes | None
    usage_problem: str | None
    usage_source: str
    unpriced_reason: str | None
    price_id: str | None
    billed_units: bytes | None
    prompt_tokens: int | None
    completion_tokens: int | None
    total_tokens: int | None
    cached_tokens: int | None
    cache_write_tokens: int | None
    reasoning_tokens: int | None
    audio_prompt_tokens: int | None
    audio_completion_tokens: int | None
    cost_usd: Decimal | None
    tool_cost_usd: Decimal | None
    list_cost_usd: Decimal | None
    corrections: int
    is_reversed: bool
    is_counted: bool  # as a call of its own


@lru_cache(maxsize=256)  # of one record it is asked several times
def created_at(event_id: bytes) -> datetime:
    """Return the moment a UUIDv7 was minted, to the millisecond (RFC 9562 section 5.7)."""
    return EPOCH + timedelta(milliseconds=int.from_bytes(event_id[:6], "big"))
