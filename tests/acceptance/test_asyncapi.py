"""The committed AsyncAPI document, before the parser of the AsyncAPI Initiative."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from dspex.events import EVENTS
from dspex.queries import REQUESTS
from dspex.topology import QUEUES
from tests.acceptance.node import installed

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(400)]

CONTRACT = Path(__file__).parents[2] / "messages" / "contract"
EXECUTE = "dspex.program.execute.v1"


@pytest.fixture(scope="module")
def validator(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return installed(Path(__file__).parent / "asyncapi", tmp_path_factory.mktemp("asyncapi")) / "validate.mjs"


def validate(validator: Path, document: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["node", str(validator), str(document)], capture_output=True, text=True, timeout=240, check=False
    )


def test_it_is_valid(validator: Path) -> None:
    done = validate(validator, CONTRACT / "asyncapi.json")
    assert done.returncode == 0, done.stderr[:5000]
    told = len(EVENTS) - 1  # replies are none of their own
    assert json.loads(done.stdout) == {
        "operations": len(REQUESTS) + told,
        "channels": len(REQUESTS) + told + len(QUEUES) + 1,
    }


def with_one_operation() -> dict[str, Any]:
    """A smaller document, which is quickly read."""
    document: dict[str, Any] = json.loads((CONTRACT / "asyncapi.json").read_text(encoding="utf-8"))
    document["channels"] = {name: document["channels"][name] for name in (EXECUTE, "replies")}
    document["operations"] = {"execute": document["operations"][f"receive {EXECUTE}"]}
    return document


def of_another_channel(document: dict[str, Any]) -> None:
    document["operations"]["execute"]["messages"] = [{"$ref": "#/channels/replies/messages/dspex.reply.v1.Nothing"}]


def without_a_file(document: dict[str, Any]) -> None:
    document["components"]["messages"][EXECUTE]["payload"]["schema"] = {"$ref": "schemas/none.json"}


def without_an_exchange(document: dict[str, Any]) -> None:
    del document["channels"][EXECUTE]["bindings"]["amqp"]["exchange"]


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (of_another_channel, "does not belong to the specified channel"),
        (without_a_file, "none.json"),
        (without_an_exchange, "exchange"),
    ],
)
def test_what_is_wrong_is_found(validator: Path, tmp_path: Path, spoil: Any, said: str) -> None:
    shutil.copytree(CONTRACT / "schemas", tmp_path / "schemas")
    document = with_one_operation()
    spoil(document)
    path = tmp_path / "asyncapi.json"
    path.write_text(json.dumps(document), encoding="utf-8")
    done = validate(validator, path)
    assert done.returncode == 1
    assert said in done.stderr
