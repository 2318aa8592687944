"""What of the client needs no broker."""

from __future__ import annotations

import inspect
import subprocess
import sys
from uuid import uuid4

import pytest

from deploy.processes import free_port
from dspex.aio import AsyncClient, AsyncHandle
from dspex.client.handles import Handle
from dspex.client.interface import Interface
from dspex.client.port import Port
from dspex.client.remote import RemoteClient
from dspex.errors import BrokerUnavailable, SettingsError


def public(cls: type) -> set[str]:
    return {name for name, _ in inspect.getmembers(cls) if not name.startswith("_")}


def test_whoever_imports_it_loads_no_amqp_and_no_redis() -> None:
    code = """
import sys
import dspex.client
print([name for name in ("pika", "redis", "asyncio.base_events") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["[]"]


def test_every_verb_is_there_for_asyncio() -> None:
    assert public(Interface) - public(Port) - public(AsyncClient) == set()
    assert public(Handle) - {"add_done_callback", "pending"} - public(AsyncHandle) == set()
    for name in public(Interface) - public(Port):
        verb = getattr(AsyncClient, name)
        assert inspect.iscoroutinefunction(verb) or inspect.isasyncgenfunction(verb), name
        assert verb.__doc__, name


def test_without_a_broker_it_says_so_and_what_is_closed_is_closed() -> None:
    client = RemoteClient(f"amqp://guest:sesame@127.0.0.1:{free_port()}/", source="/tests", timeout=0.2)
    with pytest.raises(BrokerUnavailable, match="cannot be reached") as caught:
        client.submit_program(uuid4(), {"question": "?"})
    assert "sesame" not in str(caught.value)
    handle = client.handle(uuid4())
    client.close()
    client.close()
    with pytest.raises(BrokerUnavailable, match="closed; the execution goes on"):
        handle.result(timeout=30)
    with pytest.raises(BrokerUnavailable, match="closed"):
        client.get_program(uuid4())


def test_a_url_of_redis_that_cannot_be_read() -> None:
    with pytest.raises(SettingsError, match="redis://") as caught:
        RemoteClient("amqp://guest:guest@localhost/", source="/tests", redis_url="localhost:sesame")
    assert "sesame" not in str(caught.value)
