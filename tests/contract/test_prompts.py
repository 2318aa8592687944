"""A deployed signature sends what DSPy sends for its class, byte for byte."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import dspy
import pytest

from adapters.lm import LMAlias, LMCatalog
from adapters.native.setup import prepare_dspy
from adapters.port import Adapter, ProgramSpec, RunOptions
from adapters.python_port.server import Server
from dspex import Configuration, Signature
from tests import notebook
from tests.lm_server import LMServer, fitting, in_turn, text
from tests.on_an_lm import ON_AN_LM, adapter_of
from workers.handlers.module_source import signature_of

TEXT: Mapping[str, Any] = {"text": "Ann and Bob"}
SIGNATURES: Mapping[str, tuple[Any, Mapping[str, Any]]] = {
    "a class of people": (notebook.Extract, TEXT),
    "no instructions": (notebook.Undocumented, TEXT),
    "scalars": (notebook.Scalars, {"note": None, "count": 3}),
}


@pytest.fixture(scope="module")
def server() -> Iterator[LMServer]:
    with LMServer() as running:
        yield running


@pytest.fixture(params=ON_AN_LM, scope="module")
def deployed(request: pytest.FixtureRequest, server: LMServer) -> Iterator[Adapter]:
    catalog = LMCatalog({"local": LMAlias("openai/gpt-4o-mini", api_base=server.url)})

    def children() -> Server:
        made: Server = request.getfixturevalue("server_of_children")
        return made

    with adapter_of(request.param, catalog, children) as adapter:
        yield adapter


def asked(server: LMServer, run: Callable[[], object]) -> list[str]:
    """The bodies of the requests of a run. The first answer cannot be read, so that it is asked for again, as JSON."""
    server.script = in_turn(text("I do not know."), fitting)
    server.requests.clear()
    run()
    return [json.dumps(request.body) for request in server.requests]


def in_the_notebook(server: LMServer, module: Callable[[], Any], inputs: Mapping[str, Any]) -> list[str]:
    prepare_dspy()
    lm = dspy.LM("openai/gpt-4o-mini", api_base=server.url, api_key="none", cache=False, num_retries=0)
    with dspy.context(lm=lm, adapter=dspy.ChatAdapter()):
        return asked(server, lambda: module()(**inputs))


def as_deployed(
    server: LMServer, adapter: Adapter, signature: Any, inputs: Mapping[str, Any], /, **configuration: Any
) -> list[str]:
    read = Signature.parse(json.loads(signature_of(signature, name="of_a_class").model_dump_json()))
    given = Configuration.model_validate({"lm": {"model": "local"}} | configuration)
    backend_id = adapter.create_program(ProgramSpec("any", read, given))
    valid = read.validate_inputs(inputs)
    return asked(server, lambda: adapter.execute_program(backend_id, valid, RunOptions("run")))


@pytest.mark.parametrize("module", ["Predict", "ChainOfThought"])
@pytest.mark.parametrize("name", SIGNATURES)
def test_the_same_bytes(server: LMServer, deployed: Adapter, name: str, module: str) -> None:
    signature, inputs = SIGNATURES[name]
    sent = in_the_notebook(server, lambda: getattr(dspy, module)(signature), inputs)
    assert len(sent) == 2
    assert as_deployed(server, deployed, signature, inputs, module=module) == sent
