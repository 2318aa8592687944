"""Large inputs and outputs on the whole way: they go to the blob store by themselves, and come back whole."""

from __future__ import annotations

import asyncio
import io
from pathlib import Path
from typing import Any

import pytest

from dspex import Configuration
from dspex.aio import AsyncClient
from dspex.blobs import Blob, blob_digest
from dspex.blobs.values import BLOBS, references_of
from dspex.client.interface import Interface
from dspex.client.remote import RemoteClient
from dspex.errors import BlobsUnavailable, InvalidInput
from tests.contract.interface import ready

LARGE = "ä" * 900_000
"""1.8 MB: more than a message may have."""
TYPED = "document: str, k: list[int] = [1] -> answer: str, sections: list[str]"
OUTPUTS = {"answer": LARGE, "sections": ["b", LARGE, "a"]}


def answering(outputs: dict[str, Any]) -> Configuration:
    """A mock that answers with these."""
    return Configuration(parameters={"outputs": [{"then": outputs}]})


@pytest.fixture(scope="module")
def program(dspex: Interface) -> Any:
    """A program with small outputs."""
    return ready(dspex, TYPED, configuration=answering({"answer": "yes", "sections": []})).program_id


def test_inputs_and_outputs_above_the_threshold(dspex: Interface) -> None:
    inputs = {"document": LARGE, "k": [1, 2]}
    # rules of a mock are a part of the program, which is a message, too: it answers with less
    large = {"answer": "ö" * 150_000, "sections": ["b", "x" * 300_000, "a"]}
    found = ready(dspex, TYPED, configuration=answering(large))
    execution = dspex.execute_program(found.program_id, inputs)
    assert execution.outputs == large
    stored = dspex.get_execution(execution.execution_id)
    assert stored.inputs == {
        "k": [1, 2],
        BLOBS: {"document": {"digest": blob_digest(LARGE.encode()), "size": 1_800_000, "media_type": "text/plain"}},
    }
    assert stored.outputs is not None
    assert list(stored.outputs) == [BLOBS]
    kinds = {name: blob.media_type for name, blob in references_of(stored.outputs).items()}
    assert kinds == {"answer": "text/plain", "sections": "application/json"}
    whole = dspex.whole(stored)
    assert (whole.inputs, whole.outputs) == (inputs, large)
    handle = dspex.handle(execution.execution_id)
    assert handle.result(30) == large
    model = dspex.output_model(found.program_id)
    assert handle.result(30, result_type=model).model_dump() == large


def test_for_asyncio(dspex: Interface, program: Any) -> None:
    async def run() -> None:
        client = AsyncClient(dspex)
        blob = await client.upload(b"a text", media_type="text/plain")
        handle = await client.submit_program(program, {"document": blob})
        assert await handle.result(30) == {"answer": "yes", "sections": []}
        assert (await client.execute_program(program, {"document": LARGE})).status == "completed"
        assert await client.download(blob) == b"a text"

    asyncio.run(run())


def test_an_uploaded_file_is_a_value(dspex: Interface, program: Any, tmp_path: Path) -> None:
    (tmp_path / "document.txt").write_text("A text.", encoding="utf-8")
    (tmp_path / "k.json").write_text("[4, 5]", encoding="utf-8")
    document = dspex.upload(tmp_path / "document.txt")
    assert document == Blob(digest=blob_digest(b"A text."), size=7, media_type="text/plain")
    assert dspex.upload(str(tmp_path / "document.txt")) == document
    assert dspex.upload(io.BytesIO(b"A text."), media_type="text/plain") == document
    execution = dspex.execute_program(program, {"document": document, "k": dspex.upload(tmp_path / "k.json")})
    assert dspex.whole(execution).inputs == {"document": "A text.", "k": [4, 5]}
    assert dspex.download(document) == dspex.download(document.digest) == b"A text."


def test_small_values_stay_in_the_message(dspex: Interface, program: Any) -> None:
    inputs = {"document": "x" * 200_000, "k": [1]}
    execution = dspex.execute_program(program, inputs)
    assert dspex.get_execution(execution.execution_id).inputs == inputs


@pytest.mark.parametrize(
    ("body", "blob", "reason"),
    [
        (b"x", {"size": 2}, "has 1 bytes, and not 2"),
        (b"x", {"digest": "sha256:" + "0" * 64}, "there is no blob sha256:0000"),
        (b"\xff", {"media_type": "text/plain"}, "is not text in UTF-8"),
        (b"[1", {"media_type": "application/json"}, "is not JSON"),
        (b"[NaN]", {"media_type": "application/json"}, "is not JSON"),
        (b"[" * 100_000, {"media_type": "application/json"}, "is not JSON"),
        (b"x", {"media_type": "image/png"}, "a blob of image/png is no value"),
        (b"[1]", {"media_type": "application/json"}, "document: input should be a valid string"),
    ],
)
def test_a_blob_that_is_no_value_ends_the_execution(
    dspex: Interface, program: Any, body: bytes, blob: dict[str, Any], reason: str
) -> None:
    given = dspex.upload(body, media_type="text/plain").model_dump() | blob
    execution = dspex.execute_program(program, {BLOBS: {"document": given}})
    assert execution.error is not None
    assert (execution.error.code, execution.attempt) == ("invalid_input", 1)
    assert reason in execution.error.message
    assert "document" in execution.error.message


@pytest.mark.parametrize(
    ("inputs", "reason"),
    [
        ({BLOBS: 5}, "must be an object of blobs"),
        ({BLOBS: {"document": {"digest": "sha256:../../etc/passwd", "size": 1}}}, "digest: string should match"),
        ({BLOBS: {"document": {"digest": "sha256:" + "A" * 64, "size": 1}}}, "digest: string should match"),
        ({BLOBS: {"document": {"digest": "sha256:" + "0" * 64, "size": -1}}}, "size: input should be greater"),
        ({BLOBS: {"document": {"digest": "sha256:" + "0" * 64}}}, "size: is missing"),
        (
            {"document": "x", BLOBS: {"document": {"digest": "sha256:" + "0" * 64, "size": 1}}},
            "the field has a value beside its blob",
        ),
    ],
)
def test_what_is_no_reference_is_refused_before_it_is_sent(
    dspex: Interface, program: Any, inputs: dict[str, Any], reason: str
) -> None:
    with pytest.raises(InvalidInput, match=reason):
        dspex.execute_program(program, inputs)


def test_an_execution_that_a_service_runs(dspex: Interface, program: Any) -> None:
    inputs, outputs = {"document": LARGE, "k": [1]}, {"answer": "y" * 1_200_000, "sections": ["a"]}
    created = dspex.create_execution(program, inputs)
    assert BLOBS in created.inputs
    assert dspex.whole(created).inputs == inputs
    running = dspex.mark_running(created.execution_id, created.lock_version)
    done = dspex.mark_completed(running.execution_id, running.lock_version, outputs)
    assert done.outputs == outputs
    stored = dspex.get_execution(created.execution_id).outputs
    assert stored is not None
    assert list(references_of(stored)) == ["answer"]


def test_a_client_without_a_store_says_what_it_needs(dspex: Interface, program: Any) -> None:
    execution_id = dspex.execute_program(program, {"document": LARGE}).execution_id
    kept, dspex.blobs = dspex.blobs, None
    try:
        with pytest.raises(BlobsUnavailable, match="give it blobs=open_store"):
            dspex.upload(b"x")
        view = dspex.get_execution(execution_id)
        with pytest.raises(BlobsUnavailable, match="document: in the blob store; give the client blobs=open_store"):
            dspex.whole(view)
    finally:
        dspex.blobs = kept


def test_the_tenant_of_a_client_is_its_arguments() -> None:
    with RemoteClient("amqp://guest:guest@127.0.0.1:1/", source="/tests") as client:
        assert client.tenant == "default"
    with RemoteClient("amqp://guest:guest@127.0.0.1:1/", source="/tests", tenant="acme") as client:
        assert client.tenant == "acme"
