"""Dramatiq with SQLAlchemy's ORM and its optimistic locking (`version_id_col`), written as the documentation shows it.

https://docs.sqlalchemy.org/en/21/orm/versioning.html: a stale row is tried again with what the row is now.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any
from uuid import UUID

from sqlalchemy import Engine, Integer, create_engine
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column
from sqlalchemy.orm.exc import StaleDataError

from benchmarks.peers import tables, with_dramatiq
from benchmarks.peers.job import CONCURRENCY, DATABASE_URL, LATENCY_SECONDS, OUTPUTS, RESULTS, Ask, Job


class Base(DeclarativeBase):
    """The tables of `benchmarks.peers.tables`."""


class Program(Base):
    """What is run."""

    __tablename__ = "programs"

    id: Mapped[UUID] = mapped_column(primary_key=True)
    name: Mapped[str]
    configuration: Mapped[dict[str, Any]] = mapped_column(JSONB)


class Execution(Base):
    """One run."""

    __tablename__ = "executions"

    id: Mapped[UUID] = mapped_column(primary_key=True)
    program_id: Mapped[UUID]
    status: Mapped[str]
    attempt: Mapped[int]
    inputs: Mapped[dict[str, Any]] = mapped_column(JSONB)
    outputs: Mapped[dict[str, Any] | None] = mapped_column(JSONB)
    started_at: Mapped[datetime]
    finished_at: Mapped[datetime | None]
    lock_version = mapped_column(Integer, nullable=False)

    __mapper_args__ = {"version_id_col": lock_version}  # noqa: RUF012  as the documentation writes it


class Counter(Base):
    """How many runs of a program have completed."""

    __tablename__ = "program_counters"

    program_id: Mapped[UUID] = mapped_column(primary_key=True)
    completed: Mapped[int]
    lock_version = mapped_column(Integer, nullable=False)

    __mapper_args__ = {"version_id_col": lock_version}  # noqa: RUF012


@lru_cache(maxsize=1)
def _engine() -> Engine:
    url = DATABASE_URL.replace("postgresql://", "postgresql+psycopg://")
    return create_engine(url, pool_size=min(CONCURRENCY, 64), max_overflow=0)


def run(execution_id: str, program_id: str, inputs: dict[str, Any]) -> dict[str, Any] | None:
    """Run one job, once however often it is delivered."""
    run_id, counted_id = UUID(execution_id), UUID(program_id)
    with Session(_engine()) as session:
        if session.get(Program, counted_id) is None:
            raise LookupError(program_id)
        session.add(
            Execution(
                id=run_id,
                program_id=counted_id,
                status="running",
                attempt=1,
                inputs=inputs,
                started_at=datetime.now(UTC),
            )
        )
        try:
            session.commit()
        except IntegrityError:
            session.rollback()  # it has been delivered before
    if LATENCY_SECONDS:
        time.sleep(LATENCY_SECONDS)
    while not _finish(run_id, counted_id):
        pass
    return OUTPUTS if RESULTS else None


def _finish(run_id: UUID, counted_id: UUID) -> bool:
    """End the execution and count it. False: another worker has changed a row meanwhile."""
    with Session(_engine()) as session:
        execution, counter = session.get_one(Execution, run_id), session.get_one(Counter, counted_id)
        if execution.status == "completed":
            return True
        execution.status = "completed"
        execution.outputs = OUTPUTS
        execution.finished_at = datetime.now(UTC)
        counter.completed += 1
        try:
            session.commit()
        except StaleDataError:
            return False
        return True


actor = with_dramatiq.declare(run, results=RESULTS)
prepare = tables.create


def publish(jobs: Iterable[Job]) -> None:
    """See `benchmarks.peers`."""
    with_dramatiq.publish(actor, jobs)


def asking() -> AbstractContextManager[Ask]:
    """See `benchmarks.peers`."""
    return with_dramatiq.asking(actor)
