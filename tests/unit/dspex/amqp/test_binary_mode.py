"""CloudEvents in binary mode are read as those in structured JSON; what is wrong with one is told by its attribute."""

from __future__ import annotations

import json
import struct
from typing import Any
from uuid import UUID

import pytest
from cloudevents.core.bindings import rabbitmq
from cloudevents.core.v1.event import CloudEvent
from hypothesis import given
from hypothesis import strategies as st

from dspex import ExecuteProgram, decode_command
from dspex.amqp.properties import Properties
from dspex.contract.envelope import MAX_MESSAGE_BYTES
from tests import amqp_wire as wire
from workers.brokers.encoding import REJECT, Content, Origin, read, read_dead_letter, unpack

ID = UUID("01900000-0000-7000-8000-000000000001")
DATA = {"execution_id": str(ID), "program_id": str(ID), "inputs": {"question": "é", "huge": 12345678901234567890}}
BODY = json.dumps(DATA).encode()
EXECUTE = "dspex.program.execute.v1"
ATTRIBUTES = {b"specversion": b"1.0", b"id": b"m-1", b"source": b"/orders", b"type": EXECUTE.encode()}
ORIGIN = Origin("dspex.executions")


def headers(prefix: bytes = b"ce-", **others: bytes) -> dict[bytes, bytes]:
    """Headers with the attributes, and others as they are encoded."""
    given = {prefix + name: wire.text(value) for name, value in ATTRIBUTES.items()}
    return given | {name.encode(): value for name, value in others.items()}


def came(
    fields: dict[bytes, bytes] | bytes, body: bytes = BODY, content_type: bytes | None = b"application/json"
) -> Content:
    """What a message with these headers says."""
    encoded = fields if isinstance(fields, bytes) else wire.fields(fields)
    given: dict[str, Any] = {"headers": encoded} | ({} if content_type is None else {"content_type": content_type})
    return unpack(Properties(wire.properties(**given), len(body)), body)


def refused(content: Content, max_bytes: int = MAX_MESSAGE_BYTES) -> tuple[str, str]:
    """Code and text of the rejection of what came."""
    message = read(content, ORIGIN, max_bytes)
    assert message.actor_name == REJECT
    error = message.kwargs["error"]
    assert len(error.message) < 500
    return error.code, error.message


@pytest.mark.parametrize("prefix", [b"ce-", b"cloudEvents:", b"cloudEvents_", b"Ce-"])
@pytest.mark.parametrize("content_type", [b"application/json", b"Application/JSON; charset=utf-8", None])
def test_it_is_what_it_would_be_in_structured_json(prefix: bytes, content_type: bytes | None) -> None:
    more = {prefix + b"time": wire.text(b"2026-11-30T01:02:03Z"), prefix + b"partitionkey": wire.text(b"k")}
    content = came(headers(prefix) | more | {b"retries": wire.text(b"3")}, content_type=content_type)
    assert content.flaw is None
    envelope = decode_command(content.body)
    same = {name.decode(): value.decode() for name, value in ATTRIBUTES.items()}
    expected = same | {"time": "2026-11-30T01:02:03Z", "partitionkey": "k", "data": DATA}
    assert envelope == decode_command(json.dumps(expected).encode())
    assert envelope.extensions == {"partitionkey": "k"}
    assert isinstance(envelope.data, ExecuteProgram)
    assert envelope.data.inputs == DATA["inputs"]
    assert read(content, ORIGIN).actor_name == EXECUTE


def test_data_is_kept_to_the_letter() -> None:
    body = b' {"inputs": {"x": 1.10, "y": 1e2, "big": 123456789012345678901234567890}}\n'
    assert came(headers(), body).body.endswith(b'"data":' + body + b"}")


def test_native_values_of_headers_are_those_of_json() -> None:
    values = {
        b"ce-final": b"t\x01",
        b"ce-small": b"b\xff",
        b"ce-byte": b"B\xff",
        b"ce-short": b"s\xff\xfe",
        b"ce-number": b"I" + struct.pack(">i", -7),
        b"ce-long": b"l" + struct.pack(">q", 2**31 - 1),
        b"ce-none": b"V",
        b"ce-time": b"T" + struct.pack(">Q", 1_764_000_000),
    }
    envelope = decode_command(came(headers() | values).body)
    numbers = {"small": -1, "byte": 255, "short": -2, "number": -7, "long": 2**31 - 1}
    assert envelope.extensions == {"final": True} | numbers
    assert envelope.time is not None
    assert envelope.time.isoformat() == "2025-11-24T16:00:00+00:00"


@pytest.mark.parametrize(
    "content_type", [b"application/cloudevents+json", b"Application/CloudEvents+JSON; charset=UTF-8"]
)
def test_headers_beside_a_structured_message_mean_nothing(content_type: bytes) -> None:
    assert came(headers(b"ce-", **{"ce-id": wire.text(b"other")}), b"{}", content_type) == Content(b"{}", 2)


def test_without_a_header_for_specversion_the_body_is_all() -> None:
    for fields in ({}, {b"ce-type": wire.text(b"x")}, {b"note": wire.text(b"ce-specversion")}, {b"specversion": b"V"}):
        assert came(fields, b"{}") == Content(b"{}", 2)
    assert refused(came({}, b"{}"))[0] == "malformed_message"


WRONG = {
    "twice, by two prefixes": (
        {"cloudEvents_source": wire.text(b"/orders")},
        "invalid_message",
        "source: is given twice, by the header ce-source and the header cloudEvents_source",
    ),
    "twice, by case": ({"Ce-Id": wire.text(b"m-1")}, "invalid_message", "id: is given twice, by the header ce-id and"),
    "twice, by the property": (
        {"ce-datacontenttype": wire.text(b"application/json")},
        "invalid_message",
        "datacontenttype: is given twice, by the property content-type and the header ce-datacontenttype",
    ),
    "data": ({"ce-data": wire.text(b"{}")}, "invalid_message", "the header ce-data names no attribute"),
    "data_base64": ({"ce-data_base64": wire.text(b"e30=")}, "invalid_message", "the header ce-data_base64 names no"),
    "no name": ({"ce-": wire.text(b"")}, "invalid_message", "the header ce- names no attribute"),
    "a long name": ({f"ce-{'a' * 21}": b"V"}, "invalid_message", f"the header ce-{'a' * 21} names no attribute"),
    "no UTF-8": ({"ce-subject": wire.text(b"\xff")}, "invalid_message", "subject: the header ce-subject is not valid"),
    "U+0000": ({"ce-key": wire.text(b"a\x00")}, "invalid_message", "key: the header ce-key holds U+0000"),
    "a table": ({"ce-key": wire.nested(1500)}, "invalid_message", "key: the header ce-key must be a text, an integer"),
    "bytes": ({"ce-key": b"x" + wire.long(b"a")}, "invalid_message", "key: the header ce-key must be a text"),
    "a float": ({"ce-key": b"d" + struct.pack(">d", 1.0)}, "invalid_message", "key: the header ce-key must be a text"),
    "a year of 57881": (
        {"ce-time": b"T" + struct.pack(">Q", 1_764_000_000_000)},
        "invalid_message",
        "time: the header",
    ),
    "the last time": (
        {"ce-key": b"T" + b"\xff" * 8},
        "invalid_message",
        "key: the header ce-key is a time out of range",
    ),
    "33 bits": ({"ce-key": b"l" + struct.pack(">q", 1 << 31)}, "invalid_message", "key: must be a string, a boolean"),
    "a number for a text": ({"ce-subject": b"I" + bytes(4)}, "invalid_message", "subject: input should be a valid str"),
    "5,000 bytes": ({"ce-key": wire.text(b"x" * 5_000)}, "invalid_message", "there are too many extension attributes"),
    "17 extensions": ({f"ce-a{n}": b"t\x01" for n in range(17)}, "invalid_message", "there are too many"),
    "10,000 headers": ({f"ce-a{n}": b"V" for n in range(10_000)}, "invalid_message", "there are too many attributes"),
}


@pytest.mark.parametrize(("others", "code", "text"), WRONG.values(), ids=WRONG.keys())
def test_what_is_wrong_is_told_by_its_attribute(others: dict[str, bytes], code: str, text: str) -> None:
    content = came(headers() | {name.encode(): value for name, value in others.items()})
    found, said = refused(content)
    assert found == code
    assert said.startswith(text), said


def test_as_many_extensions_as_there_may_be() -> None:
    most = {f"ce-a{n}".encode(): wire.text(b"%d" % n) for n in range(16)}
    assert len(decode_command(came(headers() | most).body).extensions) == 16


@pytest.mark.parametrize(
    ("body", "code", "text"),
    [
        (b'1,"tenant":"acme"', "malformed_message", "the body is not JSON, which is the data in binary mode: "),
        (b'{}}{"a":1', "malformed_message", "the body is not JSON"),
        (b"{}{}", "malformed_message", "the body is not JSON"),
        (b"\xff", "malformed_message", "the body is not JSON"),
        (b"NaN", "malformed_message", "the body is not JSON"),
        (b"[" * 100_000, "malformed_message", "the body is not JSON"),
        (b" ", "malformed_message", "the body is not JSON"),
        (b"", "invalid_message", "data: is missing"),
        (b"[]", "invalid_message", "data: input should be an object"),
        (b'{"inputs": "\\u0000"}', "invalid_message", "data holds the character U+0000"),
    ],
)
def test_the_body_is_one_value(body: bytes, code: str, text: str) -> None:
    found, said = refused(came(headers(), body))
    assert found == code
    assert said.startswith(text), said


def test_the_media_type_is_that_of_json() -> None:
    code, text = refused(came(headers(), content_type=b"text/plain"))
    assert (code, text) == ("invalid_message", "datacontenttype: input should be 'application/json'")


def test_another_version_of_cloudevents_is_refused() -> None:
    code, text = refused(came(headers(**{"ce-specversion": wire.text(b"0.3")})))
    assert code == "malformed_message"
    assert text.endswith("'specversion' must be \"1.0\"")
    assert refused(came({b"ce-specversion": b"V"}, content_type=None))[0] == "malformed_message"


def test_headers_that_end_early_are_no_attributes() -> None:
    whole = wire.fields(headers())
    for length in range(len(whole)):
        message = read(came(whole[:length]), ORIGIN)
        assert message.actor_name == REJECT


@given(st.binary(max_size=200), st.binary(max_size=50))
def test_no_headers_raise(fields: bytes, body: bytes) -> None:
    assert read(came(fields + wire.fields(headers()), body), ORIGIN).actor_name == REJECT
    read(came(wire.fields(headers()) + fields, body), ORIGIN)


@given(
    st.dictionaries(
        st.text("az09_-é\x00", max_size=22),
        st.text(st.characters(codec="utf-8"), max_size=9) | st.integers(-9, 9) | st.booleans(),
    )
)
def test_attributes_are_as_in_structured_json(others: dict[str, Any]) -> None:
    """Whatever the names and values of extensions are: taken by both, or by none."""

    def encoded(value: str | int) -> bytes:
        if isinstance(value, bool):
            return b"t" + bytes([value])
        return wire.text(value.encode()) if isinstance(value, str) else b"b" + struct.pack(">b", value)

    fields = {b"ce-" + name.encode(): encoded(value) for name, value in others.items()}
    same = {name.decode(): value.decode() for name, value in ATTRIBUTES.items()}
    whole = read(Content(json.dumps(others | same | {"data": DATA}).encode()), ORIGIN)
    binary = read(came(headers() | fields), ORIGIN)
    assert (binary.actor_name == REJECT) == (whole.actor_name == REJECT)
    if binary.actor_name != REJECT:
        assert binary.kwargs["envelope"].extensions == whole.kwargs["envelope"].extensions


class TestRejections:
    """What is kept of a message in binary mode."""

    def test_where_it_can_be_read_it_is_kept_whole(self) -> None:
        kept = read(came(headers(**{"ce-key": wire.text(b"k")}), b'{"inputs": {}}'), ORIGIN).kwargs
        envelope = json.loads(kept["body"])
        assert (envelope["id"], envelope["key"], envelope["data"]) == ("m-1", "k", {"inputs": {}})
        assert (kept["message_id"], kept["message_type"], kept["body_size"]) == ("m-1", EXECUTE, len(kept["body"]))

    @pytest.mark.parametrize("body", [b'{"id": "of the data", "type": "of the data"}', b"no JSON"])
    def test_where_it_cannot_its_body_is_kept_as_it_came(self, body: bytes) -> None:
        kept = read(came(headers(**{"ce-key": b"x" + wire.long(b"")}), body), ORIGIN).kwargs
        assert (kept["body"], kept["body_size"]) == (body, len(body))
        assert (kept["message_id"], kept["message_type"]) == ("m-1", EXECUTE)

    def test_an_id_that_is_no_text_is_none(self) -> None:
        odd = {"ce-id": b"x" + wire.long(b"a"), "ce-type": b"I" + bytes(4)}
        kept = read(came(headers(**odd)), ORIGIN).kwargs
        assert (kept["message_id"], kept["message_type"]) == (None, None)

    def test_a_body_that_was_cut(self) -> None:
        properties = wire.properties(headers=wire.fields(headers()), content_type=b"application/json")
        content = unpack(Properties(properties, 5_000), b"x" * 1_000)
        message = read(content, ORIGIN, 1_000)
        assert message.kwargs["error"].message == "the message has 5000 bytes; at most 1000 are allowed"
        assert (message.kwargs["body_size"], message.kwargs["message_id"]) == (5_000, "m-1")

    def test_attributes_count_for_the_size(self) -> None:
        content = came(headers())
        assert read(content, ORIGIN, content.size).actor_name == EXECUTE
        assert refused(content, content.size - 1)[0] == "message_too_large"

    def test_one_that_expired(self) -> None:
        message = read_dead_letter(came(headers()), ORIGIN, None, MAX_MESSAGE_BYTES)
        assert message is not None
        assert message.kwargs["message_type"] == EXECUTE
        assert decode_command(message.kwargs["body"]).extensions == {}


def test_what_the_sdk_makes() -> None:
    attributes = {"id": "m-1", "source": "/orders", "type": EXECUTE, "partitionkey": "k", "sequence": 3, "final": True}
    message = rabbitmq.to_binary_event(CloudEvent(attributes | {"datacontenttype": "application/json"}, DATA))
    fields = {name.encode(): wire.text(value.encode()) for name, value in message.headers.items()}
    envelope = decode_command(came(fields, message.body, (message.content_type or "").encode()).body)
    assert envelope.data.model_dump(mode="json", exclude_none=True)["inputs"] == DATA["inputs"]
    assert envelope.extensions == {"partitionkey": "k", "sequence": "3", "final": "True"}
