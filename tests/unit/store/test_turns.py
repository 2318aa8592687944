"""Whose turn it is: shares by weight, nobody starves, and what is remembered is bounded."""

from __future__ import annotations

from collections import Counter
from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st

from store.queues import turns as module
from store.queues.keys import QueueKey
from store.queues.turns import Ask, Turns

Queues = dict[int, dict[str, int]]
"""Of each lane, each tenant, and in how many of its queues something waits."""


class Looks:
    """What waits, found by the cursors as the database finds it: at most so many tenants, and queues of each."""

    def __init__(self, waiting: Queues, most: int = 1000, weights: dict[str, int] | None = None) -> None:
        self.waiting, self.most = waiting, most
        self.clock = 0.0
        self.turns = Turns(tenants=weights, clock=lambda: self.clock)

    def find(self) -> None:
        self.turns.begin()
        for lane in (0, 1, 2):
            names = sorted(self.waiting.get(lane, {}))
            last, left = self.turns.after(lane)
            turn = [name for name in names if name > last] + [name for name in names if name <= last]
            found = turn[: self.most]
            if left and last in names:
                found = [last, *(name for name in found if name != last)]
            each = -(-self.most // max(1, len(found)))
            self.turns.found(lane, [self._of(lane, name, each) for name in found], whole=len(turn) < self.most)

    def _of(self, lane: int, tenant: str, each: int) -> tuple[str, list[QueueKey], bool]:
        keys = [QueueKey(tenant, UUID(int=number + 1), lane) for number in range(self.waiting[lane][tenant])]
        program = self.turns.within(lane, tenant).program_id
        turn = [key for key in keys if key.program_id > program] + [key for key in keys if key.program_id <= program]
        return tenant, turn[:each], len(turn) < each

    def choose(self, places: int) -> list[Ask]:
        """As `choose` does: what was found is used again, and further queues are found where it does not do."""
        asks = self.turns.share(places) if self.turns.fresh else []
        while (left := places - sum(ask.places for ask in asks)) > 0:
            self.find()
            more = self.turns.share(left)
            if not more:
                break
            asks += more
        return asks


def tenants(asks: list[Ask]) -> Counter[str]:
    found = Counter[str]()
    for ask in asks:
        found[ask.queue.tenant] += ask.places
    return found


names = st.text("abcdef", min_size=1, max_size=3)
some_queues = st.dictionaries(names, st.integers(1, 5), min_size=1, max_size=8)
sizes = st.lists(st.integers(1, 30), min_size=1, max_size=20)


@given(some_queues, sizes, st.integers(1, 12))
def test_tenants_that_wait_get_the_same_within_one(of_tenants: dict[str, int], places: list[int], most: int) -> None:
    looks, given_ = Looks({1: of_tenants}, most), Counter[str]()
    for number in places:
        asks = looks.choose(number)
        assert sum(ask.places for ask in asks) == number
        given_ += tenants(asks)
        looks.clock += 0.04
    shares = [given_[name] for name in of_tenants]
    assert max(shares) - min(shares) <= 1


@given(st.integers(1, 9), sizes)
def test_the_queues_of_a_tenant_get_the_same_within_one(queues: int, places: list[int]) -> None:
    looks, given_ = Looks({1: {"a": queues}}), Counter[UUID]()
    for number in places:
        for ask in looks.choose(number):
            given_[ask.queue.program_id] += ask.places
        looks.clock += 0.04
    shares = [given_[UUID(int=number + 1)] for number in range(queues)]
    assert max(shares) - min(shares) <= 1


@given(st.dictionaries(names, st.integers(1, 4), min_size=1, max_size=6), st.integers(1, 10), sizes)
def test_a_tenant_gets_its_weight_in_each_round(weights: dict[str, int], rounds: int, places: list[int]) -> None:
    looks, given_ = Looks({1: dict.fromkeys(weights, 2)}, weights=weights), Counter[str]()
    left = rounds * sum(weights.values())
    for number in [*places, left]:
        given_ += tenants(looks.choose(min(number, left)))
        left -= min(number, left)
        looks.clock += 0.06
    assert given_ == {name: rounds * weight for name, weight in weights.items()}


@given(st.lists(st.integers(1, 21), min_size=1, max_size=8))
def test_lanes_that_wait_get_their_weights(places: list[int]) -> None:
    looks, given_ = Looks({0: {"a": 1}, 1: {"a": 1}, 2: {"a": 1}}), Counter[int]()
    total = sum(places)
    for number in [*places, (21 - total % 21) % 21]:
        for ask in looks.choose(number) if number else ():
            given_[ask.queue.lane] += ask.places
    rounds = sum(given_.values()) // 21
    assert given_ == {0: 16 * rounds, 1: 4 * rounds, 2: rounds}


def test_a_lane_that_was_empty_has_no_claim_on_what_it_left_out() -> None:
    looks = Looks({2: {"a": 1}})
    looks.choose(1000)
    looks.waiting = {0: {"a": 1}, 2: {"a": 1}}
    looks.turns.forget()
    given_ = Counter({ask.queue.lane: ask.places for ask in looks.choose(18)})
    assert given_ == {0: 17, 2: 1}
    looks.waiting = {2: {"a": 1}}
    looks.turns.forget()
    assert sum(ask.places for ask in looks.choose(10)) == 10


def test_a_lane_that_becomes_ready_is_first() -> None:
    looks = Looks({1: {"a": 3}, 2: {"a": 3}})
    looks.choose(50)
    looks.waiting[0] = {"z": 1}
    looks.turns.forget()
    [ask] = looks.choose(1)
    assert ask.queue.lane == 0


def test_what_is_found_is_used_again_for_a_moment() -> None:
    looks = Looks({1: {"a": 1}})
    looks.choose(1)
    looks.waiting = {}
    assert [ask.places for ask in looks.choose(3)] == [3]
    looks.clock += 0.11
    assert looks.choose(3) == []


def test_a_queue_that_had_less_is_left_out() -> None:
    looks = Looks({1: {"a": 2, "b": 1}})
    first, *_ = looks.choose(3)
    looks.turns.drop(first.queue)
    assert first.queue not in {ask.queue for ask in looks.choose(12)}
    for ask in looks.choose(12):
        looks.turns.drop(ask.queue)
    assert looks.turns.share(5) == []


def test_a_notice_in_the_middle_of_a_look_takes_nothing_away() -> None:
    turns = Turns(clock=lambda: 1.0)
    turns.begin()
    for lane in (0, 1, 2):
        turns.found(lane, [("a", [QueueKey("a", UUID(int=1), lane)], True)], whole=True)
        turns.forget()
    assert not turns.fresh
    assert {ask.queue.lane for ask in turns.share(21)} == {0, 1, 2}


def test_what_is_remembered_is_bounded() -> None:
    turns = Turns()
    last = module.MOST_TENANTS + 99
    for number in range(last + 1):
        key = QueueKey(f"tenant-{number}", UUID(int=1), 1)
        turns.found(1, [(key.tenant, [key], True)], whole=True)
        turns.share(1)
    assert turns.within(1, "tenant-50").program_id == UUID(int=0)
    assert turns.within(1, f"tenant-{last}").program_id == UUID(int=1)
