"""A deployment with one worker, and the wire to its broker: for messages as no client of ours would send them."""

from __future__ import annotations

import json
import time
import uuid
from contextlib import suppress
from pathlib import Path
from typing import Any

import pika

from dspex import Configuration
from dspex.amqp.connection import connect
from dspex.amqp.topology import COMMANDS_EXCHANGE, EVENTS_EXCHANGE
from dspex.client.remote import RemoteClient
from tests import amqp_wire as wire
from tests.amqp_wire import Wire
from tests.deployment import Deployment
from tests.poison import envelope

EXECUTE = "dspex.program.execute.v1"


class Edge:
    """A deployment with one worker process and a program, and the wire to its broker."""

    def __init__(self, deployment: Deployment) -> None:
        self.deployment = deployment
        self.wire = Wire(deployment.broker_url)
        self.client = RemoteClient(deployment.broker_url, source="/tests")
        self.program_id = self.program("quick", {})
        # Not pika's own, which would end over what is read here.
        self._connection = connect(pika.URLParameters(deployment.broker_url), 2**30)
        self.channel = self._connection.channel()
        self.events = self.queue()
        self.channel.queue_bind(self.events, EVENTS_EXCHANGE, "#")

    def program(self, name: str, parameters: dict[str, Any]) -> str:
        configuration = Configuration(parameters=parameters)
        arrow = "question -> answer"
        program = self.client.create_program(name, arrow, adapter_type="mock", configuration=configuration)
        self.client.initialize_program(program.program_id)
        return str(program.program_id)

    def queue(self) -> str:
        name: str = self.channel.queue_declare("", exclusive=True).method.queue
        return name

    def execute(self) -> tuple[str, bytes]:
        """An execution's id, and the body of the message that asks for it."""
        message = envelope(self.program_id)
        return message["data"]["execution_id"], json.dumps(message).encode()

    def status(self, execution_id: str) -> str | None:
        found: str | None = self.deployment.scalar("SELECT status FROM executions WHERE id = :id", id=execution_id)
        return found

    def run_good_ones(self, number: int = 3) -> None:
        """Good executions run, and each queue is consumed."""
        ids = []
        for _ in range(number):
            execution_id, body = self.execute()
            assert self.wire.publish(COMMANDS_EXCHANGE, EXECUTE, wire.properties(delivery_mode=2), body)
            ids.append(execution_id)
        self.deployment.wait(lambda: {self.status(id_) for id_ in ids} == {"completed"}, "good ones run")
        program = self.client.create_program(f"edge-{uuid.uuid4()}", "question -> answer", adapter_type="mock")
        assert self.client.get_program(program.program_id).name == program.name

    def rejected(self, body: bytes) -> tuple[str, str] | None:
        """Code and text of the rejection of a body."""
        found = self.deployment.rows("SELECT error_code, error_message FROM rejected_messages WHERE body = :b", b=body)
        assert len(found) <= 1
        return (found[0][0], found[0][1]) if found else None

    def wait_for_rejection(self, body: bytes) -> tuple[str, str]:
        self.deployment.wait(lambda: self.rejected(body) is not None, "it is rejected")
        rejection = self.rejected(body)
        assert rejection is not None
        return rejection

    def heard(self, queue: str, seconds: float = 10.0) -> list[tuple[Any, dict[str, Any]]]:
        """Properties and content of what a queue has, once there is something in it."""
        found: list[tuple[Any, dict[str, Any]]] = []
        deadline = time.monotonic() + seconds
        while True:
            method, properties, body = self.channel.basic_get(queue, auto_ack=True)
            if method is not None:
                found.append((properties, json.loads(body or b"")))
            elif found or time.monotonic() >= deadline:
                return found
            else:
                time.sleep(0.02)

    def rejection_events(self) -> list[dict[str, Any]]:
        """The data of the events of rejections that have come."""
        deadline = time.monotonic() + 10
        found: list[dict[str, Any]] = []
        while not found and time.monotonic() < deadline:
            events = [content for _, content in self.heard(self.events)]
            found += [event["data"] for event in events if event["type"] == "dspex.message.rejected.v1"]
        return found

    def workers(self) -> list[int]:
        """The ids of the deployment's processes of workers."""
        url = f"DSPEX_DATABASE_URL={self.deployment.environment['DSPEX_DATABASE_URL']}".encode()
        found = []
        for process in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                if url in (process / "environ").read_bytes().split(b"\x00"):
                    found.append(int(process.name))
        return found

    def memory(self, *, peak: bool = False) -> float:
        """What the largest of them holds, or has held, in MiB."""
        name = "VmHWM:" if peak else "VmRSS:"
        statuses = [Path(f"/proc/{process}/status").read_text(encoding="ascii") for process in self.workers()]
        return max(int(status.split(name)[1].split()[0]) / 1024 for status in statuses)

    def close(self) -> None:
        self.client.close()
        self.wire.close()
        self._connection.close()
