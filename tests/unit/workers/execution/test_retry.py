"""Whether there is another attempt, and when."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dspex import ErrorCode
from dspex.contract.retry_policy import ExecutionPolicy
from store.executions import Carried
from workers.execution.retry import Again, Failed, decide, not_here

PASSING, REPAIRABLE, WAITING, FINAL = "tried again", "asked once more", "waited for", "final"
MEANT = {
    ErrorCode.TRANSIENT: PASSING,
    ErrorCode.TIMEOUT: PASSING,
    ErrorCode.CRASHED: PASSING,
    ErrorCode.PARSE_FAILURE: REPAIRABLE,
    ErrorCode.INVALID_OUTPUT: REPAIRABLE,
    ErrorCode.RATE_LIMITED: WAITING,
    ErrorCode.PROGRAM_NOT_READY: FINAL,
    ErrorCode.PROGRAM_ARCHIVED: FINAL,
    ErrorCode.INVALID_INPUT: FINAL,
    ErrorCode.AUTH: FINAL,
    ErrorCode.BILLING: FINAL,
    ErrorCode.CONTEXT_WINDOW: FINAL,
    ErrorCode.REFUSED: FINAL,
    ErrorCode.TRUNCATED: FINAL,
    ErrorCode.CANCELLED: FINAL,
    ErrorCode.PERMANENT: FINAL,
    ErrorCode.ATTEMPTS_EXHAUSTED: FINAL,
    ErrorCode.EXPIRED: FINAL,
    ErrorCode.LEASE_EXPIRED: FINAL,
    ErrorCode.INTERNAL: FINAL,
}
"""What follows each failure, written out: a code that moves from one list of the product to another is seen here."""

POLICIES = st.builds(
    ExecutionPolicy,
    first_delay=st.floats(0, 100),
    multiplier=st.floats(1, 10),
    max_delay=st.floats(0, 1000),
    max_wait=st.floats(0, 1000),
    repair=st.booleans(),
)


def failed(code: ErrorCode, attempt: int = 1, **changes: object) -> Failed:
    given = {"max_attempts": 3, "policy": ExecutionPolicy(), "carried": Carried()} | changes
    return Failed(code, attempt, **given)  # type: ignore[arg-type]


def meant(what: str) -> list[ErrorCode]:
    return [code for code, said in MEANT.items() if said == what]


def test_every_code_has_its_meaning_here() -> None:
    assert [code for code in ErrorCode if code not in MEANT] == []


@pytest.mark.parametrize("code", meant(FINAL))
def test_what_would_fail_again_has_failed(code: ErrorCode) -> None:
    assert decide(failed(code)) is None


@pytest.mark.parametrize("code", meant(PASSING))
def test_what_passes_is_tried_again_after_a_growing_pause(code: ErrorCode) -> None:
    pauses = [decide(failed(code, attempt, max_attempts=9)) for attempt in range(1, 9)]
    for number, again in enumerate(pauses):
        assert again is not None
        assert 2**number / 2 <= again.delay <= 2**number
        assert again.attempt == number + 1
    assert decide(failed(code, 9, max_attempts=9)) is None


def test_a_pause_has_a_bound() -> None:
    again = decide(failed(ErrorCode.TRANSIENT, 99, max_attempts=100, policy=ExecutionPolicy(max_delay=7)))
    assert again is not None
    assert 3.5 <= again.delay <= 7


def test_many_that_fail_together_do_not_come_again_together() -> None:
    delays = {decide(failed(ErrorCode.TRANSIENT)) for _ in range(50)}
    assert len(delays) > 40


@pytest.mark.parametrize("code", meant(REPAIRABLE))
def test_an_answer_that_cannot_be_used_is_asked_for_once_more(code: ErrorCode) -> None:
    again = decide(failed(code))
    assert again == Again(0.0, 1, Carried(repaired=True))
    assert decide(failed(code, 2, carried=Carried(repaired=True))) is None
    assert decide(failed(code, policy=ExecutionPolicy(repair=False))) is None
    assert decide(failed(code, max_attempts=1)) is None


def test_a_rate_limit_waits_as_long_as_it_says_and_spends_no_attempt() -> None:
    again = decide(failed(ErrorCode.RATE_LIMITED, 3, retry_after=40.0))
    assert again == Again(40.0, 2, Carried(waits=1, waited=40.0))


def test_rate_limits_together_wait_no_longer_than_the_policy_allows() -> None:
    carried, waits, policy = Carried(), 0, ExecutionPolicy(max_wait=100)
    while (again := decide(failed(ErrorCode.RATE_LIMITED, carried=carried, policy=policy))) is not None:
        carried, waits = again.carried, waits + 1
    assert carried.waited <= 100
    assert 6 <= waits <= 8
    assert decide(failed(ErrorCode.RATE_LIMITED, retry_after=101.0, policy=policy)) is None


@pytest.mark.parametrize(("asked", "waits"), [(25.0, [25, 50, 75, 100]), (30.0, [30, 60, 90]), (100.0, [100])])
def test_waits_are_summed_up_to_the_very_bound(asked: float, waits: list[float]) -> None:
    """Each alone is far within `max_wait`; what counts is all of them."""
    carried, policy, waited = Carried(), ExecutionPolicy(first_delay=1, multiplier=1, max_wait=100), list[float]()
    while len(waited) < 9 and (
        again := decide(failed(ErrorCode.RATE_LIMITED, carried=carried, policy=policy, retry_after=asked))
    ):
        carried = again.carried
        waited.append(carried.waited)
    assert waited == waits
    assert carried.waits == len(waits)


def test_what_was_waited_beyond_what_was_asked_for_counts_too() -> None:
    """What is carried has it from the clock: a wait of ten seconds may have taken an hour."""
    policy = ExecutionPolicy(max_wait=100)
    within, beyond = Carried(waits=1, waited=90.0), Carried(waits=1, waited=90.5)
    assert decide(failed(ErrorCode.RATE_LIMITED, carried=within, policy=policy, retry_after=10.0)) == Again(
        10.0, 0, Carried(waits=2, waited=100.0)
    )
    assert decide(failed(ErrorCode.RATE_LIMITED, carried=beyond, policy=policy, retry_after=10.0)) is None


def test_a_wait_is_a_twentieth_of_those_before_at_least() -> None:
    policy = ExecutionPolicy(first_delay=0, max_delay=0, max_wait=3600)
    again = decide(failed(ErrorCode.RATE_LIMITED, carried=Carried(waits=5, waited=2000.0), policy=policy))
    assert again == Again(100.0, 0, Carried(waits=6, waited=2100.0))


@pytest.mark.parametrize("code", meant(PASSING))
def test_a_wait_that_the_provider_asks_for_is_kept_whatever_the_code(code: ErrorCode) -> None:
    again = decide(failed(code, retry_after=40.0))
    assert again is not None
    assert (again.delay, again.attempt) == (40.0, 1)
    policy = ExecutionPolicy(max_wait=100)
    assert decide(failed(code, retry_after=100.0, policy=policy)) is not None
    assert decide(failed(code, retry_after=101.0, policy=policy)) is None


@pytest.mark.parametrize("retry_after", [None, 0.0, -5.0, float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("code", [ErrorCode.TRANSIENT, ErrorCode.RATE_LIMITED])
def test_no_pause_is_shorter_than_the_floor(code: ErrorCode, retry_after: float | None) -> None:
    policy = ExecutionPolicy(first_delay=0, max_delay=0, multiplier=1)
    again = decide(failed(code, policy=policy, retry_after=retry_after))
    assert again is not None
    assert 0.5 <= again.delay <= 1.0


@pytest.mark.parametrize(("max_wait", "most"), [(3600, 160), (7 * 86_400, 280)])
def test_waits_for_rate_limits_are_some_hundreds_at_most(max_wait: float, most: int) -> None:
    """Whatever the policy says: once a second for a week would be 600,000 runs."""
    policy = ExecutionPolicy(first_delay=0, max_delay=0, multiplier=1, max_wait=max_wait)
    carried, waits = Carried(), 0
    while (again := decide(failed(ErrorCode.RATE_LIMITED, carried=carried, policy=policy))) is not None:
        carried, waits = again.carried, waits + 1
    assert carried.waits == waits <= most
    assert carried.waited >= max_wait * 0.9


def test_no_pause_outlasts_the_deadline() -> None:
    assert decide(failed(ErrorCode.RATE_LIMITED, retry_after=40.0, seconds_left=40.0)) is None
    assert decide(failed(ErrorCode.TRANSIENT, seconds_left=0.4)) is None
    assert decide(failed(ErrorCode.TRANSIENT, seconds_left=1.1)) is not None
    assert decide(failed(ErrorCode.PARSE_FAILURE, seconds_left=-1.0)) is None


@given(st.data())
def test_whatever_happens_the_attempts_are_a_bound(data: st.DataObject) -> None:
    """Any sequence of failures ends, and no attempt is beyond the last."""
    policy, most = data.draw(POLICIES), data.draw(st.integers(1, 5))
    attempt, carried = 0, Carried()
    for _ in range(40):
        attempt += 1
        assert attempt <= most
        code = data.draw(st.sampled_from(sorted(ErrorCode)))
        retry_after = data.draw(st.none() | st.floats(0, 1e6))
        again = decide(Failed(code, attempt, most, policy, carried, retry_after))
        if again is None:
            return
        assert again.delay >= 0
        assert again.carried.waited <= policy.max_wait
        assert attempt - 1 <= again.attempt <= attempt
        attempt, carried = again.attempt, again.carried


def test_what_is_not_here_spends_nothing_and_is_soon_offered_again() -> None:
    assert not_here(2, Carried()).attempt == 1
    pauses = [not_here(1, Carried(waits=waits)).delay for waits in (0, 6, 7, 8, 100)]
    assert [0.5 <= pauses[0] <= 1, 0.5 <= pauses[1] <= 1, 1 <= pauses[2] <= 2, 2 <= pauses[3] <= 4] == [True] * 4
    assert 150 <= pauses[4] <= 300
