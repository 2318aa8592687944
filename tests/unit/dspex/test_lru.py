"""What is kept is bounded by its size."""

from __future__ import annotations

from dspex.lru import Lru


def test_over_its_size_those_used_longest_ago_are_dropped() -> None:
    kept: Lru[str, int] = Lru(10)
    kept.put("a", 1, 4)
    kept.put("b", 2, 4)
    assert kept.get("a") == 1
    kept.put("c", 3, 4)
    assert (kept.get("a"), kept.get("b"), kept.get("c")) == (1, None, 3)
    assert (len(kept), kept.size) == (2, 8)


def test_one_that_is_too_large_alone_drops_no_other() -> None:
    kept: Lru[str, int] = Lru(10)
    kept.put("a", 1, 4)
    kept.put("b", 2, 11)
    assert (kept.get("a"), kept.get("b"), kept.size) == (1, None, 4)


def test_a_key_is_there_once() -> None:
    kept: Lru[str, int] = Lru(10)
    kept.put("a", 1, 9)
    kept.put("a", 2, 3)
    assert (kept.get("a"), kept.size) == (2, 3)
    kept.put("a", 3, 11)
    assert (kept.get("a"), kept.size) == (None, 0)
