"""With one protection switched off, from outside, the same faults do what the protection is there against.

A row whose test passes without its protection would prove nothing.
"""

from __future__ import annotations

from collections.abc import Callable

from tests.faults import unprotected
from tests.faults.deployment import FaultDeployment
from tests.faults.poisoning import poison
from tests.faults.retrying import fail_while_refused
from tests.faults.stale_tags import cut_and_kill
from tests.faults.zombie import ZOMBIES, stop_until_rescued
from tests.tcp_proxy import TcpProxy
from workers.process.watchdog import EXIT_CODE

Broke = Callable[..., None]


def test_row_5_a_retry_that_is_a_message_is_lost_with_its_broker(deployment: FaultDeployment, broke: Broke) -> None:
    with TcpProxy(deployment.broker_url) as proxy:
        fail_while_refused(deployment, proxy, unprotected.setting("retries"))
        verdict = deployment.judge(10)
    broke(5, "a retry is a message", verdict)
    assert verdict.lost


def test_retries_that_are_messages_do_come_where_the_broker_is_there(deployment: FaultDeployment) -> None:
    """So it is the refusal that loses them in the test above."""
    deployment.work(threads=8, environment=unprotected.setting("retries"))
    deployment.send(20, fail="transient", times=1)
    assert not deployment.judge().reasons


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
    code = worker.wait()
    verdict = deployment.judge(3)
    recorded = deployment.scalar("SELECT coalesce(sum(deliveries), 0) FROM rejected_messages")
    broke(13, "Dramatiq's own messages are read", verdict, f"exit code {code}, recorded {recorded}")
    assert code == EXIT_CODE, "the watchdog has seen a thread die"
    assert verdict.lost
    assert recorded < sum(sent.values())
