"""Load for a run of faults: executions of every sort from two tenants, and who cancels, replays and asks beside."""

from __future__ import annotations

import hashlib
import json
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from random import Random
from threading import Event
from typing import Any, Final, NamedTuple
from uuid import UUID

from dspex import ExecuteProgram, ExecutionOptions, uuid7, wrap
from dspex.amqp.publication import Publication
from dspex.amqp.publisher import AmqpPublisher
from dspex.amqp.topology import COMMANDS_EXCHANGE
from dspex.client.remote import RemoteClient
from dspex.contract.callback import Callback
from dspex.contract.commands import CancelExecution
from dspex.contract.options import Lane, Metadata
from dspex.errors import DspexError
from tests.faults.tenants import SECRET_NAME, TENANTS, TenantsDeployment
from tests.poison import bad_messages, envelope

LANES: Final = (None, *Lane)
PERMANENT: Final = "refused"
"""What an execution fails with that is to fail."""


BATCH: Final = "batch"
"""The label by which some are cancelled, paused or limited together."""


class Key(NamedTuple):
    """An execution: its id is its tenant's own."""

    tenant: str
    id: UUID


@dataclass
class Asked:
    """An execution that was asked for.

    Attributes:
        key: its idempotency key.
        may: what it may end as, beside `cancelled` and `attempts_exhausted`: `completed`, or the code of its error.
        webhook: whether its end is pushed.
        confirmed: whether the broker has confirmed its message.
        cancelled: whether somebody has asked to cancel it.
    """

    program_id: UUID
    may: str = "completed"
    key: str | None = None
    webhook: bool = False
    confirmed: bool = False
    cancelled: bool = False


@dataclass
class Ledger:
    """What was sent.

    Attributes:
        asked: executions.
        batches: those with one label, once all are sent: by tenant and the label's value.
        refused: messages that are to be rejected, by tenant and digest: the code, and whether one was confirmed.
        done: how many there were, by sort.
    """

    asked: dict[Key, Asked] = field(default_factory=dict)
    batches: dict[tuple[str, str], list[Key]] = field(default_factory=dict)
    refused: dict[tuple[str, str], tuple[str, bool]] = field(default_factory=dict)
    done: Counter[str] = field(default_factory=Counter)

    @property
    def confirmed(self) -> set[Key]:
        """The executions whose message was confirmed."""
        return {key for key, asked in self.asked.items() if asked.confirmed}


class Load:
    """Sends executions at a rate, until it is stopped.

    Args:
        rate: a second.
        webhooks: where ends are pushed to.
    """

    def __init__(self, deployment: TenantsDeployment, ledger: Ledger, seed: int, rate: float, webhooks: str) -> None:
        self._deployment = deployment
        self._ledger = ledger
        self._random = Random(seed)
        self._rate = rate
        self._webhooks = webhooks
        self._publishers = {
            tenant: AmqpPublisher(deployment.url_of(tenant), timeout=100, patient=True) for tenant in TENANTS
        }
        self._sent: list[tuple[str, ExecuteProgram, bytes]] = []
        self._sorts: list[tuple[Callable[[str], None], int]] = [
            (self._plain, 60),
            (self._twice, 8),
            (self._failing_once, 8),
            (self._failing, 5),
            (self._long, 3),
            (self._scheduled, 5),
            (self._with_one_key, 4),
            (self._with_one_id, 3),
            (self._batch, 2),
            (self._overtaken, 3),
            (self._conflicting, 2),
            (self._of_no_program, 1),
        ]

    def run(self, stop: Event) -> None:
        """Send until `stop` is set. What was to be sent while it waited is not made up for."""
        sorts, weights = zip(*self._sorts, strict=True)
        due = time.monotonic()
        while not stop.wait(max(0.0, due - time.monotonic())):
            due = max(due, time.monotonic() - 1) + self._random.expovariate(self._rate)
            [send] = self._random.choices(sorts, weights)
            send(self._random.choice(TENANTS))
            self._ledger.done[send.__name__.strip("_")] += 1

    def poison(self, number: int) -> None:
        """Messages that no worker may take."""
        for _ in range(number):
            tenant = self._random.choice(TENANTS)
            program_id = self._random.choice(self._deployment.programs[tenant])
            messages = bad_messages(str(program_id))
            # It may be another tenant's, so its body is not kept, by which they are found.
            del messages["an event"]
            body, code = self._random.choice(list(messages.values()))
            if len(body) < 10_000:
                self._refused(tenant, body, code)

    def end_process(self) -> None:
        """An execution that ends whatever process runs it."""
        self._execute(self._random.choice(TENANTS), Asked(UUID(int=0), may="attempts_exhausted"), kill=True)

    def close(self, seconds: float) -> None:
        """Wait for what is not confirmed yet."""
        for publisher in self._publishers.values():
            publisher.close(seconds)

    # Sorts of executions

    def _plain(self, tenant: str) -> None:
        self._execute(tenant, sleep=self._random.uniform(0, 0.3))

    def _long(self, tenant: str) -> None:
        self._execute(tenant, sleep=self._random.uniform(2, 4))

    def _failing_once(self, tenant: str) -> None:
        self._execute(tenant, Asked(UUID(int=0)), fail="transient", times=1)

    def _failing(self, tenant: str) -> None:
        self._execute(tenant, Asked(UUID(int=0), may=PERMANENT), fail=PERMANENT)

    def _scheduled(self, tenant: str) -> None:
        later = datetime.now(UTC) + timedelta(seconds=self._random.uniform(0, 3))
        self._execute(tenant, options=ExecutionOptions(not_before=later))

    def _with_one_key(self, tenant: str) -> None:
        key, program_id = str(uuid7()), self._random.choice(self._deployment.programs[tenant])
        for _ in range(2):
            self._execute(tenant, Asked(program_id, key=key))

    def _with_one_id(self, _tenant: str) -> None:
        execution_id = uuid7()
        for tenant in TENANTS:
            self._execute(tenant, execution_id=execution_id)

    def _twice(self, _tenant: str) -> None:
        if self._sent:
            tenant, command, body = self._random.choice(self._sent[-200:])
            self._publish(tenant, command.type, body)

    def _batch(self, tenant: str) -> None:
        name = str(uuid7())
        keys = [self._execute(tenant, metadata={BATCH: name}, sleep=self._random.uniform(0, 0.5)) for _ in range(5)]
        self._ledger.batches[tenant, name] = keys

    def _overtaken(self, tenant: str) -> None:
        """Its cancel comes before it, or at the same time."""
        execution_id = uuid7()
        cancel = wrap(CancelExecution(execution_id=execution_id), source="/load")
        self._publish(tenant, CancelExecution.type, cancel.encode())
        self._execute(tenant, Asked(UUID(int=0), cancelled=True), execution_id=execution_id, sleep=0.1)

    def _conflicting(self, _tenant: str) -> None:
        """The id of one that is there, with other inputs."""
        if self._sent:
            tenant, command, _ = self._random.choice(self._sent[-200:])
            query = "SELECT count(*) FROM executions WHERE id = :id AND tenant = :tenant"
            try:
                there = self._deployment.scalar(query, id=command.execution_id, tenant=tenant)
            except Exception:  # noqa: BLE001  the database is away: that is what this is about
                return
            if there:
                other = command.model_copy(update={"inputs": {"size": self._random.randrange(100, 10**6)}})
                self._refused(tenant, wrap(other, source="/load").encode(), "conflict")

    def _of_no_program(self, tenant: str) -> None:
        self._refused(tenant, json.dumps(envelope(str(uuid7()))).encode(), "not_found")

    def _execute(
        self,
        tenant: str,
        asked: Asked | None = None,
        *,
        execution_id: UUID | None = None,
        options: ExecutionOptions | None = None,
        metadata: Metadata | None = None,
        **order: Any,
    ) -> Key:
        asked = asked or Asked(UUID(int=0))
        if not asked.program_id.int:
            asked.program_id = self._random.choice(self._deployment.programs[tenant])
        asked.webhook = asked.key is None and self._random.random() < 0.2
        command = ExecuteProgram(
            execution_id=execution_id or uuid7(),
            program_id=asked.program_id,
            inputs=order,
            options=options or ExecutionOptions(lane=None if asked.key else self._random.choice(LANES)),
            metadata=metadata,
            idempotency_key=asked.key,
            callback=Callback(url=self._webhooks, secret=SECRET_NAME) if asked.webhook else None,
        )
        body = wrap(command, source="/load").encode()
        key = Key(tenant, command.execution_id)
        self._ledger.asked[key] = asked
        if not order.get("kill"):
            self._sent.append((tenant, command, body))
        self._publish(tenant, command.type, body).add_done_callback(lambda done: self._note(asked, done))
        return key

    def _note(self, asked: Asked, done: Future[None]) -> None:
        asked.confirmed |= done.exception() is None

    def _refused(self, tenant: str, body: bytes, code: str) -> None:
        key = (tenant, hashlib.md5(body, usedforsecurity=False).hexdigest())
        self._ledger.refused.setdefault(key, (code, False))

        def note(done: Future[None]) -> None:
            if done.exception() is None:
                self._ledger.refused[key] = (code, True)

        self._publish(tenant, ExecuteProgram.type, body).add_done_callback(note)

    def _publish(self, tenant: str, type_: str, body: bytes) -> Future[None]:
        return self._publishers[tenant].submit(Publication(body, exchange=COMMANDS_EXCHANGE, routing_key=type_))


class Hands:
    """People at work: they cancel what was asked for a moment ago, replay what has failed, and look."""

    def __init__(self, deployment: TenantsDeployment, ledger: Ledger, seed: int) -> None:
        self._deployment = deployment
        self._ledger = ledger
        self._random = Random(seed)

    def run(self, stop: Event) -> None:
        """Work until `stop` is set; what is refused, or has no answer, is none of their business."""
        clients = {
            tenant: RemoteClient(self._deployment.url_of(tenant), source="/hands", timeout=3, validate=False)
            for tenant in TENANTS
        }
        do = (
            *(self._cancel, self._cancel, self._cancel, self._cancel_batch, self._cancel_batch),
            *(self._look, self._look, self._replay, self._discard),
        )
        while not stop.wait(self._random.uniform(0.1, 0.7)):
            action, tenant = self._random.choice(do), self._random.choice(TENANTS)
            try:
                action(clients[tenant], tenant)
                outcome = "done"
            except DspexError as error:
                outcome = error.code
            self._ledger.done[f"{action.__name__.strip('_')}: {outcome}"] += 1
        for client in clients.values():
            client.close()

    def _cancel(self, client: RemoteClient, tenant: str) -> None:
        mine = [key for key in list(self._ledger.asked)[-60:] if key.tenant == tenant]
        if mine:
            key = self._random.choice(mine)
            self._ledger.asked[key].cancelled = True
            client.cancel_execution(key.id)

    def _cancel_batch(self, client: RemoteClient, tenant: str) -> None:
        names = [name for owner, name in list(self._ledger.batches)[-6:] if owner == tenant]
        if names:
            name = self._random.choice(names)
            for key in self._ledger.batches[tenant, name]:
                self._ledger.asked[key].cancelled = True
            client.cancel_executions(metadata={BATCH: name})

    def _replay(self, client: RemoteClient, tenant: str) -> None:
        client.replay_executions(program_id=self._random.choice(self._deployment.programs[tenant]), since=_lately())

    def _discard(self, client: RemoteClient, tenant: str) -> None:
        client.discard_executions(program_id=self._random.choice(self._deployment.programs[tenant]), since=_lately())

    def _look(self, client: RemoteClient, tenant: str) -> None:
        client.list_executions(limit=20)
        client.get_program_statistics(self._random.choice(self._deployment.programs[tenant]))


def _lately() -> datetime:
    """Else each replay would run all again that has ever failed."""
    return datetime.now(UTC) - timedelta(seconds=20)
