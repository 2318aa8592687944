"""Poison on every queue, with good executions between."""

from __future__ import annotations

from hypothesis import Phase, given, settings

from dspex import decode_command
from dspex.amqp.topology import EXECUTIONS_QUEUE, PROGRAMS_QUEUE
from dspex.errors import MessageError
from tests.faults.deployment import FaultDeployment
from tests.poison import bad_messages, poisonous

QUEUES: tuple[str, ...] = (PROGRAMS_QUEUE, EXECUTIONS_QUEUE)


def poison(deployment: FaultDeployment, number: int) -> dict[str, int]:
    """Put the corpus and about so many random bodies into the queues; returns how many each got.

    A random body that happens to be a command is left out.
    """
    sent: dict[str, int] = dict.fromkeys(QUEUES, 0)
    program_id = str(deployment.program_id)
    with deployment.channel() as channel:

        def put(queue: str, body: bytes) -> None:
            channel.basic_publish("", queue, body)
            sent[queue] += 1
            if sum(sent.values()) % 10 == 0:
                deployment.submit(sleep=0.01)

        @settings(max_examples=number, deadline=None, database=None, phases=[Phase.generate])
        @given(body=poisonous(program_id))
        def put_random(body: bytes) -> None:
            try:
                decode_command(body)
            except MessageError:
                put(QUEUES[len(body) % 2], body)

        for body, _ in bad_messages(program_id).values():
            for queue in QUEUES:
                put(queue, body)
        put_random()
    deployment.send(10)
    return sent
