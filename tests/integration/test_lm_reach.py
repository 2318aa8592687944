"""What an LM call reaches: the address that was given, with the key that was given, and nothing else.

Every test has listening sockets on this machine: they know who came, and with what.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from adapters.lm import LMAlias, LMCatalog
from adapters.native import NativeAdapter
from adapters.port import Adapter, AdapterError, ProgramSpec, RunOptions
from adapters.python_port import Limits, PythonPortAdapter
from adapters.python_port.server import Server
from dspex import LM, Configuration, ErrorCode, Signature
from tests import lm_server
from tests.lm_server import Answer, LMServer
from tests.on_an_lm import ON_AN_LM, adapter_of

ROOT = Path(__file__).parents[2]
SIGNATURE = Signature.parse("question -> answer")
KEY = "sk-of-the-house"
SECRET = "TOP SECRET OF ANOTHER SERVER"


@pytest.fixture(scope="module")
def server_of_children() -> Iterator[Server]:
    server = Server(Limits(preload=("litellm",)))
    yield server
    server.close()


@pytest.fixture
def server() -> Iterator[LMServer]:
    with LMServer() as running:
        yield running


@pytest.fixture
def other() -> Iterator[LMServer]:
    """A server that nobody is to come to."""
    with LMServer() as running:
        running.script = lambda _: Answer(body={"secret": SECRET})
        yield running


@pytest.fixture(params=ON_AN_LM)
def make(request: pytest.FixtureRequest) -> Iterator[Any]:
    with ExitStack() as ending:

        def adapter(catalog: LMCatalog) -> Adapter:
            return ending.enter_context(
                adapter_of(request.param, catalog, lambda: request.getfixturevalue("server_of_children"))
            )

        yield adapter


def run(adapter: Adapter, model: str, secret: str | None = None) -> Any:
    configuration = Configuration(lm=LM(model=model, secret=secret))
    backend_id = adapter.create_program(ProgramSpec("any", SIGNATURE, configuration))
    return adapter.execute_program(backend_id, {"question": "why"}, RunOptions("run", timeout=30, trace=True))


def house(server: LMServer, model: str = "openai/gpt-4o-mini", **more: Any) -> LMCatalog:
    return LMCatalog({"house": LMAlias(model, server.url, "HOUSE_API_KEY")}, {"HOUSE_API_KEY": KEY}.get, **more)


@pytest.mark.parametrize(
    "model",
    [
        "oobabooga/http://{address}/x",
        "openai/http://{address}/x",
        "openai//{address}/x",
        "openai/x@{address}",
        "http://{address}/v1",
        "{address}/x",
        "custom/http://{address}",
        "ollama_chat/x",
        "sagemaker/x",
        "openai:x/y",
        "vllm:x/y",
    ],
)
def test_a_model_of_a_message_opens_no_connection(make: Any, other: LMServer, model: str) -> None:
    address = other.url.split("/")[2]
    values = dict.fromkeys(["OPENAI_API_KEY", "VAULT_TOKEN", "OOBABOOGA_API_KEY"], KEY)
    for secret in (None, "OPENAI_API_KEY", "VAULT_TOKEN"):
        with pytest.raises(AdapterError) as caught:
            run(make(LMCatalog({}, values.get)), model.format(address=address), secret)
        assert caught.value.code in (ErrorCode.PERMANENT, ErrorCode.AUTH)
        assert SECRET not in str(caught.value)
    assert other.connections == 0


@pytest.mark.parametrize("model", ["openai/gpt-4o-mini", "anthropic/claude-sonnet-4-5", "together_ai/x", "azure_ai/x"])
@pytest.mark.parametrize("status", [302, 307])
def test_no_redirect_is_followed(make: Any, server: LMServer, other: LMServer, model: str, status: int) -> None:
    server.script = lambda _: Answer(status=status, headers={"Location": f"{other.url}/x"}, body=b"moved")
    with pytest.raises(AdapterError) as caught:
        run(make(house(server, model)), "house")
    assert (server.connections, other.connections) == (1, 0)
    told = f"{caught.value!r} {vars(caught.value)}"
    assert SECRET not in told
    assert KEY not in told


HOSTILE = "\x1b]0;owned\x07 \x9b31m \u202e <script> \x00 " + "x" * 100_000


@pytest.mark.parametrize("model", ["openai/gpt-4o-mini", "together_ai/x"])
@pytest.mark.parametrize("status", [200, 302, 400, 429])
@pytest.mark.parametrize("form", ["json", "text"])
def test_what_a_server_says_is_cut_and_cleaned(make: Any, server: LMServer, model: str, status: int, form: str) -> None:
    said: Any = (
        {"error": {"message": HOSTILE, "code": HOSTILE, "type": HOSTILE}} if form == "json" else HOSTILE.encode()
    )
    server.script = lambda _: Answer(status=status, body=said, headers={"x-request-id": "r" * 5_000})
    with pytest.raises(AdapterError) as caught:
        run(make(house(server, model)), "house")
    for text in (caught.value.message, caught.value.provider_code, caught.value.request_id):
        assert text is None or (len(text) <= 4_000 and "\x1b" not in text and "\u202e" not in text)
        assert text is None or text.isprintable()


AMBIENT = {
    "OPENAI_API_KEY": "sk-ambient",
    "TOGETHERAI_API_KEY": "sk-ambient",
    "MISTRAL_API_KEY": "sk-ambient",
    "AZURE_API_KEY": "sk-ambient",
    "AZURE_AD_TOKEN": "sk-ambient",
    "AWS_ACCESS_KEY_ID": "AKIDAMBIENT",
    "AWS_SECRET_ACCESS_KEY": "sk-ambient",
    "AWS_SESSION_TOKEN": "sk-ambient",
    "AWS_BEARER_TOKEN_BEDROCK": "sk-ambient",
    "AWS_REGION": "eu-central-1",
    "OPENAI_ORG_ID": "org-ambient",
    "OPENAI_ORGANIZATION": "org-ambient",
    "OPENAI_PROJECT_ID": "proj-ambient",
    "OPENAI_CUSTOM_HEADERS": "X-Ambient: sk-ambient",
    "USE_LITELLM_PROXY": "True",
}
ADDRESSES = [
    "OPENAI_BASE_URL",
    "OPENAI_API_BASE",
    "AZURE_API_BASE",
    "AZURE_OPENAI_ENDPOINT",
    "MISTRAL_API_BASE",
    "TOGETHER_AI_API_BASE",
    "OLLAMA_API_BASE",
    "HOSTED_VLLM_API_BASE",
    "COHERE_API_BASE",
    "LITELLM_PROXY_API_BASE",
    "AWS_ENDPOINT_URL",
    "AWS_BEDROCK_RUNTIME_ENDPOINT",
    "AWS_ENDPOINT_URL_BEDROCK_RUNTIME",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "ALL_PROXY",
    "http_proxy",
    "all_proxy",
]
MODELS = [
    "openai/x",
    "anthropic/x",
    "gemini/x",
    "groq/x",
    "openrouter/a/x",
    "deepseek/x",
    "xai/x",
    "moonshot/x",
    "azure/x",
    "azure_ai/x",
    "cerebras/x",
    "cohere_chat/x",
    "deepinfra/x",
    "fireworks_ai/x",
    "hosted_vllm/x",
    "mistral/x",
    "nvidia_nim/x",
    "ollama/x",
    "ollama_chat/x",
    "perplexity/x",
    "sambanova/x",
    "together_ai/a/x",
]


def test_nothing_but_the_given_is_sent_and_to_nobody_else(server: LMServer, other: LMServer, tmp_path: Path) -> None:
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login ambient password sk-ambient\n")
    (tmp_path / ".env").write_text("COHERE_API_KEY=sk-ambient-dotenv\n")
    (tmp_path / ".netrc").chmod(0o600)
    port = int(server.url.split(":")[2].split("/")[0])
    program = f"""
        import sys
        def watch(event, arguments):
            if event == "socket.connect" and arguments[1][:2] != ("127.0.0.1", {port}):
                print("CONNECTED", arguments[1], flush=True)
            if event == "socket.getaddrinfo" and arguments[0] != "127.0.0.1":
                print("RESOLVED", arguments[:2], flush=True)
        sys.addaudithook(watch)
        from adapters.lm import LMAlias, LMCatalog
        from adapters.native import NativeAdapter
        from adapters.port import AdapterError, ProgramSpec, RunOptions
        from dspex import LM, Configuration, Signature
        signature, configuration = Signature.parse("question -> answer"), Configuration(lm=LM(model="house"))
        for model in {MODELS!r}:
            for secret in ("HOUSE_API_KEY", None):
                aliases = {{"house": LMAlias(model, {server.url!r}, secret)}}
                adapter = NativeAdapter(LMCatalog(aliases, {{"HOUSE_API_KEY": {KEY!r}}}.get))
                backend_id = adapter.create_program(ProgramSpec("native", signature, configuration))
                try:
                    adapter.execute_program(backend_id, {{"question": model}}, RunOptions("run", timeout=20))
                    print("ANSWERED", model)
                except AdapterError as error:
                    print(model, secret, error.code, error.message[:200])
    """
    environment = AMBIENT | dict.fromkeys(ADDRESSES, other.url) | {"HOME": str(tmp_path), "PATH": os.environ["PATH"]}
    environment["PYTHONPATH"] = os.pathsep.join([str(ROOT), *filter(None, sys.path)])
    told = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        check=True, capture_output=True, text=True, env=environment, cwd=tmp_path, timeout=300,
    )  # fmt: skip
    assert "CONNECTED" not in told.stdout, told.stdout
    assert "RESOLVED" not in told.stdout, told.stdout
    assert other.connections == 0
    seen = [*(dict(request.headers) for request in server.requests), *server.strays]
    assert len(seen) >= 2 * len(MODELS), told.stdout
    sent = json.dumps(seen).lower()
    for leak in ("ambient", "aws4-hmac", "basic "):
        assert leak not in sent
    assert KEY in sent


@pytest.mark.parametrize(
    ("make_adapter", "model"),
    [
        (NativeAdapter, "openai/gpt-4o-mini"),
        (PythonPortAdapter, "openai/gpt-4o-mini"),
        (PythonPortAdapter, "together_ai/x"),  # in a process of its own: LiteLLM has one proxy in each
    ],
)
def test_a_proxy_is_the_one_that_the_operator_gave(
    make_adapter: Any, model: str, server: LMServer, other: LMServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", server.url)
    other.script = lm_server.fitting
    adapter = make_adapter(house(server, model, proxy=other.url.removesuffix("/v1")))
    try:
        assert run(adapter, "house").outputs == {"answer": "an answer"}
    finally:
        adapter.close()
    assert (server.connections, other.connections) == (0, 1)
