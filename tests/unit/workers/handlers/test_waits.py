"""What waits for another command takes no more than its tenant's share of the room."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any, cast

import pytest

from dspex.lru import Lru
from workers.brokers.delivery import Delivery
from workers.brokers.settlement import PutAside
from workers.handlers import waits
from workers.handlers.waits import wait_for_dependency

INITIALIZE = "dspex.program.initialize.v1"


@dataclass
class Waiting:
    """A message, as far as it is looked at."""

    tenant: str | None = None
    tries: int = 1
    first_tried: float = field(default_factory=time.monotonic)


@pytest.fixture
def aside(monkeypatch: pytest.MonkeyPatch) -> list[Delivery]:
    """What is put aside. Each message that is handled comes on top, where it may wait."""
    found: list[Any] = []
    monkeypatch.setattr(waits, "aside", lambda: found)
    monkeypatch.setattr(waits._InVain, "_counts", Lru(1_000))
    # Another test of this process may have had no database a moment ago.
    monkeypatch.setattr(waits, "_database", waits._Database())
    return cast("list[Delivery]", found)


def handle(tenant: str, aside: list[Delivery], monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether a message of a tenant waits."""
    message = cast("Delivery", Waiting())
    monkeypatch.setattr(waits, "handled", lambda: message)
    try:
        wait_for_dependency(INITIALIZE, tenant, most=8, share=4)
    except PutAside:
        aside.append(message)
        return True
    return False


def in_vain(tenant: str, count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Messages of a tenant have waited as long as one may."""
    late = cast("Delivery", Waiting(first_tried=time.monotonic() - waits.DEPENDENCY_SECONDS))
    monkeypatch.setattr(waits, "handled", lambda: late)
    for _ in range(count):
        wait_for_dependency(INITIALIZE, tenant, most=8, share=4)


def test_a_batch_waits_whole_for_the_one_that_all_refer_to(
    aside: list[Delivery], monkeypatch: pytest.MonkeyPatch
) -> None:
    in_vain("acme", 1, monkeypatch)  # a mistake is no flood
    assert all(handle("acme", aside, monkeypatch) for _ in range(20))


def test_what_was_in_vain_is_forgotten(aside: list[Delivery], monkeypatch: pytest.MonkeyPatch) -> None:
    in_vain("acme", 4, monkeypatch)
    assert [handle("acme", aside, monkeypatch) for _ in range(5)] == [True] * 4 + [False]
    monkeypatch.setattr(waits._InVain, "SECONDS", 0.0)
    assert handle("acme", aside, monkeypatch)


def test_a_flood_of_one_tenant_leaves_room_for_another(aside: list[Delivery], monkeypatch: pytest.MonkeyPatch) -> None:
    in_vain("beta", 4, monkeypatch)
    in_vain("acme", 4, monkeypatch)
    assert [handle("beta", aside, monkeypatch) for _ in range(6)] == [True] * 4 + [False] * 2
    assert [handle("acme", aside, monkeypatch) for _ in range(6)] == [True] * 4 + [False] * 2
    assert [message.tenant for message in aside] == ["beta"] * 4 + ["acme"] * 4


def test_all_of_the_room_is_bounded_too(aside: list[Delivery], monkeypatch: pytest.MonkeyPatch) -> None:
    in_vain("beta", 8, monkeypatch)
    assert [handle(f"t{number}", aside, monkeypatch) for number in range(10)] == [True] * 8 + [False] * 2
