"""FOCUS 1.2: a row for each UTC day, user, endpoint, model, price and component, with unit prices.

A SKU is what one model is billed for, such as `gpt-5.4-mini/output`; a SKU price is that in a
service tier and a context, such as `gpt-5.4-mini/default/short/output`. Neither holds the day from
which a price is in force nor a contract, because a price that changes stays the price of the same
thing; the ledger's own name of the price is `x_PriceId`. Whole numbers have a decimal point,
because readers that guess types take them for integers, which the columns are not. All seven
columns of commitment discounts are there, although always empty: rules refer to them.
"""

from dashboard.cells import IN_TIME, LATE, ROWS_WHERE
from dashboard.defusing import harmless


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
        WHEN component LIKE '%/minute%' THEN 'Minutes'
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
# A price_id is MODEL@DAY/TIER/CONTEXT, perhaps with /contract-xFACTOR at its end.
_SKU = "split_part(split_part(price_id, '@', 1), '/contract-x', 1)"
_SKU_PRICE = "regexp_replace(regexp_replace(price_id, '@[^/]*', ''), '/contract-x[0-9.]+$', '')"
COLUMNS: tuple[tuple[str, str], ...] = (
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
    ("SkuId", f"{_SKU} || '/' || component"),
    ("SkuMeter", "CASE WHEN price_id IS NOT NULL THEN component END"),
    (
        "SkuPriceDetails",
        """
        CASE
            WHEN price_id IS NOT NULL AND component IS NOT NULL
                THEN jsonb_strip_nulls(
                    jsonb_build_object('x_Component', component, 'x_ServiceTier', service_tier)
                )::text
        END
        """,
    ),
    ("SkuPriceId", f"{_SKU_PRICE} || '/' || component"),
    ("SubAccountId", "user_id"),
    ("SubAccountName", "user_id"),
    ("SubAccountType", "CASE WHEN user_id IS NOT NULL THEN 'User' END"),
    ("Tags", "jsonb_strip_nulls(jsonb_build_object('endpoint', endpoint))::text"),
    ("x_CatalogVersion", "catalog_version"),
    ("x_UsageSource", "usage_source"),
    ("x_Calls", "calls::text"),
    ("x_Model", "model"),
    ("x_PriceId", "price_id"),
)
# Text that a client or an upstream has chosen, or that is made of it.
_CHOSEN = frozenset(
    {"ChargeDescription", "ResourceId", "ResourceName", "SubAccountId", "SubAccountName", "x_Model"}
)
_KEYS = """
    day, user_id, endpoint, upstream, model, service_tier, price_id, component, list_unit_price,
    catalog_version, usage_source, is_correction
"""
_LINES = """
    SELECT
        date_trunc('day', coalesce(accounted_at, created_at) AT TIME ZONE 'UTC') AS day,
        user_id, endpoint, upstream, model, service_tier, price_id, component, list_unit_price,
        catalog_version, usage_source, corrects IS NOT NULL AS is_correction,
        event_id, quantity, list_cost_usd, cost_usd
    FROM charge_lines
"""


def statement(*, safe: bool) -> str:
    """Return the SELECT of the file; its parameters are `cells.PLACES`."""
    columns = ", ".join(
        f'{harmless(value) if safe and name in _CHOSEN else value} AS "{name}"'
        for name, value in COLUMNS
    )
    return f"""
SELECT {columns}
FROM (
    SELECT
        {_KEYS},
        list_unit_price * coalesce(
            substring(price_id FROM '/contract-x([0-9.]+)$')::numeric, 1
        ) AS contracted_unit_price,
        sum(quantity) AS quantity,
        sum(list_cost_usd) AS list_cost,
        coalesce(sum(cost_usd), 0) AS cost,
        count(DISTINCT event_id) AS calls
    FROM (
        {_LINES} WHERE {IN_TIME} AND {ROWS_WHERE}
        UNION ALL
        {_LINES} WHERE {LATE} AND {ROWS_WHERE}
    ) AS line
    GROUP BY {_KEYS}
) AS charge
WHERE cost <> 0 OR quantity IS NOT NULL
ORDER BY day, user_id, endpoint, model, service_tier, price_id, component, is_correction
"""
