"""What is no command is rejected, with what is known of it, and the next message runs."""

from __future__ import annotations

import json
from typing import Any

import pytest

from deploy.processes import wait_until
from dspex import InitializeProgram
from dspex.amqp.topology import EXECUTIONS_QUEUE, PROGRAMS_QUEUE
from dspex.contract.envelope import MAX_MESSAGE_BYTES
from tests.contract.brokers.rig import PATIENCE, Jobs, Rig, message
from workers.brokers.encoding import REJECT


def raw(**fields: Any) -> bytes:
    """A message as Dramatiq's own encoder writes it."""
    envelope: dict[str, Any] = {
        "queue_name": PROGRAMS_QUEUE,
        "actor_name": InitializeProgram.type,
        "args": [],
        "kwargs": {},
        "options": {},
        "message_id": "1",
        "message_timestamp": 1,
    }
    return json.dumps(envelope | fields).encode()


def cloud_event(**fields: Any) -> bytes:
    return json.dumps(json.loads(message().encode()) | fields).encode()


POISON = {
    "empty": (b"", "malformed_message"),
    "garbage": (b"\xff\x00garbage", "malformed_message"),
    "not an object": (b"[]", "malformed_message"),
    "deep": (b'{"specversion": "1.0", "data": ' + b"[" * 50_000, "malformed_message"),
    "unknown type": (cloud_event(type="dspex.unknown.v1"), "unknown_message_type"),
    "type of the reject actor": (cloud_event(type=REJECT), "unknown_message_type"),
    "type is no text": (cloud_event(type=["a"]), "unknown_message_type"),
    "wrong data": (cloud_event(data={"program_id": "x"}), "invalid_message"),
    "no data": (cloud_event(data=None), "invalid_message"),
    "unknown attribute": (cloud_event(options={"throws": "x"}), "invalid_message"),
    "wrong id": (cloud_event(id=None), "invalid_message"),
    "U+0000": (cloud_event(source="a\x00"), "invalid_message"),
    "too large": (cloud_event(source="x" * 2 * 1024 * 1024), "message_too_large"),
    "raw": (raw(), "malformed_message"),
    "raw, options null": (raw(options=None), "malformed_message"),
    "raw, eta": (raw(options={"eta": "soon"}), "malformed_message"),
    "raw, throws": (raw(options={"throws": "x"}), "malformed_message"),
    "raw, pipe target": (raw(options={"pipe_target": raw().decode()}), "malformed_message"),
    "raw, foreign queue": (raw(queue_name="foreign"), "malformed_message"),
    "raw, other queue": (raw(queue_name=EXECUTIONS_QUEUE), "malformed_message"),
    "raw, actor is no text": (raw(actor_name=7), "malformed_message"),
    "raw, a key more": (raw(more=1), "malformed_message"),
}


@pytest.mark.parametrize("queue", [PROGRAMS_QUEUE, EXECUTIONS_QUEUE])
def test_poison_is_rejected_and_the_next_message_runs(rig: Rig, jobs: Jobs, queue: str) -> None:
    jobs.start()
    for name, (body, code) in POISON.items():
        rig.put(queue, body)
        good = message()
        rig.put(queue, good.encode())
        jobs.wait_for([good.id])
        assert wait_until(lambda: len(jobs.rejected) == 1, PATIENCE), name
        details = jobs.rejected.pop()
        assert details["error"].code == code, name
        assert details["origin"].queue == queue
        assert details["body"] == body[:MAX_MESSAGE_BYTES]
        assert details["body_size"] == len(body)
    assert all(thread.is_alive() for thread in (*jobs.worker.workers, *jobs.worker.consumers.values()))
    jobs.stop()
    assert rig.take(queue) == []
    dead = rig.dead_letters(queue)
    assert sorted(dead) == sorted(body for body, _ in POISON.values())


def test_a_rejected_message_names_itself_where_it_can(rig: Rig, jobs: Jobs) -> None:
    jobs.start()
    rig.put(PROGRAMS_QUEUE, cloud_event(id="mine\x00" + "x" * 600, type="some.type"))
    rig.put(PROGRAMS_QUEUE, cloud_event(id=7, type=None))
    assert wait_until(lambda: len(jobs.rejected) == 2, PATIENCE)
    named, nameless = sorted(jobs.rejected, key=lambda details: details["message_id"] is None)
    assert named["message_id"].startswith("mine")
    assert "\x00" not in named["message_id"]
    assert len(named["message_id"]) <= 512
    assert named["message_type"] == "some.type"
    assert (nameless["message_id"], nameless["message_type"]) == (None, None)
