"""Addresses and blobs of images, audio and files: what a worker fetches and what not, and what then goes to the LM."""

from __future__ import annotations

import base64
import gzip
import itertools
import socket
import ssl
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import dspy
import pytest

from adapters.port import AdapterError, NotHere
from dspex import Configuration, ErrorCode, Signature
from dspex.blobs import BlobStore
from dspex.blobs.memory import MemoryObjects
from dspex.contract.results import ExecutionView
from dspex.contract.retry_policy import ExecutionPolicy
from dspex.contract.status import ExecutionStatus
from dspex.errors import InvalidInput, SettingsError
from dspex.signatures.dspy_values import plain_values
from tests import lm_server
from tests.forbidden_addresses import FORBIDDEN_ADDRESSES, FORBIDDEN_URLS
from tests.lm_server import LMServer
from tests.webhook_receiver import SILENCE, Answer, WebhookReceiver, dripping, make_certificate
from workers.attachments.fetching import Fetched, Fetcher, NotFetched
from workers.attachments.hosts import Hosts
from workers.attachments.resolving import Attachments
from workers.local import LocalClient, embedded
from workers.settings import load_settings

PNG = b"\x89PNG\r\n\x1a\n and pixels, of which there are enough to be left out"
URL = f"data:image/png;base64,{base64.b64encode(PNG).decode()}"
PUBLIC = "93.184.215.14"
TRUST_NOBODY = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
SEEN = Signature.parse("image: dspy.Image, more: list[dspy.Image] | None -> answer")
FILES = Signature.parse("file: dspy.File -> answer")


def image(body: bytes = PNG, media_type: str = "image/png", **headers: str) -> Answer:
    return Answer(200, {"content-type": media_type, **headers}, body)


@pytest.fixture(scope="module")
def host() -> Iterator[WebhookReceiver]:
    with WebhookReceiver() as running:
        yield running


@pytest.fixture(autouse=True)
def fresh(host: WebhookReceiver) -> None:
    host.requests.clear()
    host.script = lambda _: image()


def fetcher(host: WebhookReceiver) -> Fetcher:
    return Fetcher(Hosts([f"127.0.0.1:{host.port}"]), ssl_context=TRUST_NOBODY)


def refused(host: WebhookReceiver, answer: Answer, seconds: float = 5, max_bytes: int = 1000) -> tuple[str, bool]:
    host.script = lambda _: answer
    with pytest.raises(NotFetched) as caught:
        fetcher(host).fetch(host.url(), max_bytes, seconds)
    return str(caught.value), caught.value.passing


def test_what_is_fetched_and_how(host: WebhookReceiver, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    host.script = lambda _: image(media_type="Image/PNG; charset=binary")
    assert fetcher(host).fetch(host.url(path="/cat.png?a=1"), len(PNG), 5) == Fetched("image/png", PNG)
    assert host.requests[0].path == "/cat.png?a=1"
    assert host.requests[0].headers == {
        "host": f"127.0.0.1:{host.port}",
        "user-agent": "DSPex",
        "accept": "*/*",
        "accept-encoding": "identity",
    }


def test_redirects_are_followed_and_counted(host: WebhookReceiver) -> None:
    host.script = lambda request: image() if request.path == "/c" else Answer(302, {"location": "/c"})
    assert fetcher(host).fetch(host.url(path="/a"), 1000, 5).body == PNG
    text, passing = refused(host, Answer(307, {"location": "/again"}))
    assert (text, passing) == ("it redirects more than 3 times", False)


@pytest.mark.parametrize(
    "location",
    [
        "http://169.254.169.254/latest/meta-data",
        "https://10.0.0.1/",
        "file:///etc/passwd",
        "https://elsewhere.example/",
    ],
)
def test_a_redirect_is_checked_as_the_address_was(
    host: WebhookReceiver, location: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    connected: list[Any] = []
    connect = socket.socket.connect

    def watched(of: socket.socket, address: Any) -> None:
        connected.append(address)
        connect(of, address)

    monkeypatch.setattr(socket.socket, "connect", watched)
    _, passing = refused(host, Answer(302, {"location": location}))
    assert not passing
    assert {to[1] for to in connected} <= {host.port}
    assert len(host.requests) == 1


@pytest.mark.parametrize("status", [400, 401, 403, 404, 410, 204, 304])
def test_an_answer_that_stays(host: WebhookReceiver, status: int) -> None:
    assert refused(host, Answer(status)) == (f"it answered with {status}", False)


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503])
def test_an_answer_that_may_be_different_later(host: WebhookReceiver, status: int) -> None:
    assert refused(host, Answer(status)) == (f"it answered with {status}", True)


def test_size_compression_and_time(host: WebhookReceiver) -> None:
    too_large = ("it has more than the 10 bytes that are left for it", False)
    assert refused(host, image(), max_bytes=10) == too_large
    endless = itertools.chain([b"HTTP/1.1 200 OK\r\ncontent-type: image/png\r\n\r\n"], itertools.repeat(b"x" * 999))
    assert refused(host, Answer(raw=endless), max_bytes=10) == too_large
    bomb = image(gzip.compress(b"\0" * 100_000), **{"content-encoding": "gzip"})
    assert refused(host, bomb) == ("its body is compressed, although that was not asked for", False)
    begin = b"HTTP/1.1 200 OK\r\ncontent-type: image/png\r\n\r\n"
    for slow in (SILENCE, dripping(begin), dripping(b"HTTP/1.1 200 OK\r\nx: ")):
        assert refused(host, slow, seconds=0.3, max_bytes=10_000) == ("it did not answer within 0.3 s", True)
    assert refused(host, Answer(reset=True))[1]
    assert refused(host, Answer(raw=[b"no http\r\n\r\n"])) == ("it did not answer in HTTP", True)


def connects_nowhere(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    seen: list[Any] = []

    def connect(_: socket.socket, address: Any) -> None:
        seen.append(address)
        raise ConnectionRefusedError

    monkeypatch.setattr(socket.socket, "connect", connect)
    return seen


def test_no_connection_to_an_address_that_is_not_public(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = connects_nowhere(monkeypatch)
    answers: list[Sequence[str]] = []
    everywhere = Fetcher(Hosts(["*"], resolver=lambda *_: answers[-1]), ssl_context=TRUST_NOBODY)
    for address in FORBIDDEN_ADDRESSES:
        literal = f"[{address}]" if ":" in address else address
        for url in (f"https://{literal}/", "https://images.example/"):
            for found in ([address], [PUBLIC, address]):
                answers.append(found)
                with pytest.raises(NotFetched) as caught:
                    everywhere.fetch(url, 1000, 5)
                assert not caught.value.passing
    odd = ("http://images.example/", "https://images.example:8443/", "ftp://images.example/")
    for url, found in (*((url, ["127.0.0.1"]) for url in FORBIDDEN_URLS), *((url, [PUBLIC]) for url in odd)):
        answers.append(found)
        with pytest.raises(NotFetched):
            everywhere.fetch(url, 1000, 5)
    assert not seen
    answers.append([PUBLIC])
    with pytest.raises(NotFetched, match="no connection came about"):
        everywhere.fetch("https://images.example/", 1000, 5)
    assert seen == [(PUBLIC, 443)]


def test_a_name_is_resolved_once_for_a_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    """DNS rebinding: what was checked is what is connected to."""
    seen = connects_nowhere(monkeypatch)
    answers = iter([[PUBLIC], ["169.254.169.254"]])
    rebinding = Fetcher(Hosts(["images.example"], resolver=lambda *_: next(answers)), ssl_context=TRUST_NOBODY)
    with pytest.raises(NotFetched):
        rebinding.fetch("https://images.example/", 1000, 5)
    assert seen == [(PUBLIC, 443)]


def test_only_hosts_that_the_operator_has_named() -> None:
    named = Hosts(["images.example", "cdn.example:8080"])
    assert named.check("https://images.example/cat.png").host == "images.example"
    assert named.check("http://cdn.example:8080/").port == 8080
    for url in ("https://other.example/", "https://images.example.evil.example/", "https://cdn.example/"):
        with pytest.raises(Exception, match=r"an operator can allow the host by DSPEX_FETCH_HOSTS"):
            named.check(url)
    for wrong in ("https://images.example", "a/b", "a:b", "user@host", "host:99999", ""):
        with pytest.raises(SettingsError, match="DSPEX_FETCH_HOSTS"):
            Hosts([wrong])


def test_a_certificate_is_checked(tmp_path: Path) -> None:
    certificate = make_certificate(tmp_path, "images.test")
    with WebhookReceiver(certificate) as secure:
        secure.script = lambda _: image()
        hosts = Hosts([f"images.test:{secure.port}"], resolver=lambda *_: ["127.0.0.1"])
        trusting = ssl.create_default_context(cafile=certificate)
        found = Fetcher(hosts, ssl_context=trusting).fetch(secure.url("images.test"), 1000, 5)
        assert (found.body, secure.names) == (PNG, ["images.test"])
        with pytest.raises(NotFetched, match="its certificate is not trusted") as caught:
            Fetcher(hosts, ssl_context=TRUST_NOBODY).fetch(secure.url("images.test"), 1000, 5)
        assert not caught.value.passing


# What is put in the place of an address and a blob


def attachments(host: WebhookReceiver, blobs: BlobStore | None = None, max_bytes: int = 10_000) -> Attachments:
    made = Attachments([f"127.0.0.1:{host.port}"], blobs, max_bytes=max_bytes, timeout=5)
    made._fetcher = fetcher(host)
    return made


def problem(made: Attachments, signature: Signature, tenant: str = "acme", **inputs: Any) -> str:
    with pytest.raises(InvalidInput) as caught:
        made.resolve(signature, signature.validate_inputs(inputs), tenant, 5)
    return str(caught.value)


def test_an_address_becomes_a_data_url_and_is_fetched_once(host: WebhookReceiver) -> None:
    inputs = {"image": host.url(), "more": [host.url(), URL, host.url(path="/b")]}
    resolved = attachments(host).resolve(SEEN, SEEN.validate_inputs(inputs), "acme", 5)
    assert resolved == {"image": URL, "more": [URL, URL, URL]}
    assert [request.path for request in host.requests] == ["/", "/b"]


@pytest.mark.parametrize("media_type", ["", "application/octet-stream", "binary/octet-stream"])
def test_a_server_that_does_not_know_the_type(host: WebhookReceiver, media_type: str) -> None:
    host.script = lambda _: image(media_type=media_type)
    assert attachments(host).resolve(SEEN, {"image": host.url()}, "acme", 5)["image"] == URL
    host.script = lambda _: image(b"<svg/>", media_type)
    assert "is not a media type for an image" in problem(attachments(host), SEEN, image=host.url())


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (image(media_type="text/html"), "image: 'text/html' is not a media type for an image"),
        (image(b"<svg/>", "image/svg+xml"), "image: 'image/svg+xml' is not a media type for an image"),
        (image(b"<html>"), "image: is not what 'image/png' says: its first bytes"),
        (image(b""), "image: is empty"),
        (Answer(404), "image: cannot be fetched: it answered with 404"),
    ],
)
def test_what_is_fetched_and_is_no_image(host: WebhookReceiver, answer: Answer, why: str) -> None:
    host.script = lambda _: answer
    assert problem(attachments(host), SEEN, image=host.url()).startswith(why)


def test_the_limit_is_for_all_of_an_execution(host: WebhookReceiver) -> None:
    more = [host.url(path=f"/{number}") for number in range(4)]
    found = problem(attachments(host, max_bytes=3 * len(PNG)), SEEN, image=URL, more=more)
    assert found == "more.3: cannot be fetched: it has more than the 0 bytes that are left for it"


def test_a_host_that_does_not_answer_now_is_asked_again_later(host: WebhookReceiver) -> None:
    host.script = lambda _: Answer(503)
    with pytest.raises(AdapterError, match="image: cannot be fetched: it answered with 503") as caught:
        attachments(host).resolve(SEEN, {"image": host.url()}, "acme", 5)
    assert caught.value.code is ErrorCode.TRANSIENT


def test_a_blob_is_found_by_its_tenant_and_checked(host: WebhookReceiver) -> None:
    store = BlobStore(MemoryObjects())
    stored = store.put(PNG, tenant="acme", media_type="image/png")
    untold = store.put(PNG + b"2", tenant="acme")
    made = attachments(host, store)
    resolved = made.resolve(SEEN, SEEN.validate_inputs({"image": stored.uri, "more": [untold.uri]}), "acme", 5)
    assert resolved["image"] == URL
    assert resolved["more"][0].startswith("data:image/png;base64,")
    assert problem(made, SEEN, "other", image=stored.uri).startswith(f"image: there is no blob {stored.digest}")
    assert problem(made, FILES, file=stored.uri).startswith("file: 'image/png' is not a media type for a file")
    said_wrong = store.put(b"<html>", tenant="acme", media_type="image/png")
    assert problem(made, SEEN, image=said_wrong.uri).startswith("image: is not what 'image/png' says")
    assert "at most 5 are allowed" in problem(attachments(host, store, max_bytes=5), SEEN, image=stored.uri)
    with pytest.raises(NotHere, match="image: in the blob store, and this worker has none"):
        attachments(host).resolve(SEEN, {"image": stored.uri}, "acme", 5)
    assert not host.requests


@pytest.mark.parametrize(
    "value", ["blob:sha256:ABC", "blob:sha256:" + "A" * 64, "blob:../../x", "blob:md5:0", "https://"]
)
def test_what_is_neither(value: str) -> None:
    with pytest.raises(InvalidInput, match="image: is no image: give a data URL"):
        SEEN.validate_inputs({"image": value})


# A worker


@pytest.fixture(scope="module")
def server() -> Iterator[LMServer]:
    with LMServer() as running:
        yield running


@pytest.fixture(scope="module")
def dspex(tmp_path_factory: pytest.TempPathFactory, server: LMServer, host: WebhookReceiver) -> Iterator[LocalClient]:
    folder = tmp_path_factory.mktemp("attachments")
    environment = {
        "DSPEX_DATABASE_URL": f"sqlite:///{folder}/dspex.db",
        "DSPEX_LMS": f'{{"local": {{"model": "openai/gpt-4o-mini", "api_base": "{server.url}"}}}}',
        "DSPEX_FETCH_HOSTS": f"127.0.0.1:{host.port}",
        "DSPEX_BLOBS": str(folder / "blobs"),
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        with embedded(load_settings()) as client:
            yield client


def run(dspex: LocalClient, server: LMServer, adapter: str, image: str, **policy: Any) -> ExecutionView:
    server.script = lm_server.fields(answer="a cat")
    server.requests.clear()
    program = dspex.create_program(
        f"seen by {adapter}",
        "image: dspy.Image, question -> answer",
        adapter_type=adapter,
        configuration=Configuration.model_validate({"lm": {"model": "local"}}),
        policy=ExecutionPolicy(**policy),
    )
    dspex.initialize_program(program.program_id)
    return dspex.execute_program(program.program_id, {"image": image, "question": "what?"}, timeout=60)


def sent_images(server: LMServer) -> list[Any]:
    return [block for block in server.requests[0].body["messages"][-1]["content"] if block["type"] != "text"]


@pytest.mark.parametrize("adapter", ["native", "python_port"])
def test_the_lm_gets_what_was_fetched(
    dspex: LocalClient, server: LMServer, host: WebhookReceiver, adapter: str
) -> None:
    found = run(dspex, server, adapter, host.url(path="/cat.png"))
    assert found.outputs == {"answer": "a cat"}
    assert sent_images(server) == [{"type": "image_url", "image_url": {"url": URL}}]
    assert found.inputs == {"image": host.url(path="/cat.png"), "question": "what?"}


def test_the_lm_gets_what_is_in_the_blob(dspex: LocalClient, server: LMServer) -> None:
    store = dspex._app.blobs
    assert store is not None
    blob = store.put(PNG, tenant="default", media_type="image/png")
    assert run(dspex, server, "native", blob.uri).outputs == {"answer": "a cat"}
    assert sent_images(server) == [{"type": "image_url", "image_url": {"url": URL}}]


def test_a_client_takes_dspys_objects(dspex: LocalClient, server: LMServer, tmp_path: Path) -> None:
    server.script = lm_server.fields(answer="a cat")
    server.requests.clear()
    (tmp_path / "cat.png").write_bytes(PNG)
    (tmp_path / "a b.pdf").write_bytes(b"%PDF-1.7")
    cat = dspy.Image.from_path(str(tmp_path / "cat.png"))
    arrow = "image: dspy.Image, more: list[dspy.Image], history: dspy.History, question -> answer"
    program = dspex.create_program(
        "objects", arrow, adapter_type="native", configuration=Configuration.model_validate({"lm": {"model": "local"}})
    )
    dspex.initialize_program(program.program_id)
    turns = dspy.History(messages=[{"image": cat, "question": "Who?", "answer": "Tom"}])
    inputs = {"image": cat, "more": [cat], "history": turns, "question": "And now?"}
    found = dspex.execute_program(program.program_id, inputs, timeout=60)
    assert found.outputs == {"answer": "a cat"}
    assert len(sent_images(server)) == 2
    assert found.inputs["history"] == {"messages": [{"image": URL, "question": "Who?", "answer": "Tom"}]}
    report = dspy.File.from_path(str(tmp_path / "a b.pdf"))
    assert plain_values({"file": report, "audio": dspy.Audio(data="AA==", audio_format="wav")}) == {
        "file": "data:application/pdf;name=a%20b.pdf;base64,JVBERi0xLjc=",
        "audio": "data:audio/wav;base64,AA==",
    }
    with pytest.raises(InvalidInput, match="file: is the id of a file at a provider"):
        dspex.execute_program(program.program_id, {"file": dspy.File.from_file_id("file-1")})


def test_what_may_not_be_fetched_fails_at_once_and_calls_no_lm(
    dspex: LocalClient, server: LMServer, host: WebhookReceiver
) -> None:
    found = run(dspex, server, "native", "https://169.254.169.254/latest/meta-data", max_attempts=3)
    assert (found.status, found.attempt) == (ExecutionStatus.FAILED, 1)
    assert found.error is not None
    assert found.error.code == ErrorCode.INVALID_INPUT
    assert "169.254.169.254' has an address that nothing is fetched from" in str(found.error)
    assert not server.requests
    assert not host.requests


def test_what_does_not_answer_is_tried_again(dspex: LocalClient, server: LMServer, host: WebhookReceiver) -> None:
    answers = iter([Answer(503), image()])
    host.script = lambda _: next(answers)
    found = run(dspex, server, "native", host.url(), max_attempts=2)
    assert (found.status, found.attempt) == (ExecutionStatus.COMPLETED, 2)
    assert len(server.requests) == 1


def test_the_prompt_of_a_program_fetches_too(dspex: LocalClient, server: LMServer, host: WebhookReceiver) -> None:
    run(dspex, server, "native", URL)
    program = next(iter(dspex.list_programs(name="seen by native").items))
    prompt = dspex.get_program_prompt(program.program_id, {"image": host.url(), "question": "what?"})
    assert f"({len(PNG)} bytes, sha256:" in str(prompt.messages)
    assert host.requests


def test_the_mock_answers_for_images(dspex: LocalClient, server: LMServer, host: WebhookReceiver) -> None:
    found = run(dspex, server, "mock", host.url(path="/cat.png"))
    assert found.status == ExecutionStatus.COMPLETED
    assert not server.requests
    assert [request.path for request in host.requests] == ["/cat.png"]
