"""Limits by a setting."""

from __future__ import annotations

from pathlib import Path

import pytest

from dspex.errors import SettingsError
from store import gates
from store.database.engine import make_engine
from store.gates import GateKey, Limits
from tests.waiting import wait_until
from workers.application.gates import read_limits
from workers.local import embedded
from workers.settings import Settings


def test_of_lms_and_tenants() -> None:
    given = {
        "lm:openai/gpt-4o:latest": {"in_flight": 40, "least_in_flight": 4},
        "tenant:acme": {"tokens_per_minute": 9},
    }
    assert read_limits(given) == {
        GateKey("lm", "openai/gpt-4o:latest"): Limits(in_flight=40, least_in_flight=4),
        GateKey("tenant", "acme"): Limits(tokens_per_minute=9),
    }


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ({"fast": {"in_flight": 1}}, "DSPEX_LIMITS: 'fast' must be lm:NAME or tenant:NAME"),
        ({"lm:": {"in_flight": 1}}, "DSPEX_LIMITS: 'lm:' must be lm:NAME or tenant:NAME"),
        ({"lane:bulk": {"in_flight": 1}}, "DSPEX_LIMITS: 'lane:bulk' must be lm:NAME or tenant:NAME"),
        ({"lm:fast": {"inflight": 1}}, "DSPEX_LIMITS: 'lm:fast': 'inflight' is not one of in_flight, "),
        ({"lm:fast": {"in_flight": 0}}, "DSPEX_LIMITS: 'lm:fast': limits.in_flight: must be at least 1"),
        ({"lm:fast": {}}, "DSPEX_LIMITS: 'lm:fast': limits: give one of in_flight, "),
    ],
)
def test_a_wrong_one_is_named(given: dict[str, dict[str, int]], problem: str) -> None:
    with pytest.raises(SettingsError, match=problem):
        read_limits(given)


def test_they_are_set_at_the_start_of_a_worker(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'dspex.db'}"
    settings = Settings(database_url=url, broker_url="memory://", limits={"lm:fast": {"in_flight": 3}})
    engine = make_engine(url)

    def limited() -> list[tuple[GateKey, Limits]]:
        with engine.connect() as connection:
            return [(gate.key, gate.limits) for gate in gates.listing(connection)]

    with embedded(settings):
        wait_until(lambda: limited() == [(GateKey("lm", "fast"), Limits(in_flight=3))], "it is limited")
    engine.dispose()
