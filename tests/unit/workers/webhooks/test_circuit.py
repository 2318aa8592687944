"""Circuits: a dead endpoint costs little, a living one is not held up by it."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from workers.webhooks import circuit
from workers.webhooks.attempt import Attempt, Outcome
from workers.webhooks.circuit import Busy, Circuits, Permit

DELIVERED = Attempt(Outcome.DELIVERED, 1.0)
FAILED = Attempt(Outcome.FAILED, 1.0)
REFUSED = Attempt(Outcome.REFUSED, 1.0)


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def circuits(clock: Clock) -> Circuits:
    return Circuits(concurrency=4, suspects=3, failures=3, pause=10.0, max_pause=35.0, clock=clock)


def allowed(circuits: Circuits, key: str = "a") -> Permit:
    permit = circuits.enter(key)
    assert isinstance(permit, Permit)
    return permit


def busy(circuits: Circuits, key: str = "a") -> Busy:
    answer = circuits.enter(key)
    assert isinstance(answer, Busy)
    return answer


def attempt(circuits: Circuits, outcome: Attempt | None, key: str = "a") -> None:
    with allowed(circuits, key) as permit:
        if outcome is not None:
            permit.settle(outcome)


def fail(circuits: Circuits, times: int, key: str = "a") -> None:
    for _ in range(times):
        attempt(circuits, FAILED, key)


def test_an_endpoint_has_so_many_attempts_at_a_time(circuits: Circuits) -> None:
    permits = [allowed(circuits) for _ in range(4)]
    assert busy(circuits).retry_in > 0
    allowed(circuits, "b")
    with permits[0]:
        pass
    allowed(circuits)
    busy(circuits)


def test_failures_in_a_row_open_the_circuit_of_one_endpoint(circuits: Circuits, clock: Clock) -> None:
    fail(circuits, 3)
    assert busy(circuits).retry_in == 10
    clock.now += 4
    assert busy(circuits).retry_in == 6
    allowed(circuits, "b")


def test_a_success_between_starts_the_count_again(circuits: Circuits) -> None:
    fail(circuits, 2)
    attempt(circuits, DELIVERED)
    fail(circuits, 2)
    allowed(circuits)


@pytest.mark.parametrize("outcome", [REFUSED, None])
def test_what_was_not_sent_says_nothing(circuits: Circuits, outcome: Attempt | None) -> None:
    fail(circuits, 2)
    for _ in range(5):
        attempt(circuits, outcome)
    fail(circuits, 1)
    busy(circuits)


def test_after_the_pause_one_attempt_finds_out(circuits: Circuits, clock: Clock) -> None:
    fail(circuits, 3)
    clock.now += 10
    probe = allowed(circuits)
    busy(circuits)
    with probe:
        probe.settle(DELIVERED)
    permits = [allowed(circuits) for _ in range(4)]
    assert len(permits) == 4


def test_each_pause_is_twice_the_last_up_to_a_bound(circuits: Circuits, clock: Clock) -> None:
    fail(circuits, 3)
    for pause in (10, 20, 35, 35):
        assert busy(circuits).retry_in == pause
        clock.now += pause
        fail(circuits, 1)
    clock.now += 35
    attempt(circuits, DELIVERED)
    fail(circuits, 3)
    assert busy(circuits).retry_in == 10


def test_a_probe_that_is_given_up_leaves_the_next_one_its_turn(circuits: Circuits, clock: Clock) -> None:
    fail(circuits, 3)
    clock.now += 10
    with pytest.raises(KeyError), allowed(circuits):
        raise KeyError
    allowed(circuits)


def test_failures_that_were_on_their_way_open_it_once(circuits: Circuits, clock: Clock) -> None:
    permits = [allowed(circuits) for _ in range(4)]
    for permit in permits:
        with permit:
            permit.settle(FAILED)
    assert busy(circuits).retry_in == 10


def test_who_asks_to_wait_is_left_alone_within_bounds(circuits: Circuits, clock: Clock) -> None:
    attempt(circuits, Attempt(Outcome.THROTTLED, 1.0, retry_after=20.0))
    assert busy(circuits).retry_in == 20
    attempt(circuits, Attempt(Outcome.THROTTLED, 1.0, retry_after=9999.0), "b")
    assert busy(circuits, "b").retry_in == 35
    clock.now += 20
    attempt(circuits, DELIVERED)
    assert [type(circuits.enter("a")) for _ in range(4)] == [Permit] * 4


def test_endpoints_that_fail_share_a_part_of_the_places(circuits: Circuits) -> None:
    for key in "abcd":
        fail(circuits, 1, key)
    held = [allowed(circuits, key) for key in "abc"]
    assert "other endpoints" in busy(circuits, "d").reason
    allowed(circuits, "healthy")
    with held[0]:
        held[0].settle(FAILED)
    allowed(circuits, "d")


def test_what_is_well_is_forgotten_and_what_is_not_is_bounded(
    circuits: Circuits, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(circuit, "MAX_ENDPOINTS", 10)
    for number in range(50):
        attempt(circuits, DELIVERED, f"well-{number}")
    assert not circuits._endpoints
    for number in range(50):
        fail(circuits, 1, f"ill-{number}")
    assert len(circuits._endpoints) <= 11
    assert "ill-49" in circuits._endpoints


def test_many_threads_never_exceed_the_limit() -> None:
    circuits = Circuits(concurrency=3, suspects=2)
    lock = threading.Lock()
    now, most, made = 0, 0, 0

    def work(number: int) -> None:
        nonlocal now, most, made
        permit = circuits.enter("a")
        if isinstance(permit, Busy):
            return
        with permit:
            with lock:
                now += 1
                made += 1
                most = max(most, now)
            permit.settle(DELIVERED)
            with lock:
                now -= 1

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(work, range(2000)))
    assert made > 0
    assert 1 <= most <= 3
    assert not circuits._endpoints
    assert circuits._suspects_in_flight == 0
