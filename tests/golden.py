"""Messages as they were sent, and what they meant then: `tests/unit/dspex/schemas/golden/`.

    python -m tests.golden      writes those of new types

What is there is never written again: it stands for messages that wait in somebody's queue, and for the services that
send them. `body` is what was sent, `means` the fields that it had when it was read, those that were left out with it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from dspex import CreateProgram, CreateSignature, ExecutionCompleted, ExecutionFailed, decode_command, decode_event
from dspex.contract.commands import Command
from dspex.contract.events import Event
from dspex.contract.requests import REQUESTS
from dspex.errors import InvalidMessage
from dspex.schemas.json_schema import ANSWERS, MESSAGES
from tests.answers import AN_ANSWER_OF_EACH, CONFIGURATION, ERROR, ID, OTHER, SIGNATURE, USAGE
from tests.unit.dspex.contract.test_envelope import A_COMMAND_OF_EACH, AN_EVENT_OF_EACH

DIRECTORY = Path(__file__).parent / "unit" / "dspex" / "schemas" / "golden"

WITH_EVERYTHING: list[Command | Event] = [
    CreateSignature(signature_id=ID, signature=SIGNATURE, activate=False),
    CreateProgram(program_id=ID, signature_id=OTHER, name="p", adapter_type="python_port", configuration=CONFIGURATION),
    ExecutionCompleted(execution_id=ID, program_id=OTHER, outputs={"a": None}, attempt=2, duration_ms=1.5, usage=USAGE),
    ExecutionFailed(execution_id=ID, program_id=OTHER, error=ERROR, attempt=2, duration_ms=1.5, usage=USAGE),
]


def samples() -> Iterator[tuple[str, dict[str, Any]]]:
    """The name of each file, and a body for it: every sample as it is, and with the least that must be there."""
    for data in [*A_COMMAND_OF_EACH, *AN_EVENT_OF_EACH, *WITH_EVERYTHING]:
        sent = data.model_dump(mode="json")
        yield data.type, _message(data, sent)
        yield data.type, _message(data, {name: sent[name] for name, field in _fields(data) if field.is_required()})
    for answer in AN_ANSWER_OF_EACH:
        name = next(name for name, model in ANSWERS.items() if model is type(answer))
        yield f"answers/{name}", answer.model_dump(mode="json")


def read(name: str, body: dict[str, Any]) -> BaseModel:
    """What a body is read as."""
    if name not in MESSAGES:
        return ANSWERS[Path(name).name].model_validate(body, extra="ignore")
    decode = decode_command if name in REQUESTS else decode_event
    return decode(json.dumps(body).encode()).data


def main() -> None:
    """Write the files that are missing."""
    new: dict[Path, list[dict[str, Any]]] = {}
    for name, body in samples():
        path = DIRECTORY / f"{name}.json"
        if path.exists():
            continue
        try:
            entry = {"body": body, "means": read(name, body).model_dump(mode="json")}
        except InvalidMessage:  # the least is not enough: one of several fields must be there
            continue
        if entry not in new.setdefault(path, []):
            new[path].append(entry)
    for path, entries in new.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(entries, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def _fields(data: BaseModel) -> Any:
    return type(data).model_fields.items()


def _message(data: Command | Event, sent: dict[str, Any]) -> dict[str, Any]:
    return {
        "specversion": "1.0",
        "id": "0190f6a0-0000-7000-8000-00000000000a",
        "source": "/golden",
        "type": data.type,
        "time": "2026-01-02T03:04:05.678Z",
        "datacontenttype": "application/json",
        "data": sent,
    }


if __name__ == "__main__":
    main()
