"""With one protection switched off, from outside, the same faults do what the protection is there against.

A row whose test passes without its protection would prove nothing.
"""

from __future__ import annotations

from collections.abc import Callable

from tests.faults import unprotected
from tests.faults.deployment import FaultDeployment
from tests.faults.poisoning import poison
from tests.faults.stale_tags import cut_and_kill
from tests.faults.zombie import ZOMBIES, stop_until_rescued

Broke = Callable[..., None]


def test_row_6_acks_by_tag_alone_lose_executions(deployment: FaultDeployment, broke: Broke) -> None:
    cut_and_kill(deployment, unprotected.setting("stale acks"))
    deployment.work(threads=16)
    verdict = deployment.judge(10)
    broke(6, "acks by tag alone", verdict)
    assert verdict.lost


def test_row_8_a_finish_without_the_version_ends_an_execution_twice(deployment: FaultDeployment, broke: Broke) -> None:
    stop_until_rescued(deployment, unprotected.setting("fence"))
    verdict = deployment.judge(10)
    broke(8, "a finish without the version", verdict)
    assert len(verdict.double) >= ZOMBIES
    assert deployment.history.records("refused") == []


def test_row_13_dramatiqs_own_messages_stop_its_threads(deployment: FaultDeployment, broke: Broke) -> None:
    worker = deployment.work(threads=4, environment=unprotected.setting("decoding"))
    sent = poison(deployment, 200)
    verdict = deployment.judge(10)
    alive, started = worker.threads()
    recorded = deployment.scalar("SELECT coalesce(sum(deliveries), 0) FROM rejected_messages")
    broke(13, "Dramatiq's own messages are read", verdict, f"threads {alive} of {started}, recorded {recorded}")
    assert verdict.lost
    assert recorded < sum(sent.values())
