"""A choice reads what it takes, however much waits, in however many queues, and however much of it is held."""

from __future__ import annotations

import re
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, event, text

from store.database.engine import Plans
from store.executions.choosing import choose
from store.queues.turns import Turns
from tests.contract.store.rows import BOB
from tests.sizes import sized

ROWS, QUEUES = sized(30_000, 300_000), sized(3_000, 30_000)
MOST_PAGES = 500
"""So many pages a choice of eight reads at most; both tables have many more."""

PROGRAM = "CAST(md5({}) AS uuid)"
FILL = f"""
INSERT INTO executions (id, tenant, program_id, inputs, options, request_digest, source, attempt, status, inserted_at,
                        updated_at, due_at, run_at)
SELECT gen_random_uuid(), 't' || n % {QUEUES} % 300, {PROGRAM.format(f"CAST(n % {QUEUES} AS text)")}, '{{}}', '{{}}',
       '', '/', 0, 'pending', now(), now(), now() + interval '1000 years', now() - n * interval '1 ms'
FROM generate_series(1, {ROWS}) n
"""
# Of a hundred queues, one is ready.
OFFER = f"""
INSERT INTO queues (tenant, program_id, lane, holder, inserted_at)
SELECT 't' || n % 300, {PROGRAM.format("CAST(n AS text)")}, 1, CASE WHEN n % 100 = 0 THEN '' ELSE 'tenant:x' END, now()
FROM generate_series(0, {QUEUES - 1}) n
"""


@pytest.mark.parametrize("engine", ["postgresql"], indirect=True)
def test_it_reads_what_it_takes(engine: Engine) -> None:
    with engine.begin() as connection:
        connection.execute(text(FILL))
        connection.execute(text(OFFER))
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.exec_driver_sql("VACUUM ANALYZE executions, queues")
    with engine.connect() as connection, connection.begin():
        Plans().renew(connection)  # as writers have them
        turns, said = Turns(), list[tuple[str, Any]]()
        choose(connection, BOB, 8, turns, alone_at=3)  # planned
        event.listen(connection, "before_cursor_execute", lambda *told: said.append((told[2], told[3])))
        turns.forget()
        assert len(choose(connection, BOB, 8, turns, alone_at=3).chosen) == 8
        plans = [explained(connection, *one) for one in [*said] if "queue_moves" not in one[0]]
    everything = "\n".join(plans)
    assert "ix_executions_queue" in everything
    assert "ix_queues_holder" in everything
    assert not re.search(r"Seq Scan on (executions|queues)", everything), everything
    # The first line with pages of a plan is that of all of it.
    pages = [sum(map(int, re.findall(r"Buffers: shared hit=(\d+)", plan)[:1])) for plan in plans]
    assert sum(pages) <= MOST_PAGES, (pages, everything)


def explained(connection: Connection, statement: str, parameters: Any) -> str:
    with connection.begin_nested() as looking:
        rows = connection.exec_driver_sql("EXPLAIN (ANALYZE, BUFFERS, TIMING OFF) " + statement, parameters).all()
        looking.rollback()
    return "\n".join(str(row[0]) for row in rows)
