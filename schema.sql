-- The ledger of openai-meter: the one contract between the proxy, which writes it, and the dashboard,
-- which reads it. The file is applied as a whole, in one transaction, at every start that brings a
-- new version of it; each statement may be run again. PostgreSQL 15 or newer.
--
-- How to read it: user_api_usage has one row for every request that was sent upstream and only
-- grows. Rollups hold exact sums of it; a trigger adds the rows that a statement inserts to the sums,
-- so that neither can run ahead of the other. NULL means unknown, never 0.


-- Writers of the ledger hold this lock shared; who changes sums takes it alone. Here before any
-- table is locked, as the writers do, so that a recorder at work and this file do not deadlock.
SELECT pg_advisory_xact_lock(hashtextextended('openai-meter rollups', 0));


-- 1. Settings ------------------------------------------------------------------------------------

-- What must be the same for everybody who uses this database.
CREATE TABLE IF NOT EXISTS meter_settings (
    name text PRIMARY KEY,
    value text NOT NULL
);

COMMENT ON TABLE meter_settings IS
    'Settings kept in the database. report_timezone: where days begin.';

INSERT INTO meter_settings (name, value)
VALUES ('report_timezone', 'UTC')
ON CONFLICT (name) DO NOTHING;

-- Which versions of this file were applied; written by proxy/database.py.
CREATE TABLE IF NOT EXISTS schema_applied (
    sha256 text PRIMARY KEY,
    applied_at timestamptz NOT NULL DEFAULT now()
);

COMMENT ON TABLE schema_applied IS 'SHA-256 of each schema.sql that was applied, and when.';


-- 2. The ledger ----------------------------------------------------------------------------------

-- Rows are never updated. created_at comes out of event_id, so the primary key, which has to contain
-- the partition key, recognises an event that is inserted twice.
CREATE TABLE IF NOT EXISTS user_api_usage (
    event_id uuid NOT NULL,
    created_at timestamptz NOT NULL,
    user_id text,
    endpoint text,
    api_path text NOT NULL,
    operation_name text NOT NULL,
    upstream text NOT NULL,
    model text,
    request_model text,
    service_tier text,
    prompt_tokens bigint,
    completion_tokens bigint,
    total_tokens bigint,
    cached_tokens bigint,
    cache_write_tokens bigint,
    reasoning_tokens bigint,
    audio_prompt_tokens bigint,
    audio_completion_tokens bigint,
    cost_usd numeric(20, 12),
    price_id text,
    catalog_version text,
    unpriced_reason text,
    usage_source text NOT NULL,
    usage_problem text,
    status smallint,
    outcome text NOT NULL,
    error_type text,
    stream boolean,
    latency_ms integer,
    time_to_first_byte_ms integer,
    upstream_request_id text,
    response_id text,
    metadata jsonb,
    attribution_problem text,
    raw_usage jsonb,
    retry_count integer,
    request_bytes bigint,
    response_bytes bigint,
    corrects uuid,
    recorded_at timestamptz NOT NULL DEFAULT now(),
    tool_cost_usd numeric(20, 12),
    list_cost_usd numeric(20, 12),
    billed_units jsonb,
    settles uuid,
    correction_number smallint,
    unpriced_change smallint,
    estimated_change smallint,
    unavailable_change smallint,
    accounted_at timestamptz,
    upstream_name text,
    PRIMARY KEY (created_at, event_id),

    CONSTRAINT usage_source_is_known CHECK (
        usage_source IN (
            'reported',    -- the provider's own usage object
            'estimated',   -- counted by us, because the answer does not say
            'unavailable'  -- neither: token counts are NULL
        )
    ),
    CONSTRAINT outcome_is_known CHECK (
        outcome IN (
            'ok',                   -- a complete answer
            'upstream_error',       -- an error answer, a broken one, or none
            'client_disconnected',  -- the client hung up first
            'timeout',              -- the upstream was too slow
            'interrupted',          -- the proxy itself was killed in mid-call
            'refused'               -- answered by the proxy, not by the upstream
        )
    ),
    -- Totals would be lies otherwise; a correction may take away what was counted too much.
    CONSTRAINT only_corrections_are_negative CHECK (
        corrects IS NOT NULL
        OR (
            coalesce(prompt_tokens, 0) >= 0
            AND coalesce(completion_tokens, 0) >= 0
            AND coalesce(total_tokens, 0) >= 0
            AND coalesce(cached_tokens, 0) >= 0
            AND coalesce(cache_write_tokens, 0) >= 0
            AND coalesce(reasoning_tokens, 0) >= 0
            AND coalesce(audio_prompt_tokens, 0) >= 0
            AND coalesce(audio_completion_tokens, 0) >= 0
            AND coalesce(cost_usd, 0) >= 0
        )
    ),
    -- Any sum can be made again by hand: it says which price it was made with.
    CONSTRAINT a_cost_names_its_price CHECK (
        cost_usd IS NULL
        OR cost_usd = 0
        OR (price_id IS NOT NULL AND catalog_version IS NOT NULL)
    ),
    -- Unknown is NULL, never 0: unless the price list says that such calls are free.
    CONSTRAINT unavailable_usage_is_null_or_free CHECK (
        usage_source <> 'unavailable'
        OR (
            prompt_tokens IS NULL
            AND completion_tokens IS NULL
            AND total_tokens IS NULL
            AND (cost_usd IS NULL OR (cost_usd = 0 AND price_id IS NOT DISTINCT FROM 'free'))
        )
    ),
    -- All of a key of an index or a rollup has to fit into an index entry, that is 2,704 bytes.
    CONSTRAINT keys_fit_an_index CHECK (
        octet_length(user_id) <= 1024
        AND octet_length(endpoint) <= 1024
        AND octet_length(model) <= 512
        AND octet_length(service_tier) <= 64
        AND octet_length(operation_name) <= 64
        AND octet_length(response_id) <= 512
    ),
    -- What a call counts as is told by its own columns.
    CONSTRAINT only_corrections_change_counts CHECK (
        corrects IS NOT NULL
        OR num_nonnulls(
            correction_number, unpriced_change, estimated_change, unavailable_change
        ) = 0
    )
) PARTITION BY RANGE (created_at);

-- Ledgers from before there were tool fees, free calls and objects that are billed when they are
-- done. What is stored already satisfies the wider check, so that it need not be read again.
ALTER TABLE user_api_usage
    ADD COLUMN IF NOT EXISTS tool_cost_usd numeric(20, 12),
    ADD COLUMN IF NOT EXISTS list_cost_usd numeric(20, 12),
    ADD COLUMN IF NOT EXISTS billed_units jsonb,
    ADD COLUMN IF NOT EXISTS settles uuid;
DO $do$
BEGIN
    IF EXISTS (
        SELECT
        FROM pg_constraint
        WHERE conrelid = 'user_api_usage'::regclass AND conname = 'unavailable_usage_is_null'
    ) THEN
        ALTER TABLE user_api_usage DROP CONSTRAINT unavailable_usage_is_null;
        ALTER TABLE user_api_usage ADD CONSTRAINT unavailable_usage_is_null_or_free CHECK (
            usage_source <> 'unavailable'
            OR (
                prompt_tokens IS NULL
                AND completion_tokens IS NULL
                AND total_tokens IS NULL
                AND (cost_usd IS NULL OR (cost_usd = 0 AND price_id IS NOT DISTINCT FROM 'free'))
            )
        ) NOT VALID;
    END IF;
END
$do$;

-- Ledgers from before there were corrections and closed months.
ALTER TABLE user_api_usage
    ADD COLUMN IF NOT EXISTS correction_number smallint,
    ADD COLUMN IF NOT EXISTS unpriced_change smallint,
    ADD COLUMN IF NOT EXISTS estimated_change smallint,
    ADD COLUMN IF NOT EXISTS unavailable_change smallint,
    ADD COLUMN IF NOT EXISTS accounted_at timestamptz;
DO $do$
BEGIN
    IF NOT EXISTS (
        SELECT
        FROM pg_constraint
        WHERE
            conrelid = 'user_api_usage'::regclass AND conname = 'only_corrections_change_counts'
    ) THEN
        ALTER TABLE user_api_usage ADD CONSTRAINT only_corrections_change_counts CHECK (
            corrects IS NOT NULL
            OR num_nonnulls(
                correction_number, unpriced_change, estimated_change, unavailable_change
            ) = 0
        ) NOT VALID;
    END IF;
END
$do$;

-- Ledgers from before there were several upstreams.
ALTER TABLE user_api_usage
    ADD COLUMN IF NOT EXISTS upstream_name text;

COMMENT ON TABLE user_api_usage IS
    'One row for every request sent upstream. Only grows: a correction is a row of its own, and so is '
    'what an object cost that a call has made (settles).';
COMMENT ON COLUMN user_api_usage.event_id IS
    'UUIDv7, made when the request was admitted.';
COMMENT ON COLUMN user_api_usage.created_at IS
    'When the request was admitted; the timestamp inside event_id, to the millisecond.';
COMMENT ON COLUMN user_api_usage.user_id IS
    'Whom the call was for, as the client said. NULL: it did not say.';
COMMENT ON COLUMN user_api_usage.endpoint IS
    'The caller''s feature, as the client said. NULL: it did not say.';
COMMENT ON COLUMN user_api_usage.api_path IS
    'Path of the request without its query.';
COMMENT ON COLUMN user_api_usage.operation_name IS
    'Kind of call: chat, responses, embeddings, unknown, … (gen_ai.operation.name).';
COMMENT ON COLUMN user_api_usage.upstream IS
    'Host that the request was sent to.';
COMMENT ON COLUMN user_api_usage.model IS
    'The model that answered and is billed, else the one that was asked for.';
COMMENT ON COLUMN user_api_usage.request_model IS
    'The model that was asked for.';
COMMENT ON COLUMN user_api_usage.service_tier IS
    'The service tier that the answer was served in.';
COMMENT ON COLUMN user_api_usage.prompt_tokens IS
    'Input tokens, cached, written, audio and image ones included.';
COMMENT ON COLUMN user_api_usage.completion_tokens IS
    'Output tokens, reasoning and audio ones included.';
COMMENT ON COLUMN user_api_usage.total_tokens IS
    'Input and output tokens, as reported.';
COMMENT ON COLUMN user_api_usage.cached_tokens IS
    'Tokens read from the cache, a part of prompt_tokens.';
COMMENT ON COLUMN user_api_usage.cache_write_tokens IS
    'Tokens written to the cache, a part of prompt_tokens.';
COMMENT ON COLUMN user_api_usage.reasoning_tokens IS
    'Reasoning tokens, a part of completion_tokens.';
COMMENT ON COLUMN user_api_usage.audio_prompt_tokens IS
    'Audio tokens, a part of prompt_tokens.';
COMMENT ON COLUMN user_api_usage.audio_completion_tokens IS
    'Audio tokens, a part of completion_tokens.';
COMMENT ON COLUMN user_api_usage.cost_usd IS
    'Cost in USD, tool_cost_usd included: unit prices × quantities. NULL: not priced.';
COMMENT ON COLUMN user_api_usage.price_id IS
    'The entry of the price catalogue that made the cost; see price_rate.';
COMMENT ON COLUMN user_api_usage.catalog_version IS
    'The version of the price catalogue that made the cost; see price_rate.';
COMMENT ON COLUMN user_api_usage.unpriced_reason IS
    'Why there is no cost, or not all of it: unknown_model, unknown_tool_fee, …';
COMMENT ON COLUMN user_api_usage.usage_source IS
    'How the token counts are known: reported, estimated or unavailable.';
COMMENT ON COLUMN user_api_usage.usage_problem IS
    'Why the usage could not be read although an answer came.';
COMMENT ON COLUMN user_api_usage.status IS
    'HTTP status of the answer. NULL: there was none.';
COMMENT ON COLUMN user_api_usage.outcome IS
    'How the exchange ended, as seen by the proxy.';
COMMENT ON COLUMN user_api_usage.error_type IS
    'error.type of the answer, or our own.';
COMMENT ON COLUMN user_api_usage.stream IS
    'Whether the client asked for a stream.';
COMMENT ON COLUMN user_api_usage.latency_ms IS
    'From the admission of the request to the end of the answer, in milliseconds.';
COMMENT ON COLUMN user_api_usage.time_to_first_byte_ms IS
    'From the admission of the request to the first byte of the answer, in milliseconds.';
COMMENT ON COLUMN user_api_usage.upstream_request_id IS
    'The upstream''s x-request-id.';
COMMENT ON COLUMN user_api_usage.response_id IS
    'id of the object that the answer carries.';
COMMENT ON COLUMN user_api_usage.metadata IS
    'What the client said about the call; a JSON object.';
COMMENT ON COLUMN user_api_usage.attribution_problem IS
    'Which part of the attribution could not be read, and why.';
COMMENT ON COLUMN user_api_usage.raw_usage IS
    'The provider''s usage object as it came.';
COMMENT ON COLUMN user_api_usage.retry_count IS
    'How often the client''s SDK had tried before (x-stainless-retry-count).';
COMMENT ON COLUMN user_api_usage.request_bytes IS
    'Size of the request body as sent, in bytes.';
COMMENT ON COLUMN user_api_usage.response_bytes IS
    'Size of the answer''s body as received, in bytes.';
COMMENT ON COLUMN user_api_usage.corrects IS
    'event_id of the call that this row corrects; its counts and cost are then differences.';
COMMENT ON COLUMN user_api_usage.recorded_at IS
    'When the row was inserted; later than created_at by the length of the call, or of an outage.';
COMMENT ON COLUMN user_api_usage.tool_cost_usd IS
    'Fees of hosted tools, a part of cost_usd. 0: none was used. NULL: not known.';
COMMENT ON COLUMN user_api_usage.list_cost_usd IS
    'cost_usd before any negotiated price.';
COMMENT ON COLUMN user_api_usage.billed_units IS
    'What is billed by the unit: a list of component, quantity and price_id (null: no price).';
COMMENT ON COLUMN user_api_usage.settles IS
    'event_id of the call that made what this row charges: a background response, a run, a batch, … '
    'Such a row is no call of its own. NULL: it is a call.';
COMMENT ON COLUMN user_api_usage.correction_number IS
    'Which correction of its call a row is, from 1 on. NULL: it is the call itself.';
COMMENT ON COLUMN user_api_usage.unpriced_change IS
    'Of a correction: -1 if the call was unpriced until now, 1 if it is from now on, else 0.';
COMMENT ON COLUMN user_api_usage.estimated_change IS
    'Of a correction: the same of calls whose usage is estimated.';
COMMENT ON COLUMN user_api_usage.unavailable_change IS
    'Of a correction: the same of calls whose usage is unavailable.';
COMMENT ON COLUMN user_api_usage.accounted_at IS
    'When the row counts in sums, where its month was closed before it came. NULL: at created_at.';
COMMENT ON COLUMN user_api_usage.upstream_name IS
    'Name of the upstream that the call was sent to (METER_UPSTREAMS). NULL: the one at /.';


-- 3. Partitions ----------------------------------------------------------------------------------

-- For rows that no month is ready for: a clock gone wrong, an event from long ago.
CREATE TABLE IF NOT EXISTS user_api_usage_default PARTITION OF user_api_usage DEFAULT;

-- Make the partitions of last month, of this one and of the months ahead (UTC); return how many were
-- new. Rows of such a month that are waiting in the default partition move with it.
CREATE OR REPLACE FUNCTION ensure_partitions(months_ahead integer DEFAULT 3)
RETURNS integer
LANGUAGE plpgsql
AS $function$
DECLARE
    this_month timestamp := date_trunc('month', now() AT TIME ZONE 'UTC');
    month_start timestamptz;
    month_end timestamptz;
    partition_name text;
    made integer := 0;
BEGIN
    FOR distance IN -1..months_ahead LOOP
        month_start := (this_month + make_interval(months => distance)) AT TIME ZONE 'UTC';
        month_end := (this_month + make_interval(months => distance + 1)) AT TIME ZONE 'UTC';
        partition_name :=
            'user_api_usage_' || to_char(month_start AT TIME ZONE 'UTC', 'YYYY_MM');
        CONTINUE WHEN to_regclass(partition_name) IS NOT NULL;

        -- Several recorders may come at the same time; the second finds the work done. Rows may be
        -- inserted meanwhile. (An advisory lock would not do: after waiting for it, a session may
        -- still believe what it knew of the catalogue before.)
        LOCK TABLE user_api_usage IN SHARE UPDATE EXCLUSIVE MODE;
        CONTINUE WHEN to_regclass(partition_name) IS NOT NULL;

        EXECUTE format('CREATE TABLE %I (LIKE user_api_usage INCLUDING ALL)', partition_name);
        LOCK TABLE user_api_usage_default IN ACCESS EXCLUSIVE MODE;
        -- A row moves whole, hence the star; LIKE has kept the order of the columns.
        EXECUTE format(
            'WITH moved AS ('
            '    DELETE FROM user_api_usage_default'
            '    WHERE created_at >= $1 AND created_at < $2'
            '    RETURNING *'
            ') INSERT INTO %I SELECT * FROM moved',
            partition_name
        ) USING month_start, month_end;
        EXECUTE format(
            'ALTER TABLE user_api_usage ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)',
            partition_name, month_start, month_end
        );
        made := made + 1;
    END LOOP;
    RETURN made;
END
$function$;


-- 4. Indexes of the ledger -----------------------------------------------------------------------

-- "The last calls of this user", newest first.
CREATE INDEX IF NOT EXISTS user_api_usage_of_user
ON user_api_usage (user_id, created_at DESC);

-- A range of days for an export; a few kilobytes, because rows lie in the order they came.
CREATE INDEX IF NOT EXISTS user_api_usage_in_time
ON user_api_usage USING brin (created_at) WITH (pages_per_range = 32, autosummarize = on);

-- "Which call made this object"; most rows of other kinds have no id and take no room here.
CREATE INDEX IF NOT EXISTS user_api_usage_of_response
ON user_api_usage (response_id)
WHERE response_id IS NOT NULL;

-- "What came of this call": a batch has a row for each of its lines.
CREATE INDEX IF NOT EXISTS user_api_usage_of_settled
ON user_api_usage (settles)
WHERE settles IS NOT NULL;


-- "Which rows of earlier months count in this one"; most rows have nothing to be found here.
CREATE INDEX IF NOT EXISTS user_api_usage_of_accounting
ON user_api_usage (accounted_at)
WHERE accounted_at IS NOT NULL;


-- 5. Closed months -------------------------------------------------------------------------------

-- What was reported to finance stays as it was: a row that comes when its month is closed, a
-- correction or a late call, counts at the start of the first open month (accounted_at). Months are
-- closed in order, so the newest end is where the open ones begin.
CREATE TABLE IF NOT EXISTS closed_month (
    month date PRIMARY KEY,
    starts_at timestamptz NOT NULL,
    ends_at timestamptz NOT NULL,
    report_timezone text NOT NULL,
    closed_at timestamptz NOT NULL DEFAULT now(),
    export_version smallint,
    export_rows bigint,
    export_sha256 text,
    cost_usd numeric
);

COMMENT ON TABLE closed_month IS
    'Months that are closed. Their rows are those that count from starts_at until before ends_at.';
COMMENT ON COLUMN closed_month.month IS
    'First day of the month, in the report time zone that there was when it was closed.';
COMMENT ON COLUMN closed_month.export_sha256 IS
    'SHA-256 of the export of the month. NULL: closing it was interrupted, and is to be done again.';


-- 6. Rollups -------------------------------------------------------------------------------------

-- Exact sums of the ledger. A trigger adds the rows that a statement has really inserted, whoever
-- inserts them, so that rows and sums are there at once or not at all. A sum is over what is known,
-- and NULL as long as nothing is. Keys may be NULL (a call without a user): NULL is a key like any
-- other here. The fill factor leaves room for updates in place. docs/ledger.md says which question
-- is answered by which of them.

-- The sum of what is known. NULL: neither is.
CREATE OR REPLACE FUNCTION known_sum(one numeric, other numeric)
RETURNS numeric
LANGUAGE sql
IMMUTABLE PARALLEL SAFE
AS 'SELECT coalesce(one + other, one, other)';

CREATE OR REPLACE FUNCTION known_sum(one bigint, other bigint)
RETURNS bigint
LANGUAGE sql
IMMUTABLE PARALLEL SAFE
AS 'SELECT coalesce(one + other, one, other)';

-- The class of a duration: the upper bounds 1, 2, 3, 4, 5, 6, 7, 8, 10, 12, … are at most 19 % apart, and
-- that is how exactly a percentile can be told.
CREATE OR REPLACE FUNCTION duration_class(milliseconds integer)
RETURNS bigint
LANGUAGE sql
IMMUTABLE PARALLEL SAFE
AS $function$
    SELECT ceil(
        power(2::float8, ceil(4 * ln(greatest(milliseconds, 1)::float8) / ln(2::float8)) / 4)
    )::bigint
$function$;

-- What a row counts among unpriced_calls: 1 where usage is known and its cost is not, or not all of
-- it; -1 where such a row is taken back, or has got its price.
CREATE OR REPLACE FUNCTION unpriced(
    corrects uuid,
    usage_source text,
    cost_usd numeric,
    unpriced_reason text,
    unpriced_change smallint
)
RETURNS integer
LANGUAGE sql
IMMUTABLE PARALLEL SAFE
RETURN CASE
    WHEN unpriced_change IS NOT NULL THEN unpriced_change
    WHEN usage_source = 'unavailable' THEN 0
    WHEN cost_usd IS NOT NULL AND unpriced_reason IS NULL THEN 0
    WHEN corrects IS NULL THEN 1
    WHEN cost_usd IS NULL THEN -1
    ELSE 0
END;

-- Whether nothing is known of what a call cost. What is billed later has a row of its own then, and
-- stands in the view open_objects until that.
CREATE OR REPLACE FUNCTION is_unavailable(usage_source text, cost_usd numeric, usage_problem text)
RETURNS boolean
LANGUAGE sql
IMMUTABLE PARALLEL SAFE
RETURN
    usage_source = 'unavailable'
    AND cost_usd IS NULL
    AND usage_problem IS DISTINCT FROM 'usage_deferred';

-- For charts and for any time zone: a quarter of an hour is the finest offset in use.
CREATE TABLE IF NOT EXISTS usage_by_quarter_hour (
    bucket timestamptz NOT NULL,
    endpoint text,
    model text,
    service_tier text,
    operation_name text NOT NULL,
    calls bigint NOT NULL,
    errors bigint NOT NULL,
    unpriced_calls bigint NOT NULL,
    estimated_calls bigint NOT NULL,
    unavailable_calls bigint NOT NULL,
    prompt_tokens bigint,
    completion_tokens bigint,
    total_tokens bigint,
    cached_tokens bigint,
    cache_write_tokens bigint,
    reasoning_tokens bigint,
    audio_prompt_tokens bigint,
    audio_completion_tokens bigint,
    cost_usd numeric,
    first_call timestamptz NOT NULL,
    last_call timestamptz NOT NULL,
    tool_cost_usd numeric,
    CONSTRAINT usage_by_quarter_hour_once
    UNIQUE NULLS NOT DISTINCT (bucket, endpoint, model, service_tier, operation_name)
) WITH (fillfactor = 70);

-- Ledgers from before there were tool fees.
ALTER TABLE usage_by_quarter_hour ADD COLUMN IF NOT EXISTS tool_cost_usd numeric;

COMMENT ON TABLE usage_by_quarter_hour IS
    'Sums by quarter of an hour (UTC), endpoint, model, service tier and kind of call.';
COMMENT ON COLUMN usage_by_quarter_hour.bucket IS
    'Start of the quarter of an hour; half-open.';
COMMENT ON COLUMN usage_by_quarter_hour.calls IS
    'Rows of the ledger, corrections not counted.';
COMMENT ON COLUMN usage_by_quarter_hour.errors IS
    'Calls whose outcome is neither ok nor client_disconnected.';
COMMENT ON COLUMN usage_by_quarter_hour.unpriced_calls IS
    'Calls whose usage is known, reported or estimated, but not their cost, or not all of it.';
COMMENT ON COLUMN usage_by_quarter_hour.estimated_calls IS
    'Calls whose usage is estimated.';
COMMENT ON COLUMN usage_by_quarter_hour.unavailable_calls IS
    'Calls whose usage is unknown; they have no tokens and no cost. Free calls are none of them.';
COMMENT ON COLUMN usage_by_quarter_hour.cost_usd IS
    'Sum of the costs that are known, in USD. NULL: none is.';
COMMENT ON COLUMN usage_by_quarter_hour.tool_cost_usd IS
    'Sum of the fees of hosted tools that are known, in USD, a part of cost_usd.';

-- The same by day of the report time zone: for long ranges, a few dozen rows a day.
CREATE TABLE IF NOT EXISTS usage_by_day (
    day date NOT NULL,
    endpoint text,
    model text,
    service_tier text,
    operation_name text NOT NULL,
    calls bigint NOT NULL,
    errors bigint NOT NULL,
    unpriced_calls bigint NOT NULL,
    estimated_calls bigint NOT NULL,
    unavailable_calls bigint NOT NULL,
    prompt_tokens bigint,
    completion_tokens bigint,
    total_tokens bigint,
    cached_tokens bigint,
    cache_write_tokens bigint,
    reasoning_tokens bigint,
    audio_prompt_tokens bigint,
    audio_completion_tokens bigint,
    cost_usd numeric,
    first_call timestamptz NOT NULL,
    last_call timestamptz NOT NULL,
    tool_cost_usd numeric,
    CONSTRAINT usage_by_day_once
    UNIQUE NULLS NOT DISTINCT (day, endpoint, model, service_tier, operation_name)
) WITH (fillfactor = 70);

COMMENT ON TABLE usage_by_day IS
    'Sums by day, endpoint, model, service tier and kind; columns as in usage_by_quarter_hour.';
COMMENT ON COLUMN usage_by_day.day IS
    'Day in the report time zone (meter_settings).';

-- By day of the report time zone and user.
CREATE TABLE IF NOT EXISTS usage_by_user_day (
    day date NOT NULL,
    user_id text,
    endpoint text,
    model text,
    calls bigint NOT NULL,
    errors bigint NOT NULL,
    unpriced_calls bigint NOT NULL,
    estimated_calls bigint NOT NULL,
    unavailable_calls bigint NOT NULL,
    prompt_tokens bigint,
    completion_tokens bigint,
    total_tokens bigint,
    cached_tokens bigint,
    cache_write_tokens bigint,
    reasoning_tokens bigint,
    audio_prompt_tokens bigint,
    audio_completion_tokens bigint,
    cost_usd numeric,
    first_call timestamptz NOT NULL,
    last_call timestamptz NOT NULL,
    tool_cost_usd numeric,
    CONSTRAINT usage_by_user_day_once
    UNIQUE NULLS NOT DISTINCT (day, user_id, endpoint, model)
) WITH (fillfactor = 70);

-- Ledgers from before there were tool fees.
ALTER TABLE usage_by_user_day ADD COLUMN IF NOT EXISTS tool_cost_usd numeric;

COMMENT ON TABLE usage_by_user_day IS
    'Sums by day, user, endpoint and model; columns as in usage_by_quarter_hour.';
COMMENT ON COLUMN usage_by_user_day.day IS
    'Day in the report time zone (meter_settings).';

-- "The days of this user."
CREATE INDEX IF NOT EXISTS usage_by_user_day_of_user
ON usage_by_user_day (user_id, day);

-- For the question "how much is in the ledger", at any size: twelve rows a year.
CREATE TABLE IF NOT EXISTS usage_by_month (
    month date PRIMARY KEY,
    calls bigint NOT NULL,
    errors bigint NOT NULL,
    unpriced_calls bigint NOT NULL,
    estimated_calls bigint NOT NULL,
    unavailable_calls bigint NOT NULL,
    total_tokens bigint,
    cost_usd numeric,
    first_call timestamptz NOT NULL,
    last_call timestamptz NOT NULL,
    tool_cost_usd numeric
) WITH (fillfactor = 50);

-- Ledgers from before there were tool fees.
ALTER TABLE usage_by_month ADD COLUMN IF NOT EXISTS tool_cost_usd numeric;

COMMENT ON TABLE usage_by_month IS
    'Sums of everything by month (UTC); columns as in usage_by_quarter_hour.';
COMMENT ON COLUMN usage_by_month.month IS
    'First day of the month (UTC).';

-- How calls ended.
CREATE TABLE IF NOT EXISTS usage_by_answer_day (
    day date NOT NULL,
    endpoint text,
    model text,
    outcome text NOT NULL,
    status smallint,
    calls bigint NOT NULL,
    CONSTRAINT usage_by_answer_day_once
    UNIQUE NULLS NOT DISTINCT (day, endpoint, model, outcome, status)
) WITH (fillfactor = 70);

COMMENT ON TABLE usage_by_answer_day IS
    'Calls by day (report time zone), endpoint, model, outcome and HTTP status.';

-- How long they took: only complete answers, so that quick errors do not make it look better.
CREATE TABLE IF NOT EXISTS usage_by_duration_day (
    day date NOT NULL,
    endpoint text,
    measure text NOT NULL,
    at_most_ms bigint NOT NULL,
    calls bigint NOT NULL,
    CONSTRAINT usage_by_duration_day_once
    UNIQUE NULLS NOT DISTINCT (day, endpoint, measure, at_most_ms)
) WITH (fillfactor = 70);

COMMENT ON TABLE usage_by_duration_day IS
    'Calls with outcome ok by day (report time zone), endpoint and class of duration.';
COMMENT ON COLUMN usage_by_duration_day.measure IS
    'latency (to the end of the answer) or first_byte.';
COMMENT ON COLUMN usage_by_duration_day.at_most_ms IS
    'Upper bound of the class, in milliseconds; see duration_class().';

-- Days are many: a range of them is put together from longer spans, which are folded from the days
-- when they are over (fold_span), and unfolded when a row comes late. A span is a day, a pentad (5
-- days, the last of a month may have 3 to 6), a dekad (two pentads), a month, a quarter or a year.
CREATE TABLE IF NOT EXISTS usage_span (
    start date NOT NULL,
    past date NOT NULL,
    span text NOT NULL,
    users bigint NOT NULL,
    folded_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT usage_span_once PRIMARY KEY (start, past, span)
);

COMMENT ON TABLE usage_span IS
    'The spans of days whose sums stand in usage_by_user_span and usage_by_feature_span.';
COMMENT ON COLUMN usage_span.past IS
    'The first day after it.';
COMMENT ON COLUMN usage_span.users IS
    'How many users are named in it.';

CREATE TABLE IF NOT EXISTS usage_by_user_span (
    span text NOT NULL,
    start date NOT NULL,
    user_id text,
    calls bigint NOT NULL,
    errors bigint NOT NULL,
    unpriced_calls bigint NOT NULL,
    estimated_calls bigint NOT NULL,
    unavailable_calls bigint NOT NULL,
    prompt_tokens bigint,
    completion_tokens bigint,
    total_tokens bigint,
    cached_tokens bigint,
    cache_write_tokens bigint,
    reasoning_tokens bigint,
    audio_prompt_tokens bigint,
    audio_completion_tokens bigint,
    cost_usd numeric,
    first_call timestamptz NOT NULL,
    last_call timestamptz NOT NULL,
    tool_cost_usd numeric,
    CONSTRAINT usage_by_user_span_once
    UNIQUE NULLS NOT DISTINCT (span, start, user_id)
);

COMMENT ON TABLE usage_by_user_span IS
    'Sums by span of days and user; columns as in usage_by_quarter_hour. Only what usage_span lists counts.';

-- From the dekad on: below, the days themselves do.
CREATE TABLE IF NOT EXISTS usage_by_feature_span (
    span text NOT NULL,
    start date NOT NULL,
    endpoint text,
    model text,
    user_id text,
    calls bigint NOT NULL,
    errors bigint NOT NULL,
    unpriced_calls bigint NOT NULL,
    estimated_calls bigint NOT NULL,
    unavailable_calls bigint NOT NULL,
    prompt_tokens bigint,
    completion_tokens bigint,
    total_tokens bigint,
    cached_tokens bigint,
    cache_write_tokens bigint,
    reasoning_tokens bigint,
    audio_prompt_tokens bigint,
    audio_completion_tokens bigint,
    cost_usd numeric,
    first_call timestamptz NOT NULL,
    last_call timestamptz NOT NULL,
    tool_cost_usd numeric,
    CONSTRAINT usage_by_feature_span_once
    UNIQUE NULLS NOT DISTINCT (span, start, endpoint, model, user_id)
);

COMMENT ON TABLE usage_by_feature_span IS
    'Sums by span of days, endpoint, model and user; otherwise as usage_by_user_span.';

-- How many users there are in many days is no sum: who comes on two of them counts once. So users have
-- numbers, and a day is a set of bits for each endpoint; sets of days are put together with OR.
CREATE TABLE IF NOT EXISTS usage_user (
    number integer PRIMARY KEY,
    user_id text NOT NULL,
    CONSTRAINT usage_user_once UNIQUE (user_id)
);

COMMENT ON TABLE usage_user IS
    'Numbers of users, given when a day is folded in which they are named for the first time.';

CREATE TABLE IF NOT EXISTS usage_by_day_users (
    day date NOT NULL,
    endpoint text,
    block integer NOT NULL,
    users bit(8192) NOT NULL,
    CONSTRAINT usage_by_day_users_once UNIQUE NULLS NOT DISTINCT (day, endpoint, block)
);

COMMENT ON TABLE usage_by_day_users IS
    'Who is named on a day, by endpoint. Only days that usage_span lists as users count.';
COMMENT ON COLUMN usage_by_day_users.users IS
    'Bit n is the user whose number is 8192 × block + n.';

-- Sums by user once more, packed: many users in one row, and each sum one column of bytes. Whoever ranks
-- users over a long range reads a few rows of it instead of hundreds of thousands of sums
-- (docs/ledger.md). Made by pack_span(), which lists in usage_span what counts: as `packed` a span
-- that is folded, as `hours` the hours of a day, for ranges of other time zones.
CREATE TABLE IF NOT EXISTS usage_packed_span (
    start date NOT NULL,
    past date NOT NULL,
    hour smallint,
    is_total boolean NOT NULL,
    endpoint text,
    model text,
    block integer NOT NULL,
    users bytea NOT NULL,
    calls bytea,
    errors bytea,
    unpriced_calls bytea,
    estimated_calls bytea,
    unavailable_calls bytea,
    prompt_tokens bytea,
    cached_tokens bytea,
    cache_write_tokens bytea,
    completion_tokens bytea,
    reasoning_tokens bytea,
    audio_prompt_tokens bytea,
    audio_completion_tokens bytea,
    total_tokens bytea,
    cost_usd bytea,
    tool_cost_usd bytea,
    first_call bytea,
    last_call bytea,
    cost_scale smallint NOT NULL,
    tool_cost_scale smallint NOT NULL,
    CONSTRAINT usage_packed_span_once
    UNIQUE NULLS NOT DISTINCT (start, past, hour, is_total, endpoint, model, block)
);

COMMENT ON TABLE usage_packed_span IS
    'Sums by span of days (or hour of a day), endpoint, model and user, many users in a row. Only what usage_span lists counts.';
COMMENT ON COLUMN usage_packed_span.hour IS
    'Hours since the day began, of the hour that the sums are of. NULL: the whole span.';
COMMENT ON COLUMN usage_packed_span.is_total IS
    'Whether all endpoints and models are in it, which are NULL then. Never of an hour.';
COMMENT ON COLUMN usage_packed_span.block IS
    'Number of the users / 65536 (usage_user). -1: calls without a user, as the number 0.';
COMMENT ON COLUMN usage_packed_span.users IS
    'Numbers of the users modulo 65536, ascending, two bytes each, big-endian.';
COMMENT ON COLUMN usage_packed_span.calls IS
    'For each of the users their sum, as all columns up to last_call: see packed(). Columns as in usage_by_quarter_hour.';
COMMENT ON COLUMN usage_packed_span.first_call IS
    'In microseconds since 2000-01-01 (UTC).';
COMMENT ON COLUMN usage_packed_span.cost_scale IS
    'The costs are in units of 10^-cost_scale USD. -1: they do not fit, and are not here.';

-- Ledgers from before the trigger: the statement of a recorder of that time names these constraints
-- and adds to the sums by itself. It must not, beside the trigger: without the names it waits, and
-- its calls stay in the journal until the recorder is upgraded too.
DO $do$
BEGIN
    IF EXISTS (SELECT FROM pg_constraint WHERE conname = 'usage_by_quarter_hour_key') THEN
        ALTER TABLE usage_by_quarter_hour
            RENAME CONSTRAINT usage_by_quarter_hour_key TO usage_by_quarter_hour_once;
        ALTER TABLE usage_by_user_day
            RENAME CONSTRAINT usage_by_user_day_key TO usage_by_user_day_once;
    END IF;
END
$do$;

-- Sum of what is known of some numbers; NULL: nothing is. Several times faster than sum(bigint), which
-- counts in numeric; a sum that bigint cannot hold is an error all the same.
CREATE OR REPLACE AGGREGATE known_total(bigint) (
    SFUNC = int8pl,
    STYPE = bigint,
    COMBINEFUNC = int8pl,
    PARALLEL = SAFE
);

-- Add what a statement has inserted into the ledger to the sums. Keys are written in their order,
-- table after table, so that writers wait for each other and do not deadlock.
CREATE OR REPLACE FUNCTION add_to_rollups()
RETURNS trigger
LANGUAGE plpgsql
SET work_mem = '32MB'  -- for the groups of a batch of many thousand rows
AS $function$
DECLARE
    zone text;
BEGIN
    PERFORM pg_advisory_xact_lock_shared(hashtextextended('openai-meter rollups', 0));
    SELECT value INTO STRICT zone FROM meter_settings WHERE name = 'report_timezone';

    -- One pass for two groupings: by user and day (is_of_user), and one that is fine enough for all
    -- other sums.
    WITH charge AS (  -- as the view counted_usage
        SELECT
            date_bin('15 minutes', coalesce(accounted_at, created_at), 'epoch') AS bucket,
            (coalesce(accounted_at, created_at) AT TIME ZONE zone)::date AS day,
            created_at,
            user_id,
            endpoint,
            model,
            service_tier,
            operation_name,
            corrects IS NULL AND settles IS NULL AS is_call,
            outcome,
            status,
            usage_source,
            unpriced(corrects, usage_source, cost_usd, unpriced_reason, unpriced_change)
                AS unpriced_calls,
            estimated_change,
            unavailable_change,
            is_unavailable(usage_source, cost_usd, usage_problem) AS is_unavailable,
            prompt_tokens,
            completion_tokens,
            total_tokens,
            cached_tokens,
            cache_write_tokens,
            reasoning_tokens,
            audio_prompt_tokens,
            audio_completion_tokens,
            cost_usd,
            tool_cost_usd
        FROM inserted
    ),
    portion AS MATERIALIZED (
        SELECT
            GROUPING(bucket) = 1 AS is_of_user,
            bucket,
            day,
            user_id,
            endpoint,
            model,
            service_tier,
            operation_name,
            outcome,
            status,
            count(*) FILTER (WHERE is_call) AS calls,
            count(*) FILTER (
                WHERE is_call AND outcome NOT IN ('ok', 'client_disconnected')
            ) AS errors,
            known_total(unpriced_calls) AS unpriced_calls,
            known_total(
                coalesce(estimated_change, (is_call AND usage_source = 'estimated')::integer)
            ) AS estimated_calls,
            known_total(
                coalesce(unavailable_change, (is_call AND is_unavailable)::integer)
            ) AS unavailable_calls,
            known_total(prompt_tokens) AS prompt_tokens,
            known_total(completion_tokens) AS completion_tokens,
            known_total(total_tokens) AS total_tokens,
            known_total(cached_tokens) AS cached_tokens,
            known_total(cache_write_tokens) AS cache_write_tokens,
            known_total(reasoning_tokens) AS reasoning_tokens,
            known_total(audio_prompt_tokens) AS audio_prompt_tokens,
            known_total(audio_completion_tokens) AS audio_completion_tokens,
            sum(cost_usd) AS cost_usd,
            min(created_at) AS first_call,
            max(created_at) AS last_call,
            sum(tool_cost_usd) AS tool_cost_usd
        FROM charge
        GROUP BY GROUPING SETS (
            (day, user_id, endpoint, model),
            (bucket, day, endpoint, model, service_tier, operation_name, outcome, status)
        )
    ),
    unfolded AS (  -- what comes late unfolds its spans
        DELETE FROM usage_span
        WHERE (start, past, span) IN (
            SELECT folded.start, folded.past, folded.span
            FROM (SELECT DISTINCT day FROM portion WHERE NOT is_of_user) AS touched
            JOIN usage_span AS folded
                ON folded.start <= touched.day AND folded.past > touched.day
        )
    ),
    by_quarter_hour AS (
        INSERT INTO usage_by_quarter_hour AS kept
        SELECT
            bucket,
            endpoint,
            model,
            service_tier,
            operation_name,
            known_total(calls),
            known_total(errors),
            known_total(unpriced_calls),
            known_total(estimated_calls),
            known_total(unavailable_calls),
            known_total(prompt_tokens),
            known_total(completion_tokens),
            known_total(total_tokens),
            known_total(cached_tokens),
            known_total(cache_write_tokens),
            known_total(reasoning_tokens),
            known_total(audio_prompt_tokens),
            known_total(audio_completion_tokens),
            sum(cost_usd),
            min(first_call),
            max(last_call),
            sum(tool_cost_usd)
        FROM portion
        WHERE NOT is_of_user
        GROUP BY 1, 2, 3, 4, 5
        ORDER BY 1, 2, 3, 4, 5
        ON CONFLICT ON CONSTRAINT usage_by_quarter_hour_once DO UPDATE SET
            calls = kept.calls + excluded.calls,
            errors = kept.errors + excluded.errors,
            unpriced_calls = kept.unpriced_calls + excluded.unpriced_calls,
            estimated_calls = kept.estimated_calls + excluded.estimated_calls,
            unavailable_calls = kept.unavailable_calls + excluded.unavailable_calls,
            prompt_tokens = known_sum(kept.prompt_tokens, excluded.prompt_tokens),
            completion_tokens = known_sum(kept.completion_tokens, excluded.completion_tokens),
            total_tokens = known_sum(kept.total_tokens, excluded.total_tokens),
            cached_tokens = known_sum(kept.cached_tokens, excluded.cached_tokens),
            cache_write_tokens = known_sum(kept.cache_write_tokens, excluded.cache_write_tokens),
            reasoning_tokens = known_sum(kept.reasoning_tokens, excluded.reasoning_tokens),
            audio_prompt_tokens = known_sum(kept.audio_prompt_tokens, excluded.audio_prompt_tokens),
            audio_completion_tokens =
                known_sum(kept.audio_completion_tokens, excluded.audio_completion_tokens),
            cost_usd = known_sum(kept.cost_usd, excluded.cost_usd),
            tool_cost_usd = known_sum(kept.tool_cost_usd, excluded.tool_cost_usd),
            first_call = least(kept.first_call, excluded.first_call),
            last_call = greatest(kept.last_call, excluded.last_call)
    ),
    by_day AS (
        INSERT INTO usage_by_day AS kept
        SELECT
            day,
            endpoint,
            model,
            service_tier,
            operation_name,
            known_total(calls),
            known_total(errors),
            known_total(unpriced_calls),
            known_total(estimated_calls),
            known_total(unavailable_calls),
            known_total(prompt_tokens),
            known_total(completion_tokens),
            known_total(total_tokens),
            known_total(cached_tokens),
            known_total(cache_write_tokens),
            known_total(reasoning_tokens),
            known_total(audio_prompt_tokens),
            known_total(audio_completion_tokens),
            sum(cost_usd),
            min(first_call),
            max(last_call),
            sum(tool_cost_usd)
        FROM portion
        WHERE NOT is_of_user
        GROUP BY 1, 2, 3, 4, 5
        ORDER BY 1, 2, 3, 4, 5
        ON CONFLICT ON CONSTRAINT usage_by_day_once DO UPDATE SET
            calls = kept.calls + excluded.calls,
            errors = kept.errors + excluded.errors,
            unpriced_calls = kept.unpriced_calls + excluded.unpriced_calls,
            estimated_calls = kept.estimated_calls + excluded.estimated_calls,
            unavailable_calls = kept.unavailable_calls + excluded.unavailable_calls,
            prompt_tokens = known_sum(kept.prompt_tokens, excluded.prompt_tokens),
            completion_tokens = known_sum(kept.completion_tokens, excluded.completion_tokens),
            total_tokens = known_sum(kept.total_tokens, excluded.total_tokens),
            cached_tokens = known_sum(kept.cached_tokens, excluded.cached_tokens),
            cache_write_tokens = known_sum(kept.cache_write_tokens, excluded.cache_write_tokens),
            reasoning_tokens = known_sum(kept.reasoning_tokens, excluded.reasoning_tokens),
            audio_prompt_tokens = known_sum(kept.audio_prompt_tokens, excluded.audio_prompt_tokens),
            audio_completion_tokens =
                known_sum(kept.audio_completion_tokens, excluded.audio_completion_tokens),
            cost_usd = known_sum(kept.cost_usd, excluded.cost_usd),
            tool_cost_usd = known_sum(kept.tool_cost_usd, excluded.tool_cost_usd),
            first_call = least(kept.first_call, excluded.first_call),
            last_call = greatest(kept.last_call, excluded.last_call)
    ),
    by_user_day AS (
        INSERT INTO usage_by_user_day AS kept
        SELECT
            day,
            user_id,
            endpoint,
            model,
            calls,
            errors,
            unpriced_calls,
            estimated_calls,
            unavailable_calls,
            prompt_tokens,
            completion_tokens,
            total_tokens,
            cached_tokens,
            cache_write_tokens,
            reasoning_tokens,
            audio_prompt_tokens,
            audio_completion_tokens,
            cost_usd,
            first_call,
            last_call,
            tool_cost_usd
        FROM portion
        WHERE is_of_user
        ORDER BY 1, 2, 3, 4
        ON CONFLICT ON CONSTRAINT usage_by_user_day_once DO UPDATE SET
            calls = kept.calls + excluded.calls,
            errors = kept.errors + excluded.errors,
            unpriced_calls = kept.unpriced_calls + excluded.unpriced_calls,
            estimated_calls = kept.estimated_calls + excluded.estimated_calls,
            unavailable_calls = kept.unavailable_calls + excluded.unavailable_calls,
            prompt_tokens = known_sum(kept.prompt_tokens, excluded.prompt_tokens),
            completion_tokens = known_sum(kept.completion_tokens, excluded.completion_tokens),
            total_tokens = known_sum(kept.total_tokens, excluded.total_tokens),
            cached_tokens = known_sum(kept.cached_tokens, excluded.cached_tokens),
            cache_write_tokens = known_sum(kept.cache_write_tokens, excluded.cache_write_tokens),
            reasoning_tokens = known_sum(kept.reasoning_tokens, excluded.reasoning_tokens),
            audio_prompt_tokens = known_sum(kept.audio_prompt_tokens, excluded.audio_prompt_tokens),
            audio_completion_tokens =
                known_sum(kept.audio_completion_tokens, excluded.audio_completion_tokens),
            cost_usd = known_sum(kept.cost_usd, excluded.cost_usd),
            tool_cost_usd = known_sum(kept.tool_cost_usd, excluded.tool_cost_usd),
            first_call = least(kept.first_call, excluded.first_call),
            last_call = greatest(kept.last_call, excluded.last_call)
    ),
    by_answer_day AS (
        INSERT INTO usage_by_answer_day AS kept
        SELECT day, endpoint, model, outcome, status, known_total(calls)
        FROM portion
        WHERE NOT is_of_user AND calls > 0
        GROUP BY 1, 2, 3, 4, 5
        ORDER BY 1, 2, 3, 4, 5
        ON CONFLICT ON CONSTRAINT usage_by_answer_day_once DO UPDATE SET
            calls = kept.calls + excluded.calls
    )
    INSERT INTO usage_by_month AS kept
    SELECT
        date_trunc('month', bucket AT TIME ZONE 'UTC')::date,
        known_total(calls),
        known_total(errors),
        known_total(unpriced_calls),
        known_total(estimated_calls),
        known_total(unavailable_calls),
        known_total(total_tokens),
        sum(cost_usd),
        min(first_call),
        max(last_call),
        sum(tool_cost_usd)
    FROM portion
    WHERE NOT is_of_user
    GROUP BY 1
    ORDER BY 1
    ON CONFLICT (month) DO UPDATE SET
        calls = kept.calls + excluded.calls,
        errors = kept.errors + excluded.errors,
        unpriced_calls = kept.unpriced_calls + excluded.unpriced_calls,
        estimated_calls = kept.estimated_calls + excluded.estimated_calls,
        unavailable_calls = kept.unavailable_calls + excluded.unavailable_calls,
        total_tokens = known_sum(kept.total_tokens, excluded.total_tokens),
        cost_usd = known_sum(kept.cost_usd, excluded.cost_usd),
        first_call = least(kept.first_call, excluded.first_call),
        last_call = greatest(kept.last_call, excluded.last_call),
        tool_cost_usd = known_sum(kept.tool_cost_usd, excluded.tool_cost_usd);

    -- Counted first and sorted then: a few hundred rows instead of two for each call.
    WITH answer AS (
        SELECT
            (coalesce(accounted_at, created_at) AT TIME ZONE zone)::date AS day,
            endpoint,
            CASE WHEN latency_ms IS NOT NULL THEN duration_class(latency_ms) END AS latency,
            CASE
                WHEN time_to_first_byte_ms IS NOT NULL THEN duration_class(time_to_first_byte_ms)
            END AS first_byte
        FROM inserted
        WHERE corrects IS NULL AND settles IS NULL AND outcome = 'ok'
    ),
    counted AS MATERIALIZED (
        SELECT
            day,
            endpoint,
            CASE GROUPING(latency) WHEN 0 THEN 'latency' ELSE 'first_byte' END AS measure,
            coalesce(latency, first_byte) AS at_most_ms,
            count(*) AS calls
        FROM answer
        GROUP BY GROUPING SETS ((day, endpoint, latency), (day, endpoint, first_byte))
    )
    INSERT INTO usage_by_duration_day AS kept
    SELECT day, endpoint, measure, at_most_ms, calls
    FROM counted
    WHERE at_most_ms IS NOT NULL
    ORDER BY 1, 2, 3, 4
    ON CONFLICT ON CONSTRAINT usage_by_duration_day_once DO UPDATE SET
        calls = kept.calls + excluded.calls;
    RETURN NULL;
END
$function$;

CREATE OR REPLACE TRIGGER user_api_usage_adds_to_rollups
AFTER INSERT ON user_api_usage
REFERENCING NEW TABLE AS inserted
FOR EACH STATEMENT EXECUTE FUNCTION add_to_rollups();

-- What each row of the ledger adds to the sums, and when; add_to_rollups() says the same of the rows
-- that are inserted. A correction is no call: it changes what its call counts as.
CREATE OR REPLACE VIEW counted_usage AS
SELECT
    coalesce(accounted_at, created_at) AS counted_at,
    created_at,
    user_id,
    endpoint,
    model,
    service_tier,
    operation_name,
    (corrects IS NULL AND settles IS NULL)::integer AS calls,
    (
        corrects IS NULL AND settles IS NULL AND outcome NOT IN ('ok', 'client_disconnected')
    )::integer AS errors,
    unpriced(corrects, usage_source, cost_usd, unpriced_reason, unpriced_change) AS unpriced_calls,
    coalesce(
        estimated_change,
        (corrects IS NULL AND settles IS NULL AND usage_source = 'estimated')::integer
    ) AS estimated_calls,
    coalesce(
        unavailable_change,
        (
            corrects IS NULL
            AND settles IS NULL
            AND is_unavailable(usage_source, cost_usd, usage_problem)
        )::integer
    ) AS unavailable_calls,
    prompt_tokens,
    completion_tokens,
    total_tokens,
    cached_tokens,
    cache_write_tokens,
    reasoning_tokens,
    audio_prompt_tokens,
    audio_completion_tokens,
    cost_usd,
    tool_cost_usd,
    accounted_at,
    corrects IS NULL AND settles IS NULL AS is_call,
    outcome,
    status,
    latency_ms,
    time_to_first_byte_ms,
    metadata,
    response_id,
    upstream_request_id
FROM user_api_usage;

-- The same of what counts in [since, past): what was admitted then, and what came late.
CREATE OR REPLACE FUNCTION counted_between(since timestamptz, past timestamptz)
RETURNS SETOF counted_usage
LANGUAGE sql
STABLE
AS $function$
    SELECT *
    FROM counted_usage
    WHERE created_at >= since AND created_at < past AND accounted_at IS NULL
    UNION ALL
    SELECT *
    FROM counted_usage
    WHERE accounted_at >= since AND accounted_at < past
$function$;

-- What the rollups should hold of what counts in [since, past), from the rows themselves: to make the
-- sums anew, and to check them (openai-meter verify).
CREATE OR REPLACE FUNCTION recount_quarter_hours(since timestamptz, past timestamptz)
RETURNS SETOF usage_by_quarter_hour
LANGUAGE sql
STABLE
AS $function$
    SELECT
        date_bin('15 minutes', counted_at, 'epoch'),
        endpoint,
        model,
        service_tier,
        operation_name,
        sum(calls)::bigint,
        sum(errors)::bigint,
        sum(unpriced_calls)::bigint,
        sum(estimated_calls)::bigint,
        sum(unavailable_calls)::bigint,
        sum(prompt_tokens)::bigint,
        sum(completion_tokens)::bigint,
        sum(total_tokens)::bigint,
        sum(cached_tokens)::bigint,
        sum(cache_write_tokens)::bigint,
        sum(reasoning_tokens)::bigint,
        sum(audio_prompt_tokens)::bigint,
        sum(audio_completion_tokens)::bigint,
        sum(cost_usd),
        min(created_at),
        max(created_at),
        sum(tool_cost_usd)
    FROM counted_between(since, past)
    GROUP BY 1, 2, 3, 4, 5
$function$;

CREATE OR REPLACE FUNCTION recount_days(since timestamptz, past timestamptz)
RETURNS SETOF usage_by_day
LANGUAGE sql
STABLE
AS $function$
    SELECT
        (counted_at AT TIME ZONE setting.value)::date,
        endpoint,
        model,
        service_tier,
        operation_name,
        sum(calls)::bigint,
        sum(errors)::bigint,
        sum(unpriced_calls)::bigint,
        sum(estimated_calls)::bigint,
        sum(unavailable_calls)::bigint,
        sum(prompt_tokens)::bigint,
        sum(completion_tokens)::bigint,
        sum(total_tokens)::bigint,
        sum(cached_tokens)::bigint,
        sum(cache_write_tokens)::bigint,
        sum(reasoning_tokens)::bigint,
        sum(audio_prompt_tokens)::bigint,
        sum(audio_completion_tokens)::bigint,
        sum(cost_usd),
        min(created_at),
        max(created_at),
        sum(tool_cost_usd)
    FROM counted_between(since, past), meter_settings AS setting
    WHERE setting.name = 'report_timezone'
    GROUP BY 1, 2, 3, 4, 5
$function$;

CREATE OR REPLACE FUNCTION recount_user_days(since timestamptz, past timestamptz)
RETURNS SETOF usage_by_user_day
LANGUAGE sql
STABLE
AS $function$
    SELECT
        (counted_at AT TIME ZONE setting.value)::date,
        user_id,
        endpoint,
        model,
        sum(calls)::bigint,
        sum(errors)::bigint,
        sum(unpriced_calls)::bigint,
        sum(estimated_calls)::bigint,
        sum(unavailable_calls)::bigint,
        sum(prompt_tokens)::bigint,
        sum(completion_tokens)::bigint,
        sum(total_tokens)::bigint,
        sum(cached_tokens)::bigint,
        sum(cache_write_tokens)::bigint,
        sum(reasoning_tokens)::bigint,
        sum(audio_prompt_tokens)::bigint,
        sum(audio_completion_tokens)::bigint,
        sum(cost_usd),
        min(created_at),
        max(created_at),
        sum(tool_cost_usd)
    FROM counted_between(since, past), meter_settings AS setting
    WHERE setting.name = 'report_timezone'
    GROUP BY 1, 2, 3, 4
$function$;

CREATE OR REPLACE FUNCTION recount_answer_days(since timestamptz, past timestamptz)
RETURNS SETOF usage_by_answer_day
LANGUAGE sql
STABLE
AS $function$
    SELECT
        (counted_at AT TIME ZONE setting.value)::date,
        endpoint,
        model,
        outcome,
        status,
        count(*)
    FROM counted_between(since, past), meter_settings AS setting
    WHERE setting.name = 'report_timezone' AND is_call
    GROUP BY 1, 2, 3, 4, 5
$function$;

CREATE OR REPLACE FUNCTION recount_duration_days(since timestamptz, past timestamptz)
RETURNS SETOF usage_by_duration_day
LANGUAGE sql
STABLE
AS $function$
    SELECT
        (counted_at AT TIME ZONE setting.value)::date,
        endpoint,
        duration.measure,
        duration_class(duration.milliseconds),
        count(*)
    FROM meter_settings AS setting, counted_between(since, past)
    CROSS JOIN LATERAL (
        VALUES ('latency', latency_ms), ('first_byte', time_to_first_byte_ms)
    ) AS duration (measure, milliseconds)
    WHERE setting.name = 'report_timezone'
        AND is_call
        AND outcome = 'ok'
        AND duration.milliseconds IS NOT NULL
    GROUP BY 1, 2, 3, 4
$function$;

-- Months whose rows have been let go of (openai-meter retain); their sums are kept. What they counted
-- for lies in [counted_since, counted_past), and at the moments also_counted_at, where later months
-- began that had what came late: sums of these days cannot be made again.
CREATE TABLE IF NOT EXISTS retired_month (
    month date PRIMARY KEY,
    rows bigint NOT NULL,
    counted_since timestamptz NOT NULL,
    counted_past timestamptz NOT NULL,
    retired_at timestamptz NOT NULL DEFAULT now()
);

-- Ledgers from before such moments were told apart: all that lay in between was left out of checks.
ALTER TABLE retired_month
    ADD COLUMN IF NOT EXISTS also_counted_at timestamptz[];

COMMENT ON TABLE retired_month IS
    'Months (UTC) whose rows are no longer in the ledger.';

-- Whether some of the rows are gone that count in [since, past).
CREATE OR REPLACE FUNCTION is_retired(since timestamptz, past timestamptz)
RETURNS boolean
LANGUAGE sql
STABLE
AS $function$
    SELECT EXISTS (
        SELECT
        FROM retired_month
        WHERE (counted_since < past AND counted_past > since)
            OR EXISTS (
                SELECT
                FROM unnest(also_counted_at) AS counted (at)
                WHERE counted.at >= since AND counted.at < past
            )
    )
$function$;

-- The steps of openai-meter retain, which is one transaction. Writers of the month wait meanwhile.
CREATE OR REPLACE FUNCTION lock_partition(partition_name text)
RETURNS void
LANGUAGE plpgsql
AS $function$
BEGIN
    EXECUTE format('LOCK TABLE %I IN SHARE ROW EXCLUSIVE MODE', partition_name);
END
$function$;

-- Note which days the rows of a partition count for; return how many rows there are.
CREATE OR REPLACE FUNCTION note_retired_month(partition_name text, month date)
RETURNS bigint
LANGUAGE plpgsql
AS $function$
DECLARE
    noted bigint;
BEGIN
    EXECUTE format(
        'INSERT INTO retired_month (month, rows, counted_since, counted_past, also_counted_at) '
        'SELECT $1, count(*), $2, $3, '
        '    array_agg(DISTINCT accounted_at) FILTER ('
        '        WHERE accounted_at < $2 OR accounted_at >= $3'
        '    ) '
        'FROM %I '
        'RETURNING rows',
        partition_name
    )
    INTO noted
    USING
        month,
        month::timestamp AT TIME ZONE 'UTC',
        (month + interval '1 month') AT TIME ZONE 'UTC';
    RETURN noted;
END
$function$;

-- Packed hours go with the rows: what is asked of parts of days is made of both, and some rows of an hour
-- alone would not be the same as none. After the detaching nobody packs from these rows any more.
CREATE OR REPLACE FUNCTION drop_partition(partition_name text)
RETURNS void
LANGUAGE plpgsql
AS $function$
BEGIN
    PERFORM pg_advisory_xact_lock(hashtextextended('openai-meter packing', 0));  -- see pack_span()
    EXECUTE format('ALTER TABLE user_api_usage DETACH PARTITION %I', partition_name);
    EXECUTE format('DROP TABLE %I', partition_name);
    WITH known AS (
        SELECT DISTINCT day FROM usage_by_day
    ),
    incomplete AS MATERIALIZED (
        SELECT day FROM known WHERE is_retired(day_begins(day), day_begins(day + 1))
    ),
    unlisted AS (
        DELETE FROM usage_span WHERE span = 'hours' AND start IN (SELECT day FROM incomplete)
    )
    DELETE FROM usage_packed_span WHERE hour IS NOT NULL AND start IN (SELECT day FROM incomplete);
END
$function$;

-- When a day of the report time zone begins.
CREATE OR REPLACE FUNCTION day_begins(day date)
RETURNS timestamptz
LANGUAGE sql
STABLE
AS $function$
    SELECT day::timestamp AT TIME ZONE value FROM meter_settings WHERE name = 'report_timezone'
$function$;

-- As recount_quarter_hours, but from the quarters of hours: twelve rows a year.
CREATE OR REPLACE FUNCTION recount_months(first_month date, last_month date)
RETURNS SETOF usage_by_month
LANGUAGE sql
STABLE
AS $function$
    SELECT
        date_trunc('month', bucket AT TIME ZONE 'UTC')::date,
        sum(calls)::bigint,
        sum(errors)::bigint,
        sum(unpriced_calls)::bigint,
        sum(estimated_calls)::bigint,
        sum(unavailable_calls)::bigint,
        sum(total_tokens)::bigint,
        sum(cost_usd),
        min(first_call),
        max(last_call),
        sum(tool_cost_usd)
    FROM usage_by_quarter_hour
    WHERE bucket >= first_month::timestamp AT TIME ZONE 'UTC'
        AND bucket < (last_month + interval '1 month') AT TIME ZONE 'UTC'
    GROUP BY 1
$function$;

-- Make the rollups of some days anew from the ledger, all of them by default; past is the first day
-- after them. Readers see the old sums until the new ones are there. Sums outlive rows whose partition
-- was dropped; those could not be made again, and are refused.
DROP FUNCTION IF EXISTS rebuild_rollups();  -- of former versions, without parameters
CREATE OR REPLACE FUNCTION rebuild_rollups(first date DEFAULT NULL, past date DEFAULT NULL)
RETURNS void
LANGUAGE plpgsql
AS $function$
DECLARE
    first_day date := coalesce(first, '-infinity');
    past_day date := coalesce(past, 'infinity');
    since timestamptz := coalesce(day_begins(first), '-infinity');
    until timestamptz := coalesce(day_begins(past), 'infinity');
    -- Days may begin within a quarter of an hour, or a month; these are then made anew as a whole.
    quarter_since timestamptz := since;
    quarter_until timestamptz := until;
    first_month date;
    past_month date;
BEGIN
    PERFORM pg_advisory_xact_lock(hashtextextended('openai-meter packing', 0));  -- see pack_span()
    PERFORM pg_advisory_xact_lock(hashtextextended('openai-meter rollups', 0));
    IF isfinite(since) THEN
        quarter_since := date_bin('15 minutes', since, 'epoch');
    END IF;
    IF isfinite(until) THEN
        quarter_until :=
            date_bin('15 minutes', until + interval '899.999999 seconds', 'epoch');
    END IF;
    first_month := date_trunc('month', quarter_since AT TIME ZONE 'UTC')::date;
    past_month := date_trunc(
        'month', (quarter_until - interval '1 microsecond') AT TIME ZONE 'UTC'
    )::date;
    IF is_retired(quarter_since, quarter_until) OR EXISTS (
        SELECT
        FROM usage_by_month
        WHERE month BETWEEN first_month AND past_month
            AND NOT EXISTS (
                SELECT
                FROM counted_between(
                    month::timestamp AT TIME ZONE 'UTC',
                    (month + interval '1 month') AT TIME ZONE 'UTC'
                )
            )
    ) THEN
        RAISE EXCEPTION USING
            ERRCODE = 'object_not_in_prerequisite_state',
            MESSAGE = 'the rollups reach back further than the ledger and cannot be rebuilt',
            HINT = 'Attach the dropped partitions of user_api_usage again first, or name later days.';
    END IF;

    DELETE FROM usage_by_quarter_hour WHERE bucket >= quarter_since AND bucket < quarter_until;
    INSERT INTO usage_by_quarter_hour
    SELECT * FROM recount_quarter_hours(quarter_since, quarter_until);
    DELETE FROM usage_by_day WHERE day >= first_day AND day < past_day;
    INSERT INTO usage_by_day SELECT * FROM recount_days(since, until);
    DELETE FROM usage_by_user_day WHERE day >= first_day AND day < past_day;
    INSERT INTO usage_by_user_day
    SELECT * FROM recount_user_days(since, until)
    ORDER BY day, user_id, endpoint, model;  -- as sort_user_day lays them
    DELETE FROM usage_by_answer_day WHERE day >= first_day AND day < past_day;
    INSERT INTO usage_by_answer_day SELECT * FROM recount_answer_days(since, until);
    DELETE FROM usage_by_duration_day WHERE day >= first_day AND day < past_day;
    INSERT INTO usage_by_duration_day SELECT * FROM recount_duration_days(since, until);
    DELETE FROM usage_by_month WHERE month BETWEEN first_month AND past_month;
    INSERT INTO usage_by_month
    SELECT * FROM recount_months(first_month, past_month);
    DELETE FROM usage_span AS folded
    WHERE folded.start < past_day AND folded.past > first_day;
    DELETE FROM usage_packed_span AS packed
    WHERE packed.start < past_day AND packed.past > first_day;  -- some may never be packed again
END
$function$;

-- Choose where days begin. True: it was another zone before, and the rollups have been made anew.
CREATE OR REPLACE FUNCTION set_report_timezone(zone text)
RETURNS boolean
LANGUAGE plpgsql
AS $function$
BEGIN
    IF EXISTS (SELECT FROM meter_settings WHERE name = 'report_timezone' AND value = zone) THEN
        RETURN false;
    END IF;
    PERFORM now() AT TIME ZONE zone;  -- an unknown zone fails here
    PERFORM pg_advisory_xact_lock(hashtextextended('openai-meter packing', 0));
    PERFORM pg_advisory_xact_lock(hashtextextended('openai-meter rollups', 0));
    UPDATE meter_settings SET value = zone WHERE name = 'report_timezone' AND value <> zone;
    IF NOT FOUND THEN
        RETURN false;  -- somebody else was faster
    END IF;
    PERFORM rebuild_rollups();
    RETURN true;
END
$function$;

-- The first day of the span that a day lies in.
CREATE OR REPLACE FUNCTION span_start(span text, day date)
RETURNS date
LANGUAGE sql
IMMUTABLE PARALLEL SAFE
AS $function$
    SELECT CASE span
        WHEN 'day' THEN day
        WHEN 'users' THEN day
        WHEN 'pentad' THEN
            date_trunc('month', day::timestamp)::date
            + 5 * least(5, (extract(day FROM day)::integer - 1) / 5)
        WHEN 'dekad' THEN
            date_trunc('month', day::timestamp)::date
            + 10 * least(2, (extract(day FROM day)::integer - 1) / 10)
        ELSE date_trunc(span, day::timestamp)::date
    END
$function$;

-- The first day after the span that begins on a day.
CREATE OR REPLACE FUNCTION span_past(span text, start date)
RETURNS date
LANGUAGE sql
IMMUTABLE PARALLEL SAFE
AS $function$
    SELECT CASE
        WHEN span IN ('day', 'users') THEN start + 1
        WHEN span = 'pentad' AND extract(day FROM start) < 26 THEN start + 5
        WHEN span = 'dekad' AND extract(day FROM start) < 21 THEN start + 10
        WHEN span = 'quarter' THEN (start + interval '3 months')::date
        WHEN span = 'year' THEN (start + interval '1 year')::date
        ELSE (date_trunc('month', start::timestamp) + interval '1 month')::date
    END
$function$;

-- Give numbers to users who are named on a day and have none.
CREATE OR REPLACE FUNCTION number_users(wanted date)
RETURNS void
LANGUAGE sql
AS $function$
    INSERT INTO usage_user (number, user_id)
    SELECT
        (SELECT coalesce(max(number) + 1, 0) FROM usage_user)
        + (row_number() OVER (ORDER BY user_id))::integer - 1,
        user_id
    FROM (
        SELECT DISTINCT user_id
        FROM usage_by_user_day
        WHERE day = wanted AND user_id IS NOT NULL
    ) AS named
    WHERE NOT EXISTS (SELECT FROM usage_user AS known WHERE known.user_id = named.user_id)
$function$;

-- What usage_by_day_users should hold of the days [first, past).
CREATE OR REPLACE FUNCTION recount_day_users(first date, past date)
RETURNS SETOF usage_by_day_users
LANGUAGE sql
STABLE
AS $function$
    SELECT
        day,
        endpoint,
        number / 8192,
        bit_or(set_bit(repeat('0', 8192)::bit(8192), number % 8192, 1))
    FROM (
        SELECT DISTINCT day, endpoint, user_id
        FROM usage_by_user_day
        WHERE day >= first AND day < recount_day_users.past
    ) AS named
    JOIN usage_user USING (user_id)
    GROUP BY day, endpoint, number / 8192
$function$;

-- Lay the sums of a day in the order of users, unless they nearly lie so: they came batch by batch, and
-- whoever reads some users' would read a page for each sum. In order, each page but the first begins with a
-- user of the one before at most; half as much again is near enough.
CREATE OR REPLACE FUNCTION sort_user_day(wanted date)
RETURNS void
LANGUAGE sql
AS $function$
    WITH lain AS MATERIALIZED (
        SELECT user_id, (ctid::text::point)[0] AS page
        FROM usage_by_user_day
        WHERE day = wanted AND user_id IS NOT NULL
    ),
    taken AS (
        DELETE FROM usage_by_user_day
        WHERE day = wanted
            AND (SELECT count(*) FROM (SELECT DISTINCT user_id, page FROM lain) AS touched)
                > (SELECT 1.5 * (count(DISTINCT user_id) + count(DISTINCT page)) FROM lain)
        RETURNING *
    )
    INSERT INTO usage_by_user_day
    SELECT * FROM taken
    ORDER BY user_id, endpoint, model
$function$;

-- Fold one span that is over since an hour, the shortest and oldest first; NULL: there is none left.
-- Called by the recorder every minute, until there is none. What is read of it is in spans_between.
-- Rows are stored in the order of users, so that those of one user lie together.
CREATE OR REPLACE FUNCTION fold_span()
RETURNS text
LANGUAGE plpgsql
AS $function$
DECLARE
    yesterday_is_over timestamptz := now() - interval '1 hour';
    due record;
    named bigint;
BEGIN
    FOR attempt IN 1..2 LOOP  -- look without the lock that stops all writers, and again with it
        SELECT level.span, level.part, span_start(level.span, days.day) AS start
        INTO due
        FROM (
            SELECT DISTINCT day
            FROM usage_by_day
            WHERE day < (
                SELECT (yesterday_is_over AT TIME ZONE value)::date
                FROM meter_settings
                WHERE name = 'report_timezone'
            )
        ) AS days
        CROSS JOIN (
            VALUES
                (1, 'day', NULL),
                (2, 'users', NULL),
                (3, 'pentad', 'day'),
                (4, 'dekad', 'pentad'),
                (5, 'month', 'dekad'),
                (6, 'quarter', 'month'),
                (7, 'year', 'quarter')
        ) AS level (rank, span, part)
        WHERE day_begins(span_past(level.span, span_start(level.span, days.day)))
            <= yesterday_is_over
            AND NOT EXISTS (
                SELECT
                FROM usage_span
                WHERE usage_span.start = span_start(level.span, days.day)
                    AND usage_span.past =
                        span_past(level.span, span_start(level.span, days.day))
                    AND usage_span.span = level.span
            )
        ORDER BY level.rank, days.day
        LIMIT 1;
        IF NOT FOUND THEN
            RETURN NULL;
        END IF;
        PERFORM pg_advisory_xact_lock(hashtextextended('openai-meter rollups', 0));
    END LOOP;

    IF due.span = 'users' THEN
        PERFORM sort_user_day(due.start);
        PERFORM number_users(due.start);
        DELETE FROM usage_by_day_users WHERE day = due.start;
        INSERT INTO usage_by_day_users SELECT * FROM recount_day_users(due.start, due.start + 1);
        INSERT INTO usage_span (start, past, span, users)
        SELECT due.start, due.start + 1, due.span, count(DISTINCT user_id)
        FROM usage_by_user_day
        WHERE day = due.start;
        RETURN due.span || ' ' || due.start;
    END IF;

    DELETE FROM usage_by_user_span WHERE span = due.span AND start = due.start;
    DELETE FROM usage_by_feature_span WHERE span = due.span AND start = due.start;
    IF due.span = 'day' THEN
        INSERT INTO usage_by_user_span
        SELECT
            due.span,
            due.start,
            user_id,
            sum(calls)::bigint,
            sum(errors)::bigint,
            sum(unpriced_calls)::bigint,
            sum(estimated_calls)::bigint,
            sum(unavailable_calls)::bigint,
            sum(prompt_tokens)::bigint,
            sum(completion_tokens)::bigint,
            sum(total_tokens)::bigint,
            sum(cached_tokens)::bigint,
            sum(cache_write_tokens)::bigint,
            sum(reasoning_tokens)::bigint,
            sum(audio_prompt_tokens)::bigint,
            sum(audio_completion_tokens)::bigint,
            sum(cost_usd),
            min(first_call),
            max(last_call),
            sum(tool_cost_usd)
        FROM usage_by_user_day
        WHERE day = due.start
        GROUP BY user_id
        ORDER BY user_id;
    ELSE
        INSERT INTO usage_by_user_span
        SELECT
            due.span,
            due.start,
            user_id,
            sum(calls)::bigint,
            sum(errors)::bigint,
            sum(unpriced_calls)::bigint,
            sum(estimated_calls)::bigint,
            sum(unavailable_calls)::bigint,
            sum(prompt_tokens)::bigint,
            sum(completion_tokens)::bigint,
            sum(total_tokens)::bigint,
            sum(cached_tokens)::bigint,
            sum(cache_write_tokens)::bigint,
            sum(reasoning_tokens)::bigint,
            sum(audio_prompt_tokens)::bigint,
            sum(audio_completion_tokens)::bigint,
            sum(cost_usd),
            min(first_call),
            max(last_call),
            sum(tool_cost_usd)
        FROM usage_span AS part
        JOIN usage_by_user_span AS folded ON folded.span = part.span AND folded.start = part.start
        WHERE part.span = due.part
            AND part.start >= due.start
            AND part.start < span_past(due.span, due.start)
        GROUP BY user_id
        ORDER BY user_id;
    END IF;
    GET DIAGNOSTICS named = ROW_COUNT;
    IF due.span = 'dekad' THEN
        INSERT INTO usage_by_feature_span
        SELECT
            due.span,
            due.start,
            endpoint,
            model,
            user_id,
            sum(calls)::bigint,
            sum(errors)::bigint,
            sum(unpriced_calls)::bigint,
            sum(estimated_calls)::bigint,
            sum(unavailable_calls)::bigint,
            sum(prompt_tokens)::bigint,
            sum(completion_tokens)::bigint,
            sum(total_tokens)::bigint,
            sum(cached_tokens)::bigint,
            sum(cache_write_tokens)::bigint,
            sum(reasoning_tokens)::bigint,
            sum(audio_prompt_tokens)::bigint,
            sum(audio_completion_tokens)::bigint,
            sum(cost_usd),
            min(first_call),
            max(last_call),
            sum(tool_cost_usd)
        FROM usage_by_user_day
        WHERE day >= due.start AND day < span_past(due.span, due.start)
        GROUP BY endpoint, model, user_id
        ORDER BY user_id, endpoint, model;
    ELSIF due.span IN ('month', 'quarter', 'year') THEN
        INSERT INTO usage_by_feature_span
        SELECT
            due.span,
            due.start,
            endpoint,
            model,
            user_id,
            sum(calls)::bigint,
            sum(errors)::bigint,
            sum(unpriced_calls)::bigint,
            sum(estimated_calls)::bigint,
            sum(unavailable_calls)::bigint,
            sum(prompt_tokens)::bigint,
            sum(completion_tokens)::bigint,
            sum(total_tokens)::bigint,
            sum(cached_tokens)::bigint,
            sum(cache_write_tokens)::bigint,
            sum(reasoning_tokens)::bigint,
            sum(audio_prompt_tokens)::bigint,
            sum(audio_completion_tokens)::bigint,
            sum(cost_usd),
            min(first_call),
            max(last_call),
            sum(tool_cost_usd)
        FROM usage_span AS part
        JOIN usage_by_feature_span AS folded
            ON folded.span = part.span AND folded.start = part.start
        WHERE part.span = due.part
            AND part.start >= due.start
            AND part.start < span_past(due.span, due.start)
        GROUP BY endpoint, model, user_id
        ORDER BY user_id, endpoint, model;
    END IF;
    INSERT INTO usage_span (start, past, span, users)
    SELECT due.start, span_past(due.span, due.start), due.span, named - count(*)
    FROM usage_by_user_span
    WHERE span = due.span AND start = due.start AND user_id IS NULL;
    RETURN due.span || ' ' || due.start;
END
$function$;

-- What a span should hold, from its days: to check what was folded step by step.
CREATE OR REPLACE FUNCTION recount_user_span(span text, start date, past date)
RETURNS SETOF usage_by_user_span
LANGUAGE sql
STABLE
AS $function$
    SELECT
        recount_user_span.span,
        recount_user_span.start,
        user_id,
        sum(calls)::bigint,
        sum(errors)::bigint,
        sum(unpriced_calls)::bigint,
        sum(estimated_calls)::bigint,
        sum(unavailable_calls)::bigint,
        sum(prompt_tokens)::bigint,
        sum(completion_tokens)::bigint,
        sum(total_tokens)::bigint,
        sum(cached_tokens)::bigint,
        sum(cache_write_tokens)::bigint,
        sum(reasoning_tokens)::bigint,
        sum(audio_prompt_tokens)::bigint,
        sum(audio_completion_tokens)::bigint,
        sum(cost_usd),
        min(first_call),
        max(last_call),
        sum(tool_cost_usd)
    FROM usage_by_user_day
    WHERE day >= recount_user_span.start AND day < recount_user_span.past
    GROUP BY user_id
$function$;

CREATE OR REPLACE FUNCTION recount_feature_span(span text, start date, past date)
RETURNS SETOF usage_by_feature_span
LANGUAGE sql
STABLE
AS $function$
    SELECT
        recount_feature_span.span,
        recount_feature_span.start,
        endpoint,
        model,
        user_id,
        sum(calls)::bigint,
        sum(errors)::bigint,
        sum(unpriced_calls)::bigint,
        sum(estimated_calls)::bigint,
        sum(unavailable_calls)::bigint,
        sum(prompt_tokens)::bigint,
        sum(completion_tokens)::bigint,
        sum(total_tokens)::bigint,
        sum(cached_tokens)::bigint,
        sum(cache_write_tokens)::bigint,
        sum(reasoning_tokens)::bigint,
        sum(audio_prompt_tokens)::bigint,
        sum(audio_completion_tokens)::bigint,
        sum(cost_usd),
        min(first_call),
        max(last_call),
        sum(tool_cost_usd)
    FROM usage_by_user_day
    WHERE day >= recount_feature_span.start AND day < recount_feature_span.past
    GROUP BY endpoint, model, user_id
$function$;

-- Whether the rows of a day are all there and can be told apart by the hours since it began. Where clocks
-- change, also on the day before or after it, a date may begin twice.
CREATE OR REPLACE FUNCTION has_rows_by_hour(day date)
RETURNS boolean
LANGUAGE sql
STABLE
AS $function$
    SELECT
        day_begins(day + 1) - day_begins(day) = interval '24 hours'
        AND day_begins(day + 2) - day_begins(day - 1) = interval '72 hours'
        AND NOT is_retired(day_begins(day), day_begins(day + 1))
$function$;

-- How many bytes each of some numbers takes when they are packed: so many that the least number of that
-- width is left over, for what is unknown. 0: all are known, and 0. NULL: all are unknown.
CREATE OR REPLACE FUNCTION packed_width(least_number bigint, greatest_number bigint, are_known boolean)
RETURNS integer
LANGUAGE sql
IMMUTABLE PARALLEL SAFE
RETURN CASE
    WHEN greatest_number IS NULL THEN NULL
    WHEN least_number = 0 AND greatest_number = 0 AND are_known THEN 0
    WHEN least_number > -127 AND greatest_number < 127 THEN 1
    WHEN least_number > -32767 AND greatest_number < 32767 THEN 2
    WHEN least_number > -2147483647 AND greatest_number < 2147483647 THEN 4
    ELSE 8
END;

-- A number in so many bytes, big-endian, in two's complement. NULL, unknown, is the least one.
CREATE OR REPLACE FUNCTION packed_number(number bigint, width integer)
RETURNS bytea
LANGUAGE sql
IMMUTABLE PARALLEL SAFE
RETURN CASE width
    WHEN 0 THEN ''::bytea
    WHEN 1 THEN charsend(coalesce(number, -128)::integer::"char")
    WHEN 2 THEN int2send(coalesce(number, -32768)::smallint)
    WHEN 4 THEN int4send(coalesce(number, -2147483648)::integer)
    WHEN 8 THEN int8send(coalesce(number, -9223372036854775808))
END;

-- Numbers one after the other, in equally many bytes each. Empty: all are 0. NULL: all are unknown.
CREATE OR REPLACE FUNCTION packed(numbers bigint[])
RETURNS bytea
LANGUAGE sql
IMMUTABLE PARALLEL SAFE
AS $function$
    SELECT string_agg(packed_number(number, width), ''::bytea)
    FROM (
        SELECT packed_width(min(number), max(number), count(*) = count(number)) AS width
        FROM unnest(numbers) AS number
    ) AS bound
    CROSS JOIN unnest(numbers) AS number
$function$;

-- The scale in which all of some amounts are whole numbers. 0: all are unknown. -1: as whole numbers
-- they would not fit into 8 bytes, or one is NaN, which has no scale.
CREATE OR REPLACE FUNCTION packed_scale(amounts numeric[])
RETURNS smallint
LANGUAGE sql
IMMUTABLE PARALLEL SAFE
AS $function$
    SELECT CASE
        WHEN max(abs(amount)) * ('1e' || coalesce(max(min_scale(amount)), 0))::numeric
            >= 9223372036854775807
            THEN -1
        ELSE coalesce(max(min_scale(amount)), 0)
    END
    FROM unnest(amounts) AS amount
$function$;

-- Amounts as whole numbers of a scale. NULL: of none.
CREATE OR REPLACE FUNCTION packed(amounts numeric[], scale smallint)
RETURNS bytea
LANGUAGE sql
IMMUTABLE PARALLEL SAFE
AS $function$
    SELECT packed(array_agg((amount * unit)::bigint))
    FROM (
        SELECT ('1e' || scale)::numeric AS unit
        WHERE scale >= 0
        OFFSET 0  -- it is made once
    ) AS whole
    CROSS JOIN unnest(amounts) AS amount
$function$;

-- What usage_packed_span should hold of the days [start, past): made of `days`, of the `features` of a span
-- that is folded, or, hour by hour of a day, of `rows`. Users who have no number yet are left out.
-- They are read in the order in which they are put together, cell by cell: of many users only those of
-- one cell are in memory then.
CREATE OR REPLACE FUNCTION packed_sums(start date, past date, source text)
RETURNS SETOF usage_packed_span
LANGUAGE sql
STABLE
SET work_mem = '64MB'
SET max_parallel_workers_per_gather = 0
SET jit = off
AS $function$
    WITH part AS (
        SELECT
            extract(hour FROM counted_at - day_begins(packed_sums.start))::smallint AS hour,
            endpoint,
            model,
            user_id,
            calls,
            errors,
            unpriced_calls,
            estimated_calls,
            unavailable_calls,
            prompt_tokens,
            cached_tokens,
            cache_write_tokens,
            completion_tokens,
            reasoning_tokens,
            audio_prompt_tokens,
            audio_completion_tokens,
            total_tokens,
            cost_usd,
            tool_cost_usd,
            created_at AS first_call,
            created_at AS last_call
        FROM counted_between(day_begins(packed_sums.start), day_begins(packed_sums.past))
        WHERE source = 'rows'
        UNION ALL
        SELECT
            NULL,
            endpoint,
            model,
            user_id,
            calls,
            errors,
            unpriced_calls,
            estimated_calls,
            unavailable_calls,
            prompt_tokens,
            cached_tokens,
            cache_write_tokens,
            completion_tokens,
            reasoning_tokens,
            audio_prompt_tokens,
            audio_completion_tokens,
            total_tokens,
            cost_usd,
            tool_cost_usd,
            first_call,
            last_call
        FROM usage_by_user_day
        WHERE source = 'days' AND day >= packed_sums.start AND day < packed_sums.past
        UNION ALL
        SELECT
            NULL,
            endpoint,
            model,
            user_id,
            calls,
            errors,
            unpriced_calls,
            estimated_calls,
            unavailable_calls,
            prompt_tokens,
            cached_tokens,
            cache_write_tokens,
            completion_tokens,
            reasoning_tokens,
            audio_prompt_tokens,
            audio_completion_tokens,
            total_tokens,
            cost_usd,
            tool_cost_usd,
            first_call,
            last_call
        FROM usage_span
        JOIN usage_by_feature_span USING (span, start)
        WHERE source = 'features'
            AND usage_span.start = packed_sums.start
            AND usage_span.past = packed_sums.past
    ),
    summed AS (
        SELECT
            hour,
            GROUPING(endpoint) = 1 AS is_total,
            endpoint,
            model,
            user_id,
            known_total(calls) AS calls,
            known_total(errors) AS errors,
            known_total(unpriced_calls) AS unpriced_calls,
            known_total(estimated_calls) AS estimated_calls,
            known_total(unavailable_calls) AS unavailable_calls,
            known_total(prompt_tokens) AS prompt_tokens,
            known_total(cached_tokens) AS cached_tokens,
            known_total(cache_write_tokens) AS cache_write_tokens,
            known_total(completion_tokens) AS completion_tokens,
            known_total(reasoning_tokens) AS reasoning_tokens,
            known_total(audio_prompt_tokens) AS audio_prompt_tokens,
            known_total(audio_completion_tokens) AS audio_completion_tokens,
            known_total(total_tokens) AS total_tokens,
            sum(cost_usd) AS cost_usd,
            sum(tool_cost_usd) AS tool_cost_usd,
            min(first_call) AS first_call,
            max(last_call) AS last_call
        FROM part
        GROUP BY GROUPING SETS ((hour, endpoint, model, user_id), (user_id))
        HAVING GROUPING(endpoint) = 0 OR source <> 'rows'
    ),
    numbered AS (
        SELECT
            summed.*,
            coalesce(number / 65536, -1) AS block,
            coalesce(number % 65536, 0) AS number_in_block
        FROM summed
        LEFT JOIN usage_user USING (user_id)
        WHERE number IS NOT NULL OR user_id IS NULL
        ORDER BY hour, is_total, endpoint, model, block, number_in_block
    )
    SELECT
        packed_sums.start,
        packed_sums.past,
        hour,
        is_total,
        endpoint,
        model,
        block,
        string_agg(substring(int4send(number_in_block) FROM 3), ''::bytea),
        packed(array_agg(calls)),
        packed(array_agg(errors)),
        packed(array_agg(unpriced_calls)),
        packed(array_agg(estimated_calls)),
        packed(array_agg(unavailable_calls)),
        packed(array_agg(prompt_tokens)),
        packed(array_agg(cached_tokens)),
        packed(array_agg(cache_write_tokens)),
        packed(array_agg(completion_tokens)),
        packed(array_agg(reasoning_tokens)),
        packed(array_agg(audio_prompt_tokens)),
        packed(array_agg(audio_completion_tokens)),
        packed(array_agg(total_tokens)),
        packed(array_agg(cost_usd), packed_scale(array_agg(cost_usd))),
        packed(array_agg(tool_cost_usd), packed_scale(array_agg(tool_cost_usd))),
        string_agg(timestamptz_send(first_call), ''::bytea),
        string_agg(timestamptz_send(last_call), ''::bytea),
        packed_scale(array_agg(cost_usd)),
        packed_scale(array_agg(tool_cost_usd))
    FROM numbered
    GROUP BY hour, is_total, endpoint, model, block
$function$;

-- Pack one span that is folded, the shortest and newest first, or the hours of a day; NULL: there is
-- none left, or somebody else is at it. Called by the recorder like fold_span().
-- Packing takes seconds, and no writer waits for it: what a span is made of is noted, and that it is
-- still that is made sure with the lock that stops all writers. The lock is tried and not waited for:
-- whoever has it may wait for a table that is read here.
CREATE OR REPLACE FUNCTION pack_span()
RETURNS text
LANGUAGE plpgsql
AS $function$
DECLARE
    due record;
    is_locked boolean := false;
BEGIN
    IF NOT pg_try_advisory_xact_lock(hashtextextended('openai-meter packing', 0)) THEN
        RETURN NULL;
    END IF;

    WITH day_of_calls AS (
        SELECT DISTINCT day FROM usage_by_day
    ),
    day_without_users AS MATERIALIZED (
        SELECT day
        FROM day_of_calls
        WHERE NOT EXISTS (
            SELECT
            FROM usage_span
            WHERE usage_span.start = day AND usage_span.past = day + 1 AND usage_span.span = 'users'
        )
    )
    SELECT
        folded.span,
        folded.start,
        folded.past,
        folded.users,
        folded.folded_at,
        level.result,
        level.source
    INTO due
    FROM usage_span AS folded
    JOIN (
        VALUES
            (1, 'day', 'packed', 'days'),
            (2, 'pentad', 'packed', 'days'),
            (3, 'dekad', 'packed', 'features'),
            (4, 'month', 'packed', 'features'),
            (5, 'quarter', 'packed', 'features'),
            (6, 'year', 'packed', 'features'),
            (7, 'users', 'hours', 'rows')
    ) AS level (rank, span, result, source) USING (span)
    WHERE NOT EXISTS (
            SELECT
            FROM usage_span AS listed
            WHERE listed.start = folded.start
                AND listed.past = folded.past
                AND listed.span = level.result
        )
        AND NOT EXISTS (
            SELECT
            FROM day_without_users
            WHERE day >= folded.start AND day < folded.past
        )
        AND (level.source <> 'rows' OR has_rows_by_hour(folded.start))
    ORDER BY level.rank, folded.start DESC
    LIMIT 1;
    IF NOT FOUND THEN
        RETURN NULL;
    END IF;

    DELETE FROM usage_packed_span AS packed
    WHERE packed.start = due.start
        AND packed.past = due.past
        AND (packed.hour IS NOT NULL) = (due.result = 'hours');
    INSERT INTO usage_packed_span SELECT * FROM packed_sums(due.start, due.past, due.source);

    FOR attempt IN 1..500 LOOP
        is_locked := pg_try_advisory_xact_lock(hashtextextended('openai-meter rollups', 0));
        EXIT WHEN is_locked;
        PERFORM pg_sleep(0.01);
    END LOOP;
    PERFORM
    FROM usage_span
    WHERE is_locked
        AND usage_span.start = due.start
        AND usage_span.past = due.past
        AND usage_span.span = due.span
        AND usage_span.folded_at = due.folded_at
        AND (due.source <> 'rows' OR has_rows_by_hour(due.start))
    FOR UPDATE;
    IF NOT FOUND THEN
        DELETE FROM usage_packed_span AS packed
        WHERE packed.start = due.start
            AND packed.past = due.past
            AND (packed.hour IS NOT NULL) = (due.result = 'hours');
        RETURN due.span || ' ' || due.start || ' not packed: it has changed meanwhile';
    END IF;
    INSERT INTO usage_span (start, past, span, users)
    VALUES (due.start, due.past, due.result, due.users);
    RETURN due.span || ' ' || due.start || ' ' || due.result;
END
$function$;

-- Ledgers from before these rollups. What was dropped of the ledger is in the sums by day all the same,
-- since they are made of quarters of hours; how calls ended and how long they took is told by rows alone.
DO $do$
BEGIN
    IF EXISTS (SELECT FROM usage_by_month) AND NOT EXISTS (SELECT FROM usage_by_day) THEN
        INSERT INTO usage_by_day
        SELECT
            (bucket AT TIME ZONE setting.value)::date,
            endpoint,
            model,
            service_tier,
            operation_name,
            sum(calls)::bigint,
            sum(errors)::bigint,
            sum(unpriced_calls)::bigint,
            sum(estimated_calls)::bigint,
            sum(unavailable_calls)::bigint,
            sum(prompt_tokens)::bigint,
            sum(completion_tokens)::bigint,
            sum(total_tokens)::bigint,
            sum(cached_tokens)::bigint,
            sum(cache_write_tokens)::bigint,
            sum(reasoning_tokens)::bigint,
            sum(audio_prompt_tokens)::bigint,
            sum(audio_completion_tokens)::bigint,
            sum(cost_usd),
            min(first_call),
            max(last_call),
            sum(tool_cost_usd)
        FROM usage_by_quarter_hour, meter_settings AS setting
        WHERE setting.name = 'report_timezone'
        GROUP BY 1, 2, 3, 4, 5;
        INSERT INTO usage_by_answer_day SELECT * FROM recount_answer_days('-infinity', 'infinity');
        INSERT INTO usage_by_duration_day
        SELECT * FROM recount_duration_days('-infinity', 'infinity');
    END IF;
END
$do$;


-- 7. Seals ---------------------------------------------------------------------------------------

-- Every batch of rows that a recorder commits is sealed: the digests of its rows, and a hash over
-- them and over the hash of the batch before it. A row that is changed, removed or put in beside the
-- recorder is found (openai-meter verify) unless all later batches are made anew as well, and then
-- no hash that anybody has noted is there any more. Writers at the same time take different chains.
CREATE TABLE IF NOT EXISTS seal_chain (
    chain smallint PRIMARY KEY,
    number bigint NOT NULL,
    hash bytea NOT NULL
) WITH (fillfactor = 20);

COMMENT ON TABLE seal_chain IS
    'The last batch of each chain of seals, and its hash.';

INSERT INTO seal_chain (chain, number, hash)
SELECT chain, 0, ''
FROM generate_series(1, 16) AS chain
ON CONFLICT (chain) DO NOTHING;

CREATE TABLE IF NOT EXISTS seal (
    chain smallint NOT NULL,
    number bigint NOT NULL,
    sealed_at timestamptz NOT NULL DEFAULT now(),
    first_created_at timestamptz NOT NULL,
    last_created_at timestamptz NOT NULL,
    event_ids uuid[],
    digests bytea,
    content_hash bytea NOT NULL,
    hash bytea NOT NULL,
    PRIMARY KEY (chain, number)
);

-- Ids and digests are as good as random: to try and compress them takes a millisecond for a thousand.
ALTER TABLE seal
    ALTER COLUMN event_ids SET STORAGE EXTERNAL,
    ALTER COLUMN digests SET STORAGE EXTERNAL;

COMMENT ON TABLE seal IS
    'One row for each batch of the ledger: which rows it has, their digests, its place in a chain.';
COMMENT ON COLUMN seal.event_ids IS
    'Its rows, in the order of time. NULL: their months were let go of.';
COMMENT ON COLUMN seal.digests IS
    'row_digest() of each row, 16 bytes each, in the order of event_ids.';
COMMENT ON COLUMN seal.content_hash IS
    'SHA-256 over event_ids and digests.';
COMMENT ON COLUMN seal.hash IS
    'SHA-256 over the hash of the batch before, chain, number, sealed_at and content_hash.';

-- The digest of a row, over the binary form of its columns: no setting of a session alters it. A
-- column that is added later joins a group at the end that only counts where it holds something, so
-- that rows from before it keep their digest.
CREATE OR REPLACE FUNCTION row_digest(usage user_api_usage)
RETURNS bytea
LANGUAGE sql
STABLE PARALLEL SAFE
AS $function$
SELECT substr(
    sha256(
        record_send(
            ROW(
                usage.event_id, usage.created_at, usage.user_id, usage.endpoint, usage.api_path,
                usage.operation_name, usage.upstream, usage.model, usage.request_model,
                usage.service_tier, usage.prompt_tokens, usage.completion_tokens,
                usage.total_tokens, usage.cached_tokens, usage.cache_write_tokens,
                usage.reasoning_tokens, usage.audio_prompt_tokens, usage.audio_completion_tokens,
                usage.cost_usd, usage.price_id, usage.catalog_version, usage.unpriced_reason,
                usage.usage_source, usage.usage_problem, usage.status, usage.outcome,
                usage.error_type, usage.stream, usage.latency_ms, usage.time_to_first_byte_ms,
                usage.upstream_request_id, usage.response_id, usage.metadata,
                usage.attribution_problem, usage.raw_usage, usage.retry_count,
                usage.request_bytes, usage.response_bytes, usage.corrects, usage.recorded_at,
                usage.tool_cost_usd, usage.list_cost_usd, usage.billed_units
            )
        )
        || CASE
            WHEN num_nonnulls(
                usage.correction_number, usage.unpriced_change, usage.estimated_change,
                usage.unavailable_change, usage.accounted_at, usage.settles
            ) = 0 THEN ''
            ELSE record_send(
                ROW(
                    usage.correction_number, usage.unpriced_change, usage.estimated_change,
                    usage.unavailable_change, usage.accounted_at, usage.settles
                )
            )
        END
        || CASE
            WHEN usage.upstream_name IS NULL THEN ''
            ELSE record_send(ROW(usage.upstream_name))
        END
    ),
    1,
    16
)
$function$;

-- The moment that is in the id of an event: when its call was admitted. NULL: it is no such id.
CREATE OR REPLACE FUNCTION event_moment(event_id uuid)
RETURNS timestamptz
LANGUAGE sql
IMMUTABLE PARALLEL SAFE
AS $function$
SELECT CASE
    WHEN get_byte(uuid_send(event_id), 6) >> 4 = 7 THEN
        'epoch'::timestamptz
        + interval '1 millisecond'
        * ('x' || encode(substr(uuid_send(event_id), 1, 6), 'hex'))::bit(48)::bigint
END
$function$;

-- What a batch is hashed from; proxy/verifying.py reads it too.
CREATE OR REPLACE FUNCTION seal_hash(
    previous_hash bytea, chain smallint, number bigint, sealed_at timestamptz, content_hash bytea
)
RETURNS bytea
LANGUAGE sql
STABLE PARALLEL SAFE
AS $function$
SELECT sha256(
    previous_hash || int2send(chain) || int8send(number) || timestamptz_send(sealed_at)
    || content_hash
)
$function$;

-- Seal the rows that this transaction has inserted; no rows, no seal. Others who seal at this moment
-- have other chains; only where all chains are taken does one wait for another.
CREATE OR REPLACE FUNCTION seal_batch(
    event_ids uuid[], digests bytea, first_created_at timestamptz, last_created_at timestamptz
)
RETURNS void
LANGUAGE plpgsql
AS $function$
DECLARE
    head seal_chain%ROWTYPE;
    content_hash bytea;
BEGIN
    IF event_ids IS NULL THEN
        RETURN;
    END IF;
    SELECT * INTO head FROM seal_chain ORDER BY chain LIMIT 1 FOR UPDATE SKIP LOCKED;
    IF NOT FOUND THEN
        SELECT * INTO STRICT head
        FROM seal_chain
        WHERE seal_chain.chain = 1 + pg_backend_pid() % 16
        FOR UPDATE;
    END IF;
    content_hash := sha256(array_send(event_ids) || digests);
    INSERT INTO seal (
        chain, number, sealed_at, first_created_at, last_created_at, event_ids, digests,
        content_hash, hash
    )
    VALUES (
        head.chain, head.number + 1, now(), first_created_at, last_created_at, event_ids, digests,
        content_hash, seal_hash(head.hash, head.chain, head.number + 1, now(), content_hash)
    )
    RETURNING seal.number, seal.hash INTO head.number, head.hash;
    UPDATE seal_chain
    SET number = head.number, hash = head.hash
    WHERE seal_chain.chain = head.chain;
END
$function$;

-- Whether all months (UTC) of a stretch of time have been let go of.
CREATE OR REPLACE FUNCTION is_let_go(since timestamptz, until timestamptz)
RETURNS boolean
LANGUAGE sql
STABLE
AS $function$
    SELECT NOT EXISTS (
        SELECT
        FROM generate_series(
            date_trunc('month', since AT TIME ZONE 'UTC'),
            until AT TIME ZONE 'UTC',
            interval '1 month'
        ) AS touched (month)
        WHERE NOT EXISTS (
            SELECT FROM retired_month WHERE retired_month.month = touched.month::date
        )
    )
$function$;

-- What is noted beside the rows is sealed too, each note as a batch of one: which calls were not
-- metered, which months are closed, and which were let go of. The id of a note tells its kind: 1 a gap,
-- 2 a closed month, 3 a month that was let go of; no row has its version, 15. A note that is made
-- again is sealed again, and the last seal counts.
CREATE OR REPLACE FUNCTION note_id(kind integer, name text)
RETURNS uuid
LANGUAGE sql
STABLE PARALLEL SAFE
AS $function$
SELECT overlay(
    encode(substr(sha256(convert_to(name, 'UTF8')), 1, 16), 'hex') PLACING 'f' || kind FROM 13
)::uuid
$function$;

CREATE OR REPLACE FUNCTION is_note(id uuid)
RETURNS boolean
LANGUAGE sql
IMMUTABLE PARALLEL SAFE
RETURN get_byte(uuid_send(id), 6) >> 4 = 15;

CREATE OR REPLACE FUNCTION id_of_gap(writer text, started_at timestamptz)
RETURNS uuid
LANGUAGE sql
STABLE PARALLEL SAFE
RETURN note_id(1, writer || ' ' || extract(epoch FROM started_at));

CREATE OR REPLACE FUNCTION id_of_month(kind integer, month date)
RETURNS uuid
LANGUAGE sql
STABLE PARALLEL SAFE
RETURN note_id(kind, to_char(month::timestamp, 'YYYY-MM'));

-- Forget which rows the seals of let go months had; their hashes stay, so that the chain can still be
-- followed. Rows that are kept after all, in the default partition, keep their seal whole. Returns
-- how many seals there were.
CREATE OR REPLACE FUNCTION forget_sealed()
RETURNS bigint
LANGUAGE sql
AS $function$
    WITH forgotten AS (
        UPDATE seal
        SET event_ids = NULL, digests = NULL
        WHERE event_ids IS NOT NULL
            AND last_created_at < (SELECT max(month) + interval '1 month' FROM retired_month)
                AT TIME ZONE 'UTC'
            AND is_let_go(first_created_at, last_created_at)
            AND NOT is_note(event_ids[1])
            AND NOT EXISTS (
                SELECT
                FROM user_api_usage AS usage
                WHERE usage.created_at BETWEEN seal.first_created_at AND seal.last_created_at
                    AND usage.event_id = ANY(seal.event_ids)
            )
        RETURNING chain
    )
    SELECT count(*) FROM forgotten
$function$;

-- Rows from before there were seals are sealed once, as they are found.
DO $do$
BEGIN
    IF NOT EXISTS (SELECT FROM seal) THEN
        PERFORM seal_batch(
            array_agg(event_id ORDER BY created_at, event_id),
            string_agg(digest, '' ORDER BY created_at, event_id),
            min(created_at),
            max(created_at)
        )
        FROM (
            SELECT
                event_id,
                created_at,
                row_digest(user_api_usage) AS digest,
                (row_number() OVER (ORDER BY created_at, event_id) - 1) / 10000 AS batch
            FROM user_api_usage
        ) AS former
        GROUP BY batch
        ORDER BY batch;
    END IF;
END
$do$;


-- What could not be metered, because a journal could not be written for too long (mostly: a full
-- disk): writer, from when until when, and how many calls. These have no row, or one with outcome interrupted.
CREATE TABLE IF NOT EXISTS metering_gap (
    writer text NOT NULL,
    started_at timestamptz NOT NULL,
    ended_at timestamptz NOT NULL,
    calls bigint NOT NULL,
    recorded_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (writer, started_at)
);

COMMENT ON TABLE metering_gap IS
    'Calls that were not metered: how many, of which writer of a journal, and when.';
COMMENT ON COLUMN metering_gap.calls IS
    'Calls whose end could not be written. They have no row, or one that says interrupted.';

-- The notes as they are, with what their last seal should have. A column that is added later may only
-- count where it holds something, as in row_digest().
CREATE OR REPLACE VIEW ledger_note AS
SELECT
    id_of_gap(writer, started_at) AS note_id,
    substr(sha256(record_send(ROW(writer, started_at, ended_at, calls))), 1, 16) AS digest,
    started_at AS moment
FROM metering_gap
UNION ALL
SELECT
    id_of_month(2, month),
    substr(
        sha256(
            record_send(
                ROW(
                    month, starts_at, ends_at, report_timezone, closed_at, export_version,
                    export_rows, export_sha256, cost_usd
                )
            )
        ),
        1,
        16
    ),
    starts_at
FROM closed_month
WHERE export_sha256 IS NOT NULL
UNION ALL
SELECT
    id_of_month(3, month),
    substr(
        sha256(
            record_send(
                ROW(month, rows, counted_since, counted_past, also_counted_at, retired_at)
            )
        ),
        1,
        16
    ),
    month::timestamp AT TIME ZONE 'UTC'
FROM retired_month;

-- Seal a note as it is now, by whoever has just made it.
CREATE OR REPLACE FUNCTION seal_note(wanted uuid)
RETURNS void
LANGUAGE sql
AS $function$
SELECT seal_batch(ARRAY[note_id], digest, moment, moment)
FROM ledger_note
WHERE note_id = wanted
$function$;

-- The last seal of each note, and whether the note is as it was then.
CREATE OR REPLACE VIEW ledger_note_check AS
SELECT
    note_id,
    coalesce(note.moment, sealed.moment) AS moment,
    sealed.chain,
    sealed.number,
    note.digest IS NOT NULL AS is_there,
    note.digest IS NOT DISTINCT FROM sealed.digest AS is_as_sealed
FROM (
    SELECT DISTINCT ON (event_ids[1])
        event_ids[1] AS note_id,
        digests AS digest,
        first_created_at AS moment,
        chain,
        number
    FROM seal
    WHERE octet_length(digests) = 16 AND is_note(event_ids[1])
    ORDER BY event_ids[1], sealed_at DESC, number DESC
) AS sealed
FULL JOIN ledger_note AS note USING (note_id);

-- Notes from before they were sealed are sealed once, as they are found.
SELECT seal_note(note_id)
FROM ledger_note
WHERE NOT EXISTS (SELECT FROM ledger_note_check WHERE chain IS NOT NULL)
ORDER BY note_id;


-- 8. Objects that are billed when they are done ---------------------------------------------------

-- A background response, a run, a batch, a fine-tuning job, a video, an evaluation: one call makes
-- it, others see its end, on any worker and any host, in any order. What is known of each object is
-- gathered here, until its charge is a row of the ledger; written by proxy/deferring.py under a lock
-- of its own. This is no ledger: its rows change, and go when they are of no use any more.
CREATE TABLE IF NOT EXISTS deferred_object (
    upstream text NOT NULL,
    object_id text NOT NULL,
    kind text NOT NULL,
    maker uuid,
    made_at timestamptz,
    tier text,
    state text,
    is_over boolean NOT NULL,
    file_id text,
    endpoint text,
    lines integer,
    seen bytea,
    charged text NOT NULL,
    noted_at timestamptz NOT NULL DEFAULT now(),
    asked_seconds integer,
    PRIMARY KEY (upstream, object_id),

    CONSTRAINT charged_is_known CHECK (
        charged IN (
            'open',      -- not charged yet
            'nothing',   -- it failed, and costs nothing
            'by maker',  -- the row of the call that made it holds its usage
            'whole',     -- with one row, or one for each model
            'lines'      -- with a row for each line of a batch
        )
    ),
    CONSTRAINT ids_fit_an_index CHECK (
        octet_length(upstream) <= 512
        AND octet_length(object_id) <= 512
        AND octet_length(file_id) <= 512
    )
);

-- Ledgers from before the extension of a video was told from the whole.
ALTER TABLE deferred_object
    ADD COLUMN IF NOT EXISTS asked_seconds integer;

COMMENT ON TABLE deferred_object IS
    'What is billed when it is done: who made it, how it ended, and how it was charged.';
COMMENT ON COLUMN deferred_object.maker IS
    'event_id of the call that made it. NULL: not seen, and therefore not charged.';
COMMENT ON COLUMN deferred_object.lines IS
    'How many lines of a batch''s output have a usage: with fewer of them it is not charged by line.';
COMMENT ON COLUMN deferred_object.seen IS
    'Its usage, as the recorder has noted it.';

COMMENT ON COLUMN deferred_object.asked_seconds IS
    'Of a video that is extended: how many seconds are new. Its end tells the length of the whole.';

-- "Whose output is this file?"
CREATE INDEX IF NOT EXISTS deferred_object_of_file
ON deferred_object (upstream, file_id)
WHERE file_id IS NOT NULL;

-- "What is not charged yet?"
CREATE INDEX IF NOT EXISTS deferred_object_open
ON deferred_object (made_at)
WHERE charged = 'open';

-- Lines of a batch's output that have passed by, until they are charged.
CREATE TABLE IF NOT EXISTS deferred_line (
    upstream text NOT NULL,
    file_id text NOT NULL,
    line_id text NOT NULL,
    seen bytea NOT NULL,
    noted_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (upstream, file_id, line_id),

    CONSTRAINT line_ids_fit_an_index CHECK (
        octet_length(upstream) <= 512
        AND octet_length(file_id) <= 512
        AND octet_length(line_id) <= 512
    )
);

COMMENT ON TABLE deferred_line IS
    'Lines of the output of batches, until they are rows of the ledger.';

-- What several calls tell of and one row alone charges, whichever is recorded first: the end of a
-- realtime response, which every socket that attends its call hears. Kept for thirty days.
CREATE TABLE IF NOT EXISTS charge_claim (
    upstream text NOT NULL,
    name text NOT NULL,
    event_id uuid NOT NULL,
    claimed_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (upstream, name),

    CONSTRAINT claims_fit_an_index CHECK (
        octet_length(upstream) <= 512 AND octet_length(name) <= 1024
    )
);

COMMENT ON TABLE charge_claim IS
    'What several calls tell of, and the event_id of the row that charges it.';

-- Containers are billed by the time that they are in use, whoever runs code in them: each row is
-- charged with the minutes that it adds. Kept for thirty days.
CREATE TABLE IF NOT EXISTS container_use (
    upstream text NOT NULL,
    container_id text NOT NULL,
    event_id uuid NOT NULL,
    size text,
    began_at timestamptz NOT NULL,
    ended_at timestamptz NOT NULL,
    minutes integer NOT NULL,
    claimed_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (upstream, container_id, event_id),

    CONSTRAINT containers_fit_an_index CHECK (
        octet_length(upstream) <= 512 AND octet_length(container_id) <= 1024
    )
);

COMMENT ON TABLE container_use IS
    'When calls had containers in use, and which minutes of that their rows charge.';
COMMENT ON COLUMN container_use.size IS
    'Memory of the container: 1g, 4g, … NULL: no call told it.';


-- 9. Prices --------------------------------------------------------------------------------------

-- Every rate of every catalogue that a row was ever priced with; written by proxy/ledger.py.
CREATE TABLE IF NOT EXISTS price_rate (
    catalog_version text NOT NULL,
    price_id text NOT NULL,
    component text NOT NULL,
    list_unit_price numeric NOT NULL,
    PRIMARY KEY (catalog_version, price_id, component)
);

COMMENT ON TABLE price_rate IS
    'The rates behind every cost: cost_usd is the sum of list_unit_price × quantity.';
COMMENT ON COLUMN price_rate.component IS
    'What is counted: input, cached_input, cache_write, output, audio_input, …';
COMMENT ON COLUMN price_rate.list_unit_price IS
    'USD for one unit, that is for one token.';


-- 10. Views --------------------------------------------------------------------------------------

-- The dashboard reads these and nothing else. New columns go last, so that a view can be replaced.

-- The ledger less raw_usage, which is for auditors with access to the table.
CREATE OR REPLACE VIEW calls AS
SELECT
    event_id,
    created_at,
    user_id,
    endpoint,
    api_path,
    operation_name,
    upstream,
    model,
    request_model,
    service_tier,
    prompt_tokens,
    completion_tokens,
    total_tokens,
    cached_tokens,
    cache_write_tokens,
    reasoning_tokens,
    audio_prompt_tokens,
    audio_completion_tokens,
    cost_usd,
    price_id,
    catalog_version,
    unpriced_reason,
    usage_source,
    usage_problem,
    status,
    outcome,
    error_type,
    stream,
    latency_ms,
    time_to_first_byte_ms,
    upstream_request_id,
    response_id,
    metadata,
    attribution_problem,
    retry_count,
    request_bytes,
    response_bytes,
    corrects,
    recorded_at,
    tool_cost_usd,
    list_cost_usd,
    billed_units,
    settles,
    correction_number,
    unpriced_change,
    estimated_change,
    unavailable_change,
    accounted_at,
    upstream_name
FROM user_api_usage;

-- One row for each call, as it is after its corrections: the sum of its rows. What has no sum, such
-- as a price_id, is that of the last correction.
CREATE OR REPLACE VIEW corrected_calls AS
SELECT
    call.event_id,
    call.created_at,
    call.user_id,
    call.endpoint,
    call.api_path,
    call.operation_name,
    call.upstream,
    call.model,
    call.request_model,
    call.service_tier,
    known_sum(call.prompt_tokens, change.prompt_tokens)::bigint AS prompt_tokens,
    known_sum(call.completion_tokens, change.completion_tokens)::bigint AS completion_tokens,
    known_sum(call.total_tokens, change.total_tokens)::bigint AS total_tokens,
    known_sum(call.cached_tokens, change.cached_tokens)::bigint AS cached_tokens,
    known_sum(call.cache_write_tokens, change.cache_write_tokens)::bigint AS cache_write_tokens,
    known_sum(call.reasoning_tokens, change.reasoning_tokens)::bigint AS reasoning_tokens,
    known_sum(call.audio_prompt_tokens, change.audio_prompt_tokens)::bigint
        AS audio_prompt_tokens,
    known_sum(call.audio_completion_tokens, change.audio_completion_tokens)::bigint
        AS audio_completion_tokens,
    known_sum(call.cost_usd, change.cost_usd) AS cost_usd,
    known_sum(call.tool_cost_usd, change.tool_cost_usd) AS tool_cost_usd,
    known_sum(call.list_cost_usd, change.list_cost_usd) AS list_cost_usd,
    CASE WHEN corrections = 0 THEN call.price_id ELSE change.price_id END AS price_id,
    CASE WHEN corrections = 0 THEN call.catalog_version ELSE change.catalog_version END
        AS catalog_version,
    CASE WHEN corrections = 0 THEN call.unpriced_reason ELSE change.unpriced_reason END
        AS unpriced_reason,
    CASE WHEN corrections = 0 THEN call.usage_source ELSE change.usage_source END
        AS usage_source,
    CASE WHEN corrections = 0 THEN call.billed_units ELSE change.billed_units END
        AS billed_units,
    call.status,
    call.outcome,
    call.stream,
    call.metadata,
    call.response_id,
    corrections,
    call.upstream_name,
    CASE WHEN corrections = 0 THEN call.usage_problem ELSE change.usage_problem END
        AS usage_problem,
    reversals > 0 AS is_reversed
FROM user_api_usage AS call
CROSS JOIN LATERAL (
    SELECT
        count(*) AS corrections,
        count(*) FILTER (WHERE usage_problem = 'charged_by_its_lines') AS reversals,
        sum(prompt_tokens) AS prompt_tokens,
        sum(completion_tokens) AS completion_tokens,
        sum(total_tokens) AS total_tokens,
        sum(cached_tokens) AS cached_tokens,
        sum(cache_write_tokens) AS cache_write_tokens,
        sum(reasoning_tokens) AS reasoning_tokens,
        sum(audio_prompt_tokens) AS audio_prompt_tokens,
        sum(audio_completion_tokens) AS audio_completion_tokens,
        sum(cost_usd) AS cost_usd,
        sum(tool_cost_usd) AS tool_cost_usd,
        sum(list_cost_usd) AS list_cost_usd,
        (array_agg(price_id ORDER BY correction_number DESC NULLS LAST))[1] AS price_id,
        (array_agg(catalog_version ORDER BY correction_number DESC NULLS LAST))[1]
            AS catalog_version,
        (array_agg(unpriced_reason ORDER BY correction_number DESC NULLS LAST))[1]
            AS unpriced_reason,
        (array_agg(usage_source ORDER BY correction_number DESC NULLS LAST))[1] AS usage_source,
        (array_agg(usage_problem ORDER BY correction_number DESC NULLS LAST))[1] AS usage_problem,
        (array_agg(billed_units ORDER BY correction_number DESC NULLS LAST))[1] AS billed_units
    FROM user_api_usage AS correction
    WHERE correction.created_at = call.created_at AND correction.corrects = call.event_id
) AS change
WHERE call.corrects IS NULL;

CREATE OR REPLACE VIEW quarter_hours AS
SELECT
    bucket,
    endpoint,
    model,
    service_tier,
    operation_name,
    calls,
    errors,
    unpriced_calls,
    estimated_calls,
    unavailable_calls,
    prompt_tokens,
    completion_tokens,
    total_tokens,
    cached_tokens,
    cache_write_tokens,
    reasoning_tokens,
    audio_prompt_tokens,
    audio_completion_tokens,
    cost_usd,
    first_call,
    last_call,
    tool_cost_usd
FROM usage_by_quarter_hour;

CREATE OR REPLACE VIEW user_days AS
SELECT
    day,
    user_id,
    endpoint,
    model,
    calls,
    errors,
    unpriced_calls,
    estimated_calls,
    unavailable_calls,
    prompt_tokens,
    completion_tokens,
    total_tokens,
    cached_tokens,
    cache_write_tokens,
    reasoning_tokens,
    audio_prompt_tokens,
    audio_completion_tokens,
    cost_usd,
    first_call,
    last_call,
    tool_cost_usd
FROM usage_by_user_day;

CREATE OR REPLACE VIEW days AS
SELECT
    day,
    endpoint,
    model,
    service_tier,
    operation_name,
    calls,
    errors,
    unpriced_calls,
    estimated_calls,
    unavailable_calls,
    prompt_tokens,
    completion_tokens,
    total_tokens,
    cached_tokens,
    cache_write_tokens,
    reasoning_tokens,
    audio_prompt_tokens,
    audio_completion_tokens,
    cost_usd,
    first_call,
    last_call,
    tool_cost_usd
FROM usage_by_day;

CREATE OR REPLACE VIEW answer_days AS
SELECT
    day,
    endpoint,
    model,
    outcome,
    status,
    calls
FROM usage_by_answer_day;

CREATE OR REPLACE VIEW duration_days AS
SELECT
    day,
    endpoint,
    measure,
    at_most_ms,
    calls
FROM usage_by_duration_day;

CREATE OR REPLACE VIEW spans AS
SELECT
    span,
    start,
    past,
    users,
    folded_at
FROM usage_span;

-- Sums by span and user, and for days that are not folded several rows for each user: to be read with
-- spans_between.
CREATE OR REPLACE VIEW user_spans AS
SELECT
    span,
    start,
    user_id,
    calls,
    errors,
    unpriced_calls,
    estimated_calls,
    unavailable_calls,
    prompt_tokens,
    completion_tokens,
    total_tokens,
    cached_tokens,
    cache_write_tokens,
    reasoning_tokens,
    audio_prompt_tokens,
    audio_completion_tokens,
    cost_usd,
    first_call,
    last_call,
    tool_cost_usd
FROM usage_by_user_span
UNION ALL
SELECT
    'open',
    day,
    user_id,
    calls,
    errors,
    unpriced_calls,
    estimated_calls,
    unavailable_calls,
    prompt_tokens,
    completion_tokens,
    total_tokens,
    cached_tokens,
    cache_write_tokens,
    reasoning_tokens,
    audio_prompt_tokens,
    audio_completion_tokens,
    cost_usd,
    first_call,
    last_call,
    tool_cost_usd
FROM usage_by_user_day;

-- The same by endpoint, model and user.
CREATE OR REPLACE VIEW feature_spans AS
SELECT
    span,
    start,
    endpoint,
    model,
    user_id,
    calls,
    errors,
    unpriced_calls,
    estimated_calls,
    unavailable_calls,
    prompt_tokens,
    completion_tokens,
    total_tokens,
    cached_tokens,
    cache_write_tokens,
    reasoning_tokens,
    audio_prompt_tokens,
    audio_completion_tokens,
    cost_usd,
    first_call,
    last_call,
    tool_cost_usd
FROM usage_by_feature_span
UNION ALL
SELECT
    'open',
    day,
    endpoint,
    model,
    user_id,
    calls,
    errors,
    unpriced_calls,
    estimated_calls,
    unavailable_calls,
    prompt_tokens,
    completion_tokens,
    total_tokens,
    cached_tokens,
    cache_write_tokens,
    reasoning_tokens,
    audio_prompt_tokens,
    audio_completion_tokens,
    cost_usd,
    first_call,
    last_call,
    tool_cost_usd
FROM usage_by_user_day;

-- The few spans that make up the days [first, past), each day in one of them: to be joined with
-- user_spans or, by_feature, with feature_spans.
CREATE OR REPLACE FUNCTION spans_between(first date, past date, by_feature boolean DEFAULT false)
RETURNS TABLE (span text, start date)
LANGUAGE plpgsql
STABLE ROWS 3  -- there are more, but with many the planner reads all of them instead of a few
AS $function$
DECLARE
    next_day date;
    newest_day date;
    longest record;
BEGIN
    -- A folded span may begin before the first day that has calls, and end after the last.
    SELECT greatest(first, date_trunc('year', min(day)::timestamp)::date), max(day)
    INTO next_day, newest_day
    FROM days;
    WHILE next_day < past AND next_day <= newest_day LOOP
        SELECT folded.span, folded.past
        INTO longest
        FROM spans AS folded
        WHERE folded.start = next_day
            AND folded.past <= spans_between.past
            AND folded.span NOT IN ('users', 'packed', 'hours')
            AND NOT (by_feature AND folded.span IN ('day', 'pentad'))
        ORDER BY folded.past DESC
        LIMIT 1;
        IF FOUND OR EXISTS (SELECT FROM days WHERE days.day = next_day) THEN
            span := coalesce(longest.span, 'open');
            start := next_day;
            RETURN NEXT;
            next_day := coalesce(longest.past, next_day + 1);
        ELSE
            next_day := least(
                (SELECT min(folded.start) FROM spans AS folded WHERE folded.start > next_day),
                (SELECT min(days.day) FROM days WHERE days.day > next_day)
            );
        END IF;
    END LOOP;
END
$function$;

CREATE OR REPLACE VIEW day_users AS
SELECT
    day,
    endpoint,
    block,
    named.users
FROM usage_span
JOIN usage_by_day_users AS named ON day = start
WHERE span = 'users';

CREATE OR REPLACE VIEW user_numbers AS
SELECT
    user_id,
    number
FROM usage_user;

-- Those of the days [first, past) whose users are not in day_users: today, as a rule.
CREATE OR REPLACE FUNCTION days_without_users(first date, past date)
RETURNS SETOF date
LANGUAGE plpgsql
STABLE ROWS 3  -- as spans_between
AS $function$
BEGIN
    RETURN QUERY
    SELECT DISTINCT days.day
    FROM days
    WHERE days.day >= first
        AND days.day < days_without_users.past
        AND NOT EXISTS (
            SELECT
            FROM spans
            WHERE spans.start = days.day AND spans.past = days.day + 1 AND spans.span = 'users'
        );
END
$function$;

-- Sums of many users in a row: to be read with packed_between.
CREATE OR REPLACE VIEW packed_spans AS
SELECT
    listed.start,
    listed.past,
    hour,
    is_total,
    endpoint,
    model,
    block,
    packed.users,
    calls,
    errors,
    unpriced_calls,
    estimated_calls,
    unavailable_calls,
    prompt_tokens,
    cached_tokens,
    cache_write_tokens,
    completion_tokens,
    reasoning_tokens,
    audio_prompt_tokens,
    audio_completion_tokens,
    total_tokens,
    cost_usd,
    tool_cost_usd,
    first_call,
    last_call,
    cost_scale,
    tool_cost_scale
FROM usage_span AS listed
JOIN usage_packed_span AS packed ON packed.start = listed.start AND packed.past = listed.past
WHERE listed.span = CASE WHEN hour IS NULL THEN 'packed' ELSE 'hours' END;

-- The first instant that has a date: midnight, the earlier one where clocks are put back over it.
CREATE OR REPLACE FUNCTION date_begins(day date, zone text)
RETURNS timestamptz
LANGUAGE sql
IMMUTABLE PARALLEL SAFE
AS $function$
    SELECT min(instant)
    FROM generate_series(0, 12) AS quarters
    CROSS JOIN LATERAL (
        SELECT (day::timestamp AT TIME ZONE zone) - quarters * interval '15 minutes' AS instant
    ) AS before
    WHERE (instant AT TIME ZONE zone)::date >= day
$function$;

-- The first instant after the last one that has a date.
CREATE OR REPLACE FUNCTION date_ends(day date, zone text)
RETURNS timestamptz
LANGUAGE sql
IMMUTABLE PARALLEL SAFE
AS $function$
    SELECT CASE
        WHEN ((midnight - interval '1 microsecond') AT TIME ZONE zone)::date > day
            THEN date_begins(day + 1, zone)
        ELSE midnight
    END
    FROM (SELECT (day + 1)::timestamp AT TIME ZONE zone AS midnight) AS next
$function$;

-- What makes up the time from range_since up to, and without, range_past, each instant once: `packed` spans
-- of days, `hours` of a day, both of packed_spans; days that are `open` in user_days; and `rows` of
-- counted_usage, whose date is `start` and which count from `since` until before `until`. The date
-- decides at midnight: there the moments are only for the index, and three hours wider.
CREATE OR REPLACE FUNCTION packed_between(range_since timestamptz, range_past timestamptz)
RETURNS TABLE (
    kind text, start date, past date, hour smallint, since timestamptz, until timestamptz
)
LANGUAGE plpgsql
STABLE ROWS 3  -- as spans_between
AS $function$
DECLARE
    zone text;
    oldest_day date;
    newest_day date;
    next_day date := '-infinity';  -- the first one that lies in the range as a whole
    past_day date := 'infinity';  -- the first one after those
    longest date;
    edge record;
    first_hour integer;
    past_hour integer;
BEGIN
    SELECT report_timezone INTO STRICT zone FROM ledger_status;
    SELECT min(days.day), max(days.day) INTO oldest_day, newest_day FROM days;
    IF isfinite(range_since) THEN
        SELECT min(near.day)
        INTO next_day
        FROM (
            SELECT (range_since AT TIME ZONE zone)::date + generate_series(0, 2) AS day
        ) AS near
        WHERE date_begins(near.day, zone) >= range_since;
    END IF;
    IF isfinite(range_past) THEN
        SELECT min(near.day)
        INTO past_day
        FROM (
            SELECT (range_past AT TIME ZONE zone)::date + generate_series(-1, 0) AS day
        ) AS near
        WHERE date_ends(near.day, zone) > range_past;
    END IF;

    FOR edge IN
        SELECT
            near.day,
            near.begins,
            near.ends,
            greatest(near.begins, range_since) AS since,
            least(near.ends, range_past) AS until,
            EXISTS (
                SELECT
                FROM spans AS listed
                WHERE listed.start = near.day
                    AND listed.past = near.day + 1
                    AND listed.span = 'hours'
            ) AS is_by_hour
        FROM (
            SELECT DISTINCT
                days.day,
                date_begins(days.day, zone) AS begins,
                date_ends(days.day, zone) AS ends
            FROM unnest(ARRAY[range_since, range_past]) AS instant
            CROSS JOIN generate_series(-1, 1) AS distance
            JOIN days ON days.day = (instant AT TIME ZONE zone)::date + distance
            WHERE isfinite(instant) AND (days.day < next_day OR days.day >= past_day)
        ) AS near
        WHERE near.begins < range_past AND near.ends > range_since AND range_since < range_past
    LOOP
        start := edge.day;
        past := edge.day + 1;
        first_hour := ceil(extract(epoch FROM edge.since - edge.begins) / 3600);
        past_hour := floor(extract(epoch FROM edge.until - edge.begins) / 3600);
        IF NOT edge.is_by_hour OR first_hour >= past_hour THEN
            kind := 'rows';
            since := edge.since;
            until := edge.until;
            IF since = edge.begins THEN
                since := since - interval '3 hours';
            END IF;
            IF until = edge.ends THEN
                until := until + interval '3 hours';
            END IF;
            RETURN NEXT;
            CONTINUE;
        END IF;
        RETURN QUERY
        SELECT
            'hours', edge.day, edge.day + 1, whole::smallint, NULL::timestamptz, NULL::timestamptz
        FROM generate_series(first_hour, past_hour - 1) AS whole
        UNION ALL
        SELECT 'rows', edge.day, edge.day + 1, NULL, rest.since, rest.until
        FROM (
            VALUES
                (edge.since, edge.begins + first_hour * interval '1 hour'),
                (edge.begins + past_hour * interval '1 hour', edge.until)
        ) AS rest (since, until)
        WHERE rest.since < rest.until;
    END LOOP;

    since := NULL;
    until := NULL;
    -- A folded span may begin before the first day that has calls, and end after the last.
    next_day := greatest(next_day, date_trunc('year', oldest_day::timestamp)::date);
    WHILE next_day < past_day AND next_day <= newest_day LOOP
        SELECT max(listed.past)
        INTO longest
        FROM spans AS listed
        WHERE listed.start = next_day AND listed.past <= past_day AND listed.span = 'packed';
        IF longest IS NOT NULL OR EXISTS (SELECT FROM days WHERE days.day = next_day) THEN
            kind := CASE WHEN longest IS NULL THEN 'open' ELSE 'packed' END;
            start := next_day;
            past := coalesce(longest, next_day + 1);
            RETURN NEXT;
            next_day := past;
        ELSE
            next_day := least(
                (SELECT min(listed.start) FROM spans AS listed WHERE listed.start > next_day),
                (SELECT min(days.day) FROM days WHERE days.day > next_day)
            );
        END IF;
    END LOOP;
END
$function$;

-- One row for each user, over all time.
CREATE OR REPLACE VIEW user_usage_summary AS
SELECT
    user_id,
    sum(calls)::bigint AS calls,
    sum(errors)::bigint AS errors,
    sum(unpriced_calls)::bigint AS unpriced_calls,
    sum(estimated_calls)::bigint AS estimated_calls,
    sum(unavailable_calls)::bigint AS unavailable_calls,
    sum(prompt_tokens)::bigint AS prompt_tokens,
    sum(completion_tokens)::bigint AS completion_tokens,
    sum(total_tokens)::bigint AS total_tokens,
    sum(cached_tokens)::bigint AS cached_tokens,
    sum(cache_write_tokens)::bigint AS cache_write_tokens,
    sum(reasoning_tokens)::bigint AS reasoning_tokens,
    sum(audio_prompt_tokens)::bigint AS audio_prompt_tokens,
    sum(audio_completion_tokens)::bigint AS audio_completion_tokens,
    sum(cost_usd) AS cost_usd,
    min(first_call) AS first_call,
    max(last_call) AS last_call,
    sum(tool_cost_usd) AS tool_cost_usd
FROM spans_between('-infinity', 'infinity') AS span_of_days
JOIN user_spans USING (span, start)
GROUP BY user_id;

-- One row for each user and month of the report time zone; month is its first day.
CREATE OR REPLACE VIEW monthly_usage_summary AS
SELECT
    month,
    user_id,
    sum(calls)::bigint AS calls,
    sum(errors)::bigint AS errors,
    sum(unpriced_calls)::bigint AS unpriced_calls,
    sum(estimated_calls)::bigint AS estimated_calls,
    sum(unavailable_calls)::bigint AS unavailable_calls,
    sum(prompt_tokens)::bigint AS prompt_tokens,
    sum(completion_tokens)::bigint AS completion_tokens,
    sum(total_tokens)::bigint AS total_tokens,
    sum(cached_tokens)::bigint AS cached_tokens,
    sum(cache_write_tokens)::bigint AS cache_write_tokens,
    sum(reasoning_tokens)::bigint AS reasoning_tokens,
    sum(audio_prompt_tokens)::bigint AS audio_prompt_tokens,
    sum(audio_completion_tokens)::bigint AS audio_completion_tokens,
    sum(cost_usd) AS cost_usd,
    min(first_call) AS first_call,
    max(last_call) AS last_call,
    sum(tool_cost_usd) AS tool_cost_usd
FROM (
    SELECT
        start AS month,
        user_id,
        calls,
        errors,
        unpriced_calls,
        estimated_calls,
        unavailable_calls,
        prompt_tokens,
        completion_tokens,
        total_tokens,
        cached_tokens,
        cache_write_tokens,
        reasoning_tokens,
        audio_prompt_tokens,
        audio_completion_tokens,
        cost_usd,
        first_call,
        last_call,
        tool_cost_usd
    FROM usage_by_user_span
    JOIN usage_span USING (span, start)
    WHERE span = 'month'
    UNION ALL
    SELECT
        open_day.month,
        user_id,
        calls,
        errors,
        unpriced_calls,
        estimated_calls,
        unavailable_calls,
        prompt_tokens,
        completion_tokens,
        total_tokens,
        cached_tokens,
        cache_write_tokens,
        reasoning_tokens,
        audio_prompt_tokens,
        audio_completion_tokens,
        cost_usd,
        first_call,
        last_call,
        tool_cost_usd
    FROM (
        SELECT DISTINCT day, date_trunc('month', day::timestamp)::date AS month
        FROM usage_by_day
    ) AS open_day
    JOIN usage_by_user_day USING (day)
    WHERE NOT EXISTS (
        SELECT
        FROM usage_span
        WHERE usage_span.start = open_day.month AND usage_span.span = 'month'
    )
) AS part
GROUP BY month, user_id;

-- One row for each endpoint, over all time; users counts those that are named.
CREATE OR REPLACE VIEW endpoint_usage_summary AS
SELECT
    sums.endpoint,
    (
        SELECT count(DISTINCT user_id)
        FROM spans_between('-infinity', 'infinity', true) AS span_of_days
        JOIN feature_spans USING (span, start)
        WHERE feature_spans.endpoint IS NOT DISTINCT FROM sums.endpoint
    ) AS users,
    calls,
    errors,
    unpriced_calls,
    estimated_calls,
    unavailable_calls,
    prompt_tokens,
    completion_tokens,
    total_tokens,
    cached_tokens,
    cache_write_tokens,
    reasoning_tokens,
    audio_prompt_tokens,
    audio_completion_tokens,
    cost_usd,
    first_call,
    last_call,
    tool_cost_usd
FROM (
    SELECT
        endpoint,
        sum(calls)::bigint AS calls,
        sum(errors)::bigint AS errors,
        sum(unpriced_calls)::bigint AS unpriced_calls,
        sum(estimated_calls)::bigint AS estimated_calls,
        sum(unavailable_calls)::bigint AS unavailable_calls,
        sum(prompt_tokens)::bigint AS prompt_tokens,
        sum(completion_tokens)::bigint AS completion_tokens,
        sum(total_tokens)::bigint AS total_tokens,
        sum(cached_tokens)::bigint AS cached_tokens,
        sum(cache_write_tokens)::bigint AS cache_write_tokens,
        sum(reasoning_tokens)::bigint AS reasoning_tokens,
        sum(audio_prompt_tokens)::bigint AS audio_prompt_tokens,
        sum(audio_completion_tokens)::bigint AS audio_completion_tokens,
        sum(cost_usd) AS cost_usd,
        min(first_call) AS first_call,
        max(last_call) AS last_call,
        sum(tool_cost_usd) AS tool_cost_usd
    FROM usage_by_day
    GROUP BY endpoint
) AS sums;

-- One row for each day of the report time zone; users counts those that are named.
CREATE OR REPLACE VIEW daily_usage_summary AS
SELECT
    sums.day,
    coalesce(
        (SELECT users FROM usage_span WHERE span = 'day' AND start = sums.day),
        (SELECT count(DISTINCT user_id) FROM usage_by_user_day WHERE day = sums.day)
    ) AS users,
    calls,
    errors,
    unpriced_calls,
    estimated_calls,
    unavailable_calls,
    prompt_tokens,
    completion_tokens,
    total_tokens,
    cached_tokens,
    cache_write_tokens,
    reasoning_tokens,
    audio_prompt_tokens,
    audio_completion_tokens,
    cost_usd,
    first_call,
    last_call,
    tool_cost_usd
FROM (
    SELECT
        day,
        sum(calls)::bigint AS calls,
        sum(errors)::bigint AS errors,
        sum(unpriced_calls)::bigint AS unpriced_calls,
        sum(estimated_calls)::bigint AS estimated_calls,
        sum(unavailable_calls)::bigint AS unavailable_calls,
        sum(prompt_tokens)::bigint AS prompt_tokens,
        sum(completion_tokens)::bigint AS completion_tokens,
        sum(total_tokens)::bigint AS total_tokens,
        sum(cached_tokens)::bigint AS cached_tokens,
        sum(cache_write_tokens)::bigint AS cache_write_tokens,
        sum(reasoning_tokens)::bigint AS reasoning_tokens,
        sum(audio_prompt_tokens)::bigint AS audio_prompt_tokens,
        sum(audio_completion_tokens)::bigint AS audio_completion_tokens,
        sum(cost_usd) AS cost_usd,
        min(first_call) AS first_call,
        max(last_call) AS last_call,
        sum(tool_cost_usd) AS tool_cost_usd
    FROM usage_by_day
    GROUP BY day
) AS sums;

-- One row: what the ledger holds. Reads usage_by_month, so it is cheap at any size.
CREATE OR REPLACE VIEW ledger_status AS
SELECT
    coalesce(sum(calls), 0)::bigint AS calls,
    coalesce(sum(errors), 0)::bigint AS errors,
    coalesce(sum(unpriced_calls), 0)::bigint AS unpriced_calls,
    coalesce(sum(estimated_calls), 0)::bigint AS estimated_calls,
    coalesce(sum(unavailable_calls), 0)::bigint AS unavailable_calls,
    sum(total_tokens)::bigint AS total_tokens,
    sum(cost_usd) AS cost_usd,
    min(first_call) AS first_call,
    max(last_call) AS last_call,
    (SELECT value FROM meter_settings WHERE name = 'report_timezone') AS report_timezone,
    EXISTS (SELECT FROM user_api_usage_default) AS default_partition_holds_rows,
    (SELECT max(applied_at) FROM schema_applied) AS schema_applied_at,
    sum(tool_cost_usd) AS tool_cost_usd
FROM usage_by_month;

-- One row for each object whose cost is not in the ledger yet: nobody has seen it done.
CREATE OR REPLACE VIEW open_objects AS
SELECT
    object_id,
    kind,
    state,
    made_at,
    call.user_id,
    call.endpoint,
    call.model,
    call.upstream,
    call.event_id
FROM deferred_object
JOIN user_api_usage AS call
    ON call.created_at = deferred_object.made_at AND call.event_id = deferred_object.maker
WHERE charged = 'open';

-- One row for each stretch of time in which calls were not metered: their journal could not be written.
CREATE OR REPLACE VIEW metering_gaps AS
SELECT
    started_at,
    ended_at,
    writer,
    calls
FROM metering_gap;

CREATE OR REPLACE VIEW prices AS
SELECT
    catalog_version,
    price_id,
    component,
    list_unit_price
FROM price_rate;

-- A row for each component of each cost: quantity × unit price, as docs/ledger.md makes a sum again. The
-- costs of a row's lines are exactly its cost_usd: what rounding leaves over goes to the largest. A cost
-- that cannot be taken apart, such as that of a correction, is one line without a component.
CREATE OR REPLACE VIEW charge_lines AS
SELECT
    usage.event_id,
    usage.created_at,
    usage.accounted_at,
    usage.user_id,
    usage.endpoint,
    usage.upstream,
    usage.model,
    usage.service_tier,
    usage.usage_source,
    usage.outcome,
    usage.corrects,
    usage.settles,
    usage.catalog_version,
    coalesce(line.price_id, usage.price_id) AS price_id,
    line.component,
    line.quantity,
    line.list_unit_price,
    CASE WHEN line.component IS NULL THEN usage.list_cost_usd ELSE line.list_cost_usd END
        AS list_cost_usd,
    CASE
        WHEN line.component IS NULL THEN usage.cost_usd
        WHEN line.place = 1
            THEN coalesce(line.cost_usd, 0) + usage.cost_usd - coalesce(line.all_costs, 0)
        ELSE line.cost_usd
    END AS cost_usd,
    usage.metadata,
    usage.response_id,
    usage.upstream_request_id
FROM user_api_usage AS usage
CROSS JOIN LATERAL (
    SELECT
        coalesce(
            usage.raw_usage -> 'prompt_tokens_details',
            usage.raw_usage -> 'input_tokens_details',
            usage.raw_usage -> 'prompt_token_details',
            usage.raw_usage -> 'input_token_details'
        ) AS input,
        coalesce(
            usage.raw_usage -> 'completion_tokens_details',
            usage.raw_usage -> 'output_tokens_details',
            usage.raw_usage -> 'completion_token_details',
            usage.raw_usage -> 'output_token_details'
        ) AS output
) AS detail
CROSS JOIN LATERAL (
    SELECT
        coalesce(usage.cached_tokens, 0) AS cached,
        coalesce(usage.cache_write_tokens, 0) AS written,
        coalesce((input -> 'cache_write_tokens_details' ->> 'ttl_12h_tokens')::numeric, 0)
            AS written_12h,
        coalesce(usage.audio_prompt_tokens, 0) AS audio,
        coalesce((input -> 'cached_tokens_details' ->> 'audio_tokens')::numeric, 0) AS cached_audio,
        coalesce((input ->> 'image_tokens')::numeric, 0) AS image,
        coalesce((input -> 'cached_tokens_details' ->> 'image_tokens')::numeric, 0) AS cached_image,
        coalesce(usage.audio_completion_tokens, 0) AS audio_made,
        coalesce(
            (output ->> 'image_tokens')::numeric,
            -- Where the images API gives no details, all that it made is images.
            CASE WHEN usage.operation_name LIKE 'images.%' THEN usage.completion_tokens END,
            0
        ) AS image_made
) AS part
LEFT JOIN LATERAL (
    SELECT
        piece.*,
        sum(piece.cost_usd) OVER () AS all_costs,
        row_number() OVER (ORDER BY piece.cost_usd DESC NULLS LAST, piece.component) AS place
    FROM (
        SELECT
            split.price_id,
            split.component,
            split.quantity,
            price_rate.list_unit_price,
            round(split.quantity * price_rate.list_unit_price, 12) AS list_cost_usd,
            round(
                split.quantity * price_rate.list_unit_price
                -- A negotiated price is a factor at the end of price_id, such as /contract-x0.93.
                * coalesce(substring(split.price_id FROM '/contract-x([0-9.]+)$')::numeric, 1),
                12
            ) AS cost_usd
        FROM (
            SELECT usage.price_id, tokens.component, tokens.quantity::numeric
            FROM (
                VALUES
                    (
                        'input',
                        usage.prompt_tokens - cached - written - (audio - cached_audio)
                        - (image - cached_image)
                    ),
                    ('cached_input', cached - cached_audio - cached_image),
                    ('cache_write', written - written_12h),
                    ('cache_write_12h', written_12h),
                    ('audio_input', audio - cached_audio),
                    ('cached_audio_input', cached_audio),
                    ('image_input', image - cached_image),
                    ('cached_image_input', cached_image),
                    ('output', coalesce(usage.completion_tokens, 0) - audio_made - image_made),
                    ('audio_output', audio_made),
                    ('image_output', image_made)
            ) AS tokens (component, quantity)
            WHERE usage.corrects IS NULL
            UNION ALL
            -- Images, seconds, characters, and what the hosted tools did.
            SELECT unit.price_id, unit.component, unit.quantity
            FROM jsonb_to_recordset(usage.billed_units)
                AS unit (price_id text, component text, quantity numeric)
            WHERE usage.corrects IS NULL
        ) AS split
        LEFT JOIN price_rate
            ON price_rate.catalog_version = usage.catalog_version
            AND price_rate.price_id = split.price_id
            AND price_rate.component = split.component
        WHERE split.quantity <> 0
    ) AS piece
) AS line ON true
WHERE usage.cost_usd IS NOT NULL;


-- 11. Roles --------------------------------------------------------------------------------------

-- The dashboard reads as meter_dashboard, which may SELECT from the views above and nothing else:
-- it does SET LOCAL ROLE in each of its transactions. A role belongs to the whole server, and whoever
-- applies this file may lack the right to make one. The dashboard then reads as the owner.
DO $do$
BEGIN
    BEGIN
        IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'meter_dashboard') THEN
            CREATE ROLE meter_dashboard NOLOGIN;
        END IF;
    EXCEPTION
        WHEN duplicate_object OR unique_violation THEN
            NULL;  -- made by somebody else at this moment, from another database
        WHEN insufficient_privilege THEN
            RAISE NOTICE 'no right to create the role meter_dashboard: the dashboard reads as %',
                current_user;
            RETURN;
    END;
    BEGIN
        IF (SELECT rolsuper FROM pg_roles WHERE rolname = current_user) THEN
            NULL;  -- may take on any role
        ELSIF current_setting('server_version_num')::integer >= 160000 THEN
            -- Since 16 the right to take on a role is granted by name; inheriting is not needed.
            EXECUTE 'GRANT meter_dashboard TO CURRENT_USER WITH INHERIT FALSE, SET TRUE';
        ELSE
            EXECUTE 'GRANT meter_dashboard TO CURRENT_USER';
        END IF;
    EXCEPTION
        WHEN unique_violation THEN
            NULL;  -- granted by somebody else at this moment, from another database
        WHEN insufficient_privilege THEN
            RAISE NOTICE 'no right to take on the role meter_dashboard: the dashboard reads as %',
                current_user;
    END;
    EXECUTE format('GRANT USAGE ON SCHEMA %I TO meter_dashboard', current_schema());
    GRANT SELECT ON
        calls, corrected_calls, counted_usage, charge_lines, quarter_hours, days, user_days,
        answer_days, duration_days, spans, user_spans, feature_spans, day_users, user_numbers,
        packed_spans, user_usage_summary,
        monthly_usage_summary, endpoint_usage_summary, daily_usage_summary, ledger_status,
        open_objects, metering_gaps, prices
    TO meter_dashboard;
END
$do$;

-- The role that the dashboard is to take on. NULL: none, it reads as it is.
CREATE OR REPLACE FUNCTION dashboard_role()
RETURNS text
LANGUAGE plpgsql
STABLE
AS $function$
BEGIN
    IF to_regrole('meter_dashboard') IS NULL THEN
        RETURN NULL;
    END IF;
    IF pg_has_role(
        current_user,
        'meter_dashboard',
        -- Since 16 a member is not necessarily allowed to take the role on.
        CASE
            WHEN current_setting('server_version_num')::integer >= 160000 THEN 'SET'
            ELSE 'MEMBER'
        END
    ) THEN
        RETURN 'meter_dashboard';
    END IF;
    RETURN NULL;
END
$function$;


-- 12. Ready --------------------------------------------------------------------------------------

SELECT ensure_partitions();
