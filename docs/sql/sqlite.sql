-- The statements of the hot path on sqlite, of what looks after it, of the deliverer, and of operators.
-- Written by `make sql`, out of the code: a test holds it to that.
-- A parameter `records` is a JSON array, with an object for each row of the batch.

-- take keys
--   function: store.executions.transitions.claim (store/executions/transitions.py)
--   runs: before a claim, where a request of the batch has an idempotency key
--   needs: pk_idempotency_keys
INSERT INTO idempotency_keys (tenant, "key", execution_id, request_digest, inserted_at)
SELECT records.tenant, records."key", records.execution_id, records.request_digest, (strftime('%Y-%m-%d
    %H:%M:%f', 'now') || '000') AS database_now_1
FROM (SELECT "each".value ->> ? AS tenant, "each".value ->> ? AS "key", replace("each".value ->> ?, ?, ?) AS
    execution_id, "each".value ->> ? AS request_digest
FROM json_each(?) AS "each") AS records
WHERE records."key" IS NOT NULL
ORDER BY records.tenant, records."key"
ON CONFLICT (tenant, "key") DO UPDATE SET "key" = idempotency_keys."key"
RETURNING tenant, "key", execution_id, request_digest;

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
    asked.later THEN ? ELSE ? END AS anon_1, CASE WHEN asked.later THEN 0 ELSE 1 END AS anon_2, ? AS anon_3,
    CASE WHEN asked.later THEN NULL ELSE ? END AS anon_4, CASE WHEN asked.later THEN NULL ELSE
    (strftime('%Y-%m-%d %H:%M:%f', 'now', (?) || ' seconds') || '000') END AS anon_5, CASE WHEN asked.later
    THEN (strftime('%Y-%m-%d %H:%M:%f', 'now', (31557600000.0) || ' seconds') || '000') ELSE NULL END AS
    anon_6, CASE WHEN (programs.status = ?) THEN programs.backend_id ELSE NULL END AS anon_7, programs.policy,
    programs.callback AS callback_1, CASE WHEN asked.later THEN NULL ELSE (strftime('%Y-%m-%d %H:%M:%f',
    'now') || '000') END AS anon_8, (strftime('%Y-%m-%d %H:%M:%f', 'now') || '000') AS database_now_1,
    (strftime('%Y-%m-%d %H:%M:%f', 'now') || '000') AS database_now__1, json_array(json_object('status', CASE
    WHEN asked.later THEN ? ELSE ? END, 'at', strftime('%Y-%m-%dT%H:%M:%fZ', 'now'), 'attempt', CASE WHEN
    asked.later THEN 0 ELSE 1 END, 'by', ?)) AS begun_1, CASE WHEN asked.later THEN CASE WHEN asked.scheduled
    THEN asked.not_before ELSE (strftime('%Y-%m-%d %H:%M:%f', 'now') || '000') END ELSE NULL END AS anon_9,
    EXISTS (SELECT 1
FROM early_cancels
WHERE early_cancels.execution_id = asked.id AND early_cancels.tenant = asked.tenant) AS anon_10
FROM (SELECT records.id AS id, records.program_id AS program_id, records.inputs AS inputs, records.options AS
    options, records.source AS source, records.traceparent AS traceparent, records.tenant AS tenant,
    records.reply_to AS reply_to, records.correlation_id AS correlation_id, records.callback AS callback,
    records.metadata AS metadata, records.extensions AS extensions, records.requested_at AS requested_at,
    records.request_digest AS request_digest, records.not_before AS not_before, records.deadline AS deadline,
    records.lane AS lane, records.now AS now, records.now = 0 OR coalesce(records.not_before >
    (strftime('%Y-%m-%d %H:%M:%f', 'now') || '000'), 0) = 1 AS later, records.not_before > (strftime('%Y-%m-%d
    %H:%M:%f', 'now') || '000') AS scheduled
FROM (SELECT replace("each".value ->> ?, ?, ?) AS id, replace("each".value ->> ?, ?, ?) AS program_id,
    nullif("each".value -> ?, ?) AS inputs, nullif("each".value -> ?, ?) AS options, "each".value ->> ? AS
    source, "each".value ->> ? AS traceparent, "each".value ->> ? AS tenant, "each".value ->> ? AS reply_to,
    "each".value ->> ? AS correlation_id, nullif("each".value -> ?, ?) AS callback, nullif("each".value -> ?,
    ?) AS metadata, nullif("each".value -> ?, ?) AS extensions, substr("each".value ->> ?, ?, ?) AS
    requested_at, "each".value ->> ? AS request_digest, substr("each".value ->> ?, ?, ?) AS not_before,
    substr("each".value ->> ?, ?, ?) AS deadline, "each".value ->> ? AS lane, "each".value ->> ? AS now
FROM json_each(?) AS "each") AS records) AS asked
JOIN programs ON programs.id = asked.program_id AND programs.tenant = asked.tenant
WHERE asked.id IS NOT NULL
ORDER BY asked.id, asked.tenant
ON CONFLICT DO NOTHING
RETURNING tenant, status, reply_to, id, attempt, lock_version, backend_id, cancel_requested, policy, usage,
    carried, lost, metadata, extensions, ((julianday(deadline) - julianday('now')) * 86400.0) AS seconds_left,
    CASE WHEN (error_code = 'rate_limited') THEN -((julianday(not_before) - julianday('now')) * 86400.0) ELSE
    NULL END AS late, (SELECT max(gates.updated_at) AS max_1
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
FROM (SELECT replace("each".value ->> ?, ?, ?) AS id, "each".value ->> ? AS request_digest, "each".value ->> ?
    AS tenant
FROM json_each(?) AS "each") AS records
JOIN executions ON executions.id = records.id AND executions.tenant = records.tenant
WHERE CASE WHEN (executions.status = 'pending' AND executions.run_at IS NULL AND executions.request_digest =
    records.request_digest) THEN 1 ELSE 0 END = 1) UPDATE executions
SET due_at=(strftime('%Y-%m-%d %H:%M:%f', 'now', (31557600000.0) || ' seconds') || '000'),
    run_at=coalesce(executions.not_before, executions.inserted_at)
FROM "left"
WHERE executions.id = "left".id AND executions.tenant = "left".tenant
RETURNING tenant, program_id, lane, group_key, run_at;

-- give back keys
--   function: store.executions.transitions.claim (store/executions/transitions.py)
--   runs: where no execution came of an idempotency key
--   needs: pk_idempotency_keys
DELETE
FROM idempotency_keys
WHERE (idempotency_keys.tenant, idempotency_keys."key") IN (...);

-- count moves
--   function: store.executions.transitions.claim (store/executions/transitions.py)
--   runs: where executions begin to wait
--   needs: none
INSERT INTO queue_moves (id, tenant, program_id, lane, came, went)
SELECT moves.id, moves.tenant, moves.program_id, moves.lane, moves.came, moves.went
FROM (SELECT replace("each".value ->> ?, ?, ?) AS id, "each".value ->> ? AS tenant, replace("each".value ->>
    ?, ?, ?) AS program_id, "each".value ->> ? AS lane, "each".value ->> ? AS came, "each".value ->> ? AS went
FROM json_each(?) AS "each") AS moves;

-- offer
--   function: store.executions.transitions.claim (store/executions/transitions.py)
--   runs: where executions begin to wait: it locks their queues. PostgreSQL counts them in the same statement
--   needs: pk_queues
INSERT INTO queues (tenant, program_id, lane, group_key, holder, wake_at, inserted_at)
SELECT records.tenant, records.program_id, records.lane, records.group_key, CASE WHEN (records.run_at IS NULL
    OR records.run_at <= (strftime('%Y-%m-%d %H:%M:%f', 'now') || '000')) THEN '' ELSE NULL END AS anon_1,
    CASE WHEN (records.run_at IS NULL OR records.run_at <= (strftime('%Y-%m-%d %H:%M:%f', 'now') || '000'))
    THEN NULL ELSE records.run_at END AS anon_2, (strftime('%Y-%m-%d %H:%M:%f', 'now') || '000') AS
    database_now_1
FROM (SELECT "each".value ->> ? AS tenant, replace("each".value ->> ?, ?, ?) AS program_id, "each".value ->> ?
    AS lane, "each".value ->> ? AS group_key, substr("each".value ->> ?, ?, ?) AS run_at
FROM json_each(?) AS "each") AS records
WHERE 1 = 1
ORDER BY records.tenant, records.program_id, records.lane, records.group_key
ON CONFLICT (tenant, program_id, lane, group_key) DO UPDATE SET holder = excluded.holder, wake_at =
    excluded.wake_at
WHERE queues.holder IS NULL AND (excluded.holder IS NOT NULL OR queues.wake_at IS NULL OR queues.wake_at >
    excluded.wake_at)
RETURNING holder;

-- claim alone
--   function: store.executions.alone.claim_alone (store/executions/alone.py)
--   runs: for an execution that is to run alone in its process
--   needs: pk_executions, pk_programs
WITH free AS (SELECT executions.id AS id, executions.tenant AS tenant
FROM (SELECT replace("each".value ->> ?, ?, ?) AS id, "each".value ->> ? AS tenant
FROM json_each(?) AS "each") AS records
JOIN executions ON executions.id = records.id AND executions.tenant = records.tenant
WHERE CASE WHEN (executions.status = 'pending' AND executions.run_at IS NOT NULL AND (executions.not_before IS
    NULL OR executions.not_before <= (strftime('%Y-%m-%d %H:%M:%f', 'now') || '000'))) THEN 1 ELSE 0 END = 1)
    UPDATE executions
SET backend_id=(SELECT CASE WHEN (programs.status = ?) THEN programs.backend_id ELSE NULL END AS anon_1
FROM programs
WHERE programs.id = executions.program_id AND programs.tenant = executions.tenant),
    attempt=(executions.attempt + ?), worker=?, lease_expires_at=(strftime('%Y-%m-%d %H:%M:%f', 'now', (?) ||
    ' seconds') || '000'), started_at=(strftime('%Y-%m-%d %H:%M:%f', 'now') || '000'), status=?,
    lock_version=(executions.lock_version + ?), updated_at=(strftime('%Y-%m-%d %H:%M:%f', 'now') || '000'),
    timeline=json_insert(CASE WHEN json_array_length(executions.timeline) < 50 THEN executions.timeline ELSE
    json_remove(executions.timeline, '$[0]') END, '$[#]', json_object('status', ?, 'at',
    strftime('%Y-%m-%dT%H:%M:%fZ', 'now'), 'attempt', executions.attempt + ?, 'by', ?)), due_at=NULL,
    policy=(SELECT programs.policy
FROM programs
WHERE programs.id = executions.program_id AND programs.tenant = executions.tenant), program_callback=(SELECT
    programs.callback
FROM programs
WHERE programs.id = executions.program_id AND programs.tenant = executions.tenant)
FROM free
WHERE executions.id = free.id AND executions.tenant = free.tenant
RETURNING tenant, status, reply_to, id, attempt, lock_version, backend_id, cancel_requested, policy, usage,
    carried, lost, metadata, extensions, ((julianday(deadline) - julianday('now')) * 86400.0) AS seconds_left,
    CASE WHEN (error_code = 'rate_limited') THEN -((julianday(not_before) - julianday('now')) * 86400.0) ELSE
    NULL END AS late, program_id, lane, group_key, (SELECT max(gates.updated_at) AS max_1
FROM gates) AS gates_at;

-- finish
--   function: store.executions.transitions.finish_and_read (store/executions/transitions.py)
--   runs: for each batch of ends. PostgreSQL counts them and adds their events to the outbox by the same
--   needs: pk_executions, pk_event_outbox, pk_program_counters, pk_program_durations, ix_webhook_endpoints_registered
UPDATE executions
SET attempt=coalesce(records.attempt, executions.attempt), lease_expires_at=NULL, outputs=records.outputs,
    error=records.error, usage=records.usage, duration_ms=records.duration_ms, finished_at=(strftime('%Y-%m-%d
    %H:%M:%f', 'now') || '000'), status=records.status, lock_version=(executions.lock_version + ?),
    updated_at=(strftime('%Y-%m-%d %H:%M:%f', 'now') || '000'), timeline=json_insert(CASE WHEN
    json_array_length(executions.timeline) < 50 THEN executions.timeline ELSE json_remove(executions.timeline,
    '$[0]') END, '$[#]', json_object('status', records.status, 'at', strftime('%Y-%m-%dT%H:%M:%fZ', 'now'),
    'attempt', coalesce(records.attempt, executions.attempt), 'by', executions.worker)),
    error_code=records.error_code, input_tokens=records.input_tokens, output_tokens=records.output_tokens,
    cost=records.cost
FROM (SELECT replace("each".value ->> ?, ?, ?) AS id, "each".value ->> ? AS tenant, "each".value ->> ? AS
    lock_version, "each".value ->> ? AS status, "each".value ->> ? AS attempt, nullif("each".value -> ?, ?) AS
    outputs, "each".value ->> ? AS duration_ms, nullif("each".value -> ?, ?) AS error, "each".value ->> ? AS
    error_code, nullif("each".value -> ?, ?) AS usage, "each".value ->> ? AS input_tokens, "each".value ->> ?
    AS output_tokens, "each".value ->> ? AS cost
FROM json_each(?) AS "each") AS records
WHERE executions.id = records.id AND executions.lock_version = records.lock_version AND executions.tenant =
    records.tenant AND (executions.status || ?) = ?
RETURNING id, lock_version, status, tenant, callback, program_callback, tenant IN (SELECT
    webhook_endpoints.tenant
FROM webhook_endpoints
WHERE webhook_endpoints.registered) AS registered;

-- committed before
--   function: store.executions.transitions.finish_and_read (store/executions/transitions.py)
--   runs: where some of a batch were not as they were claimed
--   needs: pk_executions
SELECT executions.id, executions.lock_version, executions.status, executions.tenant
FROM executions
WHERE executions.id IN (...) AND executions.tenant = ?;

-- finish and read
--   function: store.executions.transitions.finish_and_read (store/executions/transitions.py)
--   runs: instead of `finish`, where somebody waits for an answer of the batch
--   needs: pk_executions, pk_event_outbox, pk_program_counters, pk_program_durations, ix_webhook_endpoints_registered
UPDATE executions
SET attempt=coalesce(records.attempt, executions.attempt), lease_expires_at=NULL, outputs=records.outputs,
    error=records.error, usage=records.usage, duration_ms=records.duration_ms, finished_at=(strftime('%Y-%m-%d
    %H:%M:%f', 'now') || '000'), status=records.status, lock_version=(executions.lock_version + ?),
    updated_at=(strftime('%Y-%m-%d %H:%M:%f', 'now') || '000'), timeline=json_insert(CASE WHEN
    json_array_length(executions.timeline) < 50 THEN executions.timeline ELSE json_remove(executions.timeline,
    '$[0]') END, '$[#]', json_object('status', records.status, 'at', strftime('%Y-%m-%dT%H:%M:%fZ', 'now'),
    'attempt', coalesce(records.attempt, executions.attempt), 'by', executions.worker)),
    error_code=records.error_code, input_tokens=records.input_tokens, output_tokens=records.output_tokens,
    cost=records.cost
FROM (SELECT replace("each".value ->> ?, ?, ?) AS id, "each".value ->> ? AS tenant, "each".value ->> ? AS
    lock_version, "each".value ->> ? AS status, "each".value ->> ? AS attempt, nullif("each".value -> ?, ?) AS
    outputs, "each".value ->> ? AS duration_ms, nullif("each".value -> ?, ?) AS error, "each".value ->> ? AS
    error_code, nullif("each".value -> ?, ?) AS usage, "each".value ->> ? AS input_tokens, "each".value ->> ?
    AS output_tokens, "each".value ->> ? AS cost
FROM json_each(?) AS "each") AS records
WHERE executions.id = records.id AND executions.lock_version = records.lock_version AND executions.tenant =
    records.tenant AND (executions.status || ?) = ?
RETURNING id, program_id, status, inputs, options, outputs, error, usage, duration_ms, attempt, backend_id,
    worker, source, traceparent, inserted_at, updated_at, started_at, finished_at, lock_version, tenant,
    cancel_requested, timeline, not_before, reply_to, correlation_id, discarded, callback, program_callback,
    metadata, extensions, requested_at, request_digest, tenant IN (SELECT webhook_endpoints.tenant
FROM webhook_endpoints
WHERE webhook_endpoints.registered) AS registered;

-- count
--   function: store.counters.increment (store/counters.py)
--   runs: after `finish`, in its transaction: on SQLite each time, on PostgreSQL where another has changed a
--     row of the shard meanwhile. PostgreSQL counts the durations in the same statement
--   needs: pk_program_counters, pk_program_durations
INSERT INTO program_counters (program_id, shard, tenant, completed, failed, cancelled, duration_ms,
    input_tokens, output_tokens, cost, tokens_known, cost_known, last_executed_at, lock_version)
SELECT records.program_id, records.shard, records.tenant, records.completed, records.failed,
    records.cancelled, records.duration_ms, records.input_tokens, records.output_tokens, records.cost,
    records.tokens_known, records.cost_known, CASE WHEN records.executed THEN (strftime('%Y-%m-%d %H:%M:%f',
    'now') || '000') ELSE NULL END AS anon_1, coalesce((SELECT counted.lock_version
FROM program_counters AS counted
WHERE counted.program_id = records.program_id AND counted.shard = records.shard AND counted.tenant =
    records.tenant), ?) + ? AS anon_2
FROM (SELECT replace("each".value ->> ?, ?, ?) AS program_id, "each".value ->> ? AS shard, "each".value ->> ?
    AS tenant, "each".value ->> ? AS completed, "each".value ->> ? AS failed, "each".value ->> ? AS cancelled,
    "each".value ->> ? AS duration_ms, "each".value ->> ? AS input_tokens, "each".value ->> ? AS
    output_tokens, "each".value ->> ? AS cost, "each".value ->> ? AS tokens_known, "each".value ->> ? AS
    cost_known, "each".value ->> ? AS executed
FROM json_each(?) AS "each") AS records
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
WHERE program_counters.lock_version = excluded.lock_version - ?
RETURNING program_id, tenant;

-- count durations
--   function: store.counters.increment (store/counters.py)
--   runs: after `count`
--   needs: pk_program_durations
INSERT INTO program_durations (program_id, shard, tenant, bucket, runs)
SELECT durations.program_id, durations.shard, durations.tenant, durations.bucket, durations.runs
FROM (SELECT replace("each".value ->> ?, ?, ?) AS program_id, "each".value ->> ? AS shard, "each".value ->> ?
    AS tenant, "each".value ->> ? AS bucket, "each".value ->> ? AS runs
FROM json_each(?) AS "each") AS durations
WHERE durations.program_id IS NOT NULL
ORDER BY durations.program_id, durations.tenant, durations.bucket
ON CONFLICT (program_id, shard, bucket, tenant) DO UPDATE SET runs = (program_durations.runs + excluded.runs);

-- keep traces
--   function: store.executions.traces.keep (store/executions/traces.py)
--   runs: after `finish` or `retry`, in its transaction, where one was asked for
--   needs: pk_execution_traces, pk_executions
INSERT INTO execution_traces (execution_id, tenant, attempt, steps, shortened, inserted_at)
SELECT records.execution_id, records.tenant, records.attempt, records.steps, records.shortened,
    (strftime('%Y-%m-%d %H:%M:%f', 'now') || '000') AS database_now_1
FROM (SELECT replace("each".value ->> ?, ?, ?) AS execution_id, "each".value ->> ? AS tenant, "each".value ->>
    ? AS attempt, nullif("each".value -> ?, ?) AS steps, "each".value ->> ? AS shortened
FROM json_each(?) AS "each") AS records
WHERE records.execution_id IS NOT NULL
ON CONFLICT (execution_id, tenant) DO UPDATE SET attempt = excluded.attempt, steps = excluded.steps, shortened
    = excluded.shortened, inserted_at = excluded.inserted_at;

-- keep blobs
--   function: store.executions.blobs.keep (store/executions/blobs.py)
--   runs: after `claim` or `finish`, in its transaction, where values are in the blob store
--   needs: pk_blob_references, pk_executions
INSERT INTO blob_references (execution_id, tenant, digest)
SELECT records.execution_id, records.tenant, records.digest
FROM (SELECT replace("each".value ->> ?, ?, ?) AS execution_id, "each".value ->> ? AS tenant, "each".value ->>
    ? AS digest
FROM json_each(?) AS "each") AS records
WHERE records.execution_id IS NOT NULL
ON CONFLICT (execution_id, tenant, digest) DO NOTHING;

-- add events
--   function: store.event_outbox.add (store/event_outbox.py)
--   runs: where one is cancelled; on SQLite after each `count`
--   needs: pk_event_outbox
INSERT INTO event_outbox (execution_id, lock_version, tenant, due_at)
SELECT records.execution_id, records.lock_version, records.tenant, (strftime('%Y-%m-%d %H:%M:%f', 'now', (?)
    || ' seconds') || '000') AS database_now_1
FROM (SELECT replace("each".value ->> ?, ?, ?) AS execution_id, "each".value ->> ? AS lock_version,
    "each".value ->> ? AS tenant
FROM json_each(?) AS "each") AS records
WHERE records.execution_id IS NOT NULL
ON CONFLICT (execution_id, tenant) DO UPDATE SET lock_version = excluded.lock_version, due_at =
    excluded.due_at, tries = ?;

-- find endpoints
--   function: store.webhooks.fan_out.fan_out (store/webhooks/fan_out.py)
--   runs: after all that, in its transaction, where an end is pushed somewhere
--   needs: pk_webhook_endpoints, ix_webhook_endpoints_registered
SELECT webhook_endpoints.id, webhook_endpoints.url, webhook_endpoints.secret,
    webhook_endpoints.previous_secret, webhook_endpoints.previous_until, webhook_endpoints.events,
    webhook_endpoints.headers, webhook_endpoints.thin, webhook_endpoints.registered,
    webhook_endpoints.enabled, webhook_endpoints.disabled_reason, webhook_endpoints.disabled_at,
    webhook_endpoints.failing_since, webhook_endpoints.announce_at, webhook_endpoints.lock_version,
    webhook_endpoints.inserted_at, webhook_endpoints.updated_at, webhook_endpoints.tenant,
    ((julianday(webhook_endpoints.failing_since) - julianday('now')) * 86400.0) AS failing_left,
    ((julianday(webhook_endpoints.previous_until) - julianday('now')) * 86400.0) AS previous_left
FROM webhook_endpoints
WHERE webhook_endpoints.id IN (...) AND webhook_endpoints.tenant = ? OR webhook_endpoints.tenant IN (...) AND
    webhook_endpoints.registered;

-- keep endpoints
--   function: store.webhooks.fan_out.fan_out (store/webhooks/fan_out.py)
--   runs: for callbacks that come for the first time
--   needs: pk_webhook_endpoints
INSERT INTO webhook_endpoints (id, tenant, url, secret, events, headers, thin, registered, inserted_at,
    updated_at)
SELECT records.id, records.tenant, records.url, records.secret, records.events, records.headers, records.thin,
    0 AS anon_1, (strftime('%Y-%m-%d %H:%M:%f', 'now') || '000') AS database_now_1, (strftime('%Y-%m-%d
    %H:%M:%f', 'now') || '000') AS database_now__1
FROM (SELECT replace("each".value ->> ?, ?, ?) AS id, "each".value ->> ? AS tenant, "each".value ->> ? AS url,
    "each".value ->> ? AS secret, nullif("each".value -> ?, ?) AS events, nullif("each".value -> ?, ?) AS
    headers, "each".value ->> ? AS thin
FROM json_each(?) AS "each") AS records
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
    webhook_endpoints.inserted_at, webhook_endpoints.updated_at, webhook_endpoints.tenant,
    ((julianday(webhook_endpoints.failing_since) - julianday('now')) * 86400.0) AS failing_left,
    ((julianday(webhook_endpoints.previous_until) - julianday('now')) * 86400.0) AS previous_left
FROM webhook_endpoints
WHERE webhook_endpoints.id IN (...) AND webhook_endpoints.tenant = ?;

-- add deliveries
--   function: store.webhooks.fan_out.fan_out (store/webhooks/fan_out.py)
--   runs: after that
--   needs: ix_webhook_deliveries_end, ix_webhook_deliveries_due, ix_webhook_deliveries_place
INSERT INTO webhook_deliveries (id, tenant, endpoint_id, execution_id, event_version, event, place, status,
    reason, due_at, finished_at, inserted_at, updated_at)
SELECT records.id, records.tenant, records.endpoint_id, records.execution_id, records.event_version,
    records.event, records.place, records.status, records.reason, CASE WHEN (records.status = ?) THEN
    (strftime('%Y-%m-%d %H:%M:%f', 'now', (?) || ' seconds') || '000') ELSE NULL END AS anon_1, CASE WHEN
    (records.status = ?) THEN NULL ELSE (strftime('%Y-%m-%d %H:%M:%f', 'now') || '000') END AS anon_2,
    (strftime('%Y-%m-%d %H:%M:%f', 'now') || '000') AS database_now_1, (strftime('%Y-%m-%d %H:%M:%f', 'now')
    || '000') AS database_now__1
FROM (SELECT replace("each".value ->> ?, ?, ?) AS id, "each".value ->> ? AS tenant, replace("each".value ->>
    ?, ?, ?) AS endpoint_id, replace("each".value ->> ?, ?, ?) AS execution_id, "each".value ->> ? AS
    event_version, "each".value ->> ? AS event, "each".value ->> ? AS place, "each".value ->> ? AS status,
    "each".value ->> ? AS reason
FROM json_each(?) AS "each") AS records
WHERE records.id IS NOT NULL
ON CONFLICT DO NOTHING;

-- retry
--   function: store.executions.transitions.retry (store/executions/transitions.py)
--   runs: for each batch of attempts after which there is another
--   needs: pk_executions
UPDATE executions
SET attempt=records.attempt, lease_expires_at=NULL, error=records.error, usage=records.usage, status=?,
    lock_version=(executions.lock_version + ?), updated_at=(strftime('%Y-%m-%d %H:%M:%f', 'now') || '000'),
    timeline=json_insert(CASE WHEN json_array_length(executions.timeline) < 50 THEN executions.timeline ELSE
    json_remove(executions.timeline, '$[0]') END, '$[#]', json_object('status', ?, 'at',
    strftime('%Y-%m-%dT%H:%M:%fZ', 'now'), 'attempt', records.attempt, 'by', executions.worker)),
    error_code=records.error_code, input_tokens=records.input_tokens, output_tokens=records.output_tokens,
    cost=records.cost, due_at=(strftime('%Y-%m-%d %H:%M:%f', 'now', (31557600000.0) || ' seconds') || '000'),
    not_before=(strftime('%Y-%m-%d %H:%M:%f', 'now', (records.delay) || ' seconds') || '000'),
    carried=records.carried, run_at=(strftime('%Y-%m-%d %H:%M:%f', 'now', (records.delay) || ' seconds') ||
    '000')
FROM (SELECT replace("each".value ->> ?, ?, ?) AS id, "each".value ->> ? AS tenant, "each".value ->> ? AS
    lock_version, "each".value ->> ? AS attempt, nullif("each".value -> ?, ?) AS carried, nullif("each".value
    -> ?, ?) AS error, "each".value ->> ? AS error_code, nullif("each".value -> ?, ?) AS usage, "each".value
    ->> ? AS input_tokens, "each".value ->> ? AS output_tokens, "each".value ->> ? AS cost, "each".value ->> ?
    AS delay
FROM json_each(?) AS "each") AS records
WHERE executions.id = records.id AND executions.lock_version = records.lock_version AND executions.tenant =
    records.tenant AND (executions.status || ?) = ?
RETURNING id, lock_version, status, tenant, program_id, lane, group_key, run_at;

-- events sent
--   function: store.event_outbox.sent (store/event_outbox.py)
--   runs: for each batch of ends that the broker has confirmed
--   needs: pk_event_outbox
DELETE
FROM event_outbox
WHERE (event_outbox.execution_id, event_outbox.tenant, event_outbox.lock_version) IN (SELECT
    records.execution_id, records.tenant, records.lock_version
FROM (SELECT replace("each".value ->> ?, ?, ?) AS execution_id, "each".value ->> ? AS lock_version,
    "each".value ->> ? AS tenant
FROM json_each(?) AS "each") AS records);

-- heartbeat
--   function: store.executions.leases.heartbeat (store/executions/leases.py)
--   runs: every third of a lease, for what the process runs
--   needs: ix_executions_running
UPDATE executions
SET lease_expires_at=(strftime('%Y-%m-%d %H:%M:%f', 'now', (?) || ' seconds') || '000')
WHERE (executions.id, executions.tenant) IN (SELECT executions.id, executions.tenant
FROM executions
WHERE executions.worker = ? AND executions.status = 'running' AND executions.id IN (...) AND executions.tenant
    = ?)
RETURNING id, tenant, cancel_requested;

-- release
--   function: store.executions.leases.release (store/executions/leases.py)
--   runs: when a worker drains, or gives back what it has claimed
--   needs: pk_executions
UPDATE executions
SET attempt=(executions.attempt - ?), lease_expires_at=NULL, status=?, lock_version=(executions.lock_version +
    ?), updated_at=(strftime('%Y-%m-%d %H:%M:%f', 'now') || '000'), timeline=json_insert(CASE WHEN
    json_array_length(executions.timeline) < 50 THEN executions.timeline ELSE json_remove(executions.timeline,
    '$[0]') END, '$[#]', json_object('status', ?, 'at', strftime('%Y-%m-%dT%H:%M:%fZ', 'now'), 'attempt',
    executions.attempt - ?, 'by', executions.worker)), due_at=(strftime('%Y-%m-%d %H:%M:%f', 'now',
    (31557600000.0) || ' seconds') || '000'), run_at=coalesce(executions.not_before, executions.inserted_at)
WHERE (executions.id, executions.tenant) IN (SELECT executions.id, executions.tenant
FROM executions
WHERE executions.worker = ? AND executions.status = 'running' AND executions.id IN (...) AND executions.tenant
    = ?
ORDER BY executions.id, executions.tenant)
RETURNING tenant, program_id, lane, group_key, run_at;

-- anything due
--   function: store.executions.leases.anything_due (store/executions/leases.py)
--   runs: by the relay, all the time: it locks nothing
--   needs: ix_executions_pending, ix_executions_running
SELECT (EXISTS (SELECT executions.id
FROM executions
WHERE executions.status = 'pending' AND executions.due_at < (strftime('%Y-%m-%d %H:%M:%f', 'now') || '000')))
    OR (EXISTS (SELECT executions.id
FROM executions
WHERE executions.status = 'pending' AND executions.due_at IS NULL AND executions.lease_expires_at <
    (strftime('%Y-%m-%d %H:%M:%f', 'now') || '000'))) OR (EXISTS (SELECT executions.id
FROM executions
WHERE executions.status = 'running' AND executions.lease_expires_at < (strftime('%Y-%m-%d %H:%M:%f', 'now') ||
    '000'))) AS anon_1;

-- find lost
--   function: store.executions.leases.rescue (store/executions/leases.py)
--   runs: by the relay, where something is due
--   needs: ix_executions_running
SELECT executions.id, executions.tenant
FROM executions
WHERE executions.status = 'running' AND executions.lease_expires_at < (strftime('%Y-%m-%d %H:%M:%f', 'now') ||
    '000')
LIMIT 100 OFFSET ?;

-- rescue
--   function: store.executions.leases.rescue (store/executions/leases.py)
--   runs: for those whose worker is gone: they wait in their queues
--   needs: pk_executions
UPDATE executions
SET lease_expires_at=NULL, status=?, lock_version=(executions.lock_version + ?),
    updated_at=(strftime('%Y-%m-%d %H:%M:%f', 'now') || '000'), timeline=json_insert(CASE WHEN
    json_array_length(executions.timeline) < 50 THEN executions.timeline ELSE json_remove(executions.timeline,
    '$[0]') END, '$[#]', json_object('status', ?, 'at', strftime('%Y-%m-%dT%H:%M:%fZ', 'now'), 'attempt',
    executions.attempt, 'by', ?)), due_at=(strftime('%Y-%m-%d %H:%M:%f', 'now', (31557600000.0) || ' seconds')
    || '000'), lost=(executions.lost + ?), run_at=coalesce(executions.not_before, executions.inserted_at)
WHERE executions.id IN (...) AND executions.tenant = ?
RETURNING id, tenant, program_id, lane, group_key, run_at;

-- adopt
--   function: store.executions.adoption.adopt (store/executions/adoption.py)
--   runs: by the relay, for what workers from before queues have left
--   needs: pk_executions, ix_executions_pending
WITH "left" AS (SELECT executions.id AS id, executions.tenant AS tenant
FROM executions
WHERE executions.status = 'pending' AND executions.due_at < (strftime('%Y-%m-%d %H:%M:%f', 'now') || '000')
    AND executions.request_digest NOT LIKE 'external:%'
ORDER BY executions.due_at
LIMIT 100 OFFSET ?) UPDATE executions
SET due_at=(strftime('%Y-%m-%d %H:%M:%f', 'now', (31557600000.0) || ' seconds') || '000'),
    run_at=coalesce(executions.not_before, executions.inserted_at)
FROM "left"
WHERE executions.id = "left".id AND executions.tenant = "left".tenant
RETURNING tenant, program_id, lane, group_key, run_at;

-- adopt by lease
--   function: store.executions.adoption.adopt (store/executions/adoption.py)
--   runs: the same, for those from before 0004
--   needs: pk_executions, ix_executions_pending
WITH "left" AS (SELECT executions.id AS id, executions.tenant AS tenant
FROM executions
WHERE executions.status = 'pending' AND executions.due_at IS NULL AND executions.lease_expires_at <
    (strftime('%Y-%m-%d %H:%M:%f', 'now') || '000') AND executions.request_digest NOT LIKE 'external:%'
ORDER BY executions.due_at
LIMIT 100 OFFSET ?) UPDATE executions
SET due_at=(strftime('%Y-%m-%d %H:%M:%f', 'now', (31557600000.0) || ' seconds') || '000'),
    run_at=coalesce(executions.not_before, executions.inserted_at)
FROM "left"
WHERE executions.id = "left".id AND executions.tenant = "left".tenant
RETURNING tenant, program_id, lane, group_key, run_at;

-- any lease of a service expired
--   function: store.executions.external.anything_expired (store/executions/external.py)
--   runs: by the relay, three times a lease: it locks nothing
--   needs: ix_executions_running
SELECT EXISTS (SELECT executions.id
FROM executions
WHERE executions.status = 'running' AND executions.lease_expires_at IS NULL AND executions.request_digest LIKE
    'external:%' AND (executions.due_at IS NULL OR executions.due_at < (strftime('%Y-%m-%d %H:%M:%f', 'now')
    || '000'))) AS anon_1;

-- find expired
--   function: store.executions.external.end_expired (store/executions/external.py)
--   runs: where there is one; they are ended as by `finish`
--   needs: ix_executions_running
SELECT executions.id, executions.tenant, executions.program_id, executions.lock_version,
    executions.cancel_requested
FROM executions
WHERE executions.status = 'running' AND executions.lease_expires_at IS NULL AND executions.request_digest LIKE
    'external:%' AND (executions.due_at IS NULL OR executions.due_at < (strftime('%Y-%m-%d %H:%M:%f', 'now')
    || '000'))
LIMIT 100 OFFSET ?;

-- any event due
--   function: store.event_outbox.anything_due (store/event_outbox.py)
--   runs: by the relay, three times a lease; the table is small
--   needs: none
SELECT EXISTS (SELECT event_outbox.execution_id
FROM event_outbox
WHERE event_outbox.due_at < (strftime('%Y-%m-%d %H:%M:%f', 'now') || '000')) AS anon_1;

-- events due
--   function: store.event_outbox.due (store/event_outbox.py)
--   runs: by the relay, where an event is due; the table is small
--   needs: pk_event_outbox
WITH due AS (SELECT event_outbox.execution_id AS execution_id, event_outbox.tenant AS tenant
FROM event_outbox
WHERE event_outbox.due_at < (strftime('%Y-%m-%d %H:%M:%f', 'now') || '000')
LIMIT ? OFFSET ?) UPDATE event_outbox
SET due_at=(strftime('%Y-%m-%d %H:%M:%f', 'now', (? * (? << CASE WHEN (event_outbox.tries < ?) THEN
    event_outbox.tries ELSE ? END)) || ' seconds') || '000'), tries=(event_outbox.tries + ?)
WHERE (event_outbox.execution_id, event_outbox.tenant) IN (SELECT due.execution_id, due.tenant
FROM due)
RETURNING execution_id, tenant;

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
WHERE executions.id IN (...) AND executions.tenant = ?;

-- find tenants
--   function: store.executions.choosing.choose (store/executions/choosing.py)
--   runs: by a choice, unless it has found enough just before
--   needs: ix_queues_holder
WITH RECURSIVE turn(lane, until, tenant, n) AS (SELECT records.lane AS lane, records.until AS until, (SELECT
    min((SELECT min(queues.tenant) AS min_2
FROM queues
WHERE queues.holder = holders.holder AND queues.lane = records.lane AND queues.tenant > records."after")) AS
    min_1
FROM (SELECT "each".value ->> ? AS holder
FROM json_each(?) AS "each") AS holders) AS tenant, 1 AS n
FROM (SELECT "each".value ->> ? AS lane, "each".value ->> ? AS "after", "each".value ->> ? AS until
FROM json_each(?) AS "each") AS records UNION ALL
SELECT turn.lane AS lane, turn.until AS until, (SELECT min((SELECT min(queues.tenant) AS min_4
FROM queues
WHERE queues.holder = holders.holder AND queues.lane = turn.lane AND queues.tenant > turn.tenant)) AS min_3
FROM (SELECT "each".value ->> ? AS holder
FROM json_each(?) AS "each") AS holders) AS anon_1, turn.n + 1 AS anon_2
FROM turn
WHERE turn.tenant IS NOT NULL AND turn.n < ?)
SELECT turn.lane, turn.tenant
FROM turn
WHERE turn.tenant IS NOT NULL AND (turn.until IS NULL OR turn.tenant <= turn.until)
ORDER BY turn.lane, turn.until IS NOT NULL, turn.n;

-- find queues
--   function: store.executions.choosing.choose (store/executions/choosing.py)
--   runs: after that: of these tenants, on SQLite of each
--   needs: ix_queues_holder
SELECT ? AS tenant, found.program_id, found.group_key, found.behind
FROM (SELECT anon_1.program_id AS program_id, anon_1.group_key AS group_key, anon_1.behind AS behind
FROM (SELECT queues.program_id AS program_id, queues.group_key AS group_key, 0 AS behind
FROM queues
WHERE queues.holder = ? AND queues.lane = ? AND queues.tenant = ? AND (queues.program_id, queues.group_key) >
    (?, ?)
ORDER BY queues.program_id, queues.group_key
LIMIT ? OFFSET ?) AS anon_1 UNION ALL
SELECT anon_2.program_id AS program_id, anon_2.group_key AS group_key, anon_2.behind AS behind
FROM (SELECT queues.program_id AS program_id, queues.group_key AS group_key, 1 AS behind
FROM queues
WHERE queues.holder = ? AND queues.lane = ? AND queues.tenant = ? AND (queues.program_id, queues.group_key) <=
    (?, ?)
ORDER BY queues.program_id, queues.group_key
LIMIT ? OFFSET ?) AS anon_2) AS found;

-- take
--   function: store.executions.choosing.choose (store/executions/choosing.py)
--   runs: for the queues whose turn it is, on SQLite for each
--   needs: ix_executions_queue, pk_programs
WITH picked AS (SELECT executions.id AS id, executions.tenant AS tenant, CASE WHEN (programs.status = ?) THEN
    programs.backend_id ELSE NULL END AS ready_backend, programs.policy AS policy, programs.callback AS
    callback
FROM executions LEFT OUTER
JOIN programs ON programs.id = executions.program_id AND programs.tenant = executions.tenant
WHERE executions.tenant = ? AND executions.program_id = ? AND executions.lane = ? AND executions.group_key = ?
    AND executions.status = 'pending' AND executions.run_at <= (strftime('%Y-%m-%d %H:%M:%f', 'now') || '000')
    AND (SELECT max(gates.updated_at) AS max_1
FROM gates) IS ? AND NOT (executions.lost > ? AND executions.attempt + ? = coalesce((SELECT
    CAST(JSON_EXTRACT(programs.policy, ?) AS INTEGER) AS anon_1
FROM programs
WHERE programs.id = executions.program_id AND programs.tenant = executions.tenant), ?))
ORDER BY executions.run_at
LIMIT ? OFFSET ?) UPDATE executions
SET backend_id=picked.ready_backend, attempt=(executions.attempt + ?), worker=?,
    lease_expires_at=(strftime('%Y-%m-%d %H:%M:%f', 'now', (?) || ' seconds') || '000'),
    started_at=(strftime('%Y-%m-%d %H:%M:%f', 'now') || '000'), status=?,
    lock_version=(executions.lock_version + ?), updated_at=(strftime('%Y-%m-%d %H:%M:%f', 'now') || '000'),
    timeline=json_insert(CASE WHEN json_array_length(executions.timeline) < 50 THEN executions.timeline ELSE
    json_remove(executions.timeline, '$[0]') END, '$[#]', json_object('status', ?, 'at',
    strftime('%Y-%m-%dT%H:%M:%fZ', 'now'), 'attempt', executions.attempt + ?, 'by', ?)), due_at=NULL,
    policy=picked.policy, program_callback=picked.callback
FROM picked
WHERE executions.id = picked.id AND executions.tenant = picked.tenant
RETURNING tenant, status, reply_to, id, attempt, lock_version, backend_id, cancel_requested, policy, usage,
    carried, lost, metadata, extensions, ((julianday(deadline) - julianday('now')) * 86400.0) AS seconds_left,
    CASE WHEN (error_code = 'rate_limited') THEN -((julianday(not_before) - julianday('now')) * 86400.0) ELSE
    NULL END AS late, program_id, inputs, options, source, traceparent, correlation_id, callback,
    requested_at, lane, group_key, run_at;

-- find lost chances
--   function: store.executions.choosing.choose (store/executions/choosing.py)
--   runs: in those that gave fewer than were asked for
--   needs: ix_executions_queue, pk_programs
SELECT executions.id, executions.tenant
FROM (SELECT "each".value ->> ? AS tenant, replace("each".value ->> ?, ?, ?) AS program_id, "each".value ->> ?
    AS lane, "each".value ->> ? AS group_key
FROM json_each(?) AS "each") AS records
JOIN executions ON executions.tenant = records.tenant AND executions.program_id = records.program_id AND
    executions.lane = records.lane AND executions.group_key = records.group_key
WHERE executions.status = 'pending' AND executions.run_at <= (strftime('%Y-%m-%d %H:%M:%f', 'now') || '000')
    AND executions.lost > 0 AND executions.lost > ? AND executions.attempt + ? = coalesce((SELECT
    CAST(JSON_EXTRACT(programs.policy, ?) AS INTEGER) AS anon_1
FROM programs
WHERE programs.id = executions.program_id AND programs.tenant = executions.tenant), ?)
LIMIT 8 OFFSET ?;

-- leave to run alone
--   function: store.executions.choosing.choose (store/executions/choosing.py)
--   runs: for those: to the process that has found them
--   needs: pk_executions
UPDATE executions
SET run_at=(strftime('%Y-%m-%d %H:%M:%f', 'now', (?) || ' seconds') || '000')
WHERE executions.id IN (...) AND executions.tenant = ?
RETURNING id, program_id, inputs, options, source, traceparent, tenant, reply_to, correlation_id, callback,
    metadata, extensions, requested_at;

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
FROM (SELECT "each".value ->> ? AS tenant, replace("each".value ->> ?, ?, ?) AS program_id, "each".value ->> ?
    AS lane, "each".value ->> ? AS group_key
FROM json_each(?) AS "each") AS records) AND queues.holder IS NOT NULL AND coalesce((SELECT
    min(executions.run_at) AS min_1
FROM executions
WHERE executions.tenant = queues.tenant AND executions.program_id = queues.program_id AND executions.lane =
    queues.lane AND executions.group_key = queues.group_key AND executions.status = 'pending') >
    (strftime('%Y-%m-%d %H:%M:%f', 'now') || '000'), 1) = 1
RETURNING tenant;

-- wake queues
--   function: store.executions.choosing.wake (store/executions/choosing.py)
--   runs: by the relay, and where something is due: at most 500
--   needs: ix_queues_wake
UPDATE queues
SET holder=?, wake_at=NULL
WHERE (queues.tenant, queues.program_id, queues.lane, queues.group_key) IN (SELECT queues.tenant,
    queues.program_id, queues.lane, queues.group_key
FROM queues
WHERE queues.holder IS NULL AND queues.wake_at <= (strftime('%Y-%m-%d %H:%M:%f', 'now') || '000')
ORDER BY queues.tenant, queues.program_id, queues.lane, queues.group_key
LIMIT 500 OFFSET ?)
RETURNING tenant;

-- any queue ready
--   function: store.executions.choosing.anything_ready (store/executions/choosing.py)
--   runs: by the relay, each second: it locks nothing
--   needs: ix_queues_holder
SELECT EXISTS (SELECT queues.tenant
FROM queues
WHERE queues.holder = ?) AS anon_1;

-- next that wait
--   function: store.queues.reconciling.reconcile (store/queues/reconciling.py)
--   runs: by the relay, each second: the next 200 queues
--   needs: ix_executions_queue
SELECT DISTINCT executions.tenant, executions.program_id, executions.lane, executions.group_key
FROM executions
WHERE executions.status = 'pending' AND executions.run_at IS NOT NULL AND (executions.tenant,
    executions.program_id, executions.lane, executions.group_key) > (?, ?, ?, ?)
ORDER BY executions.tenant, executions.program_id, executions.lane, executions.group_key
LIMIT ? OFFSET ?;

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
FROM (SELECT "each".value ->> ? AS tenant, replace("each".value ->> ?, ?, ?) AS program_id, "each".value ->> ?
    AS lane, "each".value ->> ? AS group_key
FROM json_each(?) AS "each") AS records) AS looked LEFT OUTER
JOIN queues ON queues.tenant = looked.tenant AND queues.program_id = looked.program_id AND queues.lane =
    looked.lane AND queues.group_key = looked.group_key
WHERE looked.first IS NOT NULL AND queues.holder IS NULL AND (queues.wake_at IS NULL OR queues.wake_at >
    looked.first);

-- next queues
--   function: store.queues.forgetting.forget (store/queues/forgetting.py)
--   runs: by the relay, every ten seconds: the next 500
--   needs: pk_queues, pk_programs, pk_queue_counts
SELECT queues.tenant, queues.program_id, queues.lane, queues.group_key, queues.holder IS NULL AND
    queues.wake_at IS NULL AND queues.inserted_at < (strftime('%Y-%m-%d %H:%M:%f', 'now', (?) || ' seconds')
    || '000') AND (NOT (EXISTS (SELECT programs.id
FROM programs
WHERE programs.id = queues.program_id AND programs.tenant = queues.tenant)) OR queues.group_key = '' AND NOT
    (EXISTS (SELECT queue_counts.lane
FROM queue_counts
WHERE queue_counts.tenant = queues.tenant AND queue_counts.program_id = queues.program_id AND
    queue_counts.lane = queues.lane))) AS unneeded
FROM queues
WHERE (queues.tenant, queues.program_id, queues.lane, queues.group_key) > (?, ?, ?, ?)
ORDER BY queues.tenant, queues.program_id, queues.lane, queues.group_key
LIMIT ? OFFSET ?;

-- hold unneeded queues
--   function: store.queues.forgetting.forget (store/queues/forgetting.py)
--   runs: for those that are empty and idle, or whose program is gone
--   needs: pk_queues
SELECT queues.tenant, queues.program_id, queues.lane, queues.group_key
FROM (SELECT "each".value ->> ? AS tenant, replace("each".value ->> ?, ?, ?) AS program_id, "each".value ->> ?
    AS lane, "each".value ->> ? AS group_key
FROM json_each(?) AS "each") AS records
JOIN queues ON queues.tenant = records.tenant AND queues.program_id = records.program_id AND queues.lane =
    records.lane AND queues.group_key = records.group_key
WHERE queues.holder IS NULL AND queues.wake_at IS NULL
ORDER BY queues.tenant, queues.program_id, queues.lane, queues.group_key;

-- forget queues
--   function: store.queues.forgetting.forget (store/queues/forgetting.py)
--   runs: after that: if nothing waits in them
--   needs: pk_queues, ix_executions_queue, pk_programs, pk_queue_counts
DELETE
FROM queues
WHERE (queues.tenant, queues.program_id, queues.lane, queues.group_key) IN (SELECT records.tenant,
    records.program_id, records.lane, records.group_key
FROM (SELECT "each".value ->> ? AS tenant, replace("each".value ->> ?, ?, ?) AS program_id, "each".value ->> ?
    AS lane, "each".value ->> ? AS group_key
FROM json_each(?) AS "each") AS records) AND queues.holder IS NULL AND queues.wake_at IS NULL AND
    queues.inserted_at < (strftime('%Y-%m-%d %H:%M:%f', 'now', (?) || ' seconds') || '000') AND (NOT (EXISTS
    (SELECT programs.id
FROM programs
WHERE programs.id = queues.program_id AND programs.tenant = queues.tenant)) OR queues.group_key = '' AND NOT
    (EXISTS (SELECT queue_counts.lane
FROM queue_counts
WHERE queue_counts.tenant = queues.tenant AND queue_counts.program_id = queues.program_id AND
    queue_counts.lane = queues.lane))) AND NOT (EXISTS (SELECT executions.id
FROM executions
WHERE executions.status = 'pending' AND executions.tenant = queues.tenant AND executions.program_id =
    queues.program_id AND executions.lane = queues.lane AND executions.group_key = queues.group_key))
RETURNING tenant;

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
LIMIT ? OFFSET ?)
RETURNING came, went, tenant, program_id, lane;

-- clock of the database
--   function: store.queues.counts.fold (store/queues/counts.py)
--   runs: where counts are read or written
--   needs: none
SELECT (strftime('%Y-%m-%d %H:%M:%f', 'now') || '000') AS database_now_1;

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
LIMIT ? OFFSET ?)) AS oldest_at
FROM (SELECT "each".value ->> ? AS tenant, replace("each".value ->> ?, ?, ?) AS program_id, "each".value ->> ?
    AS lane
FROM json_each(?) AS "each") AS records
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
FROM (SELECT "each".value ->> ? AS tenant, replace("each".value ->> ?, ?, ?) AS program_id, "each".value ->> ?
    AS lane, "each".value ->> ? AS waiting, "each".value ->> ? AS period, "each".value ->> ? AS came,
    "each".value ->> ? AS went, substr("each".value ->> ?, ?, ?) AS oldest_at, substr("each".value ->> ?, ?,
    ?) AS moving_since
FROM json_each(?) AS "each") AS records
WHERE records.tenant IS NOT NULL
ORDER BY records.tenant, records.program_id, records.lane
ON CONFLICT (tenant, program_id, lane) DO UPDATE SET waiting = (queue_counts.waiting + excluded.waiting),
    oldest_at = excluded.oldest_at, period = CASE WHEN (queue_counts.period >= excluded.period) THEN
    queue_counts.period ELSE excluded.period END, came = CASE WHEN (queue_counts.period >= excluded.period)
    THEN queue_counts.came + excluded.came ELSE excluded.came END, went = CASE WHEN (queue_counts.period >=
    excluded.period) THEN queue_counts.went + excluded.went ELSE excluded.went END, came_before = CASE WHEN
    (queue_counts.period >= excluded.period) THEN queue_counts.came_before WHEN (queue_counts.period =
    excluded.period - ?) THEN queue_counts.came ELSE ? END, went_before = CASE WHEN (queue_counts.period >=
    excluded.period) THEN queue_counts.went_before WHEN (queue_counts.period = excluded.period - ?) THEN
    queue_counts.went ELSE ? END, moving_since = CASE WHEN (queue_counts.period >= excluded.period OR
    queue_counts.period = excluded.period - ?) THEN queue_counts.moving_since ELSE excluded.moving_since END;

-- next counts
--   function: store.queues.counts.repair (store/queues/counts.py)
--   runs: by the relay, every ten seconds: the next 50
--   needs: pk_queue_counts
SELECT DISTINCT queue_counts.tenant, queue_counts.program_id, queue_counts.lane
FROM queue_counts
WHERE 1 = 1
ORDER BY queue_counts.tenant, queue_counts.program_id, queue_counts.lane
LIMIT ? OFFSET ?;

-- next queues to count
--   function: store.queues.counts.repair (store/queues/counts.py)
--   runs: the same, of what may not be counted yet
--   needs: pk_queues
SELECT DISTINCT queues.tenant, queues.program_id, queues.lane
FROM queues
WHERE queues.holder IS NOT NULL OR queues.wake_at IS NOT NULL
ORDER BY queues.tenant, queues.program_id, queues.lane
LIMIT ? OFFSET ?;

-- begin counts
--   function: store.queues.counts.repair (store/queues/counts.py)
--   runs: after that
--   needs: pk_queue_counts
INSERT INTO queue_counts (tenant, program_id, lane, waiting, period, came, went, moving_since)
SELECT records.tenant, records.program_id, records.lane, ? AS anon_1, ? AS anon_2, ? AS anon_3, ? AS anon_4,
    (strftime('%Y-%m-%d %H:%M:%f', 'now') || '000') AS database_now_1
FROM (SELECT "each".value ->> ? AS tenant, replace("each".value ->> ?, ?, ?) AS program_id, "each".value ->> ?
    AS lane
FROM json_each(?) AS "each") AS records
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
FROM (SELECT "each".value ->> ? AS tenant, replace("each".value ->> ?, ?, ?) AS program_id, "each".value ->> ?
    AS lane
FROM json_each(?) AS "each") AS records);

-- wrong counts
--   function: store.queues.counts.repair (store/queues/counts.py)
--   runs: after that: it reads 10,000 rows of a queue at most
--   needs: pk_queue_counts, ix_executions_queue
SELECT both.tenant, both.program_id, both.lane, both.there, both.counted
FROM (SELECT records.tenant AS tenant, records.program_id AS program_id, records.lane AS lane, (SELECT
    count(*) AS count_1
FROM (SELECT executions.id AS id
FROM executions
WHERE executions.status = 'pending' AND executions.tenant = records.tenant AND executions.program_id =
    records.program_id AND executions.lane = records.lane AND executions.run_at IS NOT NULL
LIMIT ? OFFSET ?) AS anon_1) AS there, queue_counts.waiting + (SELECT coalesce(sum(queue_moves.came -
    queue_moves.went), ?) AS coalesce_1
FROM queue_moves
WHERE queue_moves.tenant = records.tenant AND queue_moves.program_id = records.program_id AND queue_moves.lane
    = records.lane) AS counted
FROM (SELECT "each".value ->> ? AS tenant, replace("each".value ->> ?, ?, ?) AS program_id, "each".value ->> ?
    AS lane
FROM json_each(?) AS "each") AS records
JOIN queue_counts ON queue_counts.tenant = records.tenant AND queue_counts.program_id = records.program_id AND
    queue_counts.lane = records.lane) AS both
WHERE both.there != both.counted AND both.there <= ? AND both.counted <= ?;

-- forget counts
--   function: store.queues.counts.repair (store/queues/counts.py)
--   runs: after that: those of which nothing has moved for an hour
--   needs: pk_queue_counts
DELETE
FROM queue_counts
WHERE (queue_counts.tenant, queue_counts.program_id, queue_counts.lane) IN (SELECT records.tenant,
    records.program_id, records.lane
FROM (SELECT "each".value ->> ? AS tenant, replace("each".value ->> ?, ?, ?) AS program_id, "each".value ->> ?
    AS lane
FROM json_each(?) AS "each") AS records) AND queue_counts.waiting = ? AND queue_counts.period < ?;

-- leave an early cancel
--   function: store.executions.early.leave (store/executions/early.py)
--   runs: where a cancel came before its execution
--   needs: pk_early_cancels
INSERT INTO early_cancels (execution_id, tenant, "by", inserted_at) VALUES (?, ?, ?, (strftime('%Y-%m-%d
    %H:%M:%f', 'now') || '000'))
ON CONFLICT (execution_id, tenant) DO UPDATE SET inserted_at = (strftime('%Y-%m-%d %H:%M:%f', 'now') || '000');

-- take an early cancel back
--   function: store.executions.early.take_back (store/executions/early.py)
--   runs: when nobody waits for it any more
--   needs: pk_early_cancels
DELETE
FROM early_cancels
WHERE early_cancels.execution_id = ? AND early_cancels.tenant = ?;

-- any old early cancel
--   function: store.executions.early.anything_old (store/executions/early.py)
--   runs: by the relay, every 20 seconds; the table is small
--   needs: none
SELECT EXISTS (SELECT early_cancels.execution_id
FROM early_cancels
WHERE early_cancels.inserted_at < (strftime('%Y-%m-%d %H:%M:%f', 'now', (?) || ' seconds') || '000')) AS
    anon_1;

-- sweep early cancels
--   function: store.executions.early.sweep (store/executions/early.py)
--   runs: where there is one, of a worker that has died
--   needs: none
DELETE
FROM early_cancels
WHERE early_cancels.inserted_at < (strftime('%Y-%m-%d %H:%M:%f', 'now', (?) || ' seconds') || '000');

-- settle
--   function: store.gates.settlement.settle (store/gates/settlement.py)
--   runs: after `finish` or `retry`, in its transaction, where something is limited
--   needs: pk_slots
UPDATE slots
SET outcome=records.outcome, calls=records.calls, tokens=records.tokens
FROM (SELECT replace("each".value ->> ?, ?, ?) AS execution_id, "each".value ->> ? AS tenant, "each".value ->>
    ? AS lock_version, "each".value ->> ? AS outcome, "each".value ->> ? AS calls, "each".value ->> ? AS
    tokens
FROM json_each(?) AS "each") AS records
WHERE slots.execution_id = records.execution_id AND slots.tenant = records.tenant AND slots.lock_version =
    records.lock_version AND slots.outcome IS NULL
RETURNING gate_key;

-- make a gate
--   function: store.gates.settlement.close (store/gates/settlement.py)
--   runs: where a provider asks for fewer calls
--   needs: pk_gates
INSERT INTO gates ("key", tenant, kind, name, inserted_at, updated_at) VALUES (?, ?, ?, ?, (strftime('%Y-%m-%d
    %H:%M:%f', 'now') || '000'), (strftime('%Y-%m-%d %H:%M:%f', 'now') || '000'))
ON CONFLICT DO NOTHING;

-- lock a gate
--   function: store.gates.settlement.close (store/gates/settlement.py)
--   runs: after that
--   needs: pk_gates
SELECT gates."key", gates.tenant, gates.kind, gates.name, gates.paused, gates.paused_by, gates.paused_reason,
    gates.paused_at, gates.in_flight, gates.least_in_flight, gates.requests_per_minute,
    gates.tokens_per_minute, gates.limited_by, gates.allowed, gates.shrunk_at, gates.requests_left,
    gates.tokens_left, gates.filled_at, gates.tokens_each, gates.swept_at, gates.closed_until, gates.closures,
    gates.lock_version, gates.inserted_at, gates.updated_at
FROM gates
WHERE gates."key" = ?;

-- closed until
--   function: store.gates.settlement.close (store/gates/settlement.py)
--   runs: after that
--   needs: pk_gates
SELECT ((julianday(gates.closed_until) - julianday('now')) * 86400.0) AS closed_for, gates.closures
FROM gates
WHERE gates."key" = ?;

-- close a gate
--   function: store.gates.settlement.close (store/gates/settlement.py)
--   runs: after that, unless it is closed for as long
--   needs: pk_gates
UPDATE gates
SET closed_until=(strftime('%Y-%m-%d %H:%M:%f', 'now', (?) || ' seconds') || '000'), closures=?,
    lock_version=(gates.lock_version + ?), updated_at=(max(strftime('%Y-%m-%d %H:%M:%f', 'now'),
    coalesce(strftime('%Y-%m-%d %H:%M:%f', (SELECT max(others.updated_at) AS max_1
FROM gates AS others), '+0.001 seconds'), '')) || '000')
WHERE gates."key" = ?
RETURNING "key", tenant, kind, name, paused, paused_by, paused_reason, paused_at, in_flight, least_in_flight,
    requests_per_minute, tokens_per_minute, limited_by, allowed, shrunk_at, requests_left, tokens_left,
    filled_at, tokens_each, swept_at, closed_until, closures, lock_version, inserted_at, updated_at;

-- list gates
--   function: store.gates.steering.listing (store/gates/steering.py)
--   runs: when asked: for operators of all
--   needs: pk_slots, ix_queues_holder
SELECT gates."key", gates.tenant, gates.kind, gates.name, gates.paused, gates.paused_by, gates.paused_reason,
    gates.paused_at, gates.in_flight, gates.least_in_flight, gates.requests_per_minute,
    gates.tokens_per_minute, gates.limited_by, gates.allowed, gates.shrunk_at, gates.requests_left,
    gates.tokens_left, gates.filled_at, gates.tokens_each, gates.swept_at, gates.closed_until, gates.closures,
    gates.lock_version, gates.inserted_at, gates.updated_at, held.running
FROM gates LEFT OUTER
JOIN (SELECT slots.gate_key AS gate_key, count(*) AS running
FROM slots
WHERE slots.outcome IS NULL GROUP BY slots.gate_key) AS held ON held.gate_key = gates."key"
WHERE gates.paused = 1 OR gates.closed_until IS NOT NULL OR gates.in_flight IS NOT NULL OR
    gates.requests_per_minute IS NOT NULL OR gates.tokens_per_minute IS NOT NULL
ORDER BY gates.kind, gates.tenant, gates.name;

-- figures of lanes
--   function: store.queues.figures.lanes (store/queues/figures.py)
--   runs: when asked, of a tenant
--   needs: pk_queue_counts
SELECT parts.lane, sum(parts.waiting) AS waiting, sum(parts.running) AS running, sum(parts.came) AS came,
    sum(parts.went) AS went, min(parts.oldest_at) AS oldest_at, min(parts.moving_since) AS moving_since
FROM (SELECT queue_counts.lane AS lane, queue_counts.waiting AS waiting, ? AS running, CASE WHEN
    (queue_counts.waiting > ?) THEN queue_counts.oldest_at END AS oldest_at, CASE WHEN (queue_counts.period >=
    ?) THEN queue_counts.came + queue_counts.came_before WHEN (queue_counts.period = ?) THEN queue_counts.came
    ELSE ? END AS came, CASE WHEN (queue_counts.period >= ?) THEN queue_counts.went + queue_counts.went_before
    WHEN (queue_counts.period = ?) THEN queue_counts.went ELSE ? END AS went, CASE WHEN (queue_counts.period
    >= ?) THEN queue_counts.moving_since END AS moving_since
FROM queue_counts
WHERE queue_counts.tenant = ? UNION ALL
SELECT queue_moves.lane AS lane, queue_moves.came - queue_moves.went AS anon_1, ? AS anon_2, NULL AS anon_3,
    queue_moves.came AS came, queue_moves.went AS went, NULL AS anon__1
FROM queue_moves
WHERE queue_moves.tenant = ? UNION ALL
SELECT executions.lane AS lane, ? AS anon_2, ? AS anon_4, NULL AS anon_3, ? AS anon__2, ? AS anon__3, NULL AS
    anon__4
FROM executions
WHERE executions.status = 'running' AND executions.request_digest NOT LIKE 'external:%' AND executions.tenant
    = ?) AS parts GROUP BY parts.lane HAVING sum(parts.waiting) != ? OR sum(parts.running) != ? OR
    sum(parts.came) != ? OR sum(parts.went) != ?;

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
    waiting, ? AS running, CASE WHEN (queue_counts.waiting > ?) THEN queue_counts.oldest_at END AS oldest_at,
    CASE WHEN (queue_counts.period >= ?) THEN queue_counts.came + queue_counts.came_before WHEN
    (queue_counts.period = ?) THEN queue_counts.came ELSE ? END AS came, CASE WHEN (queue_counts.period >= ?)
    THEN queue_counts.went + queue_counts.went_before WHEN (queue_counts.period = ?) THEN queue_counts.went
    ELSE ? END AS went, CASE WHEN (queue_counts.period >= ?) THEN queue_counts.moving_since END AS
    moving_since
FROM queue_counts
WHERE queue_counts.tenant = ? UNION ALL
SELECT queue_moves.tenant AS tenant, queue_moves.program_id AS program_id, queue_moves.came - queue_moves.went
    AS anon_1, ? AS anon_2, NULL AS anon_3, queue_moves.came AS came, queue_moves.went AS went, NULL AS
    anon__1
FROM queue_moves
WHERE queue_moves.tenant = ? UNION ALL
SELECT executions.tenant AS tenant, executions.program_id AS program_id, ? AS anon_2, ? AS anon_4, NULL AS
    anon_3, ? AS anon__2, ? AS anon__3, NULL AS anon__4
FROM executions
WHERE executions.status = 'running' AND executions.request_digest NOT LIKE 'external:%' AND executions.tenant
    = ?) AS parts GROUP BY parts.tenant, parts.program_id HAVING sum(parts.waiting) != ? OR sum(parts.running)
    != ? OR sum(parts.came) != ? OR sum(parts.went) != ?) AS figures
ORDER BY figures.waiting DESC, figures.tenant, figures.program_id
LIMIT ? OFFSET ?;

-- position
--   function: store.queues.position.position (store/queues/position.py)
--   runs: when asked: what one that waits waits for
--   needs: pk_executions
SELECT executions.tenant, executions.program_id, executions.lane, executions.group_key, executions.run_at,
    executions.attempt, executions.updated_at, queues.holder, (strftime('%Y-%m-%d %H:%M:%f', 'now') || '000')
    AS now, EXISTS (SELECT gates."key"
FROM gates
WHERE gates."key" = queues.holder AND gates.paused = 1) AS queue_paused, EXISTS (SELECT gates."key"
FROM gates
WHERE gates."key" = ? AND gates.paused = 1) AS all_paused, EXISTS (SELECT gates."key"
FROM gates
WHERE gates."key" = CASE executions.lane WHEN ? THEN ? WHEN ? THEN ? WHEN ? THEN ? END AND gates.paused = 1)
    AS lane_paused, programs.adapter_type AS adapter, CASE WHEN (programs.id IS NOT NULL) THEN
    coalesce(CAST(JSON_EXTRACT(programs.configuration, ?) AS VARCHAR), ?) END AS environment, (SELECT
    json_group_array(DISTINCT workers.serves) AS json_group_array_1
FROM workers
WHERE workers.lease_expires_at >= (strftime('%Y-%m-%d %H:%M:%f', 'now') || '000') AND workers.state != ? AND
    NOT (EXISTS (SELECT gates."key"
FROM gates
WHERE gates."key" = (? || workers.name) AND gates.paused = 1))) AS served
FROM executions LEFT OUTER
JOIN queues ON executions.tenant = queues.tenant AND executions.program_id = queues.program_id AND
    executions.lane = queues.lane AND executions.group_key = queues.group_key LEFT OUTER
JOIN programs ON programs.id = executions.program_id AND programs.tenant = executions.tenant
WHERE executions.id = ? AND executions.tenant = ? AND executions.status = 'pending' AND executions.run_at IS
    NOT NULL;

-- anything to deliver
--   function: store.webhooks.sending.anything_due (store/webhooks/sending.py)
--   runs: by the deliverer, all the time: it locks nothing
--   needs: ix_webhook_deliveries_due
SELECT EXISTS (SELECT webhook_deliveries.id
FROM webhook_deliveries
WHERE webhook_deliveries.status = 'pending' AND webhook_deliveries.due_at <= (SELECT (strftime('%Y-%m-%d
    %H:%M:%f', 'now') || '000') AS database_now_1)) AS anon_1;

-- anything of its own to deliver
--   function: store.webhooks.sending.anything_due (store/webhooks/sending.py)
--   runs: instead, by a process that runs no work but its own, such as `dspex run`
--   needs: ix_webhook_deliveries_due, pk_executions
SELECT EXISTS (SELECT webhook_deliveries.id
FROM webhook_deliveries
WHERE webhook_deliveries.status = 'pending' AND webhook_deliveries.due_at <= (SELECT (strftime('%Y-%m-%d
    %H:%M:%f', 'now') || '000') AS database_now_1) AND webhook_deliveries.due_at >= ? AND (0 = 1 OR (EXISTS
    (SELECT executions.id
FROM executions
WHERE executions.id = webhook_deliveries.execution_id AND executions.tenant = webhook_deliveries.tenant AND
    (executions.worker = ? OR 0 = 1))))) AS anon_1;

-- find places
--   function: store.webhooks.sending.places (store/webhooks/sending.py)
--   runs: where something is due: whom it is for, a step each
--   needs: ix_webhook_deliveries_place
WITH RECURSIVE walk(place) AS (SELECT (SELECT min(webhook_deliveries.place) AS min_1
FROM webhook_deliveries
WHERE webhook_deliveries.status = 'pending' AND webhook_deliveries.place > ?) AS place UNION ALL
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
    (strftime('%Y-%m-%d %H:%M:%f', 'now') || '000') AS database_now_1)
LIMIT ? OFFSET ?;

-- take deliveries
--   function: store.webhooks.sending.take (store/webhooks/sending.py)
--   runs: for each place that has a thread free
--   needs: ix_webhook_deliveries_place, pk_webhook_deliveries
WITH due AS (SELECT webhook_deliveries.id AS id
FROM webhook_deliveries
WHERE webhook_deliveries.status = 'pending' AND webhook_deliveries.place = ? AND webhook_deliveries.due_at <=
    (SELECT (strftime('%Y-%m-%d %H:%M:%f', 'now') || '000') AS database_now_1)
ORDER BY webhook_deliveries.due_at
LIMIT ? OFFSET ?) UPDATE webhook_deliveries
SET due_at=(strftime('%Y-%m-%d %H:%M:%f', 'now', (?) || ' seconds') || '000'),
    lock_version=(webhook_deliveries.lock_version + ?), updated_at=(strftime('%Y-%m-%d %H:%M:%f', 'now') ||
    '000')
WHERE webhook_deliveries.id IN (SELECT due.id
FROM due)
RETURNING id, endpoint_id, execution_id, event_version, event, place, due_at, attempts, tries, reason,
    finished_at, status, lock_version, inserted_at, updated_at, tenant;

-- take own deliveries
--   function: store.webhooks.sending.take (store/webhooks/sending.py)
--   runs: instead, as above
--   needs: ix_webhook_deliveries_place, pk_webhook_deliveries, pk_executions
WITH due AS (SELECT webhook_deliveries.id AS id
FROM webhook_deliveries
WHERE webhook_deliveries.status = 'pending' AND webhook_deliveries.place = ? AND webhook_deliveries.due_at <=
    (SELECT (strftime('%Y-%m-%d %H:%M:%f', 'now') || '000') AS database_now_1) AND webhook_deliveries.due_at
    >= ? AND (0 = 1 OR (EXISTS (SELECT executions.id
FROM executions
WHERE executions.id = webhook_deliveries.execution_id AND executions.tenant = webhook_deliveries.tenant AND
    (executions.worker = ? OR 0 = 1))))
ORDER BY webhook_deliveries.due_at
LIMIT ? OFFSET ?) UPDATE webhook_deliveries
SET due_at=(strftime('%Y-%m-%d %H:%M:%f', 'now', (?) || ' seconds') || '000'),
    lock_version=(webhook_deliveries.lock_version + ?), updated_at=(strftime('%Y-%m-%d %H:%M:%f', 'now') ||
    '000')
WHERE webhook_deliveries.id IN (SELECT due.id
FROM due)
RETURNING id, endpoint_id, execution_id, event_version, event, place, due_at, attempts, tries, reason,
    finished_at, status, lock_version, inserted_at, updated_at, tenant;

-- settle deliveries
--   function: store.webhooks.sending.settle (store/webhooks/sending.py)
--   runs: for each batch of attempts that have ended
--   needs: pk_webhook_deliveries
UPDATE webhook_deliveries
SET due_at=CASE WHEN (records.status = ?) THEN (strftime('%Y-%m-%d %H:%M:%f', 'now',
    (coalesce(records.retry_in, ?)) || ' seconds') || '000') ELSE NULL END,
    attempts=(webhook_deliveries.attempts + records.attempted), tries=(webhook_deliveries.tries +
    records.attempted), reason=records.reason, finished_at=CASE WHEN (records.status = ?) THEN NULL ELSE
    (strftime('%Y-%m-%d %H:%M:%f', 'now') || '000') END, status=records.status,
    lock_version=(webhook_deliveries.lock_version + ?), updated_at=(strftime('%Y-%m-%d %H:%M:%f', 'now') ||
    '000')
FROM (SELECT replace("each".value ->> ?, ?, ?) AS id, "each".value ->> ? AS lock_version, "each".value ->> ?
    AS status, "each".value ->> ? AS retry_in, "each".value ->> ? AS reason, "each".value ->> ? AS attempted
FROM json_each(?) AS "each") AS records
WHERE webhook_deliveries.id = records.id AND webhook_deliveries.lock_version = records.lock_version AND
    webhook_deliveries.status = 'pending'
RETURNING id;

-- log attempts
--   function: store.webhooks.sending.settle (store/webhooks/sending.py)
--   runs: after that
--   needs: pk_webhook_attempts
INSERT INTO webhook_attempts (delivery_id, number, tenant, outcome, http_status, reason, duration_ms,
    response, at)
SELECT records.delivery_id, records.number, records.tenant, records.outcome, records.http_status,
    records.reason, records.duration_ms, records.response, (strftime('%Y-%m-%d %H:%M:%f', 'now') || '000') AS
    database_now_1
FROM (SELECT replace("each".value ->> ?, ?, ?) AS delivery_id, "each".value ->> ? AS number, "each".value ->>
    ? AS tenant, "each".value ->> ? AS outcome, "each".value ->> ? AS http_status, "each".value ->> ? AS
    reason, "each".value ->> ? AS duration_ms, "each".value ->> ? AS response
FROM json_each(?) AS "each") AS records;

-- endpoints fail
--   function: store.webhooks.sending.settle (store/webhooks/sending.py)
--   runs: for those that failed first after a success
--   needs: pk_webhook_endpoints
UPDATE webhook_endpoints
SET failing_since=(strftime('%Y-%m-%d %H:%M:%f', 'now') || '000')
WHERE webhook_endpoints.id IN (...) AND webhook_endpoints.tenant = ? AND webhook_endpoints.failing_since IS
    NULL;

-- read endpoint
--   function: store.webhooks.sending.settle (store/webhooks/sending.py)
--   runs: before one is disabled
--   needs: pk_webhook_endpoints
SELECT webhook_endpoints.id, webhook_endpoints.url, webhook_endpoints.secret,
    webhook_endpoints.previous_secret, webhook_endpoints.previous_until, webhook_endpoints.events,
    webhook_endpoints.headers, webhook_endpoints.thin, webhook_endpoints.registered,
    webhook_endpoints.enabled, webhook_endpoints.disabled_reason, webhook_endpoints.disabled_at,
    webhook_endpoints.failing_since, webhook_endpoints.announce_at, webhook_endpoints.lock_version,
    webhook_endpoints.inserted_at, webhook_endpoints.updated_at, webhook_endpoints.tenant,
    ((julianday(webhook_endpoints.failing_since) - julianday('now')) * 86400.0) AS failing_left,
    ((julianday(webhook_endpoints.previous_until) - julianday('now')) * 86400.0) AS previous_left
FROM webhook_endpoints
WHERE webhook_endpoints.id = ? AND webhook_endpoints.tenant = ?;

-- disable endpoint
--   function: store.webhooks.sending.settle (store/webhooks/sending.py)
--   runs: where it is gone, or fails for too long
--   needs: pk_webhook_endpoints
UPDATE webhook_endpoints
SET enabled=0, disabled_reason=?, disabled_at=(strftime('%Y-%m-%d %H:%M:%f', 'now') || '000'),
    announce_at=(strftime('%Y-%m-%d %H:%M:%f', 'now') || '000'), lock_version=(webhook_endpoints.lock_version
    + ?), updated_at=(strftime('%Y-%m-%d %H:%M:%f', 'now') || '000')
WHERE webhook_endpoints.id = ? AND webhook_endpoints.tenant = ? AND webhook_endpoints.lock_version = ?
RETURNING id;

-- fail pending
--   function: store.webhooks.sending.settle (store/webhooks/sending.py)
--   runs: what waits for it
--   needs: ix_webhook_deliveries_tenant_endpoint_id_inserted_at
UPDATE webhook_deliveries
SET due_at=NULL, reason=?, finished_at=(strftime('%Y-%m-%d %H:%M:%f', 'now') || '000'), status=?,
    lock_version=(webhook_deliveries.lock_version + ?), updated_at=(strftime('%Y-%m-%d %H:%M:%f', 'now') ||
    '000')
WHERE webhook_deliveries.tenant = ? AND webhook_deliveries.endpoint_id = ? AND webhook_deliveries.status = ?;

-- endpoints are well
--   function: store.webhooks.sending.settle (store/webhooks/sending.py)
--   runs: for those that succeed after a failure
--   needs: pk_webhook_endpoints
UPDATE webhook_endpoints
SET failing_since=NULL
WHERE webhook_endpoints.id IN (...) AND webhook_endpoints.tenant = ? AND webhook_endpoints.failing_since IS
    NOT NULL;

-- release deliveries
--   function: store.webhooks.sending.release (store/webhooks/sending.py)
--   runs: when a deliverer drains
--   needs: pk_webhook_deliveries
UPDATE webhook_deliveries
SET due_at=(strftime('%Y-%m-%d %H:%M:%f', 'now') || '000'), lock_version=(webhook_deliveries.lock_version +
    ?), updated_at=(strftime('%Y-%m-%d %H:%M:%f', 'now') || '000')
FROM (SELECT replace("each".value ->> ?, ?, ?) AS id, "each".value ->> ? AS lock_version
FROM json_each(?) AS "each") AS records
WHERE webhook_deliveries.id = records.id AND webhook_deliveries.lock_version = records.lock_version AND
    webhook_deliveries.status = 'pending'
RETURNING id;

-- anything to announce
--   function: store.webhooks.endpoints.anything_to_announce (store/webhooks/endpoints.py)
--   runs: now and then: it locks nothing
--   needs: ix_webhook_endpoints_announce
SELECT EXISTS (SELECT webhook_endpoints.id
FROM webhook_endpoints
WHERE webhook_endpoints.announce_at <= (strftime('%Y-%m-%d %H:%M:%f', 'now') || '000')) AS anon_1;

-- take announcements
--   function: store.webhooks.endpoints.announcements (store/webhooks/endpoints.py)
--   runs: where there is any
--   needs: ix_webhook_endpoints_announce
WITH due AS (SELECT webhook_endpoints.id AS id, webhook_endpoints.tenant AS tenant
FROM webhook_endpoints
WHERE webhook_endpoints.announce_at <= (strftime('%Y-%m-%d %H:%M:%f', 'now') || '000')
LIMIT ? OFFSET ?) UPDATE webhook_endpoints
SET announce_at=(strftime('%Y-%m-%d %H:%M:%f', 'now', (?) || ' seconds') || '000')
WHERE (webhook_endpoints.id, webhook_endpoints.tenant) IN (SELECT due.id, due.tenant
FROM due)
RETURNING id, tenant;

-- announced
--   function: store.webhooks.endpoints.announced (store/webhooks/endpoints.py)
--   runs: for each that the broker has confirmed
--   needs: pk_webhook_endpoints
UPDATE webhook_endpoints
SET announce_at=NULL
WHERE webhook_endpoints.id = ? AND webhook_endpoints.tenant = ? AND webhook_endpoints.lock_version = ?;

-- cancel
--   function: store.executions.cancels.cancel (store/executions/cancels.py)
--   runs: for one that has not ended
--   needs: pk_executions
UPDATE executions
SET lease_expires_at=CASE WHEN (executions.status = 'pending' OR executions.request_digest LIKE 'external:%')
    THEN NULL ELSE executions.lease_expires_at END, finished_at=CASE WHEN (executions.status = 'pending' OR
    executions.request_digest LIKE 'external:%') THEN (strftime('%Y-%m-%d %H:%M:%f', 'now') || '000') ELSE
    NULL END, status=CASE WHEN (executions.status = 'pending' OR executions.request_digest LIKE 'external:%')
    THEN ? ELSE executions.status END, lock_version=CASE WHEN (executions.status = 'pending' OR
    executions.request_digest LIKE 'external:%') THEN executions.lock_version + ? ELSE executions.lock_version
    END, updated_at=(strftime('%Y-%m-%d %H:%M:%f', 'now') || '000'), cancel_requested=?, timeline=CASE WHEN
    (executions.status = 'pending' OR executions.request_digest LIKE 'external:%' OR
    executions.cancel_requested = 0) THEN json_insert(CASE WHEN json_array_length(executions.timeline) < 50
    THEN executions.timeline ELSE json_remove(executions.timeline, '$[0]') END, '$[#]', json_object('status',
    CASE WHEN (executions.status = 'pending' OR executions.request_digest LIKE 'external:%') THEN ? ELSE ?
    END, 'at', strftime('%Y-%m-%dT%H:%M:%fZ', 'now'), 'attempt', executions.attempt, 'by', ?)) ELSE
    executions.timeline END, input_tokens=CASE WHEN (executions.status = 'pending' AND executions.started_at
    IS NULL) THEN ? ELSE executions.input_tokens END, output_tokens=CASE WHEN (executions.status = 'pending'
    AND executions.started_at IS NULL) THEN ? ELSE executions.output_tokens END, cost=CASE WHEN
    (executions.status = 'pending' AND executions.started_at IS NULL) THEN ? ELSE executions.cost END,
    due_at=NULL
WHERE executions.id = ? AND executions.tenant = ? AND executions.status IN ('pending', 'running')
RETURNING id, program_id, inputs, options, request_digest, source, traceparent, backend_id, attempt, worker,
    lease_expires_at, outputs, error, usage, duration_ms, started_at, finished_at, status, lock_version,
    inserted_at, updated_at, tenant, cancel_requested, timeline, error_code, input_tokens, output_tokens,
    cost, due_at, not_before, deadline, policy, reply_to, correlation_id, carried, lost, discarded, callback,
    program_callback, metadata, extensions, requested_at, lane, group_key, run_at;

-- find endpoints of a tenant
--   function: store.executions.cancels.cancel (store/executions/cancels.py)
--   runs: after that
--   needs: ix_webhook_endpoints_registered
SELECT webhook_endpoints.id, webhook_endpoints.url, webhook_endpoints.secret,
    webhook_endpoints.previous_secret, webhook_endpoints.previous_until, webhook_endpoints.events,
    webhook_endpoints.headers, webhook_endpoints.thin, webhook_endpoints.registered,
    webhook_endpoints.enabled, webhook_endpoints.disabled_reason, webhook_endpoints.disabled_at,
    webhook_endpoints.failing_since, webhook_endpoints.announce_at, webhook_endpoints.lock_version,
    webhook_endpoints.inserted_at, webhook_endpoints.updated_at, webhook_endpoints.tenant,
    ((julianday(webhook_endpoints.failing_since) - julianday('now')) * 86400.0) AS failing_left,
    ((julianday(webhook_endpoints.previous_until) - julianday('now')) * 86400.0) AS previous_left
FROM webhook_endpoints
WHERE 0 = 1 OR webhook_endpoints.tenant IN (...) AND webhook_endpoints.registered;

-- lock those to cancel
--   function: store.executions.cancels.cancel_many (store/executions/cancels.py)
--   runs: 200 at a time, of all that a filter finds
--   needs: pk_executions
SELECT executions.id, executions.tenant
FROM executions
WHERE executions.id IN (...) AND (executions.tenant || ?) = ? AND (executions.status || ?) IN (...) AND
    executions.cancel_requested = 0
ORDER BY executions.id;

-- cancel many
--   function: store.executions.cancels.cancel_many (store/executions/cancels.py)
--   runs: for those
--   needs: pk_executions
UPDATE executions
SET lease_expires_at=CASE WHEN (executions.status = 'pending' OR executions.request_digest LIKE 'external:%')
    THEN NULL ELSE executions.lease_expires_at END, finished_at=CASE WHEN (executions.status = 'pending' OR
    executions.request_digest LIKE 'external:%') THEN (strftime('%Y-%m-%d %H:%M:%f', 'now') || '000') ELSE
    NULL END, status=CASE WHEN (executions.status = 'pending' OR executions.request_digest LIKE 'external:%')
    THEN ? ELSE executions.status END, lock_version=CASE WHEN (executions.status = 'pending' OR
    executions.request_digest LIKE 'external:%') THEN executions.lock_version + ? ELSE executions.lock_version
    END, updated_at=(strftime('%Y-%m-%d %H:%M:%f', 'now') || '000'), cancel_requested=?, timeline=CASE WHEN
    (executions.status = 'pending' OR executions.request_digest LIKE 'external:%' OR
    executions.cancel_requested = 0) THEN json_insert(CASE WHEN json_array_length(executions.timeline) < 50
    THEN executions.timeline ELSE json_remove(executions.timeline, '$[0]') END, '$[#]', json_object('status',
    CASE WHEN (executions.status = 'pending' OR executions.request_digest LIKE 'external:%') THEN ? ELSE ?
    END, 'at', strftime('%Y-%m-%dT%H:%M:%fZ', 'now'), 'attempt', executions.attempt, 'by', ?)) ELSE
    executions.timeline END, input_tokens=CASE WHEN (executions.status = 'pending' AND executions.started_at
    IS NULL) THEN ? ELSE executions.input_tokens END, output_tokens=CASE WHEN (executions.status = 'pending'
    AND executions.started_at IS NULL) THEN ? ELSE executions.output_tokens END, cost=CASE WHEN
    (executions.status = 'pending' AND executions.started_at IS NULL) THEN ? ELSE executions.cost END,
    due_at=NULL
WHERE executions.id IN (...) AND executions.tenant = ?
RETURNING id, program_id, inputs, options, request_digest, source, traceparent, backend_id, attempt, worker,
    lease_expires_at, outputs, error, usage, duration_ms, started_at, finished_at, status, lock_version,
    inserted_at, updated_at, tenant, cancel_requested, timeline, error_code, input_tokens, output_tokens,
    cost, due_at, not_before, deadline, policy, reply_to, correlation_id, carried, lost, discarded, callback,
    program_callback, metadata, extensions, requested_at, lane, group_key, run_at;

-- still locked
--   function: store.executions.cancels.cancel_many (store/executions/cancels.py)
--   runs: after that: these are cancelled one by one
--   needs: pk_executions
SELECT executions.id
FROM executions
WHERE executions.id IN (...) AND (executions.tenant || ?) = ? AND (executions.status || ?) IN (...) AND
    executions.cancel_requested = 0;

-- find dead executions
--   function: store.executions.queries.dead (store/executions/queries.py)
--   runs: to replay or discard all that a filter finds: 500 at a time
--   needs: ix_executions_unsuccessful
SELECT executions.id, executions.inserted_at
FROM executions
WHERE executions.tenant = ? AND executions.status = ? AND executions.error_code = ? AND executions.discarded =
    0 AND executions.status IN ('failed', 'cancelled')
ORDER BY executions.inserted_at DESC, executions.id DESC
LIMIT ? OFFSET ?;

-- lock failed
--   function: store.executions.replays.replay (store/executions/replays.py)
--   runs: before a replay: 500 at a time
--   needs: pk_executions
SELECT executions.id, executions.program_id, executions.duration_ms, executions.input_tokens,
    executions.output_tokens, executions.cost
FROM executions
WHERE executions.id IN (...) AND executions.tenant = ? AND executions.status = 'failed' AND
    executions.request_digest NOT LIKE 'external:%'
ORDER BY executions.id;

-- lock programs
--   function: store.executions.replays.replay (store/executions/replays.py)
--   runs: after that: what has none any more is left
--   needs: pk_programs
SELECT programs.id
FROM programs
WHERE programs.id IN (...) AND programs.tenant = ?
ORDER BY programs.id;

-- replay
--   function: store.executions.replays.replay (store/executions/replays.py)
--   runs: for those that are there
--   needs: pk_executions
UPDATE executions
SET attempt=?, outputs=NULL, duration_ms=NULL, finished_at=NULL, status=?,
    lock_version=(executions.lock_version + ?), updated_at=(strftime('%Y-%m-%d %H:%M:%f', 'now') || '000'),
    cancel_requested=0, timeline=json_insert(CASE WHEN json_array_length(executions.timeline) < 50 THEN
    executions.timeline ELSE json_remove(executions.timeline, '$[0]') END, '$[#]', json_object('status', ?,
    'at', strftime('%Y-%m-%dT%H:%M:%fZ', 'now'), 'attempt', ?, 'by', ?)), due_at=(strftime('%Y-%m-%d
    %H:%M:%f', 'now', (31557600000.0) || ' seconds') || '000'), not_before=NULL, deadline=NULL, carried=NULL,
    lost=?, discarded=0, run_at=(strftime('%Y-%m-%d %H:%M:%f', 'now') || '000')
WHERE executions.id IN (...) AND executions.tenant = ?
RETURNING tenant, program_id, lane, group_key, run_at;

-- forget events
--   function: store.executions.replays.replay (store/executions/replays.py)
--   runs: after that: their end is taken back; the table is small
--   needs: none
DELETE
FROM event_outbox
WHERE event_outbox.execution_id IN (...) AND event_outbox.tenant = ?;

-- discard
--   function: store.executions.replays.discard (store/executions/replays.py)
--   runs: 500 at a time
--   needs: pk_executions
UPDATE executions
SET updated_at=(strftime('%Y-%m-%d %H:%M:%f', 'now') || '000'), timeline=json_insert(CASE WHEN
    json_array_length(executions.timeline) < 50 THEN executions.timeline ELSE json_remove(executions.timeline,
    '$[0]') END, '$[#]', json_object('status', ?, 'at', strftime('%Y-%m-%dT%H:%M:%fZ', 'now'), 'attempt',
    executions.attempt, 'by', ?)), discarded=1
WHERE executions.id IN (SELECT executions.id
FROM executions
WHERE executions.id IN (...) AND executions.tenant = ? AND executions.status = 'failed' AND
    executions.discarded = 0
ORDER BY executions.id) AND executions.tenant = ?;

-- count executions
--   function: store.executions.queries.count (store/executions/queries.py)
--   runs: when asked: it reads 100,000 rows of the index at most
--   needs: ix_executions_tenant_inserted_at
SELECT newest.status, count(*) AS seen, count(CASE WHEN 1 THEN ? END) AS counted, min(newest.inserted_at) AS
    oldest
FROM (SELECT executions.status AS status, executions.inserted_at AS inserted_at
FROM executions
WHERE executions.tenant = ?
ORDER BY executions.inserted_at DESC
LIMIT 100000 OFFSET ?) AS newest GROUP BY newest.status;

-- count executions of a program
--   function: store.executions.queries.count (store/executions/queries.py)
--   runs: the same: the index has the status, so no row is read
--   needs: ix_executions_program
SELECT newest.status, count(*) AS seen, count(CASE WHEN 1 THEN ? END) AS counted, min(newest.inserted_at) AS
    oldest
FROM (SELECT executions.status AS status, executions.inserted_at AS inserted_at
FROM executions
WHERE executions.tenant = ? AND executions.program_id = ?
ORDER BY executions.inserted_at DESC
LIMIT 100000 OFFSET ?) AS newest GROUP BY newest.status;

-- find dead messages
--   function: store.rejections.dead (store/rejections.py)
--   runs: as for dead executions
--   needs: ix_rejected_messages_tenant_inserted_at
SELECT rejected_messages.id, rejected_messages.inserted_at
FROM rejected_messages
WHERE rejected_messages.tenant = ? AND rejected_messages.status = ?
ORDER BY rejected_messages.inserted_at DESC, rejected_messages.id DESC
LIMIT ? OFFSET ?;

-- messages replayed
--   function: store.rejections.replayed (store/rejections.py)
--   runs: when the broker has confirmed them
--   needs: pk_rejected_messages
UPDATE rejected_messages
SET updated_at=(strftime('%Y-%m-%d %H:%M:%f', 'now') || '000'), status=?
WHERE rejected_messages.id IN (SELECT rejected_messages.id
FROM rejected_messages
WHERE (rejected_messages.id, rejected_messages.deliveries) IN (...)
ORDER BY rejected_messages.id);

-- discard messages
--   function: store.rejections.discard (store/rejections.py)
--   runs: 500 at a time
--   needs: pk_rejected_messages
UPDATE rejected_messages
SET updated_at=(strftime('%Y-%m-%d %H:%M:%f', 'now') || '000'), status=?
WHERE rejected_messages.id IN (SELECT rejected_messages.id
FROM rejected_messages
WHERE rejected_messages.id IN (...) AND rejected_messages.tenant = ? AND rejected_messages.status = ?
ORDER BY rejected_messages.id);

-- find failed deliveries
--   function: store.webhooks.log.replayable (store/webhooks/log.py)
--   runs: to replay all that a filter finds: 500 at a time
--   needs: ix_webhook_deliveries_failed
SELECT webhook_deliveries.id
FROM webhook_deliveries
WHERE webhook_deliveries.tenant = ? AND webhook_deliveries.status = 'failed'
ORDER BY webhook_deliveries.id
LIMIT ? OFFSET ?;

-- replay deliveries
--   function: store.webhooks.log.replay (store/webhooks/log.py)
--   runs: 500 at a time
--   needs: pk_webhook_deliveries, pk_webhook_endpoints
UPDATE webhook_deliveries
SET due_at=(strftime('%Y-%m-%d %H:%M:%f', 'now') || '000'), tries=?, finished_at=NULL, status=?,
    lock_version=(webhook_deliveries.lock_version + ?), updated_at=(strftime('%Y-%m-%d %H:%M:%f', 'now') ||
    '000')
WHERE webhook_deliveries.id IN (...) AND webhook_deliveries.tenant = ? AND webhook_deliveries.status != ? AND
    webhook_deliveries.endpoint_id IN (SELECT webhook_endpoints.id
FROM webhook_endpoints
WHERE webhook_endpoints.tenant = ? AND webhook_endpoints.enabled = 1);
