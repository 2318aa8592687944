"""What a module of one's own finds of the worker's secrets: on `python_port`, the keys of its own aliases and no other.

On `native` it is a part of the worker, and can read whatever the worker can (docs/security.md says so).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from adapters.lm import LMAlias, LMCatalog
from adapters.own_modules import OwnModules
from adapters.port import Adapter, ProgramSpec, RunOptions
from adapters.python_port import Limits
from adapters.python_port.server import Server
from dspex import Configuration, Signature
from tests.lm_server import LMServer, fields
from tests.on_an_lm import ON_AN_LM, adapter_of

PRYING = '''
import os
import re
from pathlib import Path

import dspy

SECRET = re.compile(rb"sk-of-the-[a-z]+-[0-9]{4}")


class Prying(dspy.Module):
    """Looks for secrets where it is told to, and tells which it found."""

    def __init__(self, predictors=("ask",)):
        super().__init__()
        for name in predictors:
            setattr(self, name, dspy.Predict("question -> answer"))

    def forward(self, question):
        for predictor in self.predictors():
            predictor(question="why")
        found = set(SECRET.findall(b"".join(getattr(self, question)())))
        return dspy.Prediction(answer=" ".join(sorted(text.decode() for text in found)))

    def environment(self):
        yield repr(dict(os.environ)).encode()
        yield Path("/proc/self/environ").read_bytes()
        yield Path("/proc/self/cmdline").read_bytes()

    def lms(self):
        for lm in (dspy.settings.lm, *(predictor.lm for predictor in self.predictors())):
            yield repr(vars(lm) if lm is not None else {}).encode()

    def memory(self):
        with open("/proc/self/mem", "rb", buffering=0) as memory:
            for line in Path("/proc/self/maps").read_text().splitlines():
                span, rights, *_ = line.split()
                start, end = (int(text, 16) for text in span.split("-"))
                if rights.startswith("rw"):
                    memory.seek(start)
                    try:
                        yield b" ".join(SECRET.findall(memory.read(end - start)))
                    except OSError:
                        pass
'''
NAME = "prying:Prying"
ALLOWED = OwnModules((NAME,))
KEYS = {
    "HOUSE_API_KEY": "sk-of-the-house-1234",
    "JUDGE_API_KEY": "sk-of-the-judge-1234",
    "OTHER_API_KEY": "sk-of-the-other-1234",
}
OF_THE_WORKER = KEYS | {"DSPEX_DATABASE_URL": "postgresql://dspex:sk-of-the-database-1234@127.0.0.1/dspex"}


@pytest.fixture(scope="module")
def children(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """They are made by a worker that has all secrets in its environment."""
    path = tmp_path_factory.mktemp("prying")
    (path / "prying.py").write_text(PRYING, encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(path))
        for name, value in OF_THE_WORKER.items():
            patch.setenv(name, value)
        server = Server(Limits())
        server.fork().close()
        yield server
    server.close()


@pytest.fixture
def lms() -> Iterator[LMServer]:
    with LMServer(fields(answer="so")) as running:
        yield running


@pytest.fixture
def catalog(lms: LMServer) -> LMCatalog:
    aliases = {
        name: LMAlias("openai/gpt-4o-mini", lms.url, f"{name.upper()}_API_KEY") for name in ("house", "judge", "other")
    }
    return LMCatalog(aliases, KEYS.get)


def found(adapter: Adapter, where: str, **configuration: object) -> str:
    """What the module found, in the first of its runs."""
    signature = Signature.parse("question -> answer")
    given = Configuration.model_validate({"module": NAME, "lm": {"model": "house"}} | configuration)
    spec = replace(ProgramSpec("any", signature, given), code=ALLOWED.find(NAME))
    outcome = adapter.execute_program(adapter.create_program(spec), {"question": where}, RunOptions("run"))
    return str(outcome.outputs["answer"])


@pytest.mark.parametrize("where", ["environment", "lms", "memory"])
def test_a_child_holds_the_key_of_its_alias_alone(children: Server, catalog: LMCatalog, where: str) -> None:
    with adapter_of("python_port", catalog, lambda: children) as adapter:
        assert found(adapter, where) == ("" if where == "environment" else "sk-of-the-house-1234")


@pytest.mark.parametrize("where", ["lms", "memory"])
def test_a_child_holds_the_keys_of_its_predictors(children: Server, catalog: LMCatalog, where: str) -> None:
    with adapter_of("python_port", catalog, lambda: children) as adapter:
        predictors = {"predictors": ["ask", "check"]}
        keys = found(adapter, where, parameters=predictors, lms={"check": {"model": "judge"}})
    assert keys == "sk-of-the-house-1234 sk-of-the-judge-1234"


@pytest.mark.parametrize("kind", ON_AN_LM)
def test_what_a_module_can_call_with_is_its_aliases(
    children: Server, catalog: LMCatalog, lms: LMServer, kind: str
) -> None:
    """On both adapters: DSPy is given the LMs of the program, and a request has the key of the alias that it is for."""
    with adapter_of(kind, catalog, lambda: children) as adapter:
        assert found(adapter, "lms") == "sk-of-the-house-1234"
    assert {request.authorization for request in lms.requests} == {"Bearer sk-of-the-house-1234"}
