"""Every exception of the proxy, in one tree.

The docstring of a class is its default message. A message names the value that was met and what was
expected, so that whoever reads it knows what to do.
"""


class MeterError(Exception):
    """Something in openai-meter went wrong."""

    def __init__(self, message: str | None = None) -> None:
        super().__init__(message or (type(self).__doc__ or "").strip())


class ConfigurationError(MeterError):
    """A setting cannot be used."""


class PriceFileError(ConfigurationError):
    """The pricing file cannot be used."""


class UnpricedError(MeterError):
    """No price is known for this usage."""

    reason = "unpriced"


class UnknownModelError(UnpricedError):
    """No price entry names this model."""

    reason = "unknown_model"


class UnknownTierError(UnpricedError):
    """The price entry has no such service tier."""

    reason = "unknown_tier"


class UnknownRateError(UnpricedError):
    """The price entry has no rate for a component that was used."""

    reason = "unknown_rate"


class NoPricePeriodError(UnpricedError):
    """The call is older than the first price of its model."""

    reason = "no_price_period"


class UnknownUpliftError(UnpricedError):
    """It is not known whether this model costs more at this host."""

    reason = "unknown_uplift"


class NoTokenCountError(UnpricedError):
    """The usage does not say how many tokens were read."""

    reason = "no_token_count"


class UnknownToolFeeError(UnpricedError):
    """What a hosted tool has cost cannot be told; the cost is that of the tokens alone."""

    reason = "unknown_tool_fee"


class UsageError(MeterError):
    """A usage object contradicts itself or is not one."""


class JournalError(MeterError):
    """The journal cannot be written or read."""


class DatabaseError(MeterError):
    """Postgres cannot be used."""


class DatabaseUnreachableError(DatabaseError):
    """Postgres does not answer."""


class RowsRefusedError(DatabaseError):
    """Postgres refuses rows for what is in them."""


class ReportTimezoneError(DatabaseError):
    """The sums cannot be made anew for another report time zone."""


class OvertakenError(DatabaseError):
    """Somebody else corrects the same calls: nothing is lost, run the same again."""


class ClosingError(DatabaseError):
    """The month cannot be closed, or is not as it was closed."""


class DirectoryInUseError(ConfigurationError):
    """The data directory belongs to another running process."""


class ListenError(ConfigurationError):
    """The address cannot be listened on."""


class FramingError(MeterError):
    """The framing of a message is ambiguous or broken."""

    def __init__(self, message: str, *, status: int = 400) -> None:
        super().__init__(message)
        self.status = status


class RelayError(MeterError):
    """A call could not be relayed.

    `status` and `type` are what the client is told, in the upstream's error shape.
    """

    status = 502
    type = "upstream_error"


class UpstreamUnreachableError(RelayError):
    """The upstream cannot be reached."""

    type = "upstream_unreachable"


class UpstreamLostError(RelayError):
    """The upstream closed the connection before its answer was complete."""

    type = "upstream_disconnected"


class UpstreamProtocolError(RelayError):
    """The upstream's answer is not well-formed HTTP/1.1."""

    type = "upstream_protocol_error"


class UpstreamTimeoutError(RelayError):
    """The upstream did not answer in time."""

    status = 504
    type = "upstream_timeout"


class ClientTimeoutError(RelayError):
    """The request did not arrive in time."""

    status = 408
    type = "request_timeout"


class UserRequiredError(RelayError):
    """This proxy relays no call without a user."""

    status = 400
    type = "user_required"
