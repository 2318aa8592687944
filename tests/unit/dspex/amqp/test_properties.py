"""The properties of AMQP messages are read tolerantly: whatever the bytes are, nothing is raised."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pika.spec import BasicProperties

from dspex.amqp.properties import Death, Properties
from tests import amqp_wire as wire
from tests.amqp_wire import array, fields, table, text

ALL = {
    "content_type": b"application/cloudevents+json",
    "content_encoding": b"utf-8",
    "headers": fields({b"a": text(b"1"), b"b": b"l" + bytes(8)}),
    "delivery_mode": 2,
    "priority": 4,
    "correlation_id": b"c-1",
    "reply_to": "réponses".encode(),
    "expiration": b"1000",
    "message_id": b"m-1",
    "timestamp": 1_764_000_000,
    "type": b"t",
    "user_id": b"guest",
    "app_id": b"a",
    "cluster_id": b"x",
}


def read_by_pika(encoded: bytes) -> tuple[str | None, ...]:
    found = BasicProperties()
    found.decode(encoded)
    return (found.content_type, found.correlation_id, found.reply_to, found.expiration, found.message_id, found.user_id)


def what_is_read(found: Properties) -> tuple[str | None, ...]:
    return (found.content_type, found.correlation_id, found.reply_to, found.expiration, found.message_id, found.user_id)


def test_all_are_read() -> None:
    found = Properties(wire.properties(**ALL))
    assert found.flaw is None
    assert what_is_read(found) == ("application/cloudevents+json", "c-1", "réponses", "1000", "m-1", "guest")


@given(st.sets(st.sampled_from(sorted(ALL))))
def test_any_of_them_are_read_as_pika_reads_them(names: set[str]) -> None:
    encoded = wire.properties(**{name: ALL[name] for name in names})
    found = Properties(encoded)
    assert found.flaw is None
    assert what_is_read(found) == read_by_pika(encoded)


@pytest.mark.parametrize("headers", wire.HOSTILE_HEADERS.values(), ids=wire.HOSTILE_HEADERS.keys())
def test_headers_that_nobody_asks_for_are_not_looked_into(headers: bytes) -> None:
    found = Properties(wire.properties(headers=headers, reply_to=b"here", message_id=b"m"))
    assert (found.flaw, found.reply_to, found.message_id) == (None, "here", "m")
    assert found.header("x-death") is None
    assert found.death() is None


@pytest.mark.parametrize("name", wire.TEXTS)
@pytest.mark.parametrize(("value", "wrong"), [(b"a\x00b", "holds U+0000"), (b"a\xff", "is not valid UTF-8")])
def test_a_text_that_cannot_be_kept_is_a_flaw(name: str, value: bytes, wrong: str) -> None:
    found = Properties(wire.properties(**{"user_id": b"guest", "reply_to": b"here"} | {name: value}))
    assert found.flaw == f"the AMQP property {name} {wrong}"
    assert found.reply_to == (None if name == "reply_to" else "here")


def test_what_stands_for_bad_bytes_has_no_more_of_them() -> None:
    found = Properties(wire.properties(correlation_id=b"\xff" * 255))
    assert found.correlation_id == "?" * 255


@pytest.mark.parametrize("flags", [0x0001, 0x0002, 0x0203])
def test_flags_that_amqp_has_not_are_a_flaw(flags: int) -> None:
    found = Properties(struct.pack(">H", flags) + b"\x04here")
    assert found.flaw == "the AMQP properties cannot be read: there are more than AMQP 0-9-1 has"
    assert found.reply_to is None


def test_whatever_ends_early_is_a_flaw() -> None:
    encoded = wire.properties(**ALL | {"reply_to": b"here"})
    for length in range(len(encoded)):
        found = Properties(encoded[:length])
        assert found.flaw == "the AMQP properties cannot be read: they end before they should"
        assert found.reply_to is None


@given(st.binary(max_size=300))
def test_no_bytes_raise(encoded: bytes) -> None:
    for found in (Properties(encoded), Properties(wire.properties(headers=encoded))):
        assert found.header("ce-id") is None or found.flaw is None
        found.death()


class TestHeaders:
    def test_a_text_is_found_behind_every_type(self) -> None:
        before = dict.fromkeys((b"1",), b"V") | {
            b"bool": b"t\x01",
            b"byte": b"b\xff",
            b"unsigned byte": b"B\xff",
            b"short": b"s" + bytes(2),
            b"other short": b"U" + bytes(2),
            b"unsigned short": b"u" + bytes(2),
            b"int": b"I" + bytes(4),
            b"unsigned int": b"i" + bytes(4),
            b"long": b"l" + bytes(8),
            b"other long": b"L" + bytes(8),
            b"float": b"f" + bytes(4),
            b"double": b"d" + bytes(8),
            b"decimal": b"D" + bytes(5),
            b"time": b"T" + b"\xff" * 8,
            b"bytes": b"x" + wire.long(b"\x00\xff"),
            b"deep": wire.nested(1500),
            b"deep array": wire.nested(1500, "array"),
        }
        found = Properties(wire.properties(headers=fields(before | {b"ce-id": text(b"7"), b"n": b"I" + bytes(4)})))
        assert found.header("ce-id") == "7"
        assert found.header("n") is None  # a number
        assert found.header("none") is None

    def test_a_table_is_looked_through_as_far_as_it_goes(self) -> None:
        many = {str(number).encode(): b"V" for number in range(5000)}
        assert Properties(wire.properties(headers=fields(many | {b"ce-id": text(b"7")}))).header("ce-id") == "7"
        broken = fields({b"a": text(b"1")}) + wire.short(b"b") + b"?" + fields({b"c": text(b"2")})
        found = Properties(wire.properties(headers=broken))
        assert (found.header("a"), found.header("c")) == ("1", None)

    def test_the_last_death_is_the_first_of_the_list(self) -> None:
        def death(queue: bytes, reason: bytes) -> bytes:
            return table({b"count": b"l" + bytes(8), b"reason": text(reason), b"queue": text(queue)})

        deaths = array([death(b"dspex.executions", b"expired"), death(b"other", b"rejected")])
        found = Properties(wire.properties(headers=fields({b"x": b"V", b"x-death": deaths})))
        assert found.death() == Death("dspex.executions", "expired")

    @pytest.mark.parametrize(
        "forged",
        [text(b"expired"), array([]), array([b"V"]), array([text(b"x")]), table({}), array([table({})]), b"A\xff"],
    )
    def test_a_death_of_another_shape_is_none(self, forged: bytes) -> None:
        assert Properties(wire.properties(headers=fields({b"x-death": forged}))).death() is None


DEATH = {b"count": b"l" + bytes(8), b"reason": text(b"rejected"), b"queue": text(b"q")}


@pytest.mark.parametrize(
    ("headers", "can"),
    [
        ({}, True),
        ({b"a": text(b"1")}, True),
        ({b"x-death": array([table(DEATH), table(DEATH | {b"time": b"T" + bytes(8)})])}, True),
        ({b"x-death": array([])}, True),
        ({b"x-death": text(b"x")}, False),
        ({b"x-death": array([text(b"x")])}, False),
        ({b"x-death": array([table(DEATH), b"V"])}, False),
        ({b"x-death": array([table({})])}, False),
        ({b"x-death": array([table(DEATH | {b"count": text(b"many")})])}, False),
        ({b"x-death": array([table(DEATH | {b"queue": b"I" + bytes(4)})])}, False),
        ({b"x-death": array([table(DEATH | {b"z": b"?"})])}, False),
    ],
)
def test_a_death_that_the_broker_did_not_write_keeps_a_message_from_dead_letters(
    headers: dict[bytes, bytes], can: bool
) -> None:
    assert Properties(wire.properties(headers=fields(headers))).can_be_dead_lettered is can
