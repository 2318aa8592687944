"""Messages that no worker may take: by hand, each with the code of its rejection, and as many as one likes."""

from __future__ import annotations

import json
import uuid
from typing import Any

from hypothesis import strategies as st

from tests.strategies import JSON_VALUES

RAW = {
    "queue_name": "dspex.executions",
    "actor_name": "dspex.program.execute.v1",
    "args": [],
    "kwargs": {"command": "x"},
    "options": {"throws": "x", "pipe_target": {}},
    "message_id": "1",
    "message_timestamp": 1,
}
"""A message as Dramatiq's own producers write it: it names an actor and sets options."""


def envelope(program_id: str, **changes: Any) -> dict[str, Any]:
    """A good execute command, written by hand, with changes."""
    message = {
        "specversion": "1.0",
        "id": str(uuid.uuid4()),
        "source": "/by-hand",
        "type": "dspex.program.execute.v1",
        "datacontenttype": "application/json",
        "data": {"execution_id": str(uuid.uuid4()), "program_id": program_id, "inputs": {"question": "good"}},
    }
    return message | changes


def bad_messages(program_id: str) -> dict[str, tuple[bytes, str]]:
    """What must be refused, with the code of its rejection."""

    def data(**changes: Any) -> dict[str, Any]:
        message = envelope(program_id)
        message["data"] |= changes
        return message

    messages: dict[str, tuple[Any, str]] = {
        "garbage": (b"\x00\xff garbage", "malformed_message"),
        "empty": (b"", "malformed_message"),
        "not an object": ([1, 2], "malformed_message"),
        "not a CloudEvent": ({"type": "dspex.program.execute.v1", "data": {}}, "malformed_message"),
        "unknown type": (envelope(program_id, type="dspex.program.explode.v1"), "unknown_message_type"),
        "an event": (envelope(program_id, type="dspex.program.ready.v1"), "unknown_message_type"),
        "wrong field": (data(inputz={}), "invalid_message"),
        "missing field": (envelope(program_id, data={"program_id": program_id}), "invalid_message"),
        "options null": (data(options=None), "invalid_message"),
        "options in the envelope": (envelope(program_id, options={"throws": "x"}), "invalid_message"),
        "unknown option": (data(options={"throws": "x"}), "invalid_message"),
        "raw Dramatiq envelope": (RAW, "malformed_message"),
        "raw Dramatiq envelope, options null": (RAW | {"options": None}, "malformed_message"),
        "NUL": (data(inputs={"question": "a\x00b"}), "invalid_message"),
        "2 MiB": (data(inputs={"question": "x" * 2 * 1024 * 1024}), "message_too_large"),
        "unknown program": (data(program_id=str(uuid.uuid4())), "not_found"),
    }
    return {
        name: (body if isinstance(body, bytes) else json.dumps(body).encode(), code)
        for name, (body, code) in messages.items()
    }


def poisonous(program_id: str) -> st.SearchStrategy[bytes]:
    """Bytes that are hardly ever a command: noise, JSON, and commands that are broken in some place."""
    return st.one_of(
        st.binary(max_size=200),
        JSON_VALUES.map(_encode),
        _broken(envelope(program_id)),
        _broken(RAW | {"kwargs": {"envelope": envelope(program_id)}}),
        st.tuples(st.binary(min_size=1, max_size=3), st.integers(0, 200)).map(
            lambda noise: _with_noise(_encode(envelope(program_id)), *noise)
        ),
    )


def _broken(message: dict[str, Any]) -> st.SearchStrategy[bytes]:
    """One member of a message, or of its data, is another value or is missing."""
    inner = [key for key, value in message.items() if isinstance(value, dict)]
    keys = [*((key,) for key in message), *((key, member) for key in inner for member in message[key])]

    def change(chosen: tuple[str, ...], value: Any, leave_out: bool) -> bytes:
        changed = json.loads(_encode(message))
        owner = changed if len(chosen) == 1 else changed[chosen[0]]
        if leave_out:
            del owner[chosen[-1]]
        else:
            owner[chosen[-1]] = value
        return _encode(changed)

    return st.builds(change, st.sampled_from(keys), JSON_VALUES, st.booleans())


def _with_noise(body: bytes, noise: bytes, at: int) -> bytes:
    return body[:at] + noise + body[at:]


def _encode(value: Any) -> bytes:
    return json.dumps(value).encode()
