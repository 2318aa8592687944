-- The statements of the hot path on postgresql, of what looks after it, of the deliverer, and of operators.
-- Written by `make sql`, out of the code: a test holds it to that.
-- A parameter `records` is a JSON array, with an object for each row of the batch.

-- take keys
--   function: store.executions.transitions.claim (store/executions/transitions.py)
--   runs: before a claim, where a request of the batch has an idempotency key
--   needs: pk_idempotency_keys
INSERT INTO idempotency_keys (tenant, key, execution_id, request_digest, inserted_at)
SELECT records.tenant, records.key, records.execution_id, records.request_digest, (clock_timestamp()) AS
    database_now_1
FROM jsonb_to_recordset(CAST(%(records)s::VARCHAR AS JSONB)) AS records(tenant VARCHAR, key VARCHAR,
    execution_id UUID, request_digest VARCHAR)
WHERE records.key IS NOT NULL
ORDER BY records.tenant, records.key
ON CONFLICT (tenant, key) DO UPDATE SET key = idempotency_keys.key
RETURNING idempotency_keys.tenant, idempotency_keys.key, idempotency_keys.execution_id,
    idempotency_keys.request_digest;

-- claim
--   function: store.executions.transitions.claim (store/executions/transitions.py)
--   runs: for each batch of messages
--   needs: pk_executions, pk_programs
INSERT INTO executions (id, program_id, inputs, options, source, traceparent, tenant, reply_to,
    correlation_id, callback, metadata, extensions, requested_at, request_digest, not_before, deadline, lane,
    status, attempt, lock_version, worker, lease_expires_at, due_at, backend_id, policy, program_callback,
    started_at, inserted_at, updated_at, timeline, run_at, cancel_requested)
SELECT asked.id, asked.program_id, asked.inputs, asked.options, asked.source, asked.traceparent, asked.tenant,
    asked.reply_to, asked.correlation_id, asked.callback, asked.metadata, asked.extensions,
    asked.requested_at, asked.request_digest, asked.not_before, asked.deadline, asked.lane, CASE WHEN
    asked.later THEN %(pending)s::VARCHAR ELSE %(running)s::VARCHAR END AS anon_1, CASE WHEN asked.later THEN
    0 ELSE 1 END AS anon_2, %(first)s::INTEGER AS anon_3, CASE WHEN asked.later THEN NULL ELSE
    %(worker)s::VARCHAR END AS anon_4, CASE WHEN asked.later THEN NULL ELSE (clock_timestamp() +
    make_interval(secs => CAST(%(lease_seconds)s AS double precision))) END AS anon_5, CASE WHEN asked.later
    THEN (clock_timestamp() + make_interval(secs => CAST(31557600000.0 AS double precision))) ELSE NULL END AS
    anon_6, CASE WHEN (programs.status = %(status_1)s::VARCHAR) THEN programs.backend_id ELSE NULL END AS
    anon_7, programs.policy, programs.callback AS callback_1, CASE WHEN asked.later THEN NULL ELSE
    (clock_timestamp()) END AS anon_8, (clock_timestamp()) AS database_now_1, (clock_timestamp()) AS
    database_now__1, jsonb_build_array(jsonb_build_object('status', CAST(CASE WHEN asked.later THEN
    %(pending)s::VARCHAR ELSE %(running)s::VARCHAR END AS text), 'at', clock_timestamp(), 'attempt', CAST(CASE
    WHEN asked.later THEN 0 ELSE 1 END AS integer), 'by', CAST(%(worker)s::VARCHAR AS text))) AS begun_1, CASE
    WHEN asked.later THEN CASE WHEN asked.scheduled THEN asked.not_before ELSE (clock_timestamp()) END ELSE
    NULL END AS anon_9, EXISTS (SELECT 1
FROM early_cancels
WHERE early_cancels.execution_id = asked.id AND early_cancels.tenant = asked.tenant FOR KEY SHARE) AS anon_10
FROM (SELECT records.id AS id, records.program_id AS program_id, records.inputs AS inputs, records.options AS
    options, records.source AS source, records.traceparent AS traceparent, records.tenant AS tenant,
    records.reply_to AS reply_to, records.correlation_id AS correlation_id, records.callback AS callback,
    records.metadata AS metadata, records.extensions AS extensions, records.requested_at AS requested_at,
    records.request_digest AS request_digest, records.not_before AS not_before, records.deadline AS deadline,
    records.lane AS lane, records.now AS now, NOT records.now OR coalesce(records.not_before >
    (clock_timestamp()), false) AS later, records.not_before > (clock_timestamp()) AS scheduled
FROM jsonb_to_recordset(CAST(%(records)s::VARCHAR AS JSONB)) AS records(id UUID, program_id UUID, inputs
    JSONB, options JSONB, source TEXT, traceparent VARCHAR(55), tenant VARCHAR(64), reply_to TEXT,
    correlation_id TEXT, callback JSONB, metadata JSONB, extensions JSONB, requested_at TIMESTAMP WITH TIME
    ZONE, request_digest VARCHAR(64), not_before TIMESTAMP WITH TIME ZONE, deadline TIMESTAMP WITH TIME ZONE,
    lane SMALLINT, now BOOLEAN)) AS asked
JOIN programs ON programs.id = asked.program_id AND programs.tenant = asked.tenant
WHERE asked.id IS NOT NULL
ORDER BY asked.id, asked.tenant
ON CONFLICT DO NOTHING
RETURNING executions.tenant, executions.status, executions.reply_to, executions.id, executions.attempt,
    executions.lock_version, executions.backend_id, executions.cancel_requested, executions.policy,
    executions.usage, executions.carried, executions.lost, executions.metadata, executions.extensions,
    CAST(EXTRACT(EPOCH FROM executions.deadline - clock_timestamp()) AS double precision) AS seconds_left,
    CASE WHEN (executions.error_code = 'rate_limited') THEN -CAST(EXTRACT(EPOCH FROM executions.not_before -
    clock_timestamp()) AS double precision) ELSE NULL END AS late, (SELECT max(gates.updated_at) AS max_1
FROM gates) AS gates_at;

-- why not claimed
--   function: store.executions.transitions.claim (store/executions/transitions.py)
--   runs: where some of the batch are there already, or have no program
--   needs: pk_executions
SELECT executions.id, executions.program_id, executions.inputs, executions.options, executions.request_digest,
    executions.source, executions.traceparent, executions.backend_id, executions.attempt, executions.worker,
    executions.lease_expires_at, executions.outputs, executions.error, executions.usage,
    executions.duration_ms, executions.started_at, executions.finished_at, executions.status,
    executions.lock_version, executions.inserted_at, executions.updated_at, executions.tenant,
    executions.cancel_requested, executions.timeline, executions.error_code, executions.input_tokens,
    executions.output_tokens, executions.cost, executions.due_at, executions.not_before, executions.deadline,
    executions.policy, executions.reply_to, executions.correlation_id, executions.carried, executions.lost,
    executions.discarded, executions.callback, executions.program_callback, executions.metadata,
    executions.extensions, executions.requested_at, executions.lane, executions.group_key, executions.run_at
FROM executions
WHERE executions.id IN (...);

-- adopt these
--   function: store.executions.transitions.claim (store/executions/transitions.py)
--   runs: after that: what a worker from before queues has left of them
--   needs: pk_executions
WITH "left" AS (SELECT executions.id AS id, executions.tenant AS tenant
FROM jsonb_to_recordset(CAST(%(records)s::VARCHAR AS JSONB)) AS records(id UUID, request_digest VARCHAR(64),
    tenant VARCHAR(64))
JOIN executions ON executions.id = records.id AND executions.tenant = records.tenant
WHERE CASE WHEN (executions.status = 'pending' AND executions.run_at IS NULL AND executions.request_digest =
    records.request_digest) THEN true ELSE false END
FOR UPDATE OF executions SKIP LOCKED) UPDATE executions
SET due_at=(clock_timestamp() + make_interval(secs => CAST(31557600000.0 AS double precision))),
    run_at=coalesce(executions.not_before, executions.inserted_at)
FROM "left"
WHERE executions.id = "left".id AND executions.tenant = "left".tenant
RETURNING executions.tenant, executions.program_id, executions.lane, executions.group_key, executions.run_at;

-- give back keys
--   function: store.executions.transitions.claim (store/executions/transitions.py)
--   runs: where no execution came of an idempotency key
--   needs: pk_idempotency_keys
DELETE
FROM idempotency_keys
WHERE (idempotency_keys.tenant, idempotency_keys.key) IN (...);

-- offer
--   function: store.executions.transitions.claim (store/executions/transitions.py)
--   runs: where executions begin to wait: it locks their queues. PostgreSQL counts them in the same statement
--   needs: pk_queues
WITH moved AS (INSERT INTO queue_moves (id, tenant, program_id, lane, came, went)
SELECT moves.id AS id, moves.tenant AS tenant, moves.program_id AS program_id, moves.lane AS lane, moves.came
    AS came, moves.went AS went
FROM jsonb_to_recordset(CAST(%(moves)s::VARCHAR AS JSONB)) AS moves(id UUID, tenant VARCHAR, program_id UUID,
    lane SMALLINT, came INTEGER, went INTEGER)), ready AS (SELECT queues.tenant AS tenant, queues.program_id
    AS program_id, queues.lane AS lane, queues.group_key AS group_key
FROM jsonb_to_recordset(CAST(%(records)s::VARCHAR AS JSONB)) AS records(tenant VARCHAR(64), program_id UUID,
    lane SMALLINT, group_key VARCHAR(64), run_at TIMESTAMP WITH TIME ZONE)
JOIN queues ON queues.tenant = records.tenant AND queues.program_id = records.program_id AND queues.lane =
    records.lane AND queues.group_key = records.group_key
WHERE queues.holder IS NOT NULL
ORDER BY queues.tenant, queues.program_id, queues.lane, queues.group_key FOR KEY SHARE OF queues) INSERT INTO
    queues (tenant, program_id, lane, group_key, holder, wake_at, inserted_at)
SELECT records.tenant, records.program_id, records.lane, records.group_key, CASE WHEN (records.run_at IS NULL
    OR records.run_at <= (clock_timestamp())) THEN '' ELSE NULL END AS anon_1, CASE WHEN (records.run_at IS
    NULL OR records.run_at <= (clock_timestamp())) THEN NULL ELSE records.run_at END AS anon_2,
    (clock_timestamp()) AS database_now_1
FROM jsonb_to_recordset(CAST(%(records)s::VARCHAR AS JSONB)) AS records(tenant VARCHAR(64), program_id UUID,
    lane SMALLINT, group_key VARCHAR(64), run_at TIMESTAMP WITH TIME ZONE)
WHERE ((records.tenant, records.program_id, records.lane, records.group_key) NOT IN (SELECT ready.tenant,
    ready.program_id, ready.lane, ready.group_key
FROM ready))
ORDER BY records.tenant, records.program_id, records.lane, records.group_key
ON CONFLICT (tenant, program_id, lane, group_key) DO UPDATE SET holder = excluded.holder, wake_at =
    excluded.wake_at
WHERE queues.holder IS NULL AND (excluded.holder IS NOT NULL OR queues.wake_at IS NULL OR queues.wake_at >
    excluded.wake_at)
RETURNING queues.holder;

-- wake
--   function: store.executions.transitions.claim (store/executions/transitions.py)
--   runs: where a queue became ready
--   needs: none
SELECT pg_notify('dspex_queues', '');

-- claim alone
--   function: store.executions.alone.claim_alone (store/executions/alone.py)
--   runs: for an execution that is to run alone in its process
--   needs: pk_executions, pk_programs
WITH free AS (SELECT executions.id AS id, executions.tenant AS tenant
FROM jsonb_to_recordset(CAST(%(records)s::VARCHAR AS JSONB)) AS records(id UUID, tenant VARCHAR(64))
JOIN executions ON executions.id = records.id AND executions.tenant = records.tenant
WHERE CASE WHEN (executions.status = 'pending' AND executions.run_at IS NOT NULL AND (executions.not_before IS
    NULL OR executions.not_before <= (clock_timestamp()))) THEN true ELSE false END
FOR UPDATE OF executions SKIP LOCKED) UPDATE executions
SET backend_id=(SELECT CASE WHEN (programs.status = %(status_1)s::VARCHAR) THEN programs.backend_id ELSE NULL
    END AS anon_1
FROM programs
WHERE programs.id = executions.program_id AND programs.tenant = executions.tenant),
    attempt=(executions.attempt + %(attempt_1)s::INTEGER), worker=%(worker)s::VARCHAR,
    lease_expires_at=(clock_timestamp() + make_interval(secs => CAST(%(lease_seconds)s AS double precision))),
    started_at=(clock_timestamp()), status=%(running)s::VARCHAR, lock_version=(executions.lock_version +
    %(lock_version_1)s::INTEGER), updated_at=(clock_timestamp()), timeline=((CASE WHEN
    jsonb_array_length(executions.timeline) < 50 THEN executions.timeline ELSE executions.timeline - 0 END) ||
    jsonb_build_object('status', CAST(%(running)s::VARCHAR AS text), 'at', clock_timestamp(), 'attempt',
    CAST(executions.attempt + %(attempt_2)s::INTEGER AS integer), 'by', CAST(%(worker)s::VARCHAR AS text))),
    due_at=NULL, policy=(SELECT programs.policy
FROM programs
WHERE programs.id = executions.program_id AND programs.tenant = executions.tenant), program_callback=(SELECT
    programs.callback
FROM programs
WHERE programs.id = executions.program_id AND programs.tenant = executions.tenant)
FROM free
WHERE executions.id = free.id AND executions.tenant = free.tenant
RETURNING executions.tenant, executions.status, executions.reply_to, executions.id, executions.attempt,
    executions.lock_version, executions.backend_id, executions.cancel_requested, executions.policy,
    executions.usage, executions.carried, executions.lost, executions.metadata, executions.extensions,
    CAST(EXTRACT(EPOCH FROM executions.deadline - clock_timestamp()) AS double precision) AS seconds_left,
    CASE WHEN (executions.error_code = 'rate_limited') THEN -CAST(EXTRACT(EPOCH FROM executions.not_before -
    clock_timestamp()) AS double precision) ELSE NULL END AS late, executions.program_id, executions.lane,
    executions.group_key, (SELECT max(gates.updated_at) AS max_1
FROM gates) AS gates_at;

-- count moves
--   function: store.executions.waiting.wait_no_more (store/executions/waiting.py)
--   runs: where executions wait no more: after a choice, `claim alone` and `cancel`
--   needs: none
INSERT INTO queue_moves (id, tenant, program_id, lane, came, went)
SELECT moves.id, moves.tenant, moves.program_id, moves.lane, moves.came, moves.went
FROM jsonb_to_recordset(CAST(%(moves)s::VARCHAR AS JSONB)) AS moves(id UUID, tenant VARCHAR, program_id UUID,
    lane SMALLINT, came INTEGER, went INTEGER);

-- finish
--   function: store.executions.transitions.finish_and_read (store/executions/transitions.py)
--   runs: for each batch of ends. PostgreSQL counts them and adds their events to the outbox by the same
--   needs: pk_executions, pk_event_outbox, pk_program_counters, pk_program_durations, ix_webhook_endpoints_registered
WITH ended AS (UPDATE executions
SET attempt=coalesce(records.attempt, executions.attempt), lease_expires_at=NULL, outputs=records.outputs,
    error=records.error, usage=records.usage, duration_ms=records.duration_ms,
    finished_at=(clock_timestamp()), status=records.status, lock_version=(executions.lock_version +
    %(lock_version_1)s::INTEGER), updated_at=(clock_timestamp()), timeline=((CASE WHEN
    jsonb_array_length(executions.timeline) < 50 THEN executions.timeline ELSE executions.timeline - 0 END) ||
    jsonb_build_object('status', CAST(records.status AS text), 'at', clock_timestamp(), 'attempt',
    CAST(coalesce(records.attempt, executions.attempt) AS integer), 'by', CAST(executions.worker AS text))),
    error_code=records.error_code, input_tokens=records.input_tokens, output_tokens=records.output_tokens,
    cost=records.cost
FROM jsonb_to_recordset(CAST(%(records)s::VARCHAR AS JSONB)) AS records(id UUID, tenant VARCHAR(64),
    lock_version INTEGER, status VARCHAR(16), attempt INTEGER, outputs JSONB, duration_ms FLOAT, error JSONB,
    error_code VARCHAR(64), usage JSONB, input_tokens BIGINT, output_tokens BIGINT, cost FLOAT, bucket
    INTEGER)
WHERE executions.id = records.id AND executions.lock_version = records.lock_version AND executions.tenant =
    records.tenant AND (executions.status || %(status_1)s::VARCHAR) = %(param_1)s::VARCHAR
RETURNING executions.id, executions.lock_version, executions.status, executions.tenant, executions.callback,
    executions.program_callback, executions.program_id, executions.duration_ms, executions.input_tokens,
    executions.output_tokens, executions.cost, records.bucket, executions.tenant IN (SELECT
    webhook_endpoints.tenant
FROM webhook_endpoints
WHERE webhook_endpoints.registered) AS registered), counts AS (SELECT ended.program_id AS program_id,
    %(shard)s::INTEGER AS shard, ended.tenant AS tenant, CAST(count(*) FILTER (WHERE ended.status =
    %(status_2)s::VARCHAR) AS BIGINT) AS completed, CAST(count(*) FILTER (WHERE ended.status =
    %(status_3)s::VARCHAR) AS BIGINT) AS failed, CAST(count(*) FILTER (WHERE ended.status =
    %(status_4)s::VARCHAR) AS BIGINT) AS cancelled, CAST(coalesce(sum(ended.duration_ms) FILTER (WHERE
    ended.status != %(status_4)s::VARCHAR), %(coalesce_3)s::INTEGER) AS FLOAT) AS duration_ms,
    CAST(coalesce(sum(ended.input_tokens), %(coalesce_4)s::INTEGER) AS BIGINT) AS input_tokens,
    CAST(coalesce(sum(ended.output_tokens), %(coalesce_5)s::INTEGER) AS BIGINT) AS output_tokens,
    CAST(coalesce(sum(ended.cost), %(coalesce_6)s::INTEGER) AS FLOAT) AS cost, CAST(count(*) FILTER (WHERE
    ended.input_tokens IS NOT NULL AND ended.output_tokens IS NOT NULL) AS BIGINT) AS tokens_known,
    CAST(count(ended.cost) AS BIGINT) AS cost_known, bool_or(ended.duration_ms IS NOT NULL) AS executed
FROM ended GROUP BY ended.program_id, ended.tenant), swapped AS (INSERT INTO program_counters (program_id,
    shard, tenant, completed, failed, cancelled, duration_ms, input_tokens, output_tokens, cost, tokens_known,
    cost_known, last_executed_at, lock_version)
SELECT counts.program_id AS program_id, counts.shard AS shard, counts.tenant AS tenant, counts.completed AS
    completed, counts.failed AS failed, counts.cancelled AS cancelled, counts.duration_ms AS duration_ms,
    counts.input_tokens AS input_tokens, counts.output_tokens AS output_tokens, counts.cost AS cost,
    counts.tokens_known AS tokens_known, counts.cost_known AS cost_known, CASE WHEN counts.executed THEN
    (clock_timestamp()) ELSE NULL END AS anon_1, coalesce((SELECT counted.lock_version
FROM program_counters AS counted
WHERE counted.program_id = counts.program_id AND counted.shard = counts.shard AND counted.tenant =
    counts.tenant), %(coalesce_1)s::INTEGER) + %(coalesce_2)s::INTEGER AS anon_2
FROM counts
WHERE counts.program_id IS NOT NULL
ORDER BY counts.program_id, counts.tenant
ON CONFLICT (program_id, shard, tenant) DO UPDATE SET completed = (program_counters.completed +
    excluded.completed), failed = (program_counters.failed + excluded.failed), duration_ms =
    (program_counters.duration_ms + excluded.duration_ms), input_tokens = (program_counters.input_tokens +
    excluded.input_tokens), output_tokens = (program_counters.output_tokens + excluded.output_tokens), cost =
    (program_counters.cost + excluded.cost), last_executed_at = coalesce(excluded.last_executed_at,
    program_counters.last_executed_at), lock_version = excluded.lock_version, cancelled =
    (program_counters.cancelled + excluded.cancelled), tokens_known = (program_counters.tokens_known +
    excluded.tokens_known), cost_known = (program_counters.cost_known + excluded.cost_known)
WHERE program_counters.lock_version = excluded.lock_version - %(lock_version_2)s::INTEGER
RETURNING program_counters.program_id, program_counters.tenant), counted_durations AS (INSERT INTO
    program_durations (program_id, shard, tenant, bucket, runs)
SELECT durations.program_id AS program_id, durations.shard AS shard, durations.tenant AS tenant,
    durations.bucket AS bucket, durations.runs AS runs
FROM (SELECT ended.program_id AS program_id, %(shard)s::INTEGER AS shard, ended.tenant AS tenant, ended.bucket
    AS bucket, count(*) AS runs
FROM ended
WHERE ended.bucket IS NOT NULL GROUP BY ended.program_id, ended.tenant, ended.bucket) AS durations
WHERE CASE WHEN ((durations.program_id, durations.tenant) IN (SELECT swapped.program_id, swapped.tenant
FROM swapped)) THEN true ELSE false END
ORDER BY durations.program_id, durations.tenant, durations.bucket
ON CONFLICT (program_id, shard, bucket, tenant) DO UPDATE SET runs = (program_durations.runs +
    excluded.runs)), added AS (INSERT INTO event_outbox (execution_id, lock_version, tenant, due_at)
SELECT ended.id AS id, ended.lock_version AS lock_version, ended.tenant AS tenant, (clock_timestamp() +
    make_interval(secs => CAST(%(due_in)s AS double precision))) AS database_now_1
FROM ended
WHERE ended.id IS NOT NULL
ON CONFLICT (execution_id, tenant) DO UPDATE SET lock_version = excluded.lock_version, due_at =
    excluded.due_at, tries = %(param_2)s::INTEGER)
SELECT ended.id, ended.lock_version, ended.status, ended.tenant, ended.callback, ended.program_callback,
    ended.registered, (ended.program_id, ended.tenant) IN (SELECT swapped.program_id, swapped.tenant
FROM swapped) AS counted
FROM ended;

-- committed before
--   function: store.executions.transitions.finish_and_read (store/executions/transitions.py)
--   runs: where some of a batch were not as they were claimed
--   needs: pk_executions
SELECT executions.id, executions.lock_version, executions.status, executions.tenant
FROM executions
WHERE executions.id IN (...) AND executions.tenant = %(tenant_1)s::VARCHAR;

-- finish and read
--   function: store.executions.transitions.finish_and_read (store/executions/transitions.py)
--   runs: instead of `finish`, where somebody waits for an answer of the batch
--   needs: pk_executions, pk_event_outbox, pk_program_counters, pk_program_durations, ix_webhook_endpoints_registered
WITH ended AS (UPDATE executions
SET attempt=coalesce(records.attempt, executions.attempt), lease_expires_at=NULL, outputs=records.outputs,
    error=records.error, usage=records.usage, duration_ms=records.duration_ms,
    finished_at=(clock_timestamp()), status=records.status, lock_version=(executions.lock_version +
    %(lock_version_1)s::INTEGER), updated_at=(clock_timestamp()), timeline=((CASE WHEN
    jsonb_array_length(executions.timeline) < 50 THEN executions.timeline ELSE executions.timeline - 0 END) ||
    jsonb_build_object('status', CAST(records.status AS text), 'at', clock_timestamp(), 'attempt',
    CAST(coalesce(records.attempt, executions.attempt) AS integer), 'by', CAST(executions.worker AS text))),
    error_code=records.error_code, input_tokens=records.input_tokens, output_tokens=records.output_tokens,
    cost=records.cost
FROM jsonb_to_recordset(CAST(%(records)s::VARCHAR AS JSONB)) AS records(id UUID, tenant VARCHAR(64),
    lock_version INTEGER, status VARCHAR(16), attempt INTEGER, outputs JSONB, duration_ms FLOAT, error JSONB,
    error_code VARCHAR(64), usage JSONB, input_tokens BIGINT, output_tokens BIGINT, cost FLOAT, bucket
    INTEGER)
WHERE executions.id = records.id AND executions.lock_version = records.lock_version AND executions.tenant =
    records.tenant AND (executions.status || %(status_1)s::VARCHAR) = %(param_1)s::VARCHAR
RETURNING executions.id, executions.program_id, executions.status, executions.inputs, executions.options,
    executions.outputs, executions.error, executions.usage, executions.duration_ms, executions.attempt,
    executions.backend_id, executions.worker, executions.source, executions.traceparent,
    executions.inserted_at, executions.updated_at, executions.started_at, executions.finished_at,
    executions.lock_version, executions.tenant, executions.cancel_requested, executions.timeline,
    executions.not_before, executions.reply_to, executions.correlation_id, executions.discarded,
    executions.callback, executions.program_callback, executions.metadata, executions.extensions,
    executions.requested_at, executions.request_digest, executions.input_tokens, executions.output_tokens,
    executions.cost, records.bucket, executions.tenant IN (SELECT webhook_endpoints.tenant
FROM webhook_endpoints
WHERE webhook_endpoints.registered) AS registered), counts AS (SELECT ended.program_id AS program_id,
    %(shard)s::INTEGER AS shard, ended.tenant AS tenant, CAST(count(*) FILTER (WHERE ended.status =
    %(status_2)s::VARCHAR) AS BIGINT) AS completed, CAST(count(*) FILTER (WHERE ended.status =
    %(status_3)s::VARCHAR) AS BIGINT) AS failed, CAST(count(*) FILTER (WHERE ended.status =
    %(status_4)s::VARCHAR) AS BIGINT) AS cancelled, CAST(coalesce(sum(ended.duration_ms) FILTER (WHERE
    ended.status != %(status_4)s::VARCHAR), %(coalesce_3)s::INTEGER) AS FLOAT) AS duration_ms,
    CAST(coalesce(sum(ended.input_tokens), %(coalesce_4)s::INTEGER) AS BIGINT) AS input_tokens,
    CAST(coalesce(sum(ended.output_tokens), %(coalesce_5)s::INTEGER) AS BIGINT) AS output_tokens,
    CAST(coalesce(sum(ended.cost), %(coalesce_6)s::INTEGER) AS FLOAT) AS cost, CAST(count(*) FILTER (WHERE
    ended.input_tokens IS NOT NULL AND ended.output_tokens IS NOT NULL) AS BIGINT) AS tokens_known,
    CAST(count(ended.cost) AS BIGINT) AS cost_known, bool_or(ended.duration_ms IS NOT NULL) AS executed
FROM ended GROUP BY ended.program_id, ended.tenant), swapped AS (INSERT INTO program_counters (program_id,
    shard, tenant, completed, failed, cancelled, duration_ms, input_tokens, output_tokens, cost, tokens_known,
    cost_known, last_executed_at, lock_version)
SELECT counts.program_id AS program_id, counts.shard AS shard, counts.tenant AS tenant, counts.completed AS
    completed, counts.failed AS failed, counts.cancelled AS cancelled, counts.duration_ms AS duration_ms,
    counts.input_tokens AS input_tokens, counts.output_tokens AS output_tokens, counts.cost AS cost,
    counts.tokens_known AS tokens_known, counts.cost_known AS cost_known, CASE WHEN counts.executed THEN
    (clock_timestamp()) ELSE NULL END AS anon_1, coalesce((SELECT counted.lock_version
FROM program_counters AS counted
WHERE counted.program_id = counts.program_id AND counted.shard = counts.shard AND counted.tenant =
    counts.tenant), %(coalesce_1)s::INTEGER) + %(coalesce_2)s::INTEGER AS anon_2
FROM counts
WHERE counts.program_id IS NOT NULL
ORDER BY counts.program_id, counts.tenant
ON CONFLICT (program_id, shard, tenant) DO UPDATE SET completed = (program_counters.completed +
    excluded.completed), failed = (program_counters.failed + excluded.failed), duration_ms =
    (program_counters.duration_ms + excluded.duration_ms), input_tokens = (program_counters.input_tokens +
    excluded.input_tokens), output_tokens = (program_counters.output_tokens + excluded.output_tokens), cost =
    (program_counters.cost + excluded.cost), last_executed_at = coalesce(excluded.last_executed_at,
    program_counters.last_executed_at), lock_version = excluded.lock_version, cancelled =
    (program_counters.cancelled + excluded.cancelled), tokens_known = (program_counters.tokens_known +
    excluded.tokens_known), cost_known = (program_counters.cost_known + excluded.cost_known)
WHERE program_counters.lock_version = excluded.lock_version - %(lock_version_2)s::INTEGER
RETURNING program_counters.program_id, program_counters.tenant), counted_durations AS (INSERT INTO
    program_durations (program_id, shard, tenant, bucket, runs)
SELECT durations.program_id AS program_id, durations.shard AS shard, durations.tenant AS tenant,
    durations.bucket AS bucket, durations.runs AS runs
FROM (SELECT ended.program_id AS program_id, %(shard)s::INTEGER AS shard, ended.tenant AS tenant, ended.bucket
    AS bucket, count(*) AS runs
FROM ended
WHERE ended.bucket IS NOT NULL GROUP BY ended.program_id, ended.tenant, ended.bucket) AS durations
WHERE CASE WHEN ((durations.program_id, durations.tenant) IN (SELECT swapped.program_id, swapped.tenant
FROM swapped)) THEN true ELSE false END
ORDER BY durations.program_id, durations.tenant, durations.bucket
ON CONFLICT (program_id, shard, bucket, tenant) DO UPDATE SET runs = (program_durations.runs +
    excluded.runs)), added AS (INSERT INTO event_outbox (execution_id, lock_version, tenant, due_at)
SELECT ended.id AS id, ended.lock_version AS lock_version, ended.tenant AS tenant, (clock_timestamp() +
    make_interval(secs => CAST(%(due_in)s AS double precision))) AS database_now_1
FROM ended
WHERE ended.id IS NOT NULL
ON CONFLICT (execution_id, tenant) DO UPDATE SET lock_version = excluded.lock_version, due_at =
    excluded.due_at, tries = %(param_2)s::INTEGER)
SELECT ended.id, ended.program_id, ended.status, ended.inputs, ended.options, ended.outputs, ended.error,
    ended.usage, ended.duration_ms, ended.attempt, ended.backend_id, ended.worker, ended.source,
    ended.traceparent, ended.inserted_at, ended.updated_at, ended.started_at, ended.finished_at,
    ended.lock_version, ended.tenant, ended.cancel_requested, ended.timeline, ended.not_before,
    ended.reply_to, ended.correlation_id, ended.discarded, ended.callback, ended.program_callback,
    ended.metadata, ended.extensions, ended.requested_at, ended.request_digest, ended.registered,
    (ended.program_id, ended.tenant) IN (SELECT swapped.program_id, swapped.tenant
FROM swapped) AS counted
FROM ended;

-- count
--   function: store.counters.increment (store/counters.py)
--   runs: after `finish`, in its transaction: on SQLite each time, on PostgreSQL where another has changed a
--     row of the shard meanwhile. PostgreSQL counts the durations in the same statement
--   needs: pk_program_counters, pk_program_durations
WITH swapped AS (INSERT INTO program_counters (program_id, shard, tenant, completed, failed, cancelled,
    duration_ms, input_tokens, output_tokens, cost, tokens_known, cost_known, last_executed_at, lock_version)
SELECT records.program_id AS program_id, records.shard AS shard, records.tenant AS tenant, records.completed
    AS completed, records.failed AS failed, records.cancelled AS cancelled, records.duration_ms AS
    duration_ms, records.input_tokens AS input_tokens, records.output_tokens AS output_tokens, records.cost AS
    cost, records.tokens_known AS tokens_known, records.cost_known AS cost_known, CASE WHEN records.executed
    THEN (clock_timestamp()) ELSE NULL END AS anon_1, coalesce((SELECT counted.lock_version
FROM program_counters AS counted
WHERE counted.program_id = records.program_id AND counted.shard = records.shard AND counted.tenant =
    records.tenant), %(coalesce_1)s::INTEGER) + %(coalesce_2)s::INTEGER AS anon_2
FROM jsonb_to_recordset(CAST(%(records)s::VARCHAR AS JSONB)) AS records(program_id UUID, shard INTEGER, tenant
    VARCHAR, completed BIGINT, failed BIGINT, cancelled BIGINT, duration_ms FLOAT, input_tokens BIGINT,
    output_tokens BIGINT, cost FLOAT, tokens_known BIGINT, cost_known BIGINT, executed BOOLEAN)
WHERE records.program_id IS NOT NULL
ORDER BY records.program_id, records.tenant
ON CONFLICT (program_id, shard, tenant) DO UPDATE SET completed = (program_counters.completed +
    excluded.completed), failed = (program_counters.failed + excluded.failed), duration_ms =
    (program_counters.duration_ms + excluded.duration_ms), input_tokens = (program_counters.input_tokens +
    excluded.input_tokens), output_tokens = (program_counters.output_tokens + excluded.output_tokens), cost =
    (program_counters.cost + excluded.cost), last_executed_at = coalesce(excluded.last_executed_at,
    program_counters.last_executed_at), lock_version = excluded.lock_version, cancelled =
    (program_counters.cancelled + excluded.cancelled), tokens_known = (program_counters.tokens_known +
    excluded.tokens_known), cost_known = (program_counters.cost_known + excluded.cost_known)
WHERE program_counters.lock_version = excluded.lock_version - %(lock_version_1)s::INTEGER
RETURNING program_counters.program_id, program_counters.tenant), added AS (INSERT INTO program_durations
    (program_id, shard, tenant, bucket, runs)
SELECT durations.program_id AS program_id, durations.shard AS shard, durations.tenant AS tenant,
    durations.bucket AS bucket, durations.runs AS runs
FROM jsonb_to_recordset(CAST(%(durations)s::VARCHAR AS JSONB)) AS durations(program_id UUID, shard INTEGER,
    tenant VARCHAR, bucket INTEGER, runs BIGINT)
WHERE CASE WHEN ((durations.program_id, durations.tenant) IN (SELECT swapped.program_id, swapped.tenant
FROM swapped)) THEN true ELSE false END
ORDER BY durations.program_id, durations.tenant, durations.bucket
ON CONFLICT (program_id, shard, bucket, tenant) DO UPDATE SET runs = (program_durations.runs + excluded.runs))
SELECT swapped.program_id, swapped.tenant
FROM swapped;

-- keep traces
--   function: store.executions.traces.keep (store/executions/traces.py)
--   runs: after `finish` or `retry`, in its transaction, where one was asked for
--   needs: pk_execution_traces, pk_executions
INSERT INTO execution_traces (execution_id, tenant, attempt, steps, shortened, inserted_at)
SELECT records.execution_id, records.tenant, records.attempt, records.steps, records.shortened,
    (clock_timestamp()) AS database_now_1
FROM jsonb_to_recordset(CAST(%(records)s::VARCHAR AS JSONB)) AS records(execution_id UUID, tenant VARCHAR(64),
    attempt INTEGER, steps JSONB, shortened BOOLEAN)
WHERE records.execution_id IS NOT NULL
ON CONFLICT (execution_id, tenant) DO UPDATE SET attempt = excluded.attempt, steps = excluded.steps, shortened
    = excluded.shortened, inserted_at = excluded.inserted_at;

-- keep blobs
--   function: store.executions.blobs.keep (store/executions/blobs.py)
--   runs: after `claim` or `finish`, in its transaction, where values are in the blob store
--   needs: pk_blob_references, pk_executions
INSERT INTO blob_references (execution_id, tenant, digest)
SELECT records.execution_id, records.tenant, records.digest
FROM jsonb_to_recordset(CAST(%(records)s::VARCHAR AS JSONB)) AS records(execution_id UUID, tenant VARCHAR(64),
    digest VARCHAR(71))
WHERE records.execution_id IS NOT NULL
ON CONFLICT (execution_id, tenant, digest) DO NOTHING;

-- add events
--   function: store.event_outbox.add (store/event_outbox.py)
--   runs: where one is cancelled; on SQLite after each `count`
--   needs: pk_event_outbox
INSERT INTO event_outbox (execution_id, lock_version, tenant, due_at)
SELECT records.execution_id, records.lock_version, records.tenant, (clock_timestamp() + make_interval(secs =>
    CAST(%(due_in)s AS double precision))) AS database_now_1
FROM jsonb_to_recordset(CAST(%(records)s::VARCHAR AS JSONB)) AS records(execution_id UUID, lock_version
    INTEGER, tenant VARCHAR)
WHERE records.execution_id IS NOT NULL
ON CONFLICT (execution_id, tenant) DO UPDATE SET lock_version = excluded.lock_version, due_at =
    excluded.due_at, tries = %(param_1)s::INTEGER;

-- find endpoints
--   function: store.webhooks.fan_out.fan_out (store/webhooks/fan_out.py)
--   runs: after all that, in its transaction, where an end is pushed somewhere
--   needs: pk_webhook_endpoints, ix_webhook_endpoints_registered
SELECT webhook_endpoints.id, webhook_endpoints.url, webhook_endpoints.secret,
    webhook_endpoints.previous_secret, webhook_endpoints.previous_until, webhook_endpoints.events,
    webhook_endpoints.headers, webhook_endpoints.thin, webhook_endpoints.registered,
    webhook_endpoints.enabled, webhook_endpoints.disabled_reason, webhook_endpoints.disabled_at,
    webhook_endpoints.failing_since, webhook_endpoints.announce_at, webhook_endpoints.lock_version,
    webhook_endpoints.inserted_at, webhook_endpoints.updated_at, webhook_endpoints.tenant, CAST(EXTRACT(EPOCH
    FROM webhook_endpoints.failing_since - clock_timestamp()) AS double precision) AS failing_left,
    CAST(EXTRACT(EPOCH FROM webhook_endpoints.previous_until - clock_timestamp()) AS double precision) AS
    previous_left
FROM webhook_endpoints
WHERE webhook_endpoints.id IN (...) AND webhook_endpoints.tenant = %(tenant_1)s::VARCHAR OR
    webhook_endpoints.tenant IN (...) AND webhook_endpoints.registered;

-- keep endpoints
--   function: store.webhooks.fan_out.fan_out (store/webhooks/fan_out.py)
--   runs: for callbacks that come for the first time
--   needs: pk_webhook_endpoints
INSERT INTO webhook_endpoints (id, tenant, url, secret, events, headers, thin, registered, inserted_at,
    updated_at)
SELECT records.id, records.tenant, records.url, records.secret, records.events, records.headers, records.thin,
    false AS anon_1, (clock_timestamp()) AS database_now_1, (clock_timestamp()) AS database_now__1
FROM jsonb_to_recordset(CAST(%(records)s::VARCHAR AS JSONB)) AS records(id UUID, tenant VARCHAR, url TEXT,
    secret VARCHAR, events JSONB, headers JSONB, thin BOOLEAN)
WHERE records.id IS NOT NULL
ORDER BY records.id, records.tenant
ON CONFLICT DO NOTHING;

-- find endpoints
--   function: store.webhooks.fan_out.fan_out (store/webhooks/fan_out.py)
--   runs: as above
--   needs: pk_webhook_endpoints
SELECT webhook_endpoints.id, webhook_endpoints.url, webhook_endpoints.secret,
    webhook_endpoints.previous_secret, webhook_endpoints.previous_until, webhook_endpoints.events,
    webhook_endpoints.headers, webhook_endpoints.thin, webhook_endpoints.registered,
    webhook_endpoints.enabled, webhook_endpoints.disabled_reason, webhook_endpoints.disabled_at,
    webhook_endpoints.failing_since, webhook_endpoints.announce_at, webhook_endpoints.lock_version,
    webhook_endpoints.inserted_at, webhook_endpoints.updated_at, webhook_endpoints.tenant, CAST(EXTRACT(EPOCH
    FROM webhook_endpoints.failing_since - clock_timestamp()) AS double precision) AS failing_left,
    CAST(EXTRACT(EPOCH FROM webhook_endpoints.previous_until - clock_timestamp()) AS double precision) AS
    previous_left
FROM webhook_endpoints
WHERE webhook_endpoints.id IN (...) AND webhook_endpoints.tenant = %(tenant_1)s::VARCHAR;

-- add deliveries
--   function: store.webhooks.fan_out.fan_out (store/webhooks/fan_out.py)
--   runs: after that
--   needs: ix_webhook_deliveries_end, ix_webhook_deliveries_due, ix_webhook_deliveries_place
INSERT INTO webhook_deliveries (id, tenant, endpoint_id, execution_id, event_version, event, place, status,
    reason, due_at, finished_at, inserted_at, updated_at)
SELECT records.id, records.tenant, records.endpoint_id, records.execution_id, records.event_version,
    records.event, records.place, records.status, records.reason, CASE WHEN (records.status =
    %(status_1)s::VARCHAR) THEN (clock_timestamp() + make_interval(secs => CAST(%(due_in)s AS double
    precision))) ELSE NULL END AS anon_1, CASE WHEN (records.status = %(status_1)s::VARCHAR) THEN NULL ELSE
    (clock_timestamp()) END AS anon_2, (clock_timestamp()) AS database_now_1, (clock_timestamp()) AS
    database_now__1
FROM jsonb_to_recordset(CAST(%(records)s::VARCHAR AS JSONB)) AS records(id UUID, tenant VARCHAR, endpoint_id
    UUID, execution_id UUID, event_version INTEGER, event VARCHAR, place VARCHAR, status VARCHAR, reason TEXT)
WHERE records.id IS NOT NULL
ON CONFLICT DO NOTHING;

-- retry
--   function: store.executions.transitions.retry (store/executions/transitions.py)
--   runs: for each batch of attempts after which there is another
--   needs: pk_executions
UPDATE executions
SET attempt=records.attempt, lease_expires_at=NULL, error=records.error, usage=records.usage,
    status=%(status)s::VARCHAR, lock_version=(executions.lock_version + %(lock_version_1)s::INTEGER),
    updated_at=(clock_timestamp()), timeline=((CASE WHEN jsonb_array_length(executions.timeline) < 50 THEN
    executions.timeline ELSE executions.timeline - 0 END) || jsonb_build_object('status',
    CAST(%(pending)s::VARCHAR AS text), 'at', clock_timestamp(), 'attempt', CAST(records.attempt AS integer),
    'by', CAST(executions.worker AS text))), error_code=records.error_code, input_tokens=records.input_tokens,
    output_tokens=records.output_tokens, cost=records.cost, due_at=(clock_timestamp() + make_interval(secs =>
    CAST(31557600000.0 AS double precision))), not_before=(clock_timestamp() + make_interval(secs =>
    CAST(records.delay AS double precision))), carried=records.carried, run_at=(clock_timestamp() +
    make_interval(secs => CAST(records.delay AS double precision)))
FROM jsonb_to_recordset(CAST(%(records)s::VARCHAR AS JSONB)) AS records(id UUID, tenant VARCHAR(64),
    lock_version INTEGER, attempt INTEGER, carried JSONB, error JSONB, error_code VARCHAR(64), usage JSONB,
    input_tokens BIGINT, output_tokens BIGINT, cost FLOAT, delay FLOAT)
WHERE executions.id = records.id AND executions.lock_version = records.lock_version AND executions.tenant =
    records.tenant AND (executions.status || %(status_1)s::VARCHAR) = %(param_1)s::VARCHAR
RETURNING executions.id, executions.lock_version, executions.status, executions.tenant, executions.program_id,
    executions.lane, executions.group_key, executions.run_at;

-- events sent
--   function: store.event_outbox.sent (store/event_outbox.py)
--   runs: for each batch of ends that the broker has confirmed
--   needs: pk_event_outbox
DELETE
FROM event_outbox
WHERE event_outbox.execution_id IN (SELECT records.execution_id
FROM jsonb_to_recordset(CAST(%(records)s::VARCHAR AS JSONB)) AS records(execution_id UUID, lock_version
    INTEGER, tenant VARCHAR)) AND (EXISTS (SELECT records.execution_id
FROM jsonb_to_recordset(CAST(%(records)s::VARCHAR AS JSONB)) AS records(execution_id UUID, lock_version
    INTEGER, tenant VARCHAR)
WHERE event_outbox.execution_id = records.execution_id AND event_outbox.tenant = records.tenant AND
    event_outbox.lock_version = records.lock_version));

-- heartbeat
--   function: store.executions.leases.heartbeat (store/executions/leases.py)
--   runs: every third of a lease, for what the process runs
--   needs: ix_executions_running
UPDATE executions
SET lease_expires_at=(clock_timestamp() + make_interval(secs => CAST(%(lease_seconds)s AS double precision)))
WHERE (executions.id, executions.tenant) IN (SELECT executions.id, executions.tenant
FROM executions
WHERE executions.worker = %(worker_1)s::VARCHAR AND executions.status = 'running' AND executions.id IN (...)
    AND executions.tenant = %(tenant_1)s::VARCHAR
FOR UPDATE SKIP LOCKED)
RETURNING executions.id, executions.tenant, executions.cancel_requested;

-- release
--   function: store.executions.leases.release (store/executions/leases.py)
--   runs: when a worker drains, or gives back what it has claimed
--   needs: pk_executions
UPDATE executions
SET attempt=(executions.attempt - %(attempt_1)s::INTEGER), lease_expires_at=NULL, status=%(status)s::VARCHAR,
    lock_version=(executions.lock_version + %(lock_version_1)s::INTEGER), updated_at=(clock_timestamp()),
    timeline=((CASE WHEN jsonb_array_length(executions.timeline) < 50 THEN executions.timeline ELSE
    executions.timeline - 0 END) || jsonb_build_object('status', CAST(%(continued_1)s AS text), 'at',
    clock_timestamp(), 'attempt', CAST(executions.attempt - %(attempt_2)s::INTEGER AS integer), 'by',
    CAST(executions.worker AS text))), due_at=(clock_timestamp() + make_interval(secs => CAST(31557600000.0 AS
    double precision))), run_at=coalesce(executions.not_before, executions.inserted_at)
WHERE (executions.id, executions.tenant) IN (SELECT executions.id, executions.tenant
FROM executions
WHERE executions.worker = %(worker_1)s::VARCHAR AND executions.status = 'running' AND executions.id IN (...)
    AND executions.tenant = %(tenant_1)s::VARCHAR
ORDER BY executions.id, executions.tenant FOR UPDATE)
RETURNING executions.tenant, executions.program_id, executions.lane, executions.group_key, executions.run_at;

-- anything due
--   function: store.executions.leases.anything_due (store/executions/leases.py)
--   runs: by the relay, all the time: it locks nothing
--   needs: ix_executions_pending, ix_executions_running
SELECT (EXISTS (SELECT executions.id
FROM executions
WHERE executions.status = 'pending' AND executions.due_at < statement_timestamp())) OR (EXISTS (SELECT
    executions.id
FROM executions
WHERE executions.status = 'pending' AND executions.due_at IS NULL AND executions.lease_expires_at <
    statement_timestamp())) OR (EXISTS (SELECT executions.id
FROM executions
WHERE executions.status = 'running' AND executions.lease_expires_at < statement_timestamp())) AS anon_1;

-- find lost
--   function: store.executions.leases.rescue (store/executions/leases.py)
--   runs: by the relay, where something is due
--   needs: ix_executions_running
SELECT executions.id, executions.tenant
FROM executions
WHERE executions.status = 'running' AND executions.lease_expires_at < statement_timestamp()
LIMIT 100
FOR UPDATE SKIP LOCKED;

-- rescue
--   function: store.executions.leases.rescue (store/executions/leases.py)
--   runs: for those whose worker is gone: they wait in their queues
--   needs: pk_executions
UPDATE executions
SET lease_expires_at=NULL, status=%(status)s::VARCHAR, lock_version=(executions.lock_version +
    %(lock_version_1)s::INTEGER), updated_at=(clock_timestamp()), timeline=((CASE WHEN
    jsonb_array_length(executions.timeline) < 50 THEN executions.timeline ELSE executions.timeline - 0 END) ||
    jsonb_build_object('status', CAST(%(continued_1)s AS text), 'at', clock_timestamp(), 'attempt',
    CAST(executions.attempt AS integer), 'by', CAST(%(continued_2)s::VARCHAR AS text))),
    due_at=(clock_timestamp() + make_interval(secs => CAST(31557600000.0 AS double precision))),
    lost=(executions.lost + %(lost_1)s::SMALLINT), run_at=coalesce(executions.not_before,
    executions.inserted_at)
WHERE executions.id IN (...) AND executions.tenant = %(tenant_1)s::VARCHAR
RETURNING executions.id, executions.tenant, executions.program_id, executions.lane, executions.group_key,
    executions.run_at;

-- adopt
--   function: store.executions.adoption.adopt (store/executions/adoption.py)
--   runs: by the relay, for what workers from before queues have left
--   needs: pk_executions, ix_executions_pending
WITH "left" AS (SELECT executions.id AS id, executions.tenant AS tenant
FROM executions
WHERE executions.status = 'pending' AND executions.due_at < statement_timestamp() AND
    executions.request_digest NOT LIKE 'external:%%'
ORDER BY executions.due_at
LIMIT 100
FOR UPDATE SKIP LOCKED) UPDATE executions
SET due_at=(clock_timestamp() + make_interval(secs => CAST(31557600000.0 AS double precision))),
    run_at=coalesce(executions.not_before, executions.inserted_at)
FROM "left"
WHERE executions.id = "left".id AND executions.tenant = "left".tenant
RETURNING executions.tenant, executions.program_id, executions.lane, executions.group_key, executions.run_at;

-- adopt by lease
--   function: store.executions.adoption.adopt (store/executions/adoption.py)
--   runs: the same, for those from before 0004
--   needs: pk_executions, ix_executions_pending
WITH "left" AS (SELECT executions.id AS id, executions.tenant AS tenant
FROM executions
WHERE executions.status = 'pending' AND executions.due_at IS NULL AND executions.lease_expires_at <
    statement_timestamp() AND executions.request_digest NOT LIKE 'external:%%'
ORDER BY executions.due_at
LIMIT 100
FOR UPDATE SKIP LOCKED) UPDATE executions
SET due_at=(clock_timestamp() + make_interval(secs => CAST(31557600000.0 AS double precision))),
    run_at=coalesce(executions.not_before, executions.inserted_at)
FROM "left"
WHERE executions.id = "left".id AND executions.tenant = "left".tenant
RETURNING executions.tenant, executions.program_id, executions.lane, executions.group_key, executions.run_at;

-- any lease of a service expired
--   function: store.executions.external.anything_expired (store/executions/external.py)
--   runs: by the relay, three times a lease: it locks nothing
--   needs: ix_executions_running
SELECT EXISTS (SELECT executions.id
FROM executions
WHERE executions.status = 'running' AND executions.lease_expires_at IS NULL AND executions.request_digest LIKE
    'external:%%' AND (executions.due_at IS NULL OR executions.due_at < statement_timestamp())) AS anon_1;

-- find expired
--   function: store.executions.external.end_expired (store/executions/external.py)
--   runs: where there is one; they are ended as by `finish`
--   needs: ix_executions_running
SELECT executions.id, executions.tenant, executions.program_id, executions.lock_version,
    executions.cancel_requested
FROM executions
WHERE executions.status = 'running' AND executions.lease_expires_at IS NULL AND executions.request_digest LIKE
    'external:%%' AND (executions.due_at IS NULL OR executions.due_at < statement_timestamp())
LIMIT 100
FOR UPDATE SKIP LOCKED;

-- any event due
--   function: store.event_outbox.anything_due (store/event_outbox.py)
--   runs: by the relay, three times a lease; the table is small
--   needs: none
SELECT EXISTS (SELECT event_outbox.execution_id
FROM event_outbox
WHERE event_outbox.due_at < statement_timestamp()) AS anon_1;

-- events due
--   function: store.event_outbox.due (store/event_outbox.py)
--   runs: by the relay, where an event is due; the table is small
--   needs: pk_event_outbox
WITH due AS (SELECT event_outbox.execution_id AS execution_id, event_outbox.tenant AS tenant
FROM event_outbox
WHERE event_outbox.due_at < statement_timestamp()
LIMIT %(param_2)s::INTEGER
FOR UPDATE SKIP LOCKED) UPDATE event_outbox
SET due_at=(clock_timestamp() + make_interval(secs => CAST(%(again_in)s * (%(one)s::INTEGER << CASE WHEN
    (event_outbox.tries < %(tries_1)s::INTEGER) THEN event_outbox.tries ELSE %(param_1)s::INTEGER END) AS
    double precision))), tries=(event_outbox.tries + %(tries_2)s::INTEGER)
WHERE (event_outbox.execution_id, event_outbox.tenant) IN (SELECT due.execution_id, due.tenant
FROM due)
RETURNING event_outbox.execution_id, event_outbox.tenant;

-- read ended
--   function: store.executions.queries.of_all_tenants (store/executions/queries.py)
--   runs: for those whose events are due
--   needs: pk_executions
SELECT executions.id, executions.program_id, executions.inputs, executions.options, executions.request_digest,
    executions.source, executions.traceparent, executions.backend_id, executions.attempt, executions.worker,
    executions.lease_expires_at, executions.outputs, executions.error, executions.usage,
    executions.duration_ms, executions.started_at, executions.finished_at, executions.status,
    executions.lock_version, executions.inserted_at, executions.updated_at, executions.tenant,
    executions.cancel_requested, executions.timeline, executions.error_code, executions.input_tokens,
    executions.output_tokens, executions.cost, executions.due_at, executions.not_before, executions.deadline,
    executions.policy, executions.reply_to, executions.correlation_id, executions.carried, executions.lost,
    executions.discarded, executions.callback, executions.program_callback, executions.metadata,
    executions.extensions, executions.requested_at, executions.lane, executions.group_key, executions.run_at
FROM executions
WHERE executions.id IN (...) AND executions.tenant = %(tenant_1)s::VARCHAR;

-- find tenants
--   function: store.executions.choosing.choose (store/executions/choosing.py)
--   runs: by a choice, unless it has found enough just before
--   needs: ix_queues_holder
WITH RECURSIVE turn(lane, until, tenant, n) AS (SELECT records.lane AS lane, records.until AS until, (SELECT
    min((SELECT min(queues.tenant) AS min_2
FROM queues
WHERE queues.holder = holders.holder AND queues.lane = records.lane AND queues.tenant > records.after)) AS
    min_1
FROM jsonb_to_recordset(CAST(%(holders)s::VARCHAR AS JSONB)) AS holders(holder TEXT)) AS tenant, 1 AS n
FROM jsonb_to_recordset(CAST(%(records)s::VARCHAR AS JSONB)) AS records(lane INTEGER, after TEXT, until TEXT)
    UNION ALL
SELECT turn.lane AS lane, turn.until AS until, (SELECT min((SELECT min(queues.tenant) AS min_4
FROM queues
WHERE queues.holder = holders.holder AND queues.lane = turn.lane AND queues.tenant > turn.tenant)) AS min_3
FROM jsonb_to_recordset(CAST(%(holders)s::VARCHAR AS JSONB)) AS holders(holder TEXT)) AS anon_1, turn.n + 1 AS
    anon_2
FROM turn
WHERE turn.tenant IS NOT NULL AND turn.n < %(most)s::INTEGER)
SELECT turn.lane, turn.tenant
FROM turn
WHERE turn.tenant IS NOT NULL AND (turn.until IS NULL OR turn.tenant <= turn.until)
ORDER BY turn.lane, turn.until IS NOT NULL, turn.n;

-- find queues
--   function: store.executions.choosing.choose (store/executions/choosing.py)
--   runs: after that: of these tenants, on SQLite of each
--   needs: ix_queues_holder
SELECT records.tenant, found.program_id, found.group_key, found.behind
FROM jsonb_to_recordset(CAST(%(records)s::VARCHAR AS JSONB)) AS records(lane SMALLINT, tenant VARCHAR(64),
    program_id UUID, group_key VARCHAR(64), holder VARCHAR(400))
JOIN LATERAL (SELECT anon_1.program_id AS program_id, anon_1.group_key AS group_key, anon_1.behind AS behind
FROM (SELECT queues.program_id AS program_id, queues.group_key AS group_key, 0 AS behind
FROM queues
WHERE queues.holder = records.holder AND queues.lane = records.lane AND queues.tenant = records.tenant AND
    (queues.program_id, queues.group_key) > (records.program_id, records.group_key)
ORDER BY queues.program_id, queues.group_key
LIMIT %(each)s::INTEGER) AS anon_1 UNION ALL
SELECT anon_2.program_id AS program_id, anon_2.group_key AS group_key, anon_2.behind AS behind
FROM (SELECT queues.program_id AS program_id, queues.group_key AS group_key, 1 AS behind
FROM queues
WHERE queues.holder = records.holder AND queues.lane = records.lane AND queues.tenant = records.tenant AND
    (queues.program_id, queues.group_key) <= (records.program_id, records.group_key)
ORDER BY queues.program_id, queues.group_key
LIMIT %(each)s::INTEGER) AS anon_2) AS found ON true;

-- take
--   function: store.executions.choosing.choose (store/executions/choosing.py)
--   runs: for the queues whose turn it is, on SQLite for each
--   needs: ix_executions_queue, pk_programs
WITH picked AS (SELECT each.id AS id, each.tenant AS tenant, CASE WHEN (programs.status =
    %(status_1)s::VARCHAR) THEN programs.backend_id ELSE NULL END AS ready_backend, programs.policy AS policy,
    programs.callback AS callback
FROM jsonb_to_recordset(CAST(%(records)s::VARCHAR AS JSONB)) AS records(tenant VARCHAR(64), program_id UUID,
    lane SMALLINT, group_key VARCHAR(64), places INTEGER, since TIMESTAMP WITH TIME ZONE) LEFT OUTER
JOIN programs ON programs.id = records.program_id AND programs.tenant = records.tenant
JOIN LATERAL (SELECT executions.id AS id, executions.tenant AS tenant
FROM executions
WHERE executions.tenant = records.tenant AND executions.program_id = records.program_id AND executions.lane =
    records.lane AND executions.group_key = records.group_key AND executions.status = 'pending' AND
    executions.run_at <= statement_timestamp() AND executions.run_at >= coalesce(records.since,
    '-infinity'::timestamptz) AND (SELECT max(gates.updated_at) AS max_1
FROM gates) IS NOT DISTINCT
FROM %(gates_at)s::TIMESTAMP WITH TIME ZONE AND NOT (executions.lost > %(lost_1)s::SMALLINT AND
    executions.attempt + %(attempt_3)s::INTEGER = coalesce((SELECT CAST((programs.policy ->>
    %(policy_1)s::TEXT) AS INTEGER) AS anon_1
FROM programs
WHERE programs.id = executions.program_id AND programs.tenant = executions.tenant), %(alone_at)s::INTEGER))
ORDER BY executions.run_at
LIMIT records.places
FOR UPDATE OF executions SKIP LOCKED) AS each ON true) UPDATE executions
SET backend_id=picked.ready_backend, attempt=(executions.attempt + %(attempt_1)s::INTEGER),
    worker=%(worker)s::VARCHAR, lease_expires_at=(clock_timestamp() + make_interval(secs =>
    CAST(%(lease_seconds)s AS double precision))), started_at=(clock_timestamp()),
    status=%(running)s::VARCHAR, lock_version=(executions.lock_version + %(lock_version_1)s::INTEGER),
    updated_at=(clock_timestamp()), timeline=((CASE WHEN jsonb_array_length(executions.timeline) < 50 THEN
    executions.timeline ELSE executions.timeline - 0 END) || jsonb_build_object('status',
    CAST(%(running)s::VARCHAR AS text), 'at', clock_timestamp(), 'attempt', CAST(executions.attempt +
    %(attempt_2)s::INTEGER AS integer), 'by', CAST(%(worker)s::VARCHAR AS text))), due_at=NULL,
    policy=picked.policy, program_callback=picked.callback
FROM picked
WHERE executions.id = picked.id AND executions.tenant = picked.tenant
RETURNING executions.tenant, executions.status, executions.reply_to, executions.id, executions.attempt,
    executions.lock_version, executions.backend_id, executions.cancel_requested, executions.policy,
    executions.usage, executions.carried, executions.lost, executions.metadata, executions.extensions,
    CAST(EXTRACT(EPOCH FROM executions.deadline - clock_timestamp()) AS double precision) AS seconds_left,
    CASE WHEN (executions.error_code = 'rate_limited') THEN -CAST(EXTRACT(EPOCH FROM executions.not_before -
    clock_timestamp()) AS double precision) ELSE NULL END AS late, executions.program_id, executions.inputs,
    executions.options, executions.source, executions.traceparent, executions.correlation_id,
    executions.callback, executions.requested_at, executions.lane, executions.group_key, executions.run_at;

-- find lost chances
--   function: store.executions.choosing.choose (store/executions/choosing.py)
--   runs: in those that gave fewer than were asked for
--   needs: ix_executions_queue, pk_programs
SELECT executions.id, executions.tenant
FROM jsonb_to_recordset(CAST(%(records)s::VARCHAR AS JSONB)) AS records(tenant VARCHAR(64), program_id UUID,
    lane SMALLINT, group_key VARCHAR(64))
JOIN executions ON executions.tenant = records.tenant AND executions.program_id = records.program_id AND
    executions.lane = records.lane AND executions.group_key = records.group_key
WHERE executions.status = 'pending' AND executions.run_at <= statement_timestamp() AND executions.lost > 0 AND
    executions.lost > %(lost_1)s::SMALLINT AND executions.attempt + %(attempt_1)s::INTEGER = coalesce((SELECT
    CAST((programs.policy ->> %(policy_1)s::TEXT) AS INTEGER) AS anon_1
FROM programs
WHERE programs.id = executions.program_id AND programs.tenant = executions.tenant), %(alone_at)s::INTEGER)
LIMIT 8
FOR UPDATE OF executions SKIP LOCKED;

-- leave to run alone
--   function: store.executions.choosing.choose (store/executions/choosing.py)
--   runs: for those: to the process that has found them
--   needs: pk_executions
UPDATE executions
SET run_at=(clock_timestamp() + make_interval(secs => CAST(%(alone_in)s AS double precision)))
WHERE executions.id IN (...) AND executions.tenant = %(tenant_1)s::VARCHAR
RETURNING executions.id, executions.program_id, executions.inputs, executions.options, executions.source,
    executions.traceparent, executions.tenant, executions.reply_to, executions.correlation_id,
    executions.callback, executions.metadata, executions.extensions, executions.requested_at;

-- hold empty queues
--   function: store.executions.choosing.choose (store/executions/choosing.py)
--   runs: those that gave fewer
--   needs: pk_queues
SELECT queues.tenant, queues.program_id, queues.lane, queues.group_key
FROM jsonb_to_recordset(CAST(%(records)s::VARCHAR AS JSONB)) AS records(tenant VARCHAR(64), program_id UUID,
    lane SMALLINT, group_key VARCHAR(64))
JOIN queues ON queues.tenant = records.tenant AND queues.program_id = records.program_id AND queues.lane =
    records.lane AND queues.group_key = records.group_key
WHERE queues.holder IS NOT NULL
ORDER BY queues.tenant, queues.program_id, queues.lane, queues.group_key
FOR UPDATE OF queues SKIP LOCKED;

-- mark empty queues
--   function: store.executions.choosing.choose (store/executions/choosing.py)
--   runs: after that: if nothing in them may run
--   needs: pk_queues, ix_executions_queue
UPDATE queues
SET holder=NULL, wake_at=(SELECT min(executions.run_at) AS min_1
FROM executions
WHERE executions.tenant = queues.tenant AND executions.program_id = queues.program_id AND executions.lane =
    queues.lane AND executions.group_key = queues.group_key AND executions.status = 'pending')
WHERE (queues.tenant, queues.program_id, queues.lane, queues.group_key) IN (SELECT records.tenant,
    records.program_id, records.lane, records.group_key
FROM jsonb_to_recordset(CAST(%(records)s::VARCHAR AS JSONB)) AS records(tenant VARCHAR(64), program_id UUID,
    lane SMALLINT, group_key VARCHAR(64))) AND queues.holder IS NOT NULL AND coalesce((SELECT
    min(executions.run_at) AS min_1
FROM executions
WHERE executions.tenant = queues.tenant AND executions.program_id = queues.program_id AND executions.lane =
    queues.lane AND executions.group_key = queues.group_key AND executions.status = 'pending') >
    statement_timestamp(), true)
RETURNING queues.tenant;

-- wake queues
--   function: store.executions.choosing.wake (store/executions/choosing.py)
--   runs: by the relay, and where something is due: at most 500
--   needs: ix_queues_wake
UPDATE queues
SET holder=%(holder)s::VARCHAR, wake_at=NULL
WHERE (queues.tenant, queues.program_id, queues.lane, queues.group_key) IN (SELECT queues.tenant,
    queues.program_id, queues.lane, queues.group_key
FROM queues
WHERE queues.holder IS NULL AND queues.wake_at <= statement_timestamp()
ORDER BY queues.tenant, queues.program_id, queues.lane, queues.group_key
LIMIT 500
FOR UPDATE SKIP LOCKED)
RETURNING queues.tenant;

-- any queue ready
--   function: store.executions.choosing.anything_ready (store/executions/choosing.py)
--   runs: by the relay, each second: it locks nothing
--   needs: ix_queues_holder
SELECT EXISTS (SELECT queues.tenant
FROM queues
WHERE queues.holder = %(holder_1)s::VARCHAR) AS anon_1;

-- next that wait
--   function: store.queues.reconciling.reconcile (store/queues/reconciling.py)
--   runs: by the relay, each second: the next 200 queues
--   needs: ix_executions_queue
WITH RECURSIVE step(tenant, program_id, lane, group_key, n) AS (SELECT first.tenant AS tenant,
    first.program_id AS program_id, first.lane AS lane, first.group_key AS group_key, 1 AS n
FROM (SELECT executions.tenant AS tenant, executions.program_id AS program_id, executions.lane AS lane,
    executions.group_key AS group_key
FROM executions
WHERE executions.status = 'pending' AND executions.run_at IS NOT NULL AND (executions.tenant,
    executions.program_id, executions.lane, executions.group_key) > (%(tenant)s::VARCHAR,
    %(program_id)s::UUID, %(lane)s::SMALLINT, %(group_key)s::VARCHAR)
ORDER BY executions.tenant, executions.program_id, executions.lane, executions.group_key
LIMIT %(param_1)s::INTEGER) AS first UNION ALL
SELECT following.tenant AS tenant, following.program_id AS program_id, following.lane AS lane,
    following.group_key AS group_key, step.n + 1 AS anon_1
FROM step
JOIN LATERAL (SELECT executions.tenant AS tenant, executions.program_id AS program_id, executions.lane AS
    lane, executions.group_key AS group_key
FROM executions
WHERE executions.status = 'pending' AND executions.run_at IS NOT NULL AND (executions.tenant,
    executions.program_id, executions.lane, executions.group_key) > (step.tenant, step.program_id, step.lane,
    step.group_key)
ORDER BY executions.tenant, executions.program_id, executions.lane, executions.group_key
LIMIT %(param_2)s::INTEGER) AS following ON true
WHERE step.n < %(limit)s::INTEGER)
SELECT step.tenant, step.program_id, step.lane, step.group_key
FROM step
ORDER BY step.n;

-- offered by nobody
--   function: store.queues.reconciling.reconcile (store/queues/reconciling.py)
--   runs: after that: it finds nothing
--   needs: pk_queues, ix_executions_queue
SELECT looked.tenant, looked.program_id, looked.lane, looked.group_key, looked.first
FROM (SELECT records.tenant AS tenant, records.program_id AS program_id, records.lane AS lane,
    records.group_key AS group_key, (SELECT min(executions.run_at) AS min_1
FROM executions
WHERE executions.status = 'pending' AND executions.tenant = records.tenant AND executions.program_id =
    records.program_id AND executions.lane = records.lane AND executions.group_key = records.group_key) AS
    first
FROM jsonb_to_recordset(CAST(%(records)s::VARCHAR AS JSONB)) AS records(tenant VARCHAR(64), program_id UUID,
    lane SMALLINT, group_key VARCHAR(64))) AS looked LEFT OUTER
JOIN queues ON queues.tenant = looked.tenant AND queues.program_id = looked.program_id AND queues.lane =
    looked.lane AND queues.group_key = looked.group_key
WHERE looked.first IS NOT NULL AND queues.holder IS NULL AND (queues.wake_at IS NULL OR queues.wake_at >
    looked.first);

-- offer, uncounted
--   function: store.queues.reconciling.reconcile (store/queues/reconciling.py)
--   runs: as `offer`, for what was counted before
--   needs: pk_queues
WITH ready AS (SELECT queues.tenant AS tenant, queues.program_id AS program_id, queues.lane AS lane,
    queues.group_key AS group_key
FROM jsonb_to_recordset(CAST(%(records)s::VARCHAR AS JSONB)) AS records(tenant VARCHAR(64), program_id UUID,
    lane SMALLINT, group_key VARCHAR(64), run_at TIMESTAMP WITH TIME ZONE)
JOIN queues ON queues.tenant = records.tenant AND queues.program_id = records.program_id AND queues.lane =
    records.lane AND queues.group_key = records.group_key
WHERE queues.holder IS NOT NULL
ORDER BY queues.tenant, queues.program_id, queues.lane, queues.group_key FOR KEY SHARE OF queues) INSERT INTO
    queues (tenant, program_id, lane, group_key, holder, wake_at, inserted_at)
SELECT records.tenant, records.program_id, records.lane, records.group_key, CASE WHEN (records.run_at IS NULL
    OR records.run_at <= (clock_timestamp())) THEN '' ELSE NULL END AS anon_1, CASE WHEN (records.run_at IS
    NULL OR records.run_at <= (clock_timestamp())) THEN NULL ELSE records.run_at END AS anon_2,
    (clock_timestamp()) AS database_now_1
FROM jsonb_to_recordset(CAST(%(records)s::VARCHAR AS JSONB)) AS records(tenant VARCHAR(64), program_id UUID,
    lane SMALLINT, group_key VARCHAR(64), run_at TIMESTAMP WITH TIME ZONE)
WHERE ((records.tenant, records.program_id, records.lane, records.group_key) NOT IN (SELECT ready.tenant,
    ready.program_id, ready.lane, ready.group_key
FROM ready))
ORDER BY records.tenant, records.program_id, records.lane, records.group_key
ON CONFLICT (tenant, program_id, lane, group_key) DO UPDATE SET holder = excluded.holder, wake_at =
    excluded.wake_at
WHERE queues.holder IS NULL AND (excluded.holder IS NOT NULL OR queues.wake_at IS NULL OR queues.wake_at >
    excluded.wake_at)
RETURNING queues.holder;

-- next queues
--   function: store.queues.forgetting.forget (store/queues/forgetting.py)
--   runs: by the relay, every ten seconds: the next 500
--   needs: pk_queues, pk_programs, pk_queue_counts
SELECT queues.tenant, queues.program_id, queues.lane, queues.group_key, queues.holder IS NULL AND
    queues.wake_at IS NULL AND queues.inserted_at < (clock_timestamp() + make_interval(secs =>
    CAST(%(database_now_1)s AS double precision))) AND (NOT (EXISTS (SELECT programs.id
FROM programs
WHERE programs.id = queues.program_id AND programs.tenant = queues.tenant)) OR queues.group_key = '' AND NOT
    (EXISTS (SELECT queue_counts.lane
FROM queue_counts
WHERE queue_counts.tenant = queues.tenant AND queue_counts.program_id = queues.program_id AND
    queue_counts.lane = queues.lane))) AS unneeded
FROM queues
WHERE (queues.tenant, queues.program_id, queues.lane, queues.group_key) > (%(tenant)s::VARCHAR,
    %(program_id)s::UUID, %(lane)s::SMALLINT, %(group_key)s::VARCHAR)
ORDER BY queues.tenant, queues.program_id, queues.lane, queues.group_key
LIMIT %(limit)s::INTEGER;

-- hold unneeded queues
--   function: store.queues.forgetting.forget (store/queues/forgetting.py)
--   runs: for those that are empty and idle, or whose program is gone
--   needs: pk_queues
SELECT queues.tenant, queues.program_id, queues.lane, queues.group_key
FROM jsonb_to_recordset(CAST(%(records)s::VARCHAR AS JSONB)) AS records(tenant VARCHAR(64), program_id UUID,
    lane SMALLINT, group_key VARCHAR(64))
JOIN queues ON queues.tenant = records.tenant AND queues.program_id = records.program_id AND queues.lane =
    records.lane AND queues.group_key = records.group_key
WHERE queues.holder IS NULL AND queues.wake_at IS NULL
ORDER BY queues.tenant, queues.program_id, queues.lane, queues.group_key
FOR UPDATE OF queues SKIP LOCKED;

-- forget queues
--   function: store.queues.forgetting.forget (store/queues/forgetting.py)
--   runs: after that: if nothing waits in them
--   needs: pk_queues, ix_executions_queue, pk_programs, pk_queue_counts
DELETE
FROM queues
WHERE (queues.tenant, queues.program_id, queues.lane, queues.group_key) IN (SELECT records.tenant,
    records.program_id, records.lane, records.group_key
FROM jsonb_to_recordset(CAST(%(records)s::VARCHAR AS JSONB)) AS records(tenant VARCHAR(64), program_id UUID,
    lane SMALLINT, group_key VARCHAR(64))) AND queues.holder IS NULL AND queues.wake_at IS NULL AND
    queues.inserted_at < (clock_timestamp() + make_interval(secs => CAST(%(database_now_1)s AS double
    precision))) AND (NOT (EXISTS (SELECT programs.id
FROM programs
WHERE programs.id = queues.program_id AND programs.tenant = queues.tenant)) OR queues.group_key = '' AND NOT
    (EXISTS (SELECT queue_counts.lane
FROM queue_counts
WHERE queue_counts.tenant = queues.tenant AND queue_counts.program_id = queues.program_id AND
    queue_counts.lane = queues.lane))) AND NOT (EXISTS (SELECT executions.id
FROM executions
WHERE executions.status = 'pending' AND executions.tenant = queues.tenant AND executions.program_id =
    queues.program_id AND executions.lane = queues.lane AND executions.group_key = queues.group_key))
RETURNING queues.tenant;

-- anything moved
--   function: store.queues.counts.anything_moved (store/queues/counts.py)
--   runs: by the relay, each second: it locks nothing
--   needs: none
SELECT EXISTS (SELECT queue_moves.id
FROM queue_moves) AS anon_1;

-- take moves
--   function: store.queues.counts.fold (store/queues/counts.py)
--   runs: by the relay, where something has moved
--   needs: pk_queue_moves
DELETE
FROM queue_moves
WHERE queue_moves.id IN (SELECT queue_moves.id
FROM queue_moves
ORDER BY queue_moves.id
LIMIT %(param_1)s::INTEGER
FOR UPDATE SKIP LOCKED)
RETURNING queue_moves.came, queue_moves.went, queue_moves.tenant, queue_moves.program_id, queue_moves.lane;

-- clock of the database
--   function: store.queues.counts.fold (store/queues/counts.py)
--   runs: where counts are read or written
--   needs: none
SELECT (clock_timestamp()) AS database_now_1;

-- oldest that waits
--   function: store.queues.counts.fold (store/queues/counts.py)
--   runs: after that
--   needs: pk_queues, ix_executions_queue
SELECT queues.tenant, queues.program_id, queues.lane, min((SELECT executions.run_at
FROM executions
WHERE executions.status = 'pending' AND executions.tenant = queues.tenant AND executions.program_id =
    queues.program_id AND executions.lane = queues.lane AND executions.group_key = queues.group_key AND
    executions.run_at IS NOT NULL
ORDER BY executions.run_at
LIMIT %(param_1)s::INTEGER)) AS oldest_at
FROM jsonb_to_recordset(CAST(%(records)s::VARCHAR AS JSONB)) AS records(tenant VARCHAR, program_id UUID, lane
    SMALLINT)
JOIN queues ON (queues.holder IS NOT NULL OR queues.wake_at IS NOT NULL) AND queues.tenant = records.tenant
    AND queues.program_id = records.program_id AND queues.lane = records.lane GROUP BY queues.tenant,
    queues.program_id, queues.lane;

-- add moves
--   function: store.queues.counts.fold (store/queues/counts.py)
--   runs: after that
--   needs: pk_queue_counts
INSERT INTO queue_counts (tenant, program_id, lane, waiting, period, came, went, oldest_at, moving_since)
SELECT records.tenant, records.program_id, records.lane, records.waiting, records.period, records.came,
    records.went, records.oldest_at, records.moving_since
FROM jsonb_to_recordset(CAST(%(records)s::VARCHAR AS JSONB)) AS records(tenant VARCHAR, program_id UUID, lane
    SMALLINT, waiting BIGINT, period BIGINT, came BIGINT, went BIGINT, oldest_at TIMESTAMP WITH TIME ZONE,
    moving_since TIMESTAMP WITH TIME ZONE)
WHERE records.tenant IS NOT NULL
ORDER BY records.tenant, records.program_id, records.lane
ON CONFLICT (tenant, program_id, lane) DO UPDATE SET waiting = (queue_counts.waiting + excluded.waiting),
    oldest_at = excluded.oldest_at, period = CASE WHEN (queue_counts.period >= excluded.period) THEN
    queue_counts.period ELSE excluded.period END, came = CASE WHEN (queue_counts.period >= excluded.period)
    THEN queue_counts.came + excluded.came ELSE excluded.came END, went = CASE WHEN (queue_counts.period >=
    excluded.period) THEN queue_counts.went + excluded.went ELSE excluded.went END, came_before = CASE WHEN
    (queue_counts.period >= excluded.period) THEN queue_counts.came_before WHEN (queue_counts.period =
    excluded.period - %(period_1)s::BIGINT) THEN queue_counts.came ELSE %(param_1)s::INTEGER END, went_before
    = CASE WHEN (queue_counts.period >= excluded.period) THEN queue_counts.went_before WHEN
    (queue_counts.period = excluded.period - %(period_1)s::BIGINT) THEN queue_counts.went ELSE
    %(param_2)s::INTEGER END, moving_since = CASE WHEN (queue_counts.period >= excluded.period OR
    queue_counts.period = excluded.period - %(period_1)s::BIGINT) THEN queue_counts.moving_since ELSE
    excluded.moving_since END;

-- next counts
--   function: store.queues.counts.repair (store/queues/counts.py)
--   runs: by the relay, every ten seconds: the next 50
--   needs: pk_queue_counts
SELECT DISTINCT queue_counts.tenant, queue_counts.program_id, queue_counts.lane
FROM queue_counts
WHERE true
ORDER BY queue_counts.tenant, queue_counts.program_id, queue_counts.lane
LIMIT %(param_1)s::INTEGER;

-- next queues to count
--   function: store.queues.counts.repair (store/queues/counts.py)
--   runs: the same, of what may not be counted yet
--   needs: pk_queues
SELECT DISTINCT queues.tenant, queues.program_id, queues.lane
FROM queues
WHERE queues.holder IS NOT NULL OR queues.wake_at IS NOT NULL
ORDER BY queues.tenant, queues.program_id, queues.lane
LIMIT %(param_1)s::INTEGER;

-- begin counts
--   function: store.queues.counts.repair (store/queues/counts.py)
--   runs: after that
--   needs: pk_queue_counts
INSERT INTO queue_counts (tenant, program_id, lane, waiting, period, came, went, moving_since)
SELECT records.tenant, records.program_id, records.lane, %(param_1)s::INTEGER AS anon_1, %(param_2)s::INTEGER
    AS anon_2, %(param_3)s::INTEGER AS anon_3, %(param_4)s::INTEGER AS anon_4, (clock_timestamp()) AS
    database_now_1
FROM jsonb_to_recordset(CAST(%(records)s::VARCHAR AS JSONB)) AS records(tenant VARCHAR, program_id UUID, lane
    SMALLINT)
WHERE EXISTS (SELECT queues.tenant
FROM queues
WHERE (queues.holder IS NOT NULL OR queues.wake_at IS NOT NULL) AND queues.tenant = records.tenant AND
    queues.program_id = records.program_id AND queues.lane = records.lane)
ORDER BY records.tenant, records.program_id, records.lane
ON CONFLICT (tenant, program_id, lane) DO NOTHING;

-- hold counts
--   function: store.queues.counts.repair (store/queues/counts.py)
--   runs: after that
--   needs: pk_queue_counts
SELECT queue_counts.tenant, queue_counts.program_id, queue_counts.lane
FROM queue_counts
WHERE (queue_counts.tenant, queue_counts.program_id, queue_counts.lane) IN (SELECT records.tenant,
    records.program_id, records.lane
FROM jsonb_to_recordset(CAST(%(records)s::VARCHAR AS JSONB)) AS records(tenant VARCHAR, program_id UUID, lane
    SMALLINT))
FOR UPDATE SKIP LOCKED;

-- wrong counts
--   function: store.queues.counts.repair (store/queues/counts.py)
--   runs: after that: it reads 10,000 rows of a queue at most
--   needs: pk_queue_counts, ix_executions_queue
SELECT "both".tenant, "both".program_id, "both".lane, "both".there, "both".counted
FROM (SELECT records.tenant AS tenant, records.program_id AS program_id, records.lane AS lane, (SELECT
    count(*) AS count_1
FROM (SELECT executions.id AS id
FROM executions
WHERE executions.status = 'pending' AND executions.tenant = records.tenant AND executions.program_id =
    records.program_id AND executions.lane = records.lane AND executions.run_at IS NOT NULL
LIMIT %(param_1)s::INTEGER) AS anon_1) AS there, queue_counts.waiting + (SELECT coalesce(sum(queue_moves.came
    - queue_moves.went), %(coalesce_2)s::INTEGER) AS coalesce_1
FROM queue_moves
WHERE queue_moves.tenant = records.tenant AND queue_moves.program_id = records.program_id AND queue_moves.lane
    = records.lane) AS counted
FROM jsonb_to_recordset(CAST(%(records)s::VARCHAR AS JSONB)) AS records(tenant VARCHAR, program_id UUID, lane
    SMALLINT)
JOIN queue_counts ON queue_counts.tenant = records.tenant AND queue_counts.program_id = records.program_id AND
    queue_counts.lane = records.lane) AS "both"
WHERE "both".there != "both".counted AND "both".there <= %(there_1)s::INTEGER AND "both".counted <=
    %(counted_1)s::BIGINT;

-- forget counts
--   function: store.queues.counts.repair (store/queues/counts.py)
--   runs: after that: those of which nothing has moved for an hour
--   needs: pk_queue_counts
DELETE
FROM queue_counts
WHERE (queue_counts.tenant, queue_counts.program_id, queue_counts.lane) IN (SELECT records.tenant,
    records.program_id, records.lane
FROM jsonb_to_recordset(CAST(%(records)s::VARCHAR AS JSONB)) AS records(tenant VARCHAR, program_id UUID, lane
    SMALLINT)) AND queue_counts.waiting = %(waiting_1)s::BIGINT AND queue_counts.period < %(period_1)s::BIGINT;

-- leave an early cancel
--   function: store.executions.early.leave (store/executions/early.py)
--   runs: where a cancel came before its execution
--   needs: pk_early_cancels
INSERT INTO early_cancels (execution_id, tenant, by, inserted_at) VALUES (%(execution_id)s::UUID,
    %(tenant)s::VARCHAR, %(by)s::VARCHAR, (clock_timestamp()))
ON CONFLICT (execution_id, tenant) DO UPDATE SET inserted_at = (clock_timestamp());

-- take an early cancel back
--   function: store.executions.early.take_back (store/executions/early.py)
--   runs: when nobody waits for it any more
--   needs: pk_early_cancels
DELETE
FROM early_cancels
WHERE early_cancels.execution_id = %(execution_id_1)s::UUID AND early_cancels.tenant = %(tenant_1)s::VARCHAR;

-- any old early cancel
--   function: store.executions.early.anything_old (store/executions/early.py)
--   runs: by the relay, every 20 seconds; the table is small
--   needs: none
SELECT EXISTS (SELECT early_cancels.execution_id
FROM early_cancels
WHERE early_cancels.inserted_at < (clock_timestamp() + make_interval(secs => CAST(%(database_now_1)s AS double
    precision)))) AS anon_1;

-- sweep early cancels
--   function: store.executions.early.sweep (store/executions/early.py)
--   runs: where there is one, of a worker that has died
--   needs: none
DELETE
FROM early_cancels
WHERE early_cancels.inserted_at < (clock_timestamp() + make_interval(secs => CAST(%(database_now_1)s AS double
    precision)));

-- settle
--   function: store.gates.settlement.settle (store/gates/settlement.py)
--   runs: after `finish` or `retry`, in its transaction, where something is limited
--   needs: pk_slots
UPDATE slots
SET outcome=records.outcome, calls=records.calls, tokens=records.tokens
FROM jsonb_to_recordset(CAST(%(records)s::VARCHAR AS JSONB)) AS records(execution_id UUID, tenant VARCHAR(64),
    lock_version INTEGER, outcome VARCHAR(16), calls INTEGER, tokens BIGINT)
WHERE slots.execution_id = records.execution_id AND slots.tenant = records.tenant AND slots.lock_version =
    records.lock_version AND slots.outcome IS NULL
RETURNING slots.gate_key;

-- take a turn
--   function: store.gates.settlement.close (store/gates/settlement.py)
--   runs: before a gate is changed: one transaction at a time does
--   needs: none
SELECT pg_advisory_xact_lock(5718306201);

-- make a gate
--   function: store.gates.settlement.close (store/gates/settlement.py)
--   runs: where a provider asks for fewer calls
--   needs: pk_gates
INSERT INTO gates (key, tenant, kind, name, inserted_at, updated_at) VALUES (%(key)s::VARCHAR,
    %(tenant)s::VARCHAR, %(kind)s::VARCHAR, %(name)s::VARCHAR, (clock_timestamp()), (clock_timestamp()))
ON CONFLICT DO NOTHING;

-- lock a gate
--   function: store.gates.settlement.close (store/gates/settlement.py)
--   runs: after that
--   needs: pk_gates
SELECT gates.key, gates.tenant, gates.kind, gates.name, gates.paused, gates.paused_by, gates.paused_reason,
    gates.paused_at, gates.in_flight, gates.least_in_flight, gates.requests_per_minute,
    gates.tokens_per_minute, gates.limited_by, gates.allowed, gates.shrunk_at, gates.requests_left,
    gates.tokens_left, gates.filled_at, gates.tokens_each, gates.swept_at, gates.closed_until, gates.closures,
    gates.lock_version, gates.inserted_at, gates.updated_at
FROM gates
WHERE gates.key = %(key_1)s::VARCHAR FOR UPDATE;

-- closed until
--   function: store.gates.settlement.close (store/gates/settlement.py)
--   runs: after that
--   needs: pk_gates
SELECT CAST(EXTRACT(EPOCH FROM gates.closed_until - clock_timestamp()) AS double precision) AS closed_for,
    gates.closures
FROM gates
WHERE gates.key = %(key_1)s::VARCHAR;

-- close a gate
--   function: store.gates.settlement.close (store/gates/settlement.py)
--   runs: after that, unless it is closed for as long
--   needs: pk_gates
UPDATE gates
SET closed_until=(clock_timestamp() + make_interval(secs => CAST(%(wait)s AS double precision))),
    closures=%(closures)s::INTEGER, lock_version=(gates.lock_version + %(lock_version_1)s::INTEGER),
    updated_at=greatest(clock_timestamp(), (SELECT max(others.updated_at) AS max_1
FROM gates AS others) + interval '1 microsecond')
WHERE gates.key = %(key_1)s::VARCHAR
RETURNING gates.key, gates.tenant, gates.kind, gates.name, gates.paused, gates.paused_by, gates.paused_reason,
    gates.paused_at, gates.in_flight, gates.least_in_flight, gates.requests_per_minute,
    gates.tokens_per_minute, gates.limited_by, gates.allowed, gates.shrunk_at, gates.requests_left,
    gates.tokens_left, gates.filled_at, gates.tokens_each, gates.swept_at, gates.closed_until, gates.closures,
    gates.lock_version, gates.inserted_at, gates.updated_at;

-- list gates
--   function: store.gates.steering.listing (store/gates/steering.py)
--   runs: when asked: for operators of all
--   needs: pk_slots, ix_queues_holder
SELECT gates.key, gates.tenant, gates.kind, gates.name, gates.paused, gates.paused_by, gates.paused_reason,
    gates.paused_at, gates.in_flight, gates.least_in_flight, gates.requests_per_minute,
    gates.tokens_per_minute, gates.limited_by, gates.allowed, gates.shrunk_at, gates.requests_left,
    gates.tokens_left, gates.filled_at, gates.tokens_each, gates.swept_at, gates.closed_until, gates.closures,
    gates.lock_version, gates.inserted_at, gates.updated_at, held.running
FROM gates LEFT OUTER
JOIN (SELECT slots.gate_key AS gate_key, count(*) AS running
FROM slots
WHERE slots.outcome IS NULL GROUP BY slots.gate_key) AS held ON held.gate_key = gates.key
WHERE gates.paused OR gates.closed_until IS NOT NULL OR gates.in_flight IS NOT NULL OR
    gates.requests_per_minute IS NOT NULL OR gates.tokens_per_minute IS NOT NULL
ORDER BY gates.kind, gates.tenant, gates.name;

-- figures of lanes
--   function: store.queues.figures.lanes (store/queues/figures.py)
--   runs: when asked, of a tenant
--   needs: pk_queue_counts
SELECT parts.lane, sum(parts.waiting) AS waiting, sum(parts.running) AS running, sum(parts.came) AS came,
    sum(parts.went) AS went, min(parts.oldest_at) AS oldest_at, min(parts.moving_since) AS moving_since
FROM (SELECT queue_counts.lane AS lane, queue_counts.waiting AS waiting, %(param_1)s::BIGINT AS running, CASE
    WHEN (queue_counts.waiting > %(waiting_1)s::BIGINT) THEN queue_counts.oldest_at END AS oldest_at, CASE
    WHEN (queue_counts.period >= %(period_1)s::BIGINT) THEN queue_counts.came + queue_counts.came_before WHEN
    (queue_counts.period = %(period_2)s::BIGINT) THEN queue_counts.came ELSE %(param_2)s::INTEGER END AS came,
    CASE WHEN (queue_counts.period >= %(period_3)s::BIGINT) THEN queue_counts.went + queue_counts.went_before
    WHEN (queue_counts.period = %(period_4)s::BIGINT) THEN queue_counts.went ELSE %(param_3)s::INTEGER END AS
    went, CASE WHEN (queue_counts.period >= %(period_5)s::BIGINT) THEN queue_counts.moving_since END AS
    moving_since
FROM queue_counts
WHERE queue_counts.tenant = %(tenant_1)s::VARCHAR UNION ALL
SELECT queue_moves.lane AS lane, queue_moves.came - queue_moves.went AS anon_1, %(param_1)s::BIGINT AS anon_2,
    NULL AS anon_3, queue_moves.came AS came, queue_moves.went AS went, NULL AS anon__1
FROM queue_moves
WHERE queue_moves.tenant = %(tenant_2)s::VARCHAR UNION ALL
SELECT executions.lane AS lane, %(param_1)s::BIGINT AS anon_2, %(param_4)s::BIGINT AS anon_4, NULL AS anon_3,
    %(param_1)s::BIGINT AS anon__2, %(param_1)s::BIGINT AS anon__3, NULL AS anon__4
FROM executions
WHERE executions.status = 'running' AND executions.request_digest NOT LIKE 'external:%%' AND executions.tenant
    = %(tenant_3)s::VARCHAR) AS parts GROUP BY parts.lane HAVING sum(parts.waiting) != %(sum_1)s::BIGINT OR
    sum(parts.running) != %(sum_2)s::BIGINT OR sum(parts.came) != %(sum_3)s::BIGINT OR sum(parts.went) !=
    %(sum_4)s::BIGINT;

-- figures of programs
--   function: store.queues.figures.page (store/queues/figures.py)
--   runs: when asked, of a tenant
--   needs: pk_queue_counts
SELECT figures.tenant, figures.program_id, figures.waiting, figures.running, figures.came, figures.went,
    figures.oldest_at, figures.moving_since
FROM (SELECT parts.tenant AS tenant, parts.program_id AS program_id, sum(parts.waiting) AS waiting,
    sum(parts.running) AS running, sum(parts.came) AS came, sum(parts.went) AS went, min(parts.oldest_at) AS
    oldest_at, min(parts.moving_since) AS moving_since
FROM (SELECT queue_counts.tenant AS tenant, queue_counts.program_id AS program_id, queue_counts.waiting AS
    waiting, %(param_1)s::BIGINT AS running, CASE WHEN (queue_counts.waiting > %(waiting_1)s::BIGINT) THEN
    queue_counts.oldest_at END AS oldest_at, CASE WHEN (queue_counts.period >= %(period_1)s::BIGINT) THEN
    queue_counts.came + queue_counts.came_before WHEN (queue_counts.period = %(period_2)s::BIGINT) THEN
    queue_counts.came ELSE %(param_2)s::INTEGER END AS came, CASE WHEN (queue_counts.period >=
    %(period_3)s::BIGINT) THEN queue_counts.went + queue_counts.went_before WHEN (queue_counts.period =
    %(period_4)s::BIGINT) THEN queue_counts.went ELSE %(param_3)s::INTEGER END AS went, CASE WHEN
    (queue_counts.period >= %(period_5)s::BIGINT) THEN queue_counts.moving_since END AS moving_since
FROM queue_counts
WHERE queue_counts.tenant = %(tenant_1)s::VARCHAR UNION ALL
SELECT queue_moves.tenant AS tenant, queue_moves.program_id AS program_id, queue_moves.came - queue_moves.went
    AS anon_1, %(param_1)s::BIGINT AS anon_2, NULL AS anon_3, queue_moves.came AS came, queue_moves.went AS
    went, NULL AS anon__1
FROM queue_moves
WHERE queue_moves.tenant = %(tenant_2)s::VARCHAR UNION ALL
SELECT executions.tenant AS tenant, executions.program_id AS program_id, %(param_1)s::BIGINT AS anon_2,
    %(param_4)s::BIGINT AS anon_4, NULL AS anon_3, %(param_1)s::BIGINT AS anon__2, %(param_1)s::BIGINT AS
    anon__3, NULL AS anon__4
FROM executions
WHERE executions.status = 'running' AND executions.request_digest NOT LIKE 'external:%%' AND executions.tenant
    = %(tenant_3)s::VARCHAR) AS parts GROUP BY parts.tenant, parts.program_id HAVING sum(parts.waiting) !=
    %(sum_1)s::BIGINT OR sum(parts.running) != %(sum_2)s::BIGINT OR sum(parts.came) != %(sum_3)s::BIGINT OR
    sum(parts.went) != %(sum_4)s::BIGINT) AS figures
ORDER BY figures.waiting DESC, figures.tenant, figures.program_id
LIMIT %(param_5)s::INTEGER;

-- position
--   function: store.queues.position.position (store/queues/position.py)
--   runs: when asked: what one that waits waits for
--   needs: pk_executions
SELECT executions.tenant, executions.program_id, executions.lane, executions.group_key, executions.run_at,
    executions.attempt, executions.updated_at, queues.holder, (clock_timestamp()) AS now, EXISTS (SELECT
    gates.key
FROM gates
WHERE gates.key = queues.holder AND gates.paused) AS queue_paused, EXISTS (SELECT gates.key
FROM gates
WHERE gates.key = %(param_1)s::VARCHAR AND gates.paused) AS all_paused, EXISTS (SELECT gates.key
FROM gates
WHERE gates.key = CASE executions.lane WHEN %(param_2)s::INTEGER THEN %(param_3)s::VARCHAR WHEN
    %(param_4)s::INTEGER THEN %(param_5)s::VARCHAR WHEN %(param_6)s::INTEGER THEN %(param_7)s::VARCHAR END AND
    gates.paused) AS lane_paused, programs.adapter_type AS adapter, CASE WHEN (programs.id IS NOT NULL) THEN
    coalesce(CAST(programs.configuration ->> %(configuration_1)s::TEXT AS VARCHAR), %(coalesce_1)s::VARCHAR)
    END AS environment, (SELECT jsonb_agg(DISTINCT workers.serves) AS jsonb_agg_1
FROM workers
WHERE workers.lease_expires_at >= (clock_timestamp()) AND workers.state != %(state_1)s::VARCHAR AND NOT
    (EXISTS (SELECT gates.key
FROM gates
WHERE gates.key = (%(param_8)s::VARCHAR || workers.name) AND gates.paused))) AS served
FROM executions LEFT OUTER
JOIN queues ON executions.tenant = queues.tenant AND executions.program_id = queues.program_id AND
    executions.lane = queues.lane AND executions.group_key = queues.group_key LEFT OUTER
JOIN programs ON programs.id = executions.program_id AND programs.tenant = executions.tenant
WHERE executions.id = %(execution_id)s::UUID AND executions.tenant = %(its_tenant)s::VARCHAR AND
    executions.status = 'pending' AND executions.run_at IS NOT NULL;

-- anything to deliver
--   function: store.webhooks.sending.anything_due (store/webhooks/sending.py)
--   runs: by the deliverer, all the time: it locks nothing
--   needs: ix_webhook_deliveries_due
SELECT EXISTS (SELECT webhook_deliveries.id
FROM webhook_deliveries
WHERE webhook_deliveries.status = 'pending' AND webhook_deliveries.due_at <= (SELECT (clock_timestamp()) AS
    database_now_1)) AS anon_1;

-- anything of its own to deliver
--   function: store.webhooks.sending.anything_due (store/webhooks/sending.py)
--   runs: instead, by a process that runs no work but its own, such as `dspex run`
--   needs: ix_webhook_deliveries_due, pk_executions
SELECT EXISTS (SELECT webhook_deliveries.id
FROM webhook_deliveries
WHERE webhook_deliveries.status = 'pending' AND webhook_deliveries.due_at <= (SELECT (clock_timestamp()) AS
    database_now_1) AND webhook_deliveries.due_at >= %(since)s::TIMESTAMP WITH TIME ZONE AND (false OR (EXISTS
    (SELECT executions.id
FROM executions
WHERE executions.id = webhook_deliveries.execution_id AND executions.tenant = webhook_deliveries.tenant AND
    (executions.worker = %(worker)s::VARCHAR OR false))))) AS anon_1;

-- find places
--   function: store.webhooks.sending.places (store/webhooks/sending.py)
--   runs: where something is due: whom it is for, a step each
--   needs: ix_webhook_deliveries_place
WITH RECURSIVE walk(place) AS (SELECT (SELECT min(webhook_deliveries.place) AS min_1
FROM webhook_deliveries
WHERE webhook_deliveries.status = 'pending' AND webhook_deliveries.place > %(after)s::VARCHAR) AS place UNION
    ALL
SELECT (SELECT min(webhook_deliveries.place) AS min_2
FROM webhook_deliveries
WHERE webhook_deliveries.status = 'pending' AND webhook_deliveries.place > walk.place) AS anon_1
FROM walk
WHERE walk.place IS NOT NULL)
SELECT walk.place
FROM walk
WHERE walk.place IS NOT NULL AND (SELECT min(webhook_deliveries.due_at) AS min_3
FROM webhook_deliveries
WHERE webhook_deliveries.status = 'pending' AND webhook_deliveries.place = walk.place) <= (SELECT
    (clock_timestamp()) AS database_now_1)
LIMIT %(number)s::INTEGER;

-- take deliveries
--   function: store.webhooks.sending.take (store/webhooks/sending.py)
--   runs: for each place that has a thread free
--   needs: ix_webhook_deliveries_place, pk_webhook_deliveries
WITH due AS (SELECT webhook_deliveries.id AS id
FROM webhook_deliveries
WHERE webhook_deliveries.status = 'pending' AND webhook_deliveries.place = %(at)s::VARCHAR AND
    webhook_deliveries.due_at <= (SELECT (clock_timestamp()) AS database_now_1)
ORDER BY webhook_deliveries.due_at
LIMIT %(number)s::INTEGER
FOR UPDATE SKIP LOCKED) UPDATE webhook_deliveries
SET due_at=(clock_timestamp() + make_interval(secs => CAST(%(lease_seconds)s AS double precision))),
    lock_version=(webhook_deliveries.lock_version + %(lock_version_1)s::INTEGER),
    updated_at=(clock_timestamp())
WHERE webhook_deliveries.id IN (SELECT due.id
FROM due)
RETURNING webhook_deliveries.id, webhook_deliveries.endpoint_id, webhook_deliveries.execution_id,
    webhook_deliveries.event_version, webhook_deliveries.event, webhook_deliveries.place,
    webhook_deliveries.due_at, webhook_deliveries.attempts, webhook_deliveries.tries,
    webhook_deliveries.reason, webhook_deliveries.finished_at, webhook_deliveries.status,
    webhook_deliveries.lock_version, webhook_deliveries.inserted_at, webhook_deliveries.updated_at,
    webhook_deliveries.tenant;

-- take own deliveries
--   function: store.webhooks.sending.take (store/webhooks/sending.py)
--   runs: instead, as above
--   needs: ix_webhook_deliveries_place, pk_webhook_deliveries, pk_executions
WITH due AS (SELECT webhook_deliveries.id AS id
FROM webhook_deliveries
WHERE webhook_deliveries.status = 'pending' AND webhook_deliveries.place = %(at)s::VARCHAR AND
    webhook_deliveries.due_at <= (SELECT (clock_timestamp()) AS database_now_1) AND webhook_deliveries.due_at
    >= %(since)s::TIMESTAMP WITH TIME ZONE AND (false OR (EXISTS (SELECT executions.id
FROM executions
WHERE executions.id = webhook_deliveries.execution_id AND executions.tenant = webhook_deliveries.tenant AND
    (executions.worker = %(worker)s::VARCHAR OR false))))
ORDER BY webhook_deliveries.due_at
LIMIT %(number)s::INTEGER
FOR UPDATE SKIP LOCKED) UPDATE webhook_deliveries
SET due_at=(clock_timestamp() + make_interval(secs => CAST(%(lease_seconds)s AS double precision))),
    lock_version=(webhook_deliveries.lock_version + %(lock_version_1)s::INTEGER),
    updated_at=(clock_timestamp())
WHERE webhook_deliveries.id IN (SELECT due.id
FROM due)
RETURNING webhook_deliveries.id, webhook_deliveries.endpoint_id, webhook_deliveries.execution_id,
    webhook_deliveries.event_version, webhook_deliveries.event, webhook_deliveries.place,
    webhook_deliveries.due_at, webhook_deliveries.attempts, webhook_deliveries.tries,
    webhook_deliveries.reason, webhook_deliveries.finished_at, webhook_deliveries.status,
    webhook_deliveries.lock_version, webhook_deliveries.inserted_at, webhook_deliveries.updated_at,
    webhook_deliveries.tenant;

-- settle deliveries
--   function: store.webhooks.sending.settle (store/webhooks/sending.py)
--   runs: for each batch of attempts that have ended
--   needs: pk_webhook_deliveries
UPDATE webhook_deliveries
SET due_at=CASE WHEN (records.status = %(status_1)s::VARCHAR) THEN (clock_timestamp() + make_interval(secs =>
    CAST(coalesce(records.retry_in, %(coalesce_1)s) AS double precision))) ELSE NULL END,
    attempts=(webhook_deliveries.attempts + records.attempted), tries=(webhook_deliveries.tries +
    records.attempted), reason=records.reason, finished_at=CASE WHEN (records.status = %(status_1)s::VARCHAR)
    THEN NULL ELSE (clock_timestamp()) END, status=records.status,
    lock_version=(webhook_deliveries.lock_version + %(lock_version_1)s::INTEGER),
    updated_at=(clock_timestamp())
FROM jsonb_to_recordset(CAST(%(records)s::VARCHAR AS JSONB)) AS records(id UUID, lock_version INTEGER, status
    VARCHAR, retry_in FLOAT, reason TEXT, attempted INTEGER)
WHERE webhook_deliveries.id = records.id AND webhook_deliveries.lock_version = records.lock_version AND
    webhook_deliveries.status = 'pending'
RETURNING webhook_deliveries.id;

-- log attempts
--   function: store.webhooks.sending.settle (store/webhooks/sending.py)
--   runs: after that
--   needs: pk_webhook_attempts
INSERT INTO webhook_attempts (delivery_id, number, tenant, outcome, http_status, reason, duration_ms,
    response, at)
SELECT records.delivery_id, records.number, records.tenant, records.outcome, records.http_status,
    records.reason, records.duration_ms, records.response, (clock_timestamp()) AS database_now_1
FROM jsonb_to_recordset(CAST(%(records)s::VARCHAR AS JSONB)) AS records(delivery_id UUID, number INTEGER,
    tenant VARCHAR, outcome VARCHAR, http_status INTEGER, reason TEXT, duration_ms FLOAT, response TEXT);

-- endpoints fail
--   function: store.webhooks.sending.settle (store/webhooks/sending.py)
--   runs: for those that failed first after a success
--   needs: pk_webhook_endpoints
UPDATE webhook_endpoints
SET failing_since=(clock_timestamp())
WHERE webhook_endpoints.id IN (...) AND webhook_endpoints.tenant = %(tenant_1)s::VARCHAR AND
    webhook_endpoints.failing_since IS NULL;

-- read endpoint
--   function: store.webhooks.sending.settle (store/webhooks/sending.py)
--   runs: before one is disabled
--   needs: pk_webhook_endpoints
SELECT webhook_endpoints.id, webhook_endpoints.url, webhook_endpoints.secret,
    webhook_endpoints.previous_secret, webhook_endpoints.previous_until, webhook_endpoints.events,
    webhook_endpoints.headers, webhook_endpoints.thin, webhook_endpoints.registered,
    webhook_endpoints.enabled, webhook_endpoints.disabled_reason, webhook_endpoints.disabled_at,
    webhook_endpoints.failing_since, webhook_endpoints.announce_at, webhook_endpoints.lock_version,
    webhook_endpoints.inserted_at, webhook_endpoints.updated_at, webhook_endpoints.tenant, CAST(EXTRACT(EPOCH
    FROM webhook_endpoints.failing_since - clock_timestamp()) AS double precision) AS failing_left,
    CAST(EXTRACT(EPOCH FROM webhook_endpoints.previous_until - clock_timestamp()) AS double precision) AS
    previous_left
FROM webhook_endpoints
WHERE webhook_endpoints.id = %(id_1)s::UUID AND webhook_endpoints.tenant = %(tenant_1)s::VARCHAR;

-- disable endpoint
--   function: store.webhooks.sending.settle (store/webhooks/sending.py)
--   runs: where it is gone, or fails for too long
--   needs: pk_webhook_endpoints
UPDATE webhook_endpoints
SET enabled=false, disabled_reason=%(disabled_reason)s::VARCHAR, disabled_at=(clock_timestamp()),
    announce_at=(clock_timestamp()), lock_version=(webhook_endpoints.lock_version +
    %(lock_version_1)s::INTEGER), updated_at=(clock_timestamp())
WHERE webhook_endpoints.id = %(id_1)s::UUID AND webhook_endpoints.tenant = %(tenant_1)s::VARCHAR AND
    webhook_endpoints.lock_version = %(lock_version_2)s::INTEGER
RETURNING webhook_endpoints.id;

-- fail pending
--   function: store.webhooks.sending.settle (store/webhooks/sending.py)
--   runs: what waits for it
--   needs: ix_webhook_deliveries_tenant_endpoint_id_inserted_at
UPDATE webhook_deliveries
SET due_at=NULL, reason=%(reason)s::VARCHAR, finished_at=(clock_timestamp()), status=%(status)s::VARCHAR,
    lock_version=(webhook_deliveries.lock_version + %(lock_version_1)s::INTEGER),
    updated_at=(clock_timestamp())
WHERE webhook_deliveries.tenant = %(tenant_1)s::VARCHAR AND webhook_deliveries.endpoint_id =
    %(endpoint_id_1)s::UUID AND webhook_deliveries.status = %(status_1)s::VARCHAR;

-- endpoints are well
--   function: store.webhooks.sending.settle (store/webhooks/sending.py)
--   runs: for those that succeed after a failure
--   needs: pk_webhook_endpoints
UPDATE webhook_endpoints
SET failing_since=NULL
WHERE webhook_endpoints.id IN (...) AND webhook_endpoints.tenant = %(tenant_1)s::VARCHAR AND
    webhook_endpoints.failing_since IS NOT NULL;

-- release deliveries
--   function: store.webhooks.sending.release (store/webhooks/sending.py)
--   runs: when a deliverer drains
--   needs: pk_webhook_deliveries
UPDATE webhook_deliveries
SET due_at=(clock_timestamp()), lock_version=(webhook_deliveries.lock_version + %(lock_version_1)s::INTEGER),
    updated_at=(clock_timestamp())
FROM jsonb_to_recordset(CAST(%(records)s::VARCHAR AS JSONB)) AS records(id UUID, lock_version INTEGER)
WHERE webhook_deliveries.id = records.id AND webhook_deliveries.lock_version = records.lock_version AND
    webhook_deliveries.status = 'pending'
RETURNING webhook_deliveries.id;

-- anything to announce
--   function: store.webhooks.endpoints.anything_to_announce (store/webhooks/endpoints.py)
--   runs: now and then: it locks nothing
--   needs: ix_webhook_endpoints_announce
SELECT EXISTS (SELECT webhook_endpoints.id
FROM webhook_endpoints
WHERE webhook_endpoints.announce_at <= (clock_timestamp())) AS anon_1;

-- take announcements
--   function: store.webhooks.endpoints.announcements (store/webhooks/endpoints.py)
--   runs: where there is any
--   needs: ix_webhook_endpoints_announce
WITH due AS (SELECT webhook_endpoints.id AS id, webhook_endpoints.tenant AS tenant
FROM webhook_endpoints
WHERE webhook_endpoints.announce_at <= (clock_timestamp())
LIMIT %(param_1)s::INTEGER
FOR UPDATE SKIP LOCKED) UPDATE webhook_endpoints
SET announce_at=(clock_timestamp() + make_interval(secs => CAST(%(again_in)s AS double precision)))
WHERE (webhook_endpoints.id, webhook_endpoints.tenant) IN (SELECT due.id, due.tenant
FROM due)
RETURNING webhook_endpoints.id, webhook_endpoints.tenant;

-- announced
--   function: store.webhooks.endpoints.announced (store/webhooks/endpoints.py)
--   runs: for each that the broker has confirmed
--   needs: pk_webhook_endpoints
UPDATE webhook_endpoints
SET announce_at=NULL
WHERE webhook_endpoints.id = %(id_1)s::UUID AND webhook_endpoints.tenant = %(tenant_1)s::VARCHAR AND
    webhook_endpoints.lock_version = %(lock_version_1)s::INTEGER;

-- cancel
--   function: store.executions.cancels.cancel (store/executions/cancels.py)
--   runs: for one that has not ended
--   needs: pk_executions
UPDATE executions
SET lease_expires_at=CASE WHEN (executions.status = 'pending' OR executions.request_digest LIKE 'external:%%')
    THEN NULL ELSE executions.lease_expires_at END, finished_at=CASE WHEN (executions.status = 'pending' OR
    executions.request_digest LIKE 'external:%%') THEN (clock_timestamp()) ELSE NULL END, status=CASE WHEN
    (executions.status = 'pending' OR executions.request_digest LIKE 'external:%%') THEN %(param_1)s ELSE
    executions.status END, lock_version=CASE WHEN (executions.status = 'pending' OR executions.request_digest
    LIKE 'external:%%') THEN executions.lock_version + %(lock_version_1)s::INTEGER ELSE
    executions.lock_version END, updated_at=(clock_timestamp()), cancel_requested=%(cancel_requested)s,
    timeline=CASE WHEN (executions.status = 'pending' OR executions.request_digest LIKE 'external:%%' OR NOT
    executions.cancel_requested) THEN ((CASE WHEN jsonb_array_length(executions.timeline) < 50 THEN
    executions.timeline ELSE executions.timeline - 0 END) || jsonb_build_object('status', CAST(CASE WHEN
    (executions.status = 'pending' OR executions.request_digest LIKE 'external:%%') THEN %(param_2)s ELSE
    %(param_3)s::VARCHAR END AS text), 'at', clock_timestamp(), 'attempt', CAST(executions.attempt AS
    integer), 'by', CAST(%(continued_1)s::VARCHAR AS text))) ELSE executions.timeline END, input_tokens=CASE
    WHEN (executions.status = 'pending' AND executions.started_at IS NULL) THEN %(param_4)s::INTEGER ELSE
    executions.input_tokens END, output_tokens=CASE WHEN (executions.status = 'pending' AND
    executions.started_at IS NULL) THEN %(param_5)s::INTEGER ELSE executions.output_tokens END, cost=CASE WHEN
    (executions.status = 'pending' AND executions.started_at IS NULL) THEN %(param_6)s::INTEGER ELSE
    executions.cost END, due_at=NULL
WHERE executions.id = %(id_1)s::UUID AND executions.tenant = %(tenant_1)s::VARCHAR AND executions.status IN
    ('pending', 'running')
RETURNING executions.id, executions.program_id, executions.inputs, executions.options,
    executions.request_digest, executions.source, executions.traceparent, executions.backend_id,
    executions.attempt, executions.worker, executions.lease_expires_at, executions.outputs, executions.error,
    executions.usage, executions.duration_ms, executions.started_at, executions.finished_at,
    executions.status, executions.lock_version, executions.inserted_at, executions.updated_at,
    executions.tenant, executions.cancel_requested, executions.timeline, executions.error_code,
    executions.input_tokens, executions.output_tokens, executions.cost, executions.due_at,
    executions.not_before, executions.deadline, executions.policy, executions.reply_to,
    executions.correlation_id, executions.carried, executions.lost, executions.discarded, executions.callback,
    executions.program_callback, executions.metadata, executions.extensions, executions.requested_at,
    executions.lane, executions.group_key, executions.run_at;

-- find endpoints of a tenant
--   function: store.executions.cancels.cancel (store/executions/cancels.py)
--   runs: after that
--   needs: ix_webhook_endpoints_registered
SELECT webhook_endpoints.id, webhook_endpoints.url, webhook_endpoints.secret,
    webhook_endpoints.previous_secret, webhook_endpoints.previous_until, webhook_endpoints.events,
    webhook_endpoints.headers, webhook_endpoints.thin, webhook_endpoints.registered,
    webhook_endpoints.enabled, webhook_endpoints.disabled_reason, webhook_endpoints.disabled_at,
    webhook_endpoints.failing_since, webhook_endpoints.announce_at, webhook_endpoints.lock_version,
    webhook_endpoints.inserted_at, webhook_endpoints.updated_at, webhook_endpoints.tenant, CAST(EXTRACT(EPOCH
    FROM webhook_endpoints.failing_since - clock_timestamp()) AS double precision) AS failing_left,
    CAST(EXTRACT(EPOCH FROM webhook_endpoints.previous_until - clock_timestamp()) AS double precision) AS
    previous_left
FROM webhook_endpoints
WHERE false OR webhook_endpoints.tenant IN (...) AND webhook_endpoints.registered;

-- lock those to cancel
--   function: store.executions.cancels.cancel_many (store/executions/cancels.py)
--   runs: 200 at a time, of all that a filter finds
--   needs: pk_executions
SELECT executions.id, executions.tenant
FROM executions
WHERE executions.id IN (...) AND (executions.tenant || %(tenant_1)s::VARCHAR) = %(param_1)s::VARCHAR AND
    (executions.status || %(status_1)s::VARCHAR) IN (...) AND NOT executions.cancel_requested
ORDER BY executions.id
FOR UPDATE SKIP LOCKED;

-- cancel many
--   function: store.executions.cancels.cancel_many (store/executions/cancels.py)
--   runs: for those
--   needs: pk_executions
UPDATE executions
SET lease_expires_at=CASE WHEN (executions.status = 'pending' OR executions.request_digest LIKE 'external:%%')
    THEN NULL ELSE executions.lease_expires_at END, finished_at=CASE WHEN (executions.status = 'pending' OR
    executions.request_digest LIKE 'external:%%') THEN (clock_timestamp()) ELSE NULL END, status=CASE WHEN
    (executions.status = 'pending' OR executions.request_digest LIKE 'external:%%') THEN %(param_1)s ELSE
    executions.status END, lock_version=CASE WHEN (executions.status = 'pending' OR executions.request_digest
    LIKE 'external:%%') THEN executions.lock_version + %(lock_version_1)s::INTEGER ELSE
    executions.lock_version END, updated_at=(clock_timestamp()), cancel_requested=%(cancel_requested)s,
    timeline=CASE WHEN (executions.status = 'pending' OR executions.request_digest LIKE 'external:%%' OR NOT
    executions.cancel_requested) THEN ((CASE WHEN jsonb_array_length(executions.timeline) < 50 THEN
    executions.timeline ELSE executions.timeline - 0 END) || jsonb_build_object('status', CAST(CASE WHEN
    (executions.status = 'pending' OR executions.request_digest LIKE 'external:%%') THEN %(param_2)s ELSE
    %(param_3)s::VARCHAR END AS text), 'at', clock_timestamp(), 'attempt', CAST(executions.attempt AS
    integer), 'by', CAST(%(continued_1)s::VARCHAR AS text))) ELSE executions.timeline END, input_tokens=CASE
    WHEN (executions.status = 'pending' AND executions.started_at IS NULL) THEN %(param_4)s::INTEGER ELSE
    executions.input_tokens END, output_tokens=CASE WHEN (executions.status = 'pending' AND
    executions.started_at IS NULL) THEN %(param_5)s::INTEGER ELSE executions.output_tokens END, cost=CASE WHEN
    (executions.status = 'pending' AND executions.started_at IS NULL) THEN %(param_6)s::INTEGER ELSE
    executions.cost END, due_at=NULL
WHERE executions.id IN (...) AND executions.tenant = %(tenant_1)s::VARCHAR
RETURNING executions.id, executions.program_id, executions.inputs, executions.options,
    executions.request_digest, executions.source, executions.traceparent, executions.backend_id,
    executions.attempt, executions.worker, executions.lease_expires_at, executions.outputs, executions.error,
    executions.usage, executions.duration_ms, executions.started_at, executions.finished_at,
    executions.status, executions.lock_version, executions.inserted_at, executions.updated_at,
    executions.tenant, executions.cancel_requested, executions.timeline, executions.error_code,
    executions.input_tokens, executions.output_tokens, executions.cost, executions.due_at,
    executions.not_before, executions.deadline, executions.policy, executions.reply_to,
    executions.correlation_id, executions.carried, executions.lost, executions.discarded, executions.callback,
    executions.program_callback, executions.metadata, executions.extensions, executions.requested_at,
    executions.lane, executions.group_key, executions.run_at;

-- still locked
--   function: store.executions.cancels.cancel_many (store/executions/cancels.py)
--   runs: after that: these are cancelled one by one
--   needs: pk_executions
SELECT executions.id
FROM executions
WHERE executions.id IN (...) AND (executions.tenant || %(tenant_1)s::VARCHAR) = %(param_1)s::VARCHAR AND
    (executions.status || %(status_1)s::VARCHAR) IN (...) AND NOT executions.cancel_requested;

-- find dead executions
--   function: store.executions.queries.dead (store/executions/queries.py)
--   runs: to replay or discard all that a filter finds: 500 at a time
--   needs: ix_executions_unsuccessful
SELECT executions.id, executions.inserted_at
FROM executions
WHERE executions.tenant = %(tenant_1)s::VARCHAR AND executions.status = %(status_1)s::VARCHAR AND
    executions.error_code = %(error_code_1)s::VARCHAR AND executions.discarded = false AND executions.status
    IN ('failed', 'cancelled')
ORDER BY executions.inserted_at DESC, executions.id DESC
LIMIT %(param_1)s::INTEGER;

-- lock failed
--   function: store.executions.replays.replay (store/executions/replays.py)
--   runs: before a replay: 500 at a time
--   needs: pk_executions
SELECT executions.id, executions.program_id, executions.duration_ms, executions.input_tokens,
    executions.output_tokens, executions.cost
FROM executions
WHERE executions.id IN (...) AND executions.tenant = %(tenant_1)s::VARCHAR AND executions.status = 'failed'
    AND executions.request_digest NOT LIKE 'external:%%'
ORDER BY executions.id FOR UPDATE;

-- lock programs
--   function: store.executions.replays.replay (store/executions/replays.py)
--   runs: after that: what has none any more is left
--   needs: pk_programs
SELECT programs.id
FROM programs
WHERE programs.id IN (...) AND programs.tenant = %(tenant_1)s::VARCHAR
ORDER BY programs.id FOR KEY SHARE;

-- replay
--   function: store.executions.replays.replay (store/executions/replays.py)
--   runs: for those that are there
--   needs: pk_executions
UPDATE executions
SET attempt=%(attempt)s::INTEGER, outputs=NULL, duration_ms=NULL, finished_at=NULL,
    status=%(status)s::VARCHAR, lock_version=(executions.lock_version + %(lock_version_1)s::INTEGER),
    updated_at=(clock_timestamp()), cancel_requested=false, timeline=((CASE WHEN
    jsonb_array_length(executions.timeline) < 50 THEN executions.timeline ELSE executions.timeline - 0 END) ||
    jsonb_build_object('status', CAST(%(continued_1)s AS text), 'at', clock_timestamp(), 'attempt',
    CAST(%(continued_2)s::INTEGER AS integer), 'by', CAST(%(continued_3)s::VARCHAR AS text))),
    due_at=(clock_timestamp() + make_interval(secs => CAST(31557600000.0 AS double precision))),
    not_before=NULL, deadline=NULL, carried=NULL, lost=%(lost)s::SMALLINT, discarded=false,
    run_at=(clock_timestamp())
WHERE executions.id IN (...) AND executions.tenant = %(tenant_1)s::VARCHAR
RETURNING executions.tenant, executions.program_id, executions.lane, executions.group_key, executions.run_at;

-- forget events
--   function: store.executions.replays.replay (store/executions/replays.py)
--   runs: after that: their end is taken back; the table is small
--   needs: none
DELETE
FROM event_outbox
WHERE event_outbox.execution_id IN (...) AND event_outbox.tenant = %(tenant_1)s::VARCHAR;

-- discard
--   function: store.executions.replays.discard (store/executions/replays.py)
--   runs: 500 at a time
--   needs: pk_executions
UPDATE executions
SET updated_at=(clock_timestamp()), timeline=((CASE WHEN jsonb_array_length(executions.timeline) < 50 THEN
    executions.timeline ELSE executions.timeline - 0 END) || jsonb_build_object('status',
    CAST(%(continued_1)s::VARCHAR AS text), 'at', clock_timestamp(), 'attempt', CAST(executions.attempt AS
    integer), 'by', CAST(%(continued_2)s::VARCHAR AS text))), discarded=true
WHERE executions.id IN (SELECT executions.id
FROM executions
WHERE executions.id IN (...) AND executions.tenant = %(tenant_1)s::VARCHAR AND executions.status = 'failed'
    AND NOT executions.discarded
ORDER BY executions.id FOR UPDATE) AND executions.tenant = %(tenant_2)s::VARCHAR;

-- count executions
--   function: store.executions.queries.count (store/executions/queries.py)
--   runs: when asked: it reads 100,000 rows of the index at most
--   needs: ix_executions_tenant_inserted_at
SELECT newest.status, count(*) AS seen, count(CASE WHEN true THEN %(param_1)s::INTEGER END) AS counted,
    min(newest.inserted_at) AS oldest
FROM (SELECT executions.status AS status, executions.inserted_at AS inserted_at
FROM executions
WHERE executions.tenant = %(tenant_1)s::VARCHAR
ORDER BY executions.inserted_at DESC
LIMIT 100000) AS newest GROUP BY newest.status;

-- count executions of a program
--   function: store.executions.queries.count (store/executions/queries.py)
--   runs: the same: the index has the status, so no row is read
--   needs: ix_executions_program
SELECT newest.status, count(*) AS seen, count(CASE WHEN true THEN %(param_1)s::INTEGER END) AS counted,
    min(newest.inserted_at) AS oldest
FROM (SELECT executions.status AS status, executions.inserted_at AS inserted_at
FROM executions
WHERE executions.tenant = %(tenant_1)s::VARCHAR AND executions.program_id = %(program_id_1)s::UUID
ORDER BY executions.inserted_at DESC
LIMIT 100000) AS newest GROUP BY newest.status;

-- find dead messages
--   function: store.rejections.dead (store/rejections.py)
--   runs: as for dead executions
--   needs: ix_rejected_messages_tenant_inserted_at
SELECT rejected_messages.id, rejected_messages.inserted_at
FROM rejected_messages
WHERE rejected_messages.tenant = %(tenant_1)s::VARCHAR AND rejected_messages.status = %(status_1)s::VARCHAR
ORDER BY rejected_messages.inserted_at DESC, rejected_messages.id DESC
LIMIT %(param_1)s::INTEGER;

-- messages replayed
--   function: store.rejections.replayed (store/rejections.py)
--   runs: when the broker has confirmed them
--   needs: pk_rejected_messages
UPDATE rejected_messages
SET updated_at=(clock_timestamp()), status=%(status)s::VARCHAR
WHERE rejected_messages.id IN (SELECT rejected_messages.id
FROM rejected_messages
WHERE (rejected_messages.id, rejected_messages.deliveries) IN (...)
ORDER BY rejected_messages.id FOR UPDATE);

-- discard messages
--   function: store.rejections.discard (store/rejections.py)
--   runs: 500 at a time
--   needs: pk_rejected_messages
UPDATE rejected_messages
SET updated_at=(clock_timestamp()), status=%(status)s::VARCHAR
WHERE rejected_messages.id IN (SELECT rejected_messages.id
FROM rejected_messages
WHERE rejected_messages.id IN (...) AND rejected_messages.tenant = %(tenant_1)s::VARCHAR AND
    rejected_messages.status = %(status_1)s::VARCHAR
ORDER BY rejected_messages.id FOR UPDATE);

-- find failed deliveries
--   function: store.webhooks.log.replayable (store/webhooks/log.py)
--   runs: to replay all that a filter finds: 500 at a time
--   needs: ix_webhook_deliveries_failed
SELECT webhook_deliveries.id
FROM webhook_deliveries
WHERE webhook_deliveries.tenant = %(tenant_1)s::VARCHAR AND webhook_deliveries.status = 'failed'
ORDER BY webhook_deliveries.id
LIMIT %(param_1)s::INTEGER;

-- replay deliveries
--   function: store.webhooks.log.replay (store/webhooks/log.py)
--   runs: 500 at a time
--   needs: pk_webhook_deliveries, pk_webhook_endpoints
UPDATE webhook_deliveries
SET due_at=(clock_timestamp()), tries=%(tries)s::INTEGER, finished_at=NULL, status=%(status)s::VARCHAR,
    lock_version=(webhook_deliveries.lock_version + %(lock_version_1)s::INTEGER),
    updated_at=(clock_timestamp())
WHERE webhook_deliveries.id IN (...) AND webhook_deliveries.tenant = %(tenant_1)s::VARCHAR AND
    webhook_deliveries.status != %(status_1)s::VARCHAR AND webhook_deliveries.endpoint_id IN (SELECT
    webhook_endpoints.id
FROM webhook_endpoints
WHERE webhook_endpoints.tenant = %(tenant_2)s::VARCHAR AND webhook_endpoints.enabled);
