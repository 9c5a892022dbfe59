-- schema.sql as it was before rollups were kept by a trigger (commit 0428e12, 2026-11-22): test data,
-- to try the way from there to the present one. Not to be changed.

-- The ledger of openai-meter: the one contract between the proxy, which writes it, and the dashboard,
-- which reads it. The file is applied as a whole, in one transaction, at every start that brings a
-- new version of it; each statement may be run again. PostgreSQL 15 or newer.
--
-- How to read it: user_api_usage has one row for every request that was sent upstream and only
-- grows. Three rollups hold exact sums of it; the statement that inserts rows adds those same rows
-- to the sums (proxy/ledger.py), so neither can run ahead of the other. NULL means unknown, never 0.


-- 1. Settings ------------------------------------------------------------------------------------

-- What must be the same for everybody who uses this database.
CREATE TABLE IF NOT EXISTS meter_settings (
    name text PRIMARY KEY,
    value text NOT NULL
);

COMMENT ON TABLE meter_settings IS
    'Settings kept in the database. report_timezone: where the days of usage_by_user_day begin.';

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
    )
) PARTITION BY RANGE (created_at);

-- Ledgers from before there were tool fees and free calls. What is stored already satisfies the
-- wider check, so that it need not be read again.
ALTER TABLE user_api_usage
    ADD COLUMN IF NOT EXISTS tool_cost_usd numeric(20, 12),
    ADD COLUMN IF NOT EXISTS list_cost_usd numeric(20, 12),
    ADD COLUMN IF NOT EXISTS billed_units jsonb;
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

COMMENT ON TABLE user_api_usage IS
    'One row for every request sent upstream. Only grows: a correction is a row of its own.';
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
    'event_id of the row that this one corrects; its counts and cost are then differences.';
COMMENT ON COLUMN user_api_usage.recorded_at IS
    'When the row was inserted; later than created_at by the length of the call, or of an outage.';
COMMENT ON COLUMN user_api_usage.tool_cost_usd IS
    'Fees of hosted tools, a part of cost_usd. 0: none was used. NULL: not known.';
COMMENT ON COLUMN user_api_usage.list_cost_usd IS
    'cost_usd before any negotiated price.';
COMMENT ON COLUMN user_api_usage.billed_units IS
    'What is billed by the unit: a list of component, quantity and price_id (null: no price).';


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


-- 5. Rollups -------------------------------------------------------------------------------------

-- Exact sums, kept by the statement that inserts the rows. A sum is over what is known, and NULL as
-- long as nothing is. Keys may be NULL (a call without a user): NULL is a key like any other here.
-- The fill factor leaves room for updates in place.

-- The sum of what is known. NULL: neither is.
CREATE OR REPLACE FUNCTION known_sum(one numeric, other numeric)
RETURNS numeric
LANGUAGE sql
IMMUTABLE PARALLEL SAFE
AS 'SELECT coalesce(one + other, one, other)';

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
    CONSTRAINT usage_by_quarter_hour_key
    UNIQUE NULLS NOT DISTINCT (bucket, endpoint, model, service_tier, operation_name)
) WITH (fillfactor = 70);

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

-- For everything by user, by day, by month: the day is the one of the report time zone.
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
    CONSTRAINT usage_by_user_day_key
    UNIQUE NULLS NOT DISTINCT (day, user_id, endpoint, model)
) WITH (fillfactor = 70);

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

ALTER TABLE usage_by_month ADD COLUMN IF NOT EXISTS tool_cost_usd numeric;

COMMENT ON TABLE usage_by_month IS
    'Sums of everything by month (UTC); columns as in usage_by_quarter_hour.';
COMMENT ON COLUMN usage_by_month.month IS
    'First day of the month (UTC).';

-- Make all rollups anew from the ledger. The writers hold the same lock shared (proxy/ledger.py), so
-- none of their rows is missed or counted twice; readers see the old sums until the new ones are there.
CREATE OR REPLACE FUNCTION rebuild_rollups()
RETURNS void
LANGUAGE plpgsql
AS $function$
DECLARE
    oldest timestamptz;
    zone text;
BEGIN
    PERFORM pg_advisory_xact_lock(hashtextextended('openai-meter rollups', 0));
    SELECT min(created_at) INTO oldest FROM user_api_usage;
    SELECT value INTO STRICT zone FROM meter_settings WHERE name = 'report_timezone';

    -- Sums outlive rows whose partition was dropped; they could not be made again.
    IF EXISTS (SELECT FROM usage_by_month WHERE first_call < coalesce(oldest, 'infinity')) THEN
        RAISE EXCEPTION USING
            ERRCODE = 'object_not_in_prerequisite_state',
            MESSAGE = 'the rollups reach back further than the ledger and cannot be rebuilt',
            HINT = 'Attach the dropped partitions of user_api_usage again first.';
    END IF;

    DELETE FROM usage_by_quarter_hour;
    INSERT INTO usage_by_quarter_hour
    SELECT
        date_bin('15 minutes', created_at, 'epoch'),
        endpoint,
        model,
        service_tier,
        operation_name,
        count(*) FILTER (WHERE corrects IS NULL),
        count(*) FILTER (
            WHERE corrects IS NULL AND outcome NOT IN ('ok', 'client_disconnected')
        ),
        count(*) FILTER (
            WHERE corrects IS NULL
                AND usage_source <> 'unavailable'
                AND (cost_usd IS NULL OR unpriced_reason IS NOT NULL)
        ),
        count(*) FILTER (WHERE corrects IS NULL AND usage_source = 'estimated'),
        count(*) FILTER (
            WHERE corrects IS NULL AND usage_source = 'unavailable' AND cost_usd IS NULL
        ),
        sum(prompt_tokens),
        sum(completion_tokens),
        sum(total_tokens),
        sum(cached_tokens),
        sum(cache_write_tokens),
        sum(reasoning_tokens),
        sum(audio_prompt_tokens),
        sum(audio_completion_tokens),
        sum(cost_usd),
        min(created_at),
        max(created_at),
        sum(tool_cost_usd)
    FROM user_api_usage
    GROUP BY 1, 2, 3, 4, 5;

    DELETE FROM usage_by_user_day;
    INSERT INTO usage_by_user_day
    SELECT
        (created_at AT TIME ZONE zone)::date,
        user_id,
        endpoint,
        model,
        count(*) FILTER (WHERE corrects IS NULL),
        count(*) FILTER (
            WHERE corrects IS NULL AND outcome NOT IN ('ok', 'client_disconnected')
        ),
        count(*) FILTER (
            WHERE corrects IS NULL
                AND usage_source <> 'unavailable'
                AND (cost_usd IS NULL OR unpriced_reason IS NOT NULL)
        ),
        count(*) FILTER (WHERE corrects IS NULL AND usage_source = 'estimated'),
        count(*) FILTER (
            WHERE corrects IS NULL AND usage_source = 'unavailable' AND cost_usd IS NULL
        ),
        sum(prompt_tokens),
        sum(completion_tokens),
        sum(total_tokens),
        sum(cached_tokens),
        sum(cache_write_tokens),
        sum(reasoning_tokens),
        sum(audio_prompt_tokens),
        sum(audio_completion_tokens),
        sum(cost_usd),
        min(created_at),
        max(created_at),
        sum(tool_cost_usd)
    FROM user_api_usage
    GROUP BY 1, 2, 3, 4;

    DELETE FROM usage_by_month;
    INSERT INTO usage_by_month
    SELECT
        date_trunc('month', bucket AT TIME ZONE 'UTC')::date,
        sum(calls),
        sum(errors),
        sum(unpriced_calls),
        sum(estimated_calls),
        sum(unavailable_calls),
        sum(total_tokens),
        sum(cost_usd),
        min(first_call),
        max(last_call),
        sum(tool_cost_usd)
    FROM usage_by_quarter_hour
    GROUP BY 1;
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
    PERFORM pg_advisory_xact_lock(hashtextextended('openai-meter rollups', 0));
    UPDATE meter_settings SET value = zone WHERE name = 'report_timezone' AND value <> zone;
    IF NOT FOUND THEN
        RETURN false;  -- somebody else was faster
    END IF;
    PERFORM rebuild_rollups();
    RETURN true;
END
$function$;


-- 6. Prices --------------------------------------------------------------------------------------

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


-- 7. Views ---------------------------------------------------------------------------------------

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
    billed_units
FROM user_api_usage;

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
FROM usage_by_user_day
GROUP BY user_id;

-- One row for each user and month of the report time zone; month is its first day.
CREATE OR REPLACE VIEW monthly_usage_summary AS
SELECT
    date_trunc('month', day::timestamp)::date AS month,
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
FROM usage_by_user_day
GROUP BY 1, user_id;

-- One row for each endpoint, over all time; users counts those that are named.
CREATE OR REPLACE VIEW endpoint_usage_summary AS
SELECT
    endpoint,
    count(DISTINCT user_id) AS users,
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
FROM usage_by_user_day
GROUP BY endpoint;

-- One row for each day of the report time zone; users counts those that are named.
CREATE OR REPLACE VIEW daily_usage_summary AS
SELECT
    day,
    count(DISTINCT user_id) AS users,
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
FROM usage_by_user_day
GROUP BY day;

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

CREATE OR REPLACE VIEW prices AS
SELECT
    catalog_version,
    price_id,
    component,
    list_unit_price
FROM price_rate;


-- 8. Roles ---------------------------------------------------------------------------------------

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
        calls, quarter_hours, user_days, user_usage_summary, monthly_usage_summary,
        endpoint_usage_summary, daily_usage_summary, ledger_status, prices
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


-- 9. Ready ---------------------------------------------------------------------------------------

SELECT ensure_partitions();
