-- What workers of migration 0009 run on PostgreSQL, for each execution, and their relay.

-- claim
INSERT INTO executions (id, program_id, inputs, options, request_digest, source, traceparent, tenant, not_before,
    deadline, reply_to, correlation_id, callback, metadata, extensions, status, attempt, lock_version, worker,
    lease_expires_at, due_at, backend_id, policy, program_callback, started_at, inserted_at, updated_at, timeline)
    SELECT asked.id, asked.program_id, asked.inputs, asked.options, asked.request_digest, asked.source,
    asked.traceparent, asked.tenant, asked.not_before, asked.deadline, asked.reply_to, asked.correlation_id,
    asked.callback, asked.metadata, asked.extensions, CASE WHEN asked.later THEN 'pending' ELSE 'running' END AS
    anon_1, CASE WHEN asked.later THEN 0 ELSE 1 END AS anon_2, 1 AS anon_3, CASE WHEN asked.later THEN NULL ELSE
    :worker END AS anon_4, CASE WHEN asked.later THEN NULL ELSE (clock_timestamp() + make_interval(secs =>
    CAST(:lease_seconds AS double precision))) END AS anon_5, CASE WHEN asked.later THEN asked.not_before ELSE NULL
    END AS anon_6, CASE WHEN (programs.status = 'ready') THEN programs.backend_id ELSE NULL END AS anon_7,
    programs.policy, programs.callback AS callback_1, CASE WHEN asked.later THEN NULL ELSE (clock_timestamp()) END AS
    anon_8, (clock_timestamp()) AS database_now_1, (clock_timestamp()) AS database_now__1,
    jsonb_build_array(jsonb_build_object('status', CAST(CASE WHEN asked.later THEN 'pending' ELSE 'running' END AS
    text), 'at', clock_timestamp(), 'attempt', CAST(CASE WHEN asked.later THEN 0 ELSE 1 END AS integer), 'by',
    CAST(:worker AS text))) AS begun_1
FROM (SELECT records.id AS id, records.program_id AS program_id, records.inputs AS inputs, records.options AS options,
    records.request_digest AS request_digest, records.source AS source, records.traceparent AS traceparent,
    records.tenant AS tenant, records.not_before AS not_before, records.deadline AS deadline, records.reply_to AS
    reply_to, records.correlation_id AS correlation_id, records.callback AS callback, records.metadata AS metadata,
    records.extensions AS extensions, records.not_before > (clock_timestamp()) AS later
FROM jsonb_to_recordset(CAST(:records AS JSONB)) AS records(id UUID, program_id UUID, inputs JSONB, options JSONB,
    request_digest VARCHAR, source TEXT, traceparent VARCHAR, tenant VARCHAR, not_before TIMESTAMP WITH TIME ZONE,
    deadline TIMESTAMP WITH TIME ZONE, reply_to TEXT, correlation_id TEXT, callback JSONB, metadata JSONB, extensions
    JSONB)) AS asked JOIN programs ON programs.id = asked.program_id AND programs.tenant = asked.tenant
WHERE asked.id IS NOT NULL ORDER BY asked.id, asked.tenant ON CONFLICT DO NOTHING RETURNING executions.id,
    executions.tenant, executions.status, executions.attempt, executions.lock_version, executions.backend_id,
    executions.cancel_requested, executions.policy, executions.usage, executions.carried, executions.lost,
    CAST(EXTRACT(EPOCH
FROM executions.deadline - clock_timestamp()) AS double precision) AS seconds_left, CASE WHEN (executions.error_code =
    'rate_limited') THEN -CAST(EXTRACT(EPOCH
FROM executions.not_before - clock_timestamp()) AS double precision) ELSE NULL END AS late, executions.reply_to,
    executions.metadata, executions.extensions

-- finish
WITH ended AS (UPDATE executions SET attempt=coalesce(records.attempt, executions.attempt), lease_expires_at=NULL,
    outputs=records.outputs, error=records.error, usage=records.usage, duration_ms=records.duration_ms,
    finished_at=(clock_timestamp()), status=records.status, lock_version=(executions.lock_version + 1),
    updated_at=(clock_timestamp()), timeline=((CASE WHEN jsonb_array_length(executions.timeline) < 50 THEN
    executions.timeline ELSE executions.timeline - 0 END) || jsonb_build_object('status', CAST(records.status AS
    text), 'at', clock_timestamp(), 'attempt', CAST(coalesce(records.attempt, executions.attempt) AS integer), 'by',
    CAST(executions.worker AS text))), error_code=records.error_code, input_tokens=records.input_tokens,
    output_tokens=records.output_tokens, cost=records.cost
FROM jsonb_to_recordset(CAST(:records AS JSONB)) AS records(id UUID, tenant VARCHAR, lock_version INTEGER, status
    VARCHAR, attempt INTEGER, outputs JSONB, error JSONB, duration_ms FLOAT, error_code VARCHAR, usage JSONB,
    input_tokens BIGINT, output_tokens BIGINT, cost FLOAT)
WHERE executions.id = records.id AND executions.lock_version = records.lock_version AND executions.tenant =
    records.tenant AND (executions.status || '') = 'running' RETURNING executions.id, executions.lock_version,
    executions.status, executions.tenant, executions.callback, executions.program_callback, executions.tenant IN
    (SELECT webhook_endpoints.tenant
FROM webhook_endpoints
WHERE webhook_endpoints.registered) AS registered), owed AS (INSERT INTO callbacks (execution_id, lock_version,
    tenant, due_at) SELECT ended.id AS id, ended.lock_version AS lock_version, ended.tenant AS tenant,
    (clock_timestamp() + make_interval(secs => CAST(:due_in AS double precision))) AS database_now_1
FROM ended
WHERE ended.id IS NOT NULL ON CONFLICT ON CONSTRAINT pk_callbacks DO UPDATE SET lock_version = excluded.lock_version,
    due_at = excluded.due_at, tries = 0) SELECT ended.id, ended.lock_version, ended.status, ended.tenant,
    ended.callback, ended.program_callback, ended.registered
FROM ended

-- count
WITH swapped AS (INSERT INTO program_counters (program_id, shard, tenant, completed, failed, cancelled, duration_ms,
    input_tokens, output_tokens, cost, tokens_known, cost_known, last_executed_at, lock_version) SELECT
    records.program_id AS program_id, records.shard AS shard, records.tenant AS tenant, records.completed AS
    completed, records.failed AS failed, records.cancelled AS cancelled, records.duration_ms AS duration_ms,
    records.input_tokens AS input_tokens, records.output_tokens AS output_tokens, records.cost AS cost,
    records.tokens_known AS tokens_known, records.cost_known AS cost_known, CASE WHEN records.executed THEN
    (clock_timestamp()) ELSE NULL END AS anon_1, coalesce((SELECT known.lock_version
FROM program_counters AS known
WHERE known.program_id = records.program_id AND known.shard = records.shard AND known.tenant = records.tenant),
    (SELECT max(known.lock_version) AS max_1
FROM program_counters AS known
WHERE known.program_id = records.program_id AND known.shard = records.shard), 0) + 1 AS anon_2
FROM jsonb_to_recordset(CAST(:records AS JSONB)) AS records(program_id UUID, shard INTEGER, tenant VARCHAR, completed
    BIGINT, failed BIGINT, cancelled BIGINT, duration_ms FLOAT, input_tokens BIGINT, output_tokens BIGINT, cost FLOAT,
    tokens_known BIGINT, cost_known BIGINT, executed BOOLEAN)
WHERE records.program_id IS NOT NULL ORDER BY records.program_id, records.tenant ON CONFLICT ON CONSTRAINT
    pk_program_counters DO UPDATE SET completed = (program_counters.completed + excluded.completed), failed =
    (program_counters.failed + excluded.failed), duration_ms = (program_counters.duration_ms + excluded.duration_ms),
    input_tokens = (program_counters.input_tokens + excluded.input_tokens), output_tokens =
    (program_counters.output_tokens + excluded.output_tokens), cost = (program_counters.cost + excluded.cost),
    last_executed_at = coalesce(excluded.last_executed_at, program_counters.last_executed_at), lock_version =
    excluded.lock_version, cancelled = (program_counters.cancelled + excluded.cancelled), tokens_known =
    (program_counters.tokens_known + excluded.tokens_known), cost_known = (program_counters.cost_known +
    excluded.cost_known)
WHERE program_counters.lock_version = excluded.lock_version - 1 RETURNING program_counters.program_id,
    program_counters.tenant), added AS (INSERT INTO program_durations (program_id, shard, tenant, bucket, runs) SELECT
    durations.program_id AS program_id, durations.shard AS shard, durations.tenant AS tenant, durations.bucket AS
    bucket, durations.runs AS runs
FROM jsonb_to_recordset(CAST(:durations AS JSONB)) AS durations(program_id UUID, shard INTEGER, tenant VARCHAR, bucket
    INTEGER, runs BIGINT) JOIN swapped ON swapped.program_id = durations.program_id AND swapped.tenant =
    durations.tenant ORDER BY durations.program_id, durations.tenant, durations.bucket ON CONFLICT ON CONSTRAINT
    pk_program_durations DO UPDATE SET runs = (program_durations.runs + excluded.runs)) SELECT swapped.program_id,
    swapped.tenant
FROM swapped

-- add
INSERT INTO callbacks (execution_id, lock_version, tenant, due_at) SELECT records.execution_id, records.lock_version,
    records.tenant, (clock_timestamp() + make_interval(secs => CAST(:due_in AS double precision))) AS database_now_1
FROM jsonb_to_recordset(CAST(:records AS JSONB)) AS records(execution_id UUID, lock_version INTEGER, tenant VARCHAR)
WHERE records.execution_id IS NOT NULL ON CONFLICT ON CONSTRAINT pk_callbacks DO UPDATE SET lock_version =
    excluded.lock_version, due_at = excluded.due_at, tries = 0

-- sent
DELETE
FROM callbacks
WHERE callbacks.execution_id IN (SELECT records.execution_id
FROM jsonb_to_recordset(CAST(:records AS JSONB)) AS records(execution_id UUID, lock_version INTEGER, tenant VARCHAR))
    AND (EXISTS (SELECT records.execution_id
FROM jsonb_to_recordset(CAST(:records AS JSONB)) AS records(execution_id UUID, lock_version INTEGER, tenant VARCHAR)
WHERE callbacks.execution_id = records.execution_id AND callbacks.tenant = records.tenant AND callbacks.lock_version =
    records.lock_version))

-- due
WITH due AS (SELECT callbacks.execution_id AS execution_id, callbacks.tenant AS tenant
FROM callbacks
WHERE callbacks.due_at < statement_timestamp() LIMIT 10 FOR UPDATE SKIP LOCKED) UPDATE callbacks SET
    due_at=(clock_timestamp() + make_interval(secs => CAST(:again_in * (1 << CASE WHEN (callbacks.tries < 6) THEN
    callbacks.tries ELSE 6 END) AS double precision))), tries=(callbacks.tries + 1)
WHERE (callbacks.execution_id, callbacks.tenant) IN (SELECT due.execution_id, due.tenant
FROM due) RETURNING callbacks.execution_id, callbacks.tenant
