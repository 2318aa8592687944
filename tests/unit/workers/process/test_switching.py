"""How often threads take turns."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest

from workers.process.switching import switch_seldom


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(0.005)
    yield
    sys.setswitchinterval(before)


@pytest.mark.parametrize(("threads", "seconds"), [(1, 0.005), (200, 0.005), (1000, 0.025), (2000, 0.05), (4096, 0.05)])
def test_many_threads_ask_less_often(threads: int, seconds: float) -> None:
    switch_seldom(threads)
    assert sys.getswitchinterval() == pytest.approx(seconds, rel=1e-3)


def test_a_longer_interval_stays() -> None:
    sys.setswitchinterval(0.2)
    switch_seldom(1000)
    assert sys.getswitchinterval() == pytest.approx(0.2, rel=1e-3)
