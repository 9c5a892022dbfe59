"""What a head asks of the relay and of the meter, worked out once for each shape of heads.

A plan holds no value of a single call. It says where those stand that are needed: the index of the
line, so that nothing is searched for twice.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from operator import itemgetter

from proxy.core import headers, noting, passage
from proxy.core.asking import BILLED_BY_UNITS
from proxy.core.headers import ANSWER_PATTERN, FieldPattern, Fields, RequestLine, StatusLine
from proxy.core.mounts import place_of
from proxy.core.passage import Destination
from proxy.core.registry import Operation
from proxy.core.shapes import Lines, Shapes
from proxy.errors import FramingError

CHUNKED = -1  # stands for a length
UNTIL_CLOSE = -2
DECLARED = -3  # the line at `length_at` says it
SEVERAL = -1  # stands for a place
OF_THE_FRAMING = (b"content-length", b"transfer-encoding")
OF_A_STRIPPED_BODY = (*OF_THE_FRAMING, b"content-encoding")
_MAX_RETRY_DIGITS = 4
_SUCCESS = 200
_BODILESS = (204, 304)

Picker = Callable[[Lines], tuple[bytes, ...]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Attributed:
    """Where the fields stand that say whom a call is for."""

    pick: Picker
    names: tuple[bytes, ...]  # lower-case, in the order of the head


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestPlan:
    """What the requests of one shape ask for, and how they go up."""

    line: RequestLine  # as the upstream sees it, less its base path
    mount: bytes  # the name of the upstream, empty for the one at `/`
    destination: Destination
    method: str
    api_path: str
    operation: Operation
    request_model: str | None  # that the target of a session names
    keeps_alive: bool
    has_host: bool  # exactly one, or none where HTTP/1.0 needs none
    length: int  # of the body: 0, CHUNKED or DECLARED
    length_at: int
    content_type: str
    content_encoding: str
    is_json: bool  # its body is read at once if it is here at once
    is_encoded: bool
    is_splicable: bool  # its body may have to ask for usage
    is_invited: bool  # it waits for 100 Continue
    upgrades: bool  # it has an Upgrade field, whatever that asks for
    wants_websocket: bool
    retry_count: int | None
    attributed: Attributed | None
    # The lines that go up, where nothing but lines is left out: else None.
    pick: Picker | None
    first_line: bytes
    host_at: int
    host_line: bytes
    encoding_at: int  # the line that says which encodings are accepted; 0: none, SEVERAL

    def sent(self, lines: Lines, body: bytes, *, spliced_length: int | None = None) -> bytes | None:
        """Return what goes up of a request, None where a closer look is needed.

        The body, or what is here of it, is framed already; where it was spliced, that takes its
        length, and an answer that can be read at once. The lines are used up.
        """
        if self.pick is None:
            return None
        lines[0] = self.first_line
        lines[self.host_at] = self.host_line
        if spliced_length is None:
            return b"\r\n".join((*self.pick(lines), b"", body))
        if self.encoding_at == SEVERAL:
            return None
        added = b"" if self.encoding_at else b"Accept-Encoding: identity\r\n"
        if self.encoding_at:
            _set(lines, self.encoding_at, b"identity")
        if self.length == DECLARED:
            _set(lines, self.length_at, b"%d" % spliced_length)
        return b"\r\n".join((*self.pick(lines), added, body))


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerPlan:
    """What the answers of one shape hold, and how they go down."""

    line: StatusLine
    keeps_alive: bool
    length: int  # of the body: 0, CHUNKED, UNTIL_CLOSE or DECLARED
    length_at: int
    content_type: str
    content_encoding: str
    is_bodiless: bool  # whatever it says of a length
    is_json: bool  # a success that is read at once if it is here at once
    request_id_at: int  # 0: it has none
    passes_whole: bool
    pick: Picker | None  # the lines that go down, where nothing but lines is left out: else None
    pick_stripped: Picker | None  # those, less what tells of a body that is taken apart

    def passed(self, raw: bytes, lines: Lines, body: bytes) -> bytes | None:
        """Return what goes down of an answer, None where a closer look is needed."""
        if self.passes_whole:
            return raw + body
        return None if self.pick is None else b"\r\n".join((*self.pick(lines), b"", body))

    def passed_stripped(self, lines: Lines, added: bytes, body: bytes) -> bytes | None:
        """Return the same of an answer whose body is made anew; `added` are whole lines."""
        pick = self.pick_stripped
        return None if pick is None else b"\r\n".join((*pick(lines), added, body))


def _set(lines: Lines, place: int, value: bytes) -> None:
    """Give a field another value; its name stays as it was spelled."""
    lines[place] = lines[place].partition(b":")[0] + b": " + value


class RequestPlans(Shapes[RequestPlan]):
    """The plans for requests: to the upstream at `/`, and to those that are mounted."""

    __slots__ = ("_destination", "_mounted", "pattern")

    def __init__(
        self,
        pattern: FieldPattern,
        destination: Destination,
        mounted: Mapping[bytes, Destination] | None = None,
    ) -> None:
        """Take which fields matter, where requests go, and where those below a name do."""
        super().__init__(self._plan)
        self.pattern = pattern
        self._destination = destination
        self._mounted = mounted or {}

    def _plan(self, raw: bytes) -> RequestPlan:
        head = self.pattern.read(raw)
        line = headers.request_line(head.first_line)
        if line is None:
            raise FramingError("the request line is not one of HTTP/1.0 or HTTP/1.1")
        if line.method == b"CONNECT" or not (line.target.startswith(b"/") or line.target == b"*"):
            raise FramingError("the request target is not a path: this is no forward proxy")
        mount, line, destination = self._destined(line)
        fields = head.fields
        operation = _operation(line, destination, is_named=bool(mount))
        request_model = None
        if operation.is_session:
            request_model, deployment = noting.model_asked(line.target)
            operation = replace(operation, deployment=operation.deployment or deployment)
        content_type = headers.text(fields, b"content-type")
        content_encoding = headers.text(fields, b"content-encoding")
        lines = raw[:-4].split(b"\r\n")
        hosts, lengths = _places(lines, b"host"), _places(lines, b"content-length")
        encodings = _places(lines, b"accept-encoding")
        host_at = hosts[0] if hosts else 0
        edited = headers.nominated(fields) or destination.left_out or destination.added
        simple = bool(hosts) and not edited and b"upgrade" not in fields
        is_json = not content_type or "json" in content_type.lower()
        return RequestPlan(
            line=line,
            mount=mount,
            destination=destination,
            method=line.method.decode("ascii"),
            api_path=noting.path_of(line.target)[: noting.MAX_PATH_CHARACTERS],
            operation=operation,
            request_model=request_model,
            keeps_alive=headers.keeps_alive(fields, line.minor_version),
            has_host=len(hosts) == 1 or not (hosts or line.minor_version),
            length=_body_length(fields, line.minor_version, absent=0),
            length_at=lengths[0] if lengths else 0,
            content_type=content_type,
            content_encoding=content_encoding,
            is_json=is_json and not content_encoding and operation.name not in BILLED_BY_UNITS,
            is_encoded=b"content-encoding" in fields,
            is_splicable=is_json and operation.splices and b"content-encoding" not in fields,
            is_invited=headers.text(fields, b"expect").lower() == "100-continue",
            upgrades=b"upgrade" in fields,
            wants_websocket=passage.wants_websocket(line, fields),
            retry_count=_small_number(headers.first(fields, b"x-stainless-retry-count")),
            attributed=self._attributed(lines),
            pick=_picker(self.pattern, lines) if simple else None,
            first_line=passage.first_line(line, destination),
            host_at=host_at,
            host_line=lines[host_at][:5] + b" " + destination.authority,
            encoding_at=SEVERAL if len(encodings) > 1 else sum(encodings),
        )

    def _destined(self, line: RequestLine) -> tuple[bytes, RequestLine, Destination]:
        place = place_of(line.target) if self._mounted else None
        destination = self._mounted.get(place.name) if place else None
        if place is None or destination is None:
            return b"", line, self._destination
        return place.name, line._replace(target=place.target), destination

    def _attributed(self, lines: Lines) -> Attributed | None:
        destination = self._destination
        found = [
            (index, name)
            for index, name in enumerate(map(headers.name_of, lines))
            if index
            and (name in destination.own_names or name.startswith(destination.own_prefixes))
        ]
        if not found:
            return None
        indices, names = zip(*found, strict=True)
        return Attributed(pick=_tuple_of(indices), names=names)


class AnswerPlans(Shapes[AnswerPlan]):
    """The plans for answers."""

    __slots__ = ()

    def __init__(self) -> None:
        super().__init__(_answer_plan)


def _answer_plan(raw: bytes) -> AnswerPlan:
    head = ANSWER_PATTERN.read(raw)
    line = headers.status_line(head.first_line)
    if line is None:
        raise FramingError("no status line of HTTP/1.x")
    fields, lines = head.fields, raw[:-4].split(b"\r\n")
    lengths = _places(lines, b"content-length")
    ids = _places(lines, b"x-request-id") or _places(lines, b"apim-request-id")
    content_type = headers.text(fields, b"content-type").lower()
    content_encoding = headers.text(fields, b"content-encoding")
    nominates = bool(headers.nominated(fields))
    return AnswerPlan(
        line=line,
        keeps_alive=headers.keeps_alive(fields, line.minor_version),
        length=_body_length(fields, line.minor_version, absent=UNTIL_CLOSE),
        length_at=lengths[0] if lengths else 0,
        content_type=content_type,
        content_encoding=content_encoding,
        is_bodiless=line.status in _BODILESS or line.status < _SUCCESS,
        is_json=line.status == _SUCCESS and "json" in content_type and not content_encoding,
        request_id_at=ids[0] if ids else 0,
        passes_whole=head.passes_whole and not nominates,
        pick=None if nominates else _picker(ANSWER_PATTERN, lines),
        pick_stripped=None if nominates else _picker(ANSWER_PATTERN, lines, OF_A_STRIPPED_BODY),
    )


def _operation(line: RequestLine, destination: Destination, *, is_named: bool) -> Operation:
    return noting.operation_asked(line, destination.base_path.decode("latin-1"), is_named=is_named)


def _picker(pattern: FieldPattern, lines: Lines, without: Sequence[bytes] = ()) -> Picker:
    """Return what takes the first line and the lines that pass, less some more fields."""
    passing = [
        index
        for index, line in enumerate(lines)
        if index and pattern.passes(line) and headers.name_of(line) not in without
    ]
    return _tuple_of([0, *passing])


def _tuple_of(indices: Sequence[int]) -> Picker:
    """Return what takes the lines at these places, as a tuple however few they are."""
    if len(indices) > 1:
        return itemgetter(*indices)
    (index,) = indices
    return lambda lines: (lines[index],)


def _places(lines: Lines, name: bytes) -> list[int]:
    return [index for index, line in enumerate(lines) if index and headers.name_of(line) == name]


def _body_length(fields: Fields, minor_version: int, *, absent: int) -> int:
    """Return what a head says of the length of its body (RFC 9112 section 6)."""
    codings = fields.get(b"transfer-encoding")
    lengths = fields.get(b"content-length")
    if codings is None:
        if lengths is None:
            return absent
        if len(lengths) != 1:
            raise FramingError("Content-Length is not one decimal number")
        return DECLARED
    if lengths is not None or len(codings) != 1 or minor_version == 0:
        raise FramingError("Transfer-Encoding is ambiguous here")
    if codings[0].lower() != b"chunked":
        raise FramingError("Transfer-Encoding is not 'chunked'")
    return CHUNKED


def _small_number(value: bytes | None) -> int | None:
    if value is None or len(value) > _MAX_RETRY_DIGITS or not value.isdigit():
        return None
    return int(value)
