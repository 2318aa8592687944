"""A cancel or a query that overtakes the `execute` it is about, through the interface: in process and remote."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import select

from dspex import Configuration, DspexError, ExecutionStatus, uuid7
from dspex.client.interface import Interface
from dspex.client.remote import RemoteClient
from dspex.contract.results import ExecutionView
from store.tables import early_cancels
from tests.conftest import new_database
from tests.contract.interface import code_of, in_background, ready, working
from tests.sizes import sized
from tests.virtual_hosts import RabbitMQWithHosts
from tests.waiting import wait_until
from workers.application.wiring import Application
from workers.local import LocalClient
from workers.settings import Settings

INPUTS = {"question": "?"}


def test_a_cancel_waits_for_its_execution_and_a_query_too(dspex: Interface) -> None:
    program = ready(dspex, configuration=Configuration(parameters={"latency_ms": 100}))
    cancelled, asked = uuid7(), uuid7()
    cancels, answers = in_background(lambda: dspex.cancel_execution(cancelled))
    queries, found = in_background(lambda: dspex.get_execution(asked))
    for execution_id in (cancelled, asked):
        dspex.submit_program(program.program_id, INPUTS, execution_id=execution_id)
    cancels.join(20)
    queries.join(20)
    assert answers[0].cancel_requested or answers[0].status == ExecutionStatus.CANCELLED
    assert dspex.handle(cancelled).execution(timeout=20).status == ExecutionStatus.CANCELLED
    assert found[0].execution_id == asked


def test_what_never_comes_is_not_found_and_nothing_stays(embedded_settings: Settings) -> None:
    """And what comes later is not cancelled by it."""
    with working(embedded_settings) as app, LocalClient(app) as dspex:
        program, unknown = ready(dspex), uuid7()
        assert code_of(lambda: dspex.cancel_execution(unknown)) == "not_found"
        assert left(app) == []
        assert dspex.execute_program(program.program_id, INPUTS, execution_id=unknown).status == "completed"


def left(app: Application) -> list[UUID]:
    with app.engine.connect() as connection:
        return list(connection.execute(select(early_cancels.c.execution_id)).scalars())


@pytest.fixture
def embedded_settings(tmp_path: Path) -> Settings:
    return Settings(database_url=f"sqlite:///{tmp_path}/dspex.db", broker_url="memory://", log_level="WARNING")


@pytest.fixture
def server_settings(postgres_url: str, shared_rabbitmq: RabbitMQWithHosts) -> Iterator[Settings]:
    with new_database(postgres_url) as url:
        yield Settings(
            database_url=url, broker_url=shared_rabbitmq.at_another_host().url, threads=8, log_level="WARNING"
        )


class Outcomes:
    """What two threads are told, who submit and who cancel."""

    def __init__(self, number: int, seed: int) -> None:
        self.ids = [uuid7() for _ in range(number)]
        self.told: dict[UUID, ExecutionView | str] = {}
        self._random = random.Random(seed)

    def race(self, submitting: Interface, cancelling: Interface, program_id: UUID) -> None:
        """Submit and cancel all of them, in orders that differ a little."""
        submits = self._jittered(lambda id_: submitting.start_program(program_id, INPUTS, execution_id=id_))
        cancels = self._jittered(lambda id_: self._cancel(cancelling, id_), threads=8)
        for thread in (*submits, *cancels):
            thread.start()
        for thread in (*submits, *cancels):
            thread.join(300)

    def _cancel(self, client: Interface, execution_id: UUID) -> None:
        try:
            self.told[execution_id] = client.cancel_execution(execution_id)
        except DspexError as error:
            self.told[execution_id] = error.code

    def _jittered(self, call: Any, threads: int = 1) -> list[threading.Thread]:
        near = sorted(self.ids, key=lambda id_: self.ids.index(id_) + self._random.uniform(0, 30))

        def work(number: int) -> None:
            for id_ in near[number::threads]:
                call(id_)

        return [threading.Thread(target=work, args=(number,), daemon=True) for number in range(threads)]


def test_racing_submits_and_cancels_have_one_end_each_as_told(
    server_settings: Settings,
) -> None:
    outcomes = Outcomes(sized(100, 10_000), seed=18)
    with (
        working(server_settings) as app,
        working(server_settings),
        RemoteClient(server_settings.broker_url, source="/a", timeout=60, validate=False) as submitting,
        RemoteClient(server_settings.broker_url, source="/b", timeout=60) as cancelling,
    ):
        program = ready(submitting)
        outcomes.race(submitting, cancelling, program.program_id)
        assert set(outcomes.told) == set(outcomes.ids)
        views = {id_: submitting.handle(id_).execution(timeout=60) for id_ in outcomes.ids}
        for id_, told in outcomes.told.items():
            end = views[id_]
            if isinstance(told, str):
                # It had ended already; nothing that was submitted is not found.
                assert (told, end.status) == ("illegal_transition", ExecutionStatus.COMPLETED)
            elif told.status == ExecutionStatus.CANCELLED:
                assert end.status == ExecutionStatus.CANCELLED
                assert end.usage.calls == 0
            else:
                assert told.cancel_requested
        statistics = submitting.get_program_statistics(program.program_id)
        assert statistics.total == len(outcomes.ids)
        assert statistics.cancelled == sum(view.status == ExecutionStatus.CANCELLED for view in views.values())
        wait_until(lambda: left(app) == [], "no early cancel stays")
