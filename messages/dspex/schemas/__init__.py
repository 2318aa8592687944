"""The contract as documents: JSON Schemas of every message and answer, and AsyncAPI around them.

    python -m dspex.schemas DIRECTORY      (in the repository: make contract)

Both are generated from the models and the topology. What is committed is what other services have built on, so nothing
is written that would break them: see `dspex.schemas.growth`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dspex.contract.requests import REQUESTS
from dspex.schemas.asyncapi import asyncapi
from dspex.schemas.growth import Break, breaks
from dspex.schemas.json_schema import ANSWERS, MESSAGES, answer_schema, message_schema

Documents = dict[str, dict[str, Any]]
"""Documents by their paths in the directory of the contract."""


def documents() -> Documents:
    """Every document of the contract that the models have now."""
    found: Documents = {"asyncapi.json": asyncapi()}
    found |= {f"schemas/{type_}.json": message_schema(type_) for type_ in MESSAGES}
    found |= {f"schemas/answers/{name}.json": answer_schema(name) for name in ANSWERS}
    return found


def written(document: Mapping[str, Any]) -> str:
    """A document as it is kept: the same text for the same document."""
    return json.dumps(document, indent=1, ensure_ascii=False) + "\n"


def read(directory: Path) -> Documents:
    """The documents that a directory has; empty where there is none."""
    return {
        path.relative_to(directory).as_posix(): json.loads(path.read_text(encoding="utf-8"))
        for path in sorted(directory.rglob("*.json"))
    }


def broken(old: Documents, new: Documents) -> dict[str, list[Break]]:
    """What services that were built on `old` do not survive in `new`, by document."""
    found: dict[str, list[Break]] = {}
    for path, schema in old.items():
        if not path.startswith("schemas/"):
            continue
        if path not in new:
            found[path] = [Break("", "is gone: it may go only with all of v1")]
        elif problems := breaks(schema, new[path], asked=_is_asked(path)):
            found[path] = problems
    return found


def write(directory: Path) -> None:
    """Write the documents, and remove those that are none any more."""
    new = documents()
    for path in read(directory).keys() - new.keys():
        (directory / path).unlink()
    for path, document in new.items():
        (directory / path).parent.mkdir(parents=True, exist_ok=True)
        (directory / path).write_text(written(document), encoding="utf-8")


def _is_asked(path: str) -> bool:
    """Whether it goes to DSPex, and does not come from it."""
    return Path(path).stem in REQUESTS
