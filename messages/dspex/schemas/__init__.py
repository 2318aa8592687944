"""The contract as documents: JSON Schemas of messages, answers and deployments, and an AsyncAPI document with messages.

    python -m dspex.schemas DIRECTORY      (in the repository: make contract)

Both are generated from the models and the topology. Other services build on the committed documents, so a change that
would break them is not written: see `dspex.schemas.growth`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dspex.contract.requests import REQUESTS
from dspex.schemas.asyncapi import asyncapi
from dspex.schemas.growth import Break, breaks
from dspex.schemas.json_schema import ANSWERS, MESSAGES, answer_schema, deployment_schema, message_schema

DEPLOYMENT = "schemas/deployment.json"

Documents = dict[str, dict[str, Any]]
"""Documents, by their paths in the contract's directory."""


def documents() -> Documents:
    """Generate every document of the contract from the models."""
    found: Documents = {"asyncapi.json": asyncapi()}
    found |= {f"schemas/{type_}.json": message_schema(type_) for type_ in MESSAGES}
    found |= {f"schemas/answers/{name}.json": answer_schema(name) for name in ANSWERS}
    found |= {DEPLOYMENT: deployment_schema()}
    return found


def written(document: Mapping[str, Any]) -> str:
    """The text of a document in its file. Equal documents have the same text."""
    return json.dumps(document, indent=1, ensure_ascii=False) + "\n"


def read(directory: Path) -> Documents:
    """The documents in a directory; empty if there is no such directory."""
    return {
        path.relative_to(directory).as_posix(): json.loads(path.read_text(encoding="utf-8"))
        for path in sorted(directory.rglob("*.json"))
    }


def broken(old: Documents, new: Documents) -> dict[str, list[Break]]:
    """The changes from `old` to `new` that break services built on `old`, by document."""
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
    """Write the documents, and delete the files of those that no longer exist."""
    new = documents()
    for path in read(directory).keys() - new.keys():
        (directory / path).unlink()
    for path, document in new.items():
        (directory / path).parent.mkdir(parents=True, exist_ok=True)
        (directory / path).write_text(written(document), encoding="utf-8")


def _is_asked(path: str) -> bool:
    """Whether the document describes what is sent to DSPex, and not what comes from it."""
    return path == DEPLOYMENT or Path(path).stem in REQUESTS
