"""Whatever becomes of what waits: the number that is counted is the number of rows."""

from __future__ import annotations

import random
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from sqlalchemy import Connection, func, select

from dspex import ExecutionOptions, Usage
from dspex.contract.options import Lane
from dspex.errors import DspexError
from store import executions
from store.executions import Carried, Claimed, Request, Retry
from store.executions.choosing import choose, wake
from store.queues import counts, figures
from store.queues.turns import Turns
from store.tables import executions as executions_table
from tests.contract.store.rows import ALICE, BOB, ERROR, completed, expire, failed, ready_program, request


class Moves:
    """Random moves of executions of two programs, and what runs."""

    def __init__(self, connection: Connection, seed: int) -> None:
        self.connection, self.random, self.turns = connection, random.Random(seed), Turns()
        self.programs = [ready_program(connection) for _ in range(2)]
        self.all: list[Request] = []
        self.running: list[tuple[Request, Claimed]] = []

    def accept(self) -> None:
        later = datetime.now(UTC) + timedelta(hours=1)
        asked = [
            replace(
                request(self.random.choice(self.programs)),
                options=ExecutionOptions(
                    lane=self.random.choice(list(Lane)), not_before=self.random.choice([None, None, later])
                ),
            )
            for _ in range(self.random.randint(1, 5))
        ]
        again = self.random.sample(self.all, min(2, len(self.all)))
        claims = executions.claim(
            self.connection, ALICE, [*asked, *again], now=[self.random.random() < 0.3 for _ in (*asked, *again)]
        )
        self.running += [
            (one, claim) for one, claim in zip(asked, claims[: len(asked)], strict=True) if isinstance(claim, Claimed)
        ]
        self.all += asked

    def choose(self) -> None:
        found = choose(self.connection, BOB, self.random.randint(1, 6), self.turns, alone_at=99)
        self.running += [(one.request, one.claim) for one in found.chosen if isinstance(one.claim, Claimed)]

    def take(self) -> tuple[Request, Claimed] | None:
        return self.running.pop(self.random.randrange(len(self.running))) if self.running else None

    def end(self) -> None:
        if one := self.take():
            executions.finish(self.connection, 0, [self.random.choice((completed, failed))(*one)])

    def retry(self) -> None:
        if one := self.take():
            asked, claimed = one
            delay = self.random.choice([-1.0, 60.0])
            given = Retry(asked.id, claimed.lock_version, delay, claimed.attempt, ERROR, Usage(), Carried())
            executions.retry(self.connection, [given])

    def release(self) -> None:
        if one := self.take():
            for lease in (ALICE, BOB):
                executions.release(self.connection, lease, [one[0].identity])

    def lose(self) -> None:
        if one := self.take():
            expire(self.connection, one[0].id)
            executions.rescue(self.connection, 10)

    def replay(self) -> None:
        ids = [one.id for one in self.random.sample(self.all, min(5, len(self.all)))]
        executions.replay(self.connection, ids, by="ann")

    def cancel(self) -> None:
        if self.all:
            with suppress(DspexError):  # it has ended
                executions.cancel(self.connection, self.random.choice(self.all).id, by="ann")

    def wake(self) -> None:
        wake(self.connection)

    def fold(self) -> None:
        counts.fold(self.connection, self.random.choice([1, 100]))


MOVES = (Moves.accept, Moves.choose, Moves.end, Moves.retry, Moves.release, Moves.lose, Moves.replay, Moves.cancel)


def test_what_is_counted_is_what_waits(connection: Connection) -> None:
    moves, c = Moves(connection, seed=1), executions_table.c
    most = 0
    for number in range(60):
        move = moves.random.choice((*MOVES, Moves.accept, Moves.wake, Moves.fold))
        move(moves)
        waiting = select(c.lane, func.count()).where(c.status == "pending", c.run_at.is_not(None)).group_by(c.lane)
        there = {row.lane: row[1] for row in connection.execute(waiting)}
        counted = figures.lanes(connection, figures.Scope("default"))
        assert [row.waiting for row in counted] == [there.get(lane.number, 0) for lane in Lane], (number, move)
        most = max(most, sum(there.values()))
    assert most > 10
    assert counts.repair(connection, None, 100) == (None, 0)
