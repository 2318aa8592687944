"""The committed AsyncAPI document, before the parser of the AsyncAPI Initiative."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dspex.amqp.topology import QUEUES
from dspex.contract.events import EVENTS
from dspex.contract.requests import REQUESTS
from tests.acceptance.node import installed
from tests.sizes import TORTURE

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(400)]

CONTRACT = Path(__file__).parents[2] / "messages" / "contract"
EXECUTE = "dspex.program.execute.v1"


def with_one_operation() -> dict[str, Any]:
    """A smaller document, which is quickly read."""
    document: dict[str, Any] = json.loads((CONTRACT / "asyncapi.json").read_text(encoding="utf-8"))
    document["channels"] = {name: document["channels"][name] for name in (EXECUTE, "replies")}
    document["operations"] = {"execute": document["operations"][f"receive {EXECUTE}"]}
    return document


def unspoiled(document: dict[str, Any]) -> None:
    """Nothing is wrong with it."""


def of_another_channel(document: dict[str, Any]) -> None:
    document["operations"]["execute"]["messages"] = [{"$ref": "#/channels/replies/messages/dspex.reply.v1.Nothing"}]


def without_a_file(document: dict[str, Any]) -> None:
    document["components"]["messages"][EXECUTE]["payload"]["schema"] = {"$ref": "schemas/none.json"}


def without_an_exchange(document: dict[str, Any]) -> None:
    del document["channels"][EXECUTE]["bindings"]["amqp"]["exchange"]


SPOILED: list[tuple[Callable[[dict[str, Any]], None], str]] = [
    (of_another_channel, "does not belong to the specified channel"),
    (without_a_file, "none.json"),
    (without_an_exchange, "exchange"),
]


@pytest.fixture(scope="module")
def read(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the parser says of the document, of a smaller one, and of each that is spoiled, by their names.

    It takes half a minute to read the schemas of all messages, which other tests read: here those are empty, but for
    the size of torture.
    """
    validator = installed(Path(__file__).parent / "asyncapi", tmp_path_factory.mktemp("asyncapi")) / "validate.mjs"
    directory = tmp_path_factory.mktemp("documents")
    shutil.copytree(CONTRACT, directory, dirs_exist_ok=True)
    if not TORTURE:
        for schema in (directory / "schemas").rglob("*.json"):
            schema.write_text('{"type": "object"}', encoding="utf-8")
    documents = {"committed": directory / "asyncapi.json"}
    for spoil in (unspoiled, *(spoil for spoil, _ in SPOILED)):
        document = with_one_operation()
        spoil(document)
        documents[spoil.__name__] = directory / f"{spoil.__name__}.json"
        documents[spoil.__name__].write_text(json.dumps(document), encoding="utf-8")
    command = ["node", str(validator), *map(str, documents.values())]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr[:5000]
    return dict(zip(documents, map(json.loads, done.stdout.splitlines()), strict=True))


def test_it_is_valid(read: dict[str, Any]) -> None:
    told = len(EVENTS) - 1  # replies are none of their own
    assert read["committed"] == {
        "wrong": [],
        "operations": len(REQUESTS) + told,
        "channels": len(REQUESTS) + told + len(QUEUES) + 1,
    }


@pytest.mark.parametrize(("spoil", "said"), SPOILED)
def test_what_is_wrong_is_found(read: dict[str, Any], spoil: Any, said: str) -> None:
    assert read["unspoiled"] == {"wrong": [], "operations": 1, "channels": 2}
    assert any(said in line for line in read[spoil.__name__]["wrong"])
