"""Whether queues, counts and gates are as the executions say: by plain SQL, and nothing of the product."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Final

from sqlalchemy.exc import OperationalError

from tests.faults.deployment import FaultDeployment

NETS: Final = ("Queues were offered that nobody had offered", "Counts of waiting executions were corrected")
"""What a worker says when a net had to mend something: where no worker is of an older version, it never has to."""

_UNFOUND: Final = """
    SELECT waits.*, q.holder, q.wake_at
    FROM (
        SELECT tenant, program_id, lane, group_key, min(run_at) AS first, count(*) AS number
        FROM executions WHERE status = 'pending' AND run_at IS NOT NULL GROUP BY 1, 2, 3, 4
    ) waits
    LEFT JOIN queues q USING (tenant, program_id, lane, group_key)
    WHERE q.tenant IS NULL OR (q.holder IS NULL AND (q.wake_at IS NULL OR q.wake_at > waits.first))
"""
"""Queues in which something waits, and that nobody would find."""

_MISCOUNTED: Final = """
    SELECT tenant, program_id, lane, sum(there) AS there, sum(counted) AS counted
    FROM (
        SELECT tenant, program_id, lane, 1 AS there, 0 AS counted
        FROM executions WHERE status = 'pending' AND run_at IS NOT NULL
        UNION ALL SELECT tenant, program_id, lane, 0, waiting FROM queue_counts
        UNION ALL SELECT tenant, program_id, lane, 0, came - went FROM queue_moves
    ) both_of_them
    GROUP BY 1, 2, 3 HAVING sum(there) <> sum(counted)
"""
"""Of what another number waits than is counted."""

_HELD_BY_NOBODY: Final = """
    SELECT q.* FROM queues q
    LEFT JOIN gates g ON g.key = q.holder
    LEFT JOIN programs p ON p.id = q.program_id AND p.tenant = q.tenant
    WHERE (q.holder = 'archived' AND p.status <> 'archived') OR (q.holder NOT IN ('', 'archived') AND g.key IS NULL)
"""

_LEFT: Final = {
    # One whose last execution was cancelled wakes once more, when that would have run.
    "queues are held": "SELECT * FROM queues WHERE holder IS NOT NULL OR wake_at < clock_timestamp()",
    "slots are held": "SELECT * FROM slots",
    "gates are there": "SELECT key, paused, in_flight FROM gates",
    "early cancels are kept": (
        "SELECT * FROM early_cancels WHERE inserted_at < clock_timestamp() - interval '90 seconds'"
    ),
}
"""What there is none of when nothing waits, and nothing is paused or limited."""


def wrong_now(deployment: FaultDeployment) -> Iterator[str]:
    """A line for each thing that is never so, at any moment and whatever has died."""
    for queue in deployment.rows(_UNFOUND):
        yield f"a queue is not found: {queue}"
    for queue in deployment.rows(_HELD_BY_NOBODY):
        yield f"a queue is held by nobody: {queue}"
    for count in deployment.rows(_MISCOUNTED):
        yield f"miscounted: {count}"


def wrong_at_rest(deployment: FaultDeployment) -> Iterator[str]:
    """A line for each thing that is not so when nothing waits any more, and nothing is paused or limited."""
    yield from wrong_now(deployment)
    for what, query in _LEFT.items():
        found = deployment.rows(query)
        if found:
            yield f"{what}: {len(found)}, such as {found[0]}"


def rest(deployment: FaultDeployment, seconds: float = 30.0) -> list[str]:
    """What is wrong when nothing happens any more: looks again until nothing is, or the time is over."""
    deadline = time.monotonic() + seconds
    while (wrong := list(wrong_at_rest(deployment))) and time.monotonic() < deadline:
        time.sleep(0.1)
    return wrong


class Watch:
    """Looks again and again, beside whatever happens.

    Attributes:
        wrong: what was wrong at some moment.
        looks: how often it has looked.
    """

    def __init__(self, deployment: FaultDeployment, seconds: float = 0.3) -> None:
        self._deployment = deployment
        self._seconds = seconds
        self.wrong: list[str] = []
        self.looks = 0

    def run(self, stop: threading.Event) -> None:
        """Look until `stop` is set; not while the database is away."""
        while not stop.wait(self._seconds):
            try:
                self.wrong += wrong_now(self._deployment)
                self.looks += 1
            except OperationalError:
                pass
