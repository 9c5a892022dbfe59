"""The files that finance takes away: which columns, from which SELECT, under which name.

Columns are added at the end, never renamed or taken away; what would break that is another version.
A file is what COPY makes, in constant memory at any size. In the dialect for spreadsheets text that
begins like a formula gets an apostrophe, and control characters become spaces; numbers and times
stay as they are. Nothing that a client sent is ever a part of a statement.
"""

from collections.abc import Callable
from typing import Literal, get_args

from dashboard import selects
from dashboard.filters import Filter
from dashboard.selects import IN_TIME, LATE, ROWS_WHERE

Form = Literal["calls", "summary", "focus-1.2"]
Dialect = Literal["excel", "raw"]

FORMS: tuple[Form, ...] = get_args(Form)
DIALECTS: tuple[Dialect, ...] = get_args(Dialect)
VERSION = "v1"
BYTE_ORDER_MARK = "\ufeff".encode()

_NAMES = {"calls": "usage-calls", "summary": "usage-summary", "focus-1.2": "focus-1.2"}

# What a spreadsheet takes for a formula (OWASP ASVS 1.2.10) and its full-width twins; and whatever
# would end a line or be stripped before it looks.
_SUSPICIOUS = r"(^|\|)[=+@＝＋－＠-]|[\x01-\x1f\x7f]"  # noqa: RUF001 - meant
_FORMULA = r"^[\s]*[=+@＝＋－＠-]"  # noqa: RUF001 - meant

# Text that a client or an upstream has chosen. All of a row is looked at once, because nearly all
# rows are harmless and looking costs more than the rest of the row.
_CHOSEN = (
    "user_id", "endpoint", "api_path", "model", "request_model", "service_tier", "error_type",
    "upstream_request_id", "response_id", "attribution_problem",
)  # fmt: skip


def statement(form: Form, dialect: Dialect) -> str:
    """Return the SELECT of a file; its parameters are `selects.PLACES`."""
    return _STATEMENTS[form, dialect]


def file_name(form: Form, wanted: Filter) -> str:
    """Return a name that says what is in the file: range, zone and version of the columns."""
    first = "beginning" if wanted.first is None else wanted.first.isoformat()
    zone = wanted.zone.key.replace("/", "-")
    version = "" if form == "focus-1.2" else f"_{VERSION}"
    return f"{_NAMES[form]}_{first}_{wanted.last.isoformat()}_{zone}{version}.csv"


def chunked(dialect: Dialect) -> Callable[[bytes], bytes]:
    """Return what makes of COPY's bytes those of a dialect; text holds no line break in excel."""
    if dialect == "raw":
        return bytes
    return _with_carriage_returns


def _with_carriage_returns(chunk: bytes) -> bytes:
    return chunk.replace(b"\n", b"\r\n")


def _safe(name: str) -> str:
    """Return the expression that defuses a text, where its row has been found suspicious."""
    clean = rf"regexp_replace({name}, '[\x01-\x1f\x7f]', ' ', 'g')"
    return (
        f"CASE WHEN NOT suspicious THEN {name} "
        f"WHEN {name} ~ '{_FORMULA}' THEN '''' || {clean} ELSE {clean} END AS {name}"
    )


_CALL = (
    "event_id", "created_at", "day", "user_id", "endpoint", "api_path", "operation_name",
    "upstream", "request_model", "model", "service_tier", "stream", "status", "outcome",
    "error_type", "prompt_tokens", "cached_tokens", "cache_write_tokens", "audio_prompt_tokens",
    "completion_tokens", "reasoning_tokens", "audio_completion_tokens", "total_tokens",
    "tool_cost_usd", "list_cost_usd", "cost_usd", "price_id", "catalog_version",
    "unpriced_reason", "usage_source", "latency_ms", "time_to_first_byte_ms",
    "upstream_request_id", "response_id", "corrects", "settles", "accounted_at",
    "attribution_problem", "metadata", "upstream_name",
)  # fmt: skip


_STORED = ", ".join(name for name in _CALL if name != "day")
_SOURCE = f"""
SELECT {_STORED}
FROM calls
WHERE {IN_TIME} AND {ROWS_WHERE}
UNION ALL
SELECT {_STORED}
FROM calls
WHERE {LATE} AND {ROWS_WHERE}
"""


def _shown(name: str, *, safe: bool) -> str:
    """Return the expression of a column of calls."""
    match name:
        case "created_at" | "accounted_at":
            pattern = 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"'
            return f"to_char({name} AT TIME ZONE 'UTC', '{pattern}') AS {name}"
        case "day":
            return "(coalesce(accounted_at, created_at) AT TIME ZONE $3)::date AS day"
        case _ if safe and name in _CHOSEN:
            return _safe(name)
        case _:
            return name


def _calls(dialect: Dialect) -> str:
    safe = dialect == "excel"
    columns = ", ".join(_shown(name, safe=safe) for name in _CALL)
    texts = ", ".join(_CHOSEN)
    looked_at = f"""
CROSS JOIN LATERAL (
    SELECT concat_ws('|', {texts}) ~ '{_SUSPICIOUS}' AS suspicious
    OFFSET 0  -- once for a row and not once for a column
) AS looked_at
"""
    return f"""
SELECT {columns}
FROM ({_SOURCE}) AS call {looked_at if safe else ""}
ORDER BY call.created_at, call.event_id
"""


_SUMMARY = (
    "user_id", "calls", "errors", "prompt_tokens", "cached_tokens", "cache_write_tokens",
    "completion_tokens", "reasoning_tokens", "total_tokens", "cost_usd", "tool_cost_usd",
    "unpriced_calls", "estimated_calls", "unavailable_calls", "first_call", "last_call",
)  # fmt: skip


def summary(source: selects.Source, dialect: Dialect) -> str:
    """Return the SELECT of all users, in the order that was asked for."""
    return _SUMMARIES[source, dialect]


def _summary(source: selects.Source, dialect: Dialect) -> str:
    pattern = 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"'
    times = {
        name: f"to_char({name} AT TIME ZONE 'UTC', '{pattern}') AS {name}"
        for name in ("first_call", "last_call")
    }
    safe = {"user_id": _safe("user_id")} if dialect == "excel" else {}
    columns = ", ".join((times | safe).get(name, name) for name in _SUMMARY)
    return f"""
SELECT {columns}
FROM ({selects.sums(source, ("user_id",))}) AS summed
CROSS JOIN LATERAL (SELECT user_id ~ '{_SUSPICIOUS}' AS suspicious) AS looked_at
"""


# FOCUS 1.2: a row for each UTC day, user, endpoint, model, price and component, with unit prices.
# Whole numbers have a decimal point, because readers that guess types take them for integers, which
# the columns are not. All seven columns of commitment discounts are there, although always empty:
# rules refer to them.
def _decimal(value: str) -> str:
    return (
        f"CASE WHEN scale(trim_scale({value})) = 0 THEN trunc({value})::text || '.0' "
        f"ELSE trim_scale({value})::text END"
    )


_UNIT = """
    CASE
        WHEN component IS NULL THEN NULL
        WHEN component IN (
            'input', 'cached_input', 'cache_write', 'cache_write_12h', 'audio_input',
            'cached_audio_input', 'image_input', 'cached_image_input', 'output', 'audio_output',
            'image_output'
        ) THEN 'Tokens'
        WHEN component = 'character' THEN 'Characters'
        WHEN component LIKE '%second%' THEN 'Seconds'
        WHEN component LIKE 'image/%' THEN 'Images'
        ELSE 'Requests'
    END
"""
_PROVIDER = """
    CASE
        WHEN upstream LIKE '%openai.azure.com%' OR upstream LIKE '%.azure.com%' THEN 'Microsoft'
        WHEN upstream LIKE '%openai.com%' THEN 'OpenAI'
        ELSE upstream
    END
"""
_DATE = 'YYYY-MM-DD"T"HH24:MI:SS"Z"'
_FOCUS: tuple[tuple[str, str], ...] = (
    ("AvailabilityZone", "NULL"),
    ("BilledCost", _decimal("cost")),
    ("BillingAccountId", "upstream"),
    ("BillingAccountName", "upstream"),
    ("BillingAccountType", "'Organization'"),
    ("BillingCurrency", "'USD'"),
    ("BillingPeriodEnd", f"to_char(date_trunc('month', day) + interval '1 month', '{_DATE}')"),
    ("BillingPeriodStart", f"to_char(date_trunc('month', day), '{_DATE}')"),
    ("CapacityReservationId", "NULL"),
    ("CapacityReservationStatus", "NULL"),
    ("ChargeCategory", "'Usage'"),
    ("ChargeClass", "CASE WHEN is_correction THEN 'Correction' END"),
    (
        "ChargeDescription",
        "concat_ws(' ', model, coalesce(component, 'cost'), '(' || service_tier || ')')",
    ),
    ("ChargeFrequency", "'Usage-Based'"),
    ("ChargePeriodEnd", f"to_char(day + interval '1 day', '{_DATE}')"),
    ("ChargePeriodStart", f"to_char(day, '{_DATE}')"),
    ("CommitmentDiscountCategory", "NULL"),
    ("CommitmentDiscountId", "NULL"),
    ("CommitmentDiscountName", "NULL"),
    ("CommitmentDiscountQuantity", "NULL"),
    ("CommitmentDiscountStatus", "NULL"),
    ("CommitmentDiscountType", "NULL"),
    ("CommitmentDiscountUnit", "NULL"),
    ("ConsumedQuantity", _decimal("quantity")),
    ("ConsumedUnit", _UNIT),
    ("ContractedCost", _decimal("cost")),
    ("ContractedUnitPrice", _decimal("contracted_unit_price")),
    ("EffectiveCost", _decimal("cost")),
    ("InvoiceId", "NULL"),
    ("InvoiceIssuerName", _PROVIDER),
    ("ListCost", _decimal("coalesce(list_cost, cost)")),
    ("ListUnitPrice", _decimal("list_unit_price")),
    ("PricingCategory", "CASE WHEN component IS NOT NULL THEN 'Standard' END"),
    ("PricingCurrency", "'USD'"),
    ("PricingCurrencyContractedUnitPrice", _decimal("contracted_unit_price")),
    ("PricingCurrencyEffectiveCost", _decimal("cost")),
    ("PricingCurrencyListUnitPrice", _decimal("list_unit_price")),
    ("PricingQuantity", _decimal("quantity")),
    ("PricingUnit", _UNIT),
    ("ProviderName", _PROVIDER),
    ("PublisherName", _PROVIDER),
    ("RegionId", "NULL"),
    ("RegionName", "NULL"),
    ("ResourceId", "endpoint"),
    ("ResourceName", "endpoint"),
    ("ResourceType", "CASE WHEN endpoint IS NOT NULL THEN 'Endpoint' END"),
    ("ServiceCategory", "'AI and Machine Learning'"),
    ("ServiceName", "'OpenAI API'"),
    ("ServiceSubcategory", "'Generative AI'"),
    ("SkuId", "model"),
    ("SkuMeter", "CASE WHEN model IS NOT NULL THEN component END"),
    (
        "SkuPriceDetails",
        """
        CASE
            WHEN model IS NOT NULL AND price_id IS NOT NULL AND service_tier IS NOT NULL
                THEN jsonb_build_object('x_ServiceTier', service_tier)::text
        END
        """,
    ),
    ("SkuPriceId", "CASE WHEN model IS NOT NULL THEN price_id END"),
    ("SubAccountId", "user_id"),
    ("SubAccountName", "user_id"),
    ("SubAccountType", "CASE WHEN user_id IS NOT NULL THEN 'User' END"),
    ("Tags", "jsonb_strip_nulls(jsonb_build_object('endpoint', endpoint))::text"),
    ("x_CatalogVersion", "catalog_version"),
    ("x_UsageSource", "usage_source"),
    ("x_Calls", "calls::text"),
)
_FOCUS_CHOSEN = frozenset(
    {"ChargeDescription", "ResourceId", "ResourceName", "SkuId", "SubAccountId", "SubAccountName"}
)
_FOCUS_KEYS = """
    day, user_id, endpoint, upstream, model, service_tier, price_id, component, list_unit_price,
    catalog_version, usage_source, is_correction
"""


def _focus(dialect: Dialect) -> str:
    columns = []
    for name, value in _FOCUS:
        if dialect == "excel" and name in _FOCUS_CHOSEN:
            clean = rf"regexp_replace({value}, '[\x01-\x1f\x7f]', ' ', 'g')"
            shown = f"CASE WHEN {value} ~ '{_FORMULA}' THEN '''' || {clean} ELSE {clean} END"
            columns.append(f'{shown} AS "{name}"')
        else:
            columns.append(f'{value} AS "{name}"')
    lines = """
    SELECT
        date_trunc('day', coalesce(accounted_at, created_at) AT TIME ZONE 'UTC') AS day,
        user_id, endpoint, upstream, model, service_tier, price_id, component, list_unit_price,
        catalog_version, usage_source, corrects IS NOT NULL AS is_correction,
        event_id, quantity, list_cost_usd, cost_usd
    FROM charge_lines
"""
    return f"""
SELECT {", ".join(columns)}
FROM (
    SELECT
        {_FOCUS_KEYS},
        list_unit_price * coalesce(
            substring(price_id FROM '/contract-x([0-9.]+)$')::numeric, 1
        ) AS contracted_unit_price,
        sum(quantity) AS quantity,
        sum(list_cost_usd) AS list_cost,
        coalesce(sum(cost_usd), 0) AS cost,
        count(DISTINCT event_id) AS calls
    FROM (
        {lines} WHERE {IN_TIME} AND {ROWS_WHERE}
        UNION ALL
        {lines} WHERE {LATE} AND {ROWS_WHERE}
    ) AS line
    GROUP BY {_FOCUS_KEYS}
) AS charge
WHERE cost <> 0 OR quantity IS NOT NULL
ORDER BY day, user_id, endpoint, model, service_tier, price_id, component, is_correction
"""


_STATEMENTS: dict[tuple[Form, Dialect], str] = {
    **{("calls", dialect): _calls(dialect) for dialect in DIALECTS},
    **{("focus-1.2", dialect): _focus(dialect) for dialect in DIALECTS},
}
_SUMMARIES = {
    (source, dialect): _summary(source, dialect)
    for source in get_args(selects.Source)
    for dialect in DIALECTS
}
