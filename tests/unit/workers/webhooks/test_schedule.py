"""What happens after an attempt: when the next one is, and when there is none."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dspex.contract.status import DeliveryStatus
from dspex.errors import SettingsError
from workers.webhooks.attempt import Attempt, Outcome, outcome_of
from workers.webhooks.schedule import DAY, MAX_RETRY_AFTER, Schedule, Step, parse_retry_after

EXACT = Schedule(chance=lambda: 0.0)
NOW = datetime(2026, 11, 25, 12, 0, 0, tzinfo=UTC)


def ended(outcome: Outcome, retry_after: float | None = None) -> Attempt:
    return Attempt(outcome, duration_ms=1.0, retry_after=retry_after)


@pytest.mark.parametrize(
    ("status", "outcome"),
    [
        (200, "delivered"),
        (204, "delivered"),
        (299, "delivered"),
        (301, "failed"),
        (302, "failed"),
        (400, "failed"),
        (404, "failed"),
        (410, "gone"),
        (429, "throttled"),
        (500, "failed"),
        (501, "failed"),
        (502, "throttled"),
        (503, "throttled"),
        (504, "throttled"),
        (101, "failed"),
        (599, "failed"),
    ],
)
def test_what_a_status_means(status: int, outcome: str) -> None:
    assert outcome_of(status) == outcome


def test_the_schedule_is_that_of_standard_webhooks() -> None:
    delays = [EXACT.delay(attempts) for attempts in range(11)]
    assert delays == [0, 5, 300, 1800, 7200, 18_000, 36_000, 50_400, 72_000, 86_400, None]


def test_chance_makes_it_later_by_a_tenth_at_most() -> None:
    assert Schedule(chance=lambda: 1.0).delay(2) == pytest.approx(330)
    drawn = [Schedule().delay(2) or 0 for _ in range(100)]
    assert 300 <= min(drawn) < max(drawn) <= 330


def test_what_the_receiver_asks_for_is_bounded_and_never_sooner() -> None:
    assert EXACT.delay(1, 60.0) == 60
    assert EXACT.delay(3, 60.0) == 1800
    assert Schedule(max_retry_after=600, chance=lambda: 0.0).delay(1, 1e9) == 600


@pytest.mark.parametrize("delays", [(), (0, -1)])
def test_a_schedule_that_cannot_be_names_its_setting(delays: tuple[float, ...]) -> None:
    with pytest.raises(SettingsError, match="DSPEX_WEBHOOK_RETRIES"):
        Schedule(delays=delays)


def test_what_is_delivered_is_done() -> None:
    assert EXACT.step(ended(Outcome.DELIVERED), 1, 9 * DAY) == Step(DeliveryStatus.DELIVERED)


def test_gone_disables_at_once() -> None:
    assert EXACT.step(ended(Outcome.GONE), 1, 0) == Step(DeliveryStatus.FAILED, None, "it answered 410 Gone")


@pytest.mark.parametrize("outcome", [Outcome.FAILED, Outcome.THROTTLED, Outcome.REFUSED])
def test_a_failure_is_tried_again_as_often_as_the_schedule_says(outcome: Outcome) -> None:
    assert EXACT.step(ended(outcome), 1, 0) == Step(DeliveryStatus.PENDING, 5)
    assert EXACT.step(ended(outcome, 60), 1, 0) == Step(DeliveryStatus.PENDING, 60)
    assert EXACT.step(ended(outcome), 10, 3 * DAY) == Step(DeliveryStatus.FAILED)


def test_days_of_nothing_but_failure_disable() -> None:
    assert EXACT.step(ended(Outcome.FAILED), 2, 5 * DAY - 1).disable is None
    assert EXACT.step(ended(Outcome.FAILED), 2, 5 * DAY) == Step(
        DeliveryStatus.FAILED, None, "it has failed for 5.0 days"
    )


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("0", 0),
        ("120", 120),
        ("999999999", MAX_RETRY_AFTER),
        ("9" * 5000, None),
        ("-5", None),
        ("1.5", None),
        ("\u0661\u0662", None),
        ("soon", None),
        ("", None),
        ("Wed, 25 Nov 2026 12:02:00 GMT", 120),
        ("Wed, 25 Nov 2026 11:00:00 GMT", 0),
        ("Fri, 25 Nov 2033 12:00:00 GMT", MAX_RETRY_AFTER),
        ("Wed, 99 Nov 2026 12:02:00 GMT", None),
    ],
)
def test_retry_after_is_a_number_or_a_date(value: str, seconds: float | None) -> None:
    assert parse_retry_after(value, NOW) == seconds


@given(st.one_of(st.text(), st.text("0123456789 ,:+-GMTJanWed", max_size=40), st.datetimes().map(str)))
def test_whatever_a_receiver_writes_is_a_bounded_wait_or_none(value: str) -> None:
    seconds = parse_retry_after(value, NOW)
    assert seconds is None or 0 <= seconds <= MAX_RETRY_AFTER
