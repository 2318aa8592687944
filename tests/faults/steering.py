"""Operators at work, while faults happen: they pause, limit and let go, the fleet's and their tenants' own."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from random import Random
from typing import Any, Final
from uuid import UUID

from sqlalchemy.exc import DBAPIError

from dspex import uuid7
from dspex.client.remote import RemoteClient
from dspex.contract.options import Lane
from dspex.errors import DspexError
from store import gates
from store.gates import GateKey, Limits
from tests.faults.load import BATCH, Ledger
from tests.faults.tenants import TENANTS, TenantsDeployment

MOST: Final = 3
"""How many pauses and limits stand at a time."""
BY: Final = "faults"

LIMITS: Final[Sequence[Mapping[str, int]]] = (
    {"in_flight": 2},
    {"in_flight": 6, "least_in_flight": 1},
    {"requests_per_minute": 600},
)

Undo = Callable[[], object]
Scope = tuple[str, UUID | str | None]


class Steering:
    """Pauses and limits at random. Each stands for a second or so; at the end, all are taken back by `end`."""

    def __init__(self, deployment: TenantsDeployment, ledger: Ledger, seed: int) -> None:
        self._deployment = deployment
        self._ledger = ledger
        self._random = Random(seed)
        self._standing: list[Undo] = []
        self._clients = {
            tenant: RemoteClient(deployment.url_of(tenant), source="/operators", timeout=3, validate=False)
            for tenant in TENANTS
        }

    def run(self, stop: threading.Event) -> None:
        """Work until `stop` is set. What is refused, or has no answer, is tried again at the end."""
        do = (self._pause_of_all, self._pause, self._pause, self._limit_of_all, self._limit, self._limit)
        while not stop.wait(self._random.uniform(0.1, 0.6)):
            if len(self._standing) < MOST and self._random.random() < 0.6:
                self._try(self._random.choice(do))
            elif self._standing:
                self._let_go()

    def end(self) -> None:
        """Take everything back, also what came late: a command without an answer may be carried out after its undo."""
        with self._deployment.engine.begin() as connection:
            for gate in gates.listing(connection):
                gates.resume(connection, gate.key, by=BY)
                gates.remove_limit(connection, gate.key, by=BY)

    def close(self) -> None:
        """Close the clients."""
        for client in self._clients.values():
            client.close()

    def _let_go(self) -> None:
        undo = self._standing.pop(self._random.randrange(len(self._standing)))
        if not self._try(undo):
            self._standing.append(undo)

    def _try(self, action: Callable[[], object]) -> bool:
        try:
            action()
            outcome = "done"
        except DspexError as error:
            outcome = error.code
        except DBAPIError:
            outcome = "in vain"
        name = getattr(action, "__name__", "let go").strip("_<>").replace("lambda", "let go")
        self._ledger.done[f"{name}: {outcome}"] += 1
        return outcome == "done"

    # By whoever has the database

    def _pause_of_all(self) -> None:
        lane, tenant = self._random.choice(list(Lane)), self._random.choice(TENANTS)
        key = self._random.choice([GateKey("everything"), GateKey("lane", lane), GateKey("tenant", tenant)])
        self._standing.append(lambda: self._by_hand(gates.resume, key))
        self._by_hand(gates.pause, key)

    def _limit_of_all(self) -> None:
        key = GateKey("tenant", self._random.choice(TENANTS))
        self._standing.append(lambda: self._by_hand(gates.remove_limit, key))
        self._by_hand(gates.set_limit, key, Limits(in_flight=self._random.randint(2, 8)))

    def _by_hand(self, what: Callable[..., object], *given: Any) -> None:
        with self._deployment.engine.begin() as connection:
            what(connection, *given, by=BY)

    # By a tenant

    def _pause(self) -> None:
        client, scope = self._scope()
        self._standing.append(lambda: client.resume(*scope))
        client.pause(*scope, reason="a fault")

    def _limit(self) -> None:
        client, scope = self._scope()
        limits = self._random.choice(
            [{"in_flight": 2}, {"in_flight": 6, "least_in_flight": 1}, {"requests_per_minute": 600}]
        )
        self._standing.append(lambda: client.remove_limit(*scope))
        client.set_limit(*scope, limits=limits)

    def _scope(self) -> tuple[RemoteClient, Scope]:
        tenant = self._random.choice(TENANTS)
        batches = [name for owner, name in list(self._ledger.batches)[-5:] if owner == tenant]
        label = f"{BATCH}={self._random.choice(batches or [str(uuid7())])}"
        scopes = [
            ("tenant", None),
            ("program", self._random.choice(self._deployment.programs[tenant])),
            ("label", label),
        ]
        return self._clients[tenant], self._random.choice(scopes)
