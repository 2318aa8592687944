-- What workers of migration 0004 run on PostgreSQL, for each execution.

-- claim
INSERT INTO executions (id, program_id, inputs, options, request_digest, source, traceparent, tenant, not_before,
    deadline, reply_to, correlation_id, status, attempt, lock_version, worker, lease_expires_at, due_at, backend_id,
    policy, started_at, inserted_at, updated_at, timeline)
SELECT asked.id, asked.program_id, asked.inputs, asked.options, asked.request_digest, asked.source,
    asked.traceparent, asked.tenant, asked.not_before, asked.deadline, asked.reply_to, asked.correlation_id, CASE
    WHEN asked.later THEN 'pending' ELSE 'running' END, CASE WHEN asked.later THEN 0 ELSE 1 END, 1, CASE WHEN
    asked.later THEN NULL ELSE CAST(:worker AS VARCHAR) END, CASE WHEN asked.later THEN NULL ELSE (clock_timestamp() +
    make_interval(secs => CAST(:lease_seconds AS double precision))) END, CASE WHEN asked.later THEN
    asked.not_before ELSE NULL END, CASE WHEN (programs.status = 'ready') THEN programs.backend_id ELSE NULL END,
    programs.policy, CASE WHEN asked.later THEN NULL ELSE (clock_timestamp()) END, (clock_timestamp()),
    (clock_timestamp()), jsonb_build_array(jsonb_build_object('status', CAST(CASE WHEN asked.later THEN 'pending'
    ELSE 'running' END AS text), 'at', clock_timestamp(), 'attempt', CAST(CASE WHEN asked.later THEN 0 ELSE 1 END AS
    integer), 'by', CAST(:worker AS VARCHAR)))
FROM (SELECT records.id AS id, records.program_id AS program_id, records.inputs AS inputs, records.options AS
    options, records.request_digest AS request_digest, records.source AS source, records.traceparent AS traceparent,
    records.tenant AS tenant, records.not_before AS not_before, records.deadline AS deadline, records.reply_to AS
    reply_to, records.correlation_id AS correlation_id, records.not_before > (clock_timestamp()) AS later
FROM jsonb_to_recordset(CAST(:records AS JSONB)) AS records(id UUID, program_id UUID, inputs JSONB, options JSONB,
    request_digest VARCHAR, source TEXT, traceparent VARCHAR, tenant VARCHAR, not_before TIMESTAMP WITH TIME ZONE,
    deadline TIMESTAMP WITH TIME ZONE, reply_to TEXT, correlation_id TEXT)) AS asked
JOIN programs ON programs.id = asked.program_id AND programs.tenant = asked.tenant
WHERE asked.id IS NOT NULL
ORDER BY asked.id
ON CONFLICT (id)
DO UPDATE SET backend_id = excluded.backend_id, attempt = (executions.attempt + 1), worker = CAST(:worker AS VARCHAR),
    lease_expires_at = (clock_timestamp() + make_interval(secs => CAST(:lease_seconds AS double precision))),
    started_at = (clock_timestamp()), status = 'running', lock_version = (executions.lock_version + 1), updated_at =
    (clock_timestamp()), timeline = ((CASE WHEN jsonb_array_length(executions.timeline) < 50 THEN
    executions.timeline ELSE executions.timeline - 0 END) || jsonb_build_object('status', CAST('running' AS text),
    'at', clock_timestamp(), 'attempt', CAST(executions.attempt + 1 AS integer), 'by', CAST(:worker AS VARCHAR))),
    due_at = NULL, policy = excluded.policy, lost = (executions.lost + CASE WHEN (executions.status IN ('running'))
    THEN 1 ELSE 0 END)
WHERE executions.request_digest = excluded.request_digest AND executions.tenant = excluded.tenant AND
    (executions.status IN ('pending') AND (executions.not_before IS NULL OR executions.not_before <=
    (clock_timestamp())) OR executions.status IN ('running') AND executions.lease_expires_at < (clock_timestamp()))
RETURNING executions.id, executions.status, executions.attempt, executions.lock_version, executions.backend_id,
    executions.cancel_requested, executions.policy, executions.usage, executions.carried, executions.lost,
    CAST(EXTRACT(EPOCH
FROM executions.deadline - clock_timestamp()) AS double precision) AS seconds_left, executions.reply_to

-- finish
UPDATE executions SET lease_expires_at=NULL, outputs=records.outputs, error=records.error, usage=records.usage,
    duration_ms=records.duration_ms, finished_at=(clock_timestamp()), status=records.status,
    lock_version=(executions.lock_version + 1), updated_at=(clock_timestamp()), timeline=((CASE WHEN
    jsonb_array_length(executions.timeline) < 50 THEN executions.timeline ELSE executions.timeline - 0 END) ||
    jsonb_build_object('status', CAST(records.status AS text), 'at', clock_timestamp(), 'attempt',
    CAST(executions.attempt AS integer), 'by', CAST(executions.worker AS text))), error_code=records.error_code,
    input_tokens=records.input_tokens, output_tokens=records.output_tokens, cost=records.cost
FROM jsonb_to_recordset(CAST(:records AS JSONB)) AS records(id UUID, tenant VARCHAR, lock_version INTEGER, status
    VARCHAR, outputs JSONB, error JSONB, duration_ms FLOAT, error_code VARCHAR, usage JSONB, input_tokens BIGINT,
    output_tokens BIGINT, cost FLOAT)
WHERE executions.id = records.id AND executions.lock_version = records.lock_version AND executions.tenant =
    records.tenant AND (executions.status || '') = 'running'
RETURNING executions.id, executions.lock_version, executions.status

-- count
INSERT INTO program_counters (program_id, shard, tenant, completed, failed, cancelled, duration_ms, input_tokens,
    output_tokens, cost, last_executed_at, lock_version)
SELECT records.program_id, records.shard, records.tenant, records.completed, records.failed, records.cancelled,
    records.duration_ms, records.input_tokens, records.output_tokens, records.cost, CASE WHEN :executed THEN
    (clock_timestamp()) ELSE NULL END, coalesce((SELECT known.lock_version
FROM program_counters AS known
WHERE known.program_id = records.program_id AND known.shard = records.shard), 0) + 1
FROM jsonb_to_recordset(CAST(:records AS JSONB)) AS records(program_id UUID, shard INTEGER, tenant VARCHAR,
    completed BIGINT, failed BIGINT, cancelled BIGINT, duration_ms FLOAT, input_tokens BIGINT, output_tokens BIGINT,
    cost FLOAT)
WHERE records.program_id IS NOT NULL
ORDER BY records.program_id
ON CONFLICT (program_id, shard)
DO UPDATE SET completed = (program_counters.completed + excluded.completed), failed = (program_counters.failed +
    excluded.failed), duration_ms = (program_counters.duration_ms + excluded.duration_ms), input_tokens =
    (program_counters.input_tokens + excluded.input_tokens), output_tokens = (program_counters.output_tokens +
    excluded.output_tokens), cost = (program_counters.cost + excluded.cost), last_executed_at =
    coalesce(excluded.last_executed_at, program_counters.last_executed_at), lock_version = excluded.lock_version,
    cancelled = (program_counters.cancelled + excluded.cancelled)
WHERE program_counters.lock_version = excluded.lock_version - 1
RETURNING program_counters.program_id

-- durations
INSERT INTO program_durations (program_id, shard, tenant, bucket, runs)
SELECT records.program_id, records.shard, records.tenant, records.bucket, records.runs
FROM jsonb_to_recordset(CAST(:records AS JSONB)) AS records(program_id UUID, shard INTEGER, tenant VARCHAR, bucket
    INTEGER, runs BIGINT)
WHERE records.program_id IS NOT NULL
ORDER BY records.program_id, records.bucket
ON CONFLICT (program_id, shard, bucket)
DO UPDATE SET runs = (program_durations.runs + excluded.runs)

-- add
INSERT INTO callbacks (execution_id, lock_version, tenant, due_at)
SELECT records.execution_id, records.lock_version, records.tenant, (clock_timestamp() + make_interval(secs =>
    CAST(:due_in AS double precision)))
FROM jsonb_to_recordset(CAST(:records AS JSONB)) AS records(execution_id UUID, lock_version INTEGER, tenant VARCHAR)
WHERE records.execution_id IS NOT NULL
ON CONFLICT (execution_id)
DO UPDATE SET lock_version = excluded.lock_version, due_at = excluded.due_at, tries = 0

-- sent
DELETE
FROM callbacks
WHERE callbacks.execution_id IN (SELECT records.execution_id
FROM jsonb_to_recordset(CAST(:records AS JSONB)) AS records(execution_id UUID, lock_version INTEGER)) AND (EXISTS
    (SELECT records.execution_id
FROM jsonb_to_recordset(CAST(:records AS JSONB)) AS records(execution_id UUID, lock_version INTEGER)
WHERE callbacks.execution_id = records.execution_id AND callbacks.lock_version = records.lock_version))
