"""The outbox of a service on SQLAlchemy's asyncio, on SQLite and on PostgreSQL."""

from __future__ import annotations

import asyncio
import threading

import pytest
from sqlalchemy import make_url
from sqlalchemy.ext.asyncio import AsyncSession, async_scoped_session, async_sessionmaker, create_async_engine

from dspex.outbox import OutboxRelay
from tests.contract.outbox_service import KeepingPublisher, Service, command, service
from tests.contract.test_handles import run


@pytest.fixture
def shop(database_url: str) -> Service:
    with service(database_url) as shop:
        return shop


def async_url(database_url: str) -> str:
    url = make_url(database_url)
    driver = "sqlite+aiosqlite" if url.drivername == "sqlite" else url.drivername
    return url.set(drivername=driver).render_as_string(hide_password=False)


async def no_rows(shop: Service) -> None:
    while await asyncio.to_thread(shop.left):
        await asyncio.sleep(0.02)


@pytest.mark.filterwarnings("error")
def test_the_relay_publishes_on_the_loop_of_the_service(shop: Service, database_url: str) -> None:
    publisher = KeepingPublisher()

    async def main() -> list[str]:
        engine = create_async_engine(async_url(database_url))
        added: list[str] = []
        sessions = async_sessionmaker(engine, expire_on_commit=False)
        async with OutboxRelay(shop.outbox, engine, publisher, interval=600):
            async with AsyncSession(engine) as session, session.begin():
                await session.execute(shop.order("1"))
                added.append(await shop.outbox.add_async(session, command("one")))
            await no_rows(shop)  # the commit wakes the relay, long before it would look
            scoped = async_scoped_session(sessions, scopefunc=asyncio.current_task)
            added.append(
                await shop.outbox.add_async(scoped, command("two"), traceparent=f"00-{'a' * 32}-{'b' * 16}-01")
            )
            await scoped.commit()
            await scoped.remove()
            await no_rows(shop)
            async with engine.begin() as connection:
                added.append(await shop.outbox.add_async(connection, command("three")))
            shop.outbox.wake()
            await no_rows(shop)
            async with AsyncSession(engine) as session:
                await shop.outbox.add_async(session, command("never"))
                await session.rollback()
        await engine.dispose()
        return added

    assert run(main()) == publisher.ids
    assert publisher.taken[1].envelope.traceparent == f"00-{'a' * 32}-{'b' * 16}-01"
    assert shop.left() == 0
    assert "dspex-outbox" not in {thread.name for thread in threading.enumerate()}


def test_run_once_is_for_a_thread_beside_the_loop(shop: Service, database_url: str) -> None:
    publisher = KeepingPublisher()
    shop.add(250)

    async def main() -> int:
        engine = create_async_engine(async_url(database_url))
        relay = OutboxRelay(shop.outbox, engine, publisher)
        with pytest.raises(RuntimeError, match="in the event loop of its AsyncEngine"):
            await asyncio.to_thread(relay.run_once)
        async with OutboxRelay(shop.outbox, engine, publisher, interval=600) as relay:
            await asyncio.to_thread(relay.run_once)
            await no_rows(shop)
        await engine.dispose()
        return len(publisher.taken)

    assert run(main()) >= 250
    with pytest.raises(RuntimeError, match="no running event loop"):
        OutboxRelay(shop.outbox, create_async_engine(async_url(database_url)), publisher).start()
