"""What is published is, to the byte, what pika would send."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pika import BasicProperties, spec
from pika.callback import CallbackManager
from pika.channel import Channel
from pika.connection import Connection
from pika.exceptions import ChannelWrongStateError, ShortStringTooLong

from dspex.amqp.connection import PublishingConnection
from dspex.amqp.frames import frames_of
from dspex.amqp.publication import Publication

MOST = 7


class Sink:
    """What pika's connection needs to send, and what it would send."""

    _body_max_length = MOST

    def __init__(self) -> None:
        self.frames: list[bytes] = []

    def _output_marshaled_frames(self, frames: list[bytes]) -> None:
        self.frames = frames


def by_pika(message: Publication, channel: int, user_id: str | None) -> list[bytes]:
    properties = BasicProperties(
        content_type="application/cloudevents+json",
        delivery_mode=2,
        message_id=message.message_id,
        correlation_id=message.correlation_id,
        reply_to=message.reply_to,
        user_id=user_id,
    )
    publish = spec.Basic.Publish(
        exchange=message.exchange, routing_key=message.routing_key, mandatory=message.mandatory
    )
    sink, connection = Sink(), Connection
    send: Any = connection._send_message  # pyright: ignore[reportAttributeAccessIssue]
    send(sink, channel, publish, (properties, message.body))
    return sink.frames


TEXTS = st.text(max_size=60)
MESSAGES = st.builds(
    Publication,
    body=st.binary(max_size=4 * MOST),
    exchange=TEXTS,
    routing_key=TEXTS,
    message_id=st.none() | TEXTS,
    correlation_id=st.none() | TEXTS,
    reply_to=st.none() | TEXTS,
    mandatory=st.booleans(),
)


@given(MESSAGES, st.integers(1, 65535), st.none() | TEXTS)
def test_the_frames_are_those_of_pika(message: Publication, channel: int, user_id: str | None) -> None:
    assert frames_of(message, channel, user_id, MOST) == by_pika(message, channel, user_id)


LONGEST = Publication(b"{}", "", "k" * 255, "é" * 127, "c" * 255, "r" * 255)


def test_texts_may_have_255_bytes() -> None:
    assert frames_of(LONGEST, 1, "u" * 255, MOST) == by_pika(LONGEST, 1, "u" * 255)


@pytest.mark.parametrize("field", ["exchange", "routing_key", "message_id", "correlation_id", "reply_to"])
def test_and_no_more(field: str) -> None:
    longer: Any = {field: "é" * 128}
    with pytest.raises(ShortStringTooLong):
        frames_of(LONGEST._replace(**longer), 1, "guest", MOST)


def test_nothing_is_sent_on_a_channel_that_is_not_open() -> None:
    connection: Any = object.__new__(PublishingConnection)
    connection.callbacks = CallbackManager()
    closed = Channel(connection, 1, lambda _: None)
    with pytest.raises(ChannelWrongStateError):
        connection.publish(closed, LONGEST, None)
