"""Messages by chance: every AMQP property, headers of every type, bodies that are commands, nearly so, or noise."""

from __future__ import annotations

import hashlib
import json
import struct
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Any

from dspex.amqp.topology import COMMANDS_EXCHANGE, QUEUES
from tests import amqp_wire as wire
from tests.poison import RAW, envelope
from workers.brokers.topology import DEAD_LETTERS

EXECUTE = "dspex.program.execute.v1"
CAP = 1024 * 1024

FIXED: dict[bytes, int] = {
    b"t": 1,
    b"b": 1,
    b"B": 1,
    b"s": 2,
    b"u": 2,
    b"I": 4,
    b"i": 4,
    b"l": 8,
    b"L": 8,
    b"f": 4,
    b"d": 8,
    b"D": 5,
    b"T": 8,
    b"V": 0,
}
"""RabbitMQ's types of fields that have a fixed size, in bytes. It has no U, which pika reads."""
STRANGE: tuple[Any, ...] = (
    None,
    True,
    0,
    -1,
    1e300,
    "",
    "\x00",
    "x" * 600,
    "\u202e",
    [],
    {},
    [[[]]],
    {"a": {"b": [1]}},
    "null",
)


@dataclass(frozen=True)
class Fuzzed:
    """A message: where it is sent, and what is known of it.

    Attributes:
        execution_id: of the execution that it asks for, if it is read; None: it names none.
        correlation_id: what an answer is matched by, where one is asked for.
    """

    exchange: str
    routing_key: str
    properties: bytes
    body: bytes
    execution_id: str | None
    correlation_id: str

    @property
    def digest(self) -> str:
        """Of the body, as far as it is kept where it is rejected."""
        return hashlib.md5(self.body[:CAP], usedforsecurity=False).hexdigest()


class Fuzzer:
    """Makes messages, the same ones for the same seed but for their ids."""

    def __init__(self, seed: int, program_id: str, reply_to: str) -> None:
        self._random = Random(seed)
        self._program_id = program_id
        self._reply_to = reply_to.encode()
        self._number = 0

    def message(self) -> Fuzzed:
        """The next one."""
        self._number += 1
        body = self._body()
        exchange, key = self._address()
        return Fuzzed(exchange, key, self._properties(key), body, _execution_id(body), self._correlation_id)

    @property
    def _correlation_id(self) -> str:
        return f"fuzz-{self._number}"

    def _address(self) -> tuple[str, str]:
        chance = self._random.random()
        if chance < 0.4:
            return COMMANDS_EXCHANGE, EXECUTE
        if chance < 0.6:
            return COMMANDS_EXCHANGE, self._random.choice(["", "#", "a.b", "é", "x" * 255])
        return "", self._random.choice([*QUEUES, DEAD_LETTERS])

    # Properties

    def _properties(self, key: str) -> bytes:
        random = self._random
        chance = random.random()
        if chance < 0.01:
            return random.randbytes(random.randrange(40))
        values: dict[str, Any] = self._numbers()
        if random.random() < 0.9:
            values["headers"] = self._table(0) if random.random() < 0.7 else self._hostile()
        for name in wire.TEXTS:
            if random.random() < 0.3:
                values[name] = self._text() if random.random() < 0.15 else name.encode()
        values.pop("expiration", None)
        values["user_id"] = b"guest" if random.random() < 0.98 else self._text()
        if random.random() < 0.3:
            values = {name: values[name] for name in random.sample(list(values), random.randint(0, len(values)))}
        if random.random() < 0.2:
            values |= {"reply_to": self._reply_to, "correlation_id": self._correlation_id.encode()}
        if random.random() < 0.1 and key != DEAD_LETTERS:
            values["expiration"] = random.choice([b"0", b"1", b"50", b"86400000"])
        if random.random() < 0.01 and key != DEAD_LETTERS:
            values["expiration"] = self._text()
        encoded = wire.properties(**values)
        if chance < 0.02:
            return bytes([encoded[0], encoded[1] | random.choice([1, 2, 3])]) + encoded[2:]
        if chance < 0.03:
            return encoded[: random.randrange(len(encoded))]
        return encoded

    def _numbers(self) -> dict[str, Any]:
        """Some of the properties that are numbers. RabbitMQ refuses a delivery mode that is none."""
        random = self._random
        values = {
            "delivery_mode": random.choice([1, 2]) if random.random() < 0.99 else random.randrange(256),
            "priority": random.randrange(256),
            "timestamp": random.choice([0, 1_764_000_000_000, 2**64 - 1, random.randrange(2**64)]),
        }
        return {name: value for name, value in values.items() if random.random() < 0.4}

    def _text(self) -> bytes:
        random = self._random
        size = random.choice([0, 1, 20, 255])
        return random.choice([random.randbytes(size), b"\xff" * size, b"\x00" * size, ("é" * size).encode()[:255]])

    def _hostile(self) -> bytes:
        random = self._random
        if random.random() < 0.05:
            return random.randbytes(random.randrange(200))  # RabbitMQ ends a connection over it
        if random.random() < 0.2:
            death = {b"reason": wire.text(b"expired"), b"queue": wire.text(self._text())}
            return wire.fields({b"x-death": wire.array([wire.table(death)]), b"ce-id": wire.text(self._text())})
        if random.random() < 0.2:
            kind = random.choice(["table", "array"])
            return wire.fields({b"deep": wire.nested(random.choice([10, 200, 1500, 5000]), kind)})
        if random.random() < 0.1:
            return wire.fields({str(number).encode(): b"V" for number in range(random.randrange(5000))})
        return random.choice(list(wire.HOSTILE_HEADERS.values()))

    def _table(self, depth: int) -> bytes:
        names = (self._random.choice([b"", b"a", b"ce-id", self._text(), b"x-delay"]) for _ in range(5))
        return wire.fields({name: self._field(depth) for name in names if self._random.random() < 0.7})

    def _field(self, depth: int) -> bytes:
        random = self._random
        kind = random.choice([*FIXED, b"S", b"x", b"F", b"A"] if depth < 4 else [*FIXED, b"S", b"x"])
        if kind in FIXED:
            size = FIXED[kind]
            value = random.choice([bytes(size), b"\xff" * size, random.randbytes(size)])
            # Erlang has no infinity and no NaN: RabbitMQ ends a connection over them.
            return kind + (struct.pack(">d" if kind == b"d" else ">f", random.gauss(0, 9)) if kind in b"df" else value)
        if kind == b"F":
            return kind + wire.long(self._table(depth + 1))
        if kind == b"A":
            return wire.array(self._field(depth + 1) for _ in range(random.randrange(4)))
        return kind + wire.long(random.randbytes(random.choice([0, 1, 30, 3000])))

    # Bodies. Each is another one, or a rejection of it could not be told from that of the same body before.

    def _body(self) -> bytes:
        makers: list[tuple[Callable[[], bytes], int]] = [
            (self._good, 40),
            (self._broken, 30),
            (self._flipped, 12),
            (self._noise, 10),
            (self._nested, 3),
            (self._dramatiq, 3),
            (self._large, 1),
        ]
        (maker,) = self._random.choices([maker for maker, _ in makers], [weight for _, weight in makers])
        return maker()

    def _good(self) -> bytes:
        return json.dumps(envelope(self._program_id)).encode()

    def _broken(self) -> bytes:
        """One member of the message, or of its data, is another value or is missing."""
        random = self._random
        message = envelope(self._program_id)
        owner = random.choice([message, message["data"], message["data"]["inputs"]])
        name = random.choice([*owner, "more", "tenant", "options"])
        if random.random() < 0.2:
            owner.pop(name, None)
        else:
            owner[name] = random.choice(STRANGE)
        return json.dumps(message).encode()

    def _flipped(self) -> bytes:
        body = bytearray(self._good())
        for _ in range(self._random.choice([1, 1, 3])):
            body[self._random.randrange(len(body))] ^= 1 << self._random.randrange(8)
        return bytes(body)

    def _noise(self) -> bytes:
        return uuid.uuid4().bytes + self._random.randbytes(self._random.randrange(300))

    def _nested(self) -> bytes:
        depth = self._random.choice([50, 1000, 100_000])
        return json.dumps(envelope(self._program_id, data=None)).encode().replace(b"null", b"[" * depth + b"]" * depth)

    def _dramatiq(self) -> bytes:
        return json.dumps(RAW | {"message_id": str(uuid.uuid4())}).encode()

    def _large(self) -> bytes:
        return self._good()[:-1] + b', "x": "' + b"x" * self._random.randrange(CAP // 2, 3 * CAP) + b'"}'


def _execution_id(body: bytes) -> str | None:
    try:
        return str(uuid.UUID(json.loads(body)["data"]["execution_id"]))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
