"""The bookkeeping of unconfirmed messages."""

import time

from dspex.amqp.confirms import Outgoing, Unconfirmed
from dspex.amqp.publication import Publication


def message(body: bytes = b"", key: str = "k", *, mandatory: bool = True, seconds: float = 30) -> Outgoing:
    publication = Publication(body, "exchange", key, "id", mandatory=mandatory)
    return Outgoing(publication, time.monotonic() + seconds)


def sent(*messages: Outgoing) -> Unconfirmed:
    unconfirmed = Unconfirmed()
    for one in messages:
        unconfirmed.add(one)
    return unconfirmed


def test_one_by_one_in_any_order() -> None:
    first, second, third = messages = [message() for _ in range(3)]
    unconfirmed = sent(*messages)
    assert unconfirmed.settle(2, multiple=False) == [second]
    assert unconfirmed.settle(2, multiple=False) == []
    assert unconfirmed.settle(1, multiple=False) == [first]
    assert unconfirmed.take_all() == [third]
    assert len(unconfirmed) == 0


def test_all_up_to_one() -> None:
    messages = [message() for _ in range(6)]
    unconfirmed = sent(*messages)
    unconfirmed.settle(2, multiple=False)
    assert unconfirmed.settle(3, multiple=True) == [messages[0], messages[2]]
    assert unconfirmed.settle(3, multiple=True) == []
    assert unconfirmed.settle(0, multiple=True) == messages[3:]  # 0: all there are
    late = message()
    unconfirmed.add(late)
    assert unconfirmed.settle(7, multiple=True) == [late]


def test_returns_come_in_the_order_of_publishing() -> None:
    optional = message(b"1", mandatory=False)
    same = [message(b"1"), message(b"1"), message(b"1")]
    other = message(b"2", key="other")
    unconfirmed = sent(optional, *same, other)
    unconfirmed.mark_returned("exchange", "k", "id", b"1")
    unconfirmed.mark_returned("exchange", "k", "id", b"1")
    unconfirmed.mark_returned("exchange", "other", "id", b"2")
    assert [one.returned for one in (optional, *same, other)] == [False, True, True, False, True]
    unconfirmed.mark_returned("exchange", "k", "id", b"unknown")


def test_expired_ones_are_forgotten() -> None:
    early, late = message(seconds=1), message(seconds=9)
    unconfirmed = sent(late, early)
    assert unconfirmed.take_expired(time.monotonic()) == []
    assert unconfirmed.take_expired(time.monotonic() + 5) == [early]
    assert unconfirmed.settle(2, multiple=True) == [late]
