"""The blocks of code on the pages: a test runs each that is in Python, and is named here; models read the others."""

from __future__ import annotations

import ast
import importlib
import json
import re
import subprocess
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter

from adapters import plugins
from adapters.mock.parameters import MockParameters
from dspex import Configuration, Fallback, Signature, State
from dspex.contract.deployment import Deployment
from tests.pages import OURS, ROOT, Block, blocks, page

RUN = {
    ("README.md", "from dspex.client import RemoteClient"): "tests/integration/test_page_blocks.py",
    ("docs/blobs.md", "from pathlib"): "tests/integration/test_page_blocks.py",
    ("docs/client.md", "from dspex.client import RemoteClient  #"): "tests/integration/test_page_blocks.py",
    ("docs/client.md", "from dspex.client import RemoteClient, as_completed"): "tests/integration/test_page_blocks.py",
    ("docs/client.md", "import pydantic"): "tests/integration/test_page_blocks.py",
    ("docs/client.md", "from dspex import DspexError"): "tests/integration/test_page_blocks.py",
    ("docs/client.md", "created = client.create_execution("): "tests/integration/test_page_blocks.py",
    ("docs/client.md", "from contextlib"): "tests/integration/test_page_blocks.py",
    ("docs/client.md", "client = RemoteClient("): "tests/integration/test_page_blocks.py",
    ("docs/deploy.md", "from workers.local import embedded"): "tests/integration/test_page_blocks.py",
    ("docs/messages.md", "from dspex import CreateProgram"): "tests/integration/test_page_blocks.py",
    ("docs/outbox.md", "# orders/models.py"): "tests/integration/test_outbox_docs.py",
    ("docs/outbox.md", "# orders/migration.py"): "tests/integration/test_outbox_docs.py",
    ("docs/outbox.md", "# orders/requests.py"): "tests/integration/test_outbox_docs.py",
    ("docs/outbox.md", "# orders/service.py"): "tests/integration/test_outbox_docs.py",
    ("docs/plugins.md", "# my_package/programs.py"): "tests/integration/test_own_modules.py",
    ("docs/plugins.md", "import pytest"): "tests/integration/test_plugin.py",
    ("docs/queues.md", "client.submit_program("): "tests/unit/workers/handlers/test_gates.py",
    ("docs/queues.md", "client.pause("): "tests/unit/workers/handlers/test_gates.py",
    ("docs/queues.md", "client.set_limit("): "tests/unit/workers/handlers/test_gates.py",
    ("docs/testing.md", "from adapters.mock"): "tests/unit/adapters/test_mock.py",
    ("docs/webhooks.md", "from dspex import Callback"): "tests/integration/test_page_blocks.py",
    ("docs/webhooks.md", "import os"): "tests/integration/test_webhook_docs.py",
}
"""The test that runs a block, by its page and its beginning."""

READERS_OWN = {"my_package", "orders"}
"""Modules that a reader writes."""


def values(block: Block) -> Iterator[Any]:
    """The JSON values of a block, one after the other."""
    text, decoder = block.text.strip(), json.JSONDecoder()
    while text:
        value, end = decoder.raw_decode(text)
        text = text[end:].lstrip()
        yield value


def result_of_a_run(value: Any) -> None:
    session = (ROOT / "workers" / "cli" / "run" / "session.py").read_text(encoding="utf-8")
    written = re.findall(r'^\s+(?:\*\*\(\{)?"(\w+)": ', session, re.MULTILINE)
    assert {*value, *value["usage"]} <= {*written, "program_id", "adapter", "module", "model"}


MODELS: dict[tuple[str, str], Callable[[Any], object]] = {
    ("docs/programs.md", "A signature"): Signature.parse,
    ("docs/programs.md", "Environments"): Configuration.model_validate,
    ("docs/programs.md", "Prompt adapters"): Configuration.model_validate,
    ("docs/programs.md", "Parameters of an LM"): Configuration.model_validate,
    ("docs/programs.md", "State"): lambda value: State.model_validate(value | {"signature_digest": "0" * 64}),
    ("docs/programs.md", "LMs of predictors"): lambda value: Configuration.model_validate({"lms": value}),
    ("docs/programs.md", "Parts of a module of one's own"): Configuration.model_validate,
    ("docs/programs.md", "Fallbacks"): TypeAdapter(list[Fallback]).validate_python,
    ("docs/plugins.md", "Plug-ins"): Configuration.model_validate,
    ("docs/testing.md", "Testing with the mock adapter"): MockParameters.model_validate,
    ("docs/files.md", "Results"): result_of_a_run,
}
"""What reads the JSON of a page, below a heading."""


def test_every_block_of_python_is_run_by_a_test_that_names_its_page() -> None:
    unknown = [f"{it}" for it in blocks("python") if not runners(it)]
    assert unknown == [], "blocks that no test runs"
    assert len(RUN) == len(blocks("python"))
    for (path, beginning), test in RUN.items():
        assert f'"{path}"' in (ROOT / test).read_text(encoding="utf-8"), f"{test} does not read {path}: {beginning}"


def runners(block: Block) -> list[str]:
    return [test for (path, start), test in RUN.items() if path == block.page and block.text.startswith(start)]


@pytest.mark.parametrize("block", blocks("python"), ids=str)
def test_what_a_block_imports_is_there(block: Block) -> None:
    for node in ast.walk(ast.parse(block.text)):
        if isinstance(node, ast.Import):
            for name in node.names:
                importlib.import_module(name.name)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] not in READERS_OWN:
            module = importlib.import_module(node.module or "")
            assert [name.name for name in node.names if not hasattr(module, name.name)] == [], f"{block}: {node.module}"


@pytest.mark.parametrize("block", blocks("json"), ids=str)
def test_json_is_what_its_model_reads(block: Block) -> None:
    read = MODELS[block.page, block.heading]
    found = list(values(block))
    assert found
    for value in found:
        read(value)


def test_json_in_sentences_is_json() -> None:
    spans = [span for path in OURS for span in page(path).spans if re.match(r'\[?\{"', span.text)]
    for span in spans:
        assert json.loads(span.text), f"{span}"
    assert spans


@pytest.mark.parametrize("block", blocks("toml"), ids=str)
def test_toml_names_what_plug_ins_offer_or_is_a_deployment(block: Block) -> None:
    found = tomllib.loads(block.text)
    if block.page == "docs/deploy.md":
        assert Deployment.model_validate(found).signature.inputs
        return
    assert set(found["project"]["entry-points"]) == {
        plugins.ADAPTERS,
        plugins.MODULES,
        plugins.REWARDS,
        plugins.TOOLS,
        plugins.PROMPT_ADAPTERS,
    }


@pytest.mark.parametrize("block", blocks("js"), ids=str)
def test_javascript_can_be_read(block: Block, tmp_path: Path) -> None:
    (tmp_path / "page.mjs").write_text(block.text, encoding="utf-8")
    done = subprocess.run(["node", "--check", "page.mjs"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_no_block_is_of_a_language_that_nobody_checks() -> None:
    by_hand = {"sql": "docs/security.md", "sh": "docs/security.md"}  # `test_security_docs` runs them
    checked = {"", "python", "json", "toml", "js"}
    odd = [
        f"{it}: {it.language}" for path in OURS for it in page(path).blocks if it.language not in checked | {*by_hand}
    ]
    assert odd == []
    assert [f"{it}" for it in blocks(*by_hand) if by_hand[it.language] != it.page] == []
