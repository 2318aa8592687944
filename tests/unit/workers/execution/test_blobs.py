"""Blobs of an execution at a worker: a store that is missing, down or damaged, another tenant's, the caps."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from adapters.port import AdapterError, NotHere, Outcome
from deploy.processes import wait_until
from dspex import ErrorCode, ExecutionStatus, Signature, Usage
from dspex.blobs import Blob, BlobStore, open_store
from dspex.blobs.memory import MemoryObjects
from dspex.blobs.values import BLOBS
from dspex.errors import BlobsUnavailable, InvalidInput
from tests.unit.system import PATIENCE, System
from workers.application.wiring import Application
from workers.execution.blobs import kept_outputs, whole_inputs

SIGNATURE = Signature.parse("question -> answer")
USED = Usage(calls=1, cost=0.5)


class Down(MemoryObjects):
    """A storage that is away for as long as a test says."""

    is_down = True

    def under(self, prefix: str) -> Any:
        if self.is_down:
            raise BlobsUnavailable("blobs in memory://: away")
        return super().under(prefix)


def asked(blob: Blob) -> dict[str, Any]:
    return {BLOBS: {"question": blob.model_dump()}}


@pytest.fixture
def app(system: System) -> Application:
    return replace(system.app, blobs=BlobStore(MemoryObjects(), max_bytes=10_000))


def stored(app: Application, body: bytes = b"why", tenant: str = "default") -> Blob:
    assert app.blobs is not None
    return app.blobs.put(body, tenant=tenant, media_type="text/plain")


def test_it_is_read(app: Application) -> None:
    assert whole_inputs(app, asked(stored(app)), SIGNATURE, "default") == {"question": "why"}


def test_another_tenants_is_not_there(app: Application) -> None:
    blob = stored(app, tenant="acme")
    with pytest.raises(InvalidInput, match=f"question: there is no blob {blob.digest}"):
        whole_inputs(app, asked(blob), SIGNATURE, "default")


def test_a_field_that_is_none_is_refused_before_it_is_read(app: Application) -> None:
    with pytest.raises(InvalidInput, match="other: is not a known field"):
        whole_inputs(app, {BLOBS: {"other": stored(app).model_dump()}}, SIGNATURE, "default")


def test_more_than_the_cap_in_all(app: Application) -> None:
    blob = Blob(digest="sha256:" + "0" * 64, size=10_001, media_type="text/plain")
    with pytest.raises(InvalidInput, match="10001 bytes; DSPEX_BLOB_MAX_BYTES allows 10000 in all"):
        whole_inputs(app, asked(blob), SIGNATURE, "default")


def test_a_worker_without_a_store_gives_it_back(app: Application) -> None:
    with pytest.raises(NotHere, match="question: in the blob store, and this worker has none: set DSPEX_BLOBS"):
        whole_inputs(replace(app, blobs=None), asked(stored(app)), SIGNATURE, "default")


def test_a_store_that_is_down_is_a_passing_error(app: Application) -> None:
    with pytest.raises(AdapterError, match="question: DSPEX_BLOBS: blobs in memory://: away") as caught:
        whole_inputs(replace(app, blobs=BlobStore(Down())), asked(stored(app)), SIGNATURE, "default")
    assert caught.value.code == ErrorCode.TRANSIENT


def test_a_body_that_was_replaced_runs_nothing(app: Application, tmp_path: Path) -> None:
    blobs = open_store(str(tmp_path))
    app = replace(app, blobs=blobs)
    blob = stored(app)
    [found] = blobs.stored()
    (tmp_path / found.key).write_bytes(b"who")
    with pytest.raises(AdapterError, match="question: the body of blob") as caught:
        whole_inputs(app, asked(blob), SIGNATURE, "default")
    assert caught.value.code == ErrorCode.PERMANENT


class TestOutputs:
    """Large outputs are stored; where that cannot be, they are kept if they fit."""

    @pytest.fixture
    def settled(self, app: Application) -> Callable[..., Application]:
        def settled(blobs: BlobStore | None, most: int) -> Application:
            changed = {"max_message_bytes": most, "blob_threshold": 2_000}
            return replace(app, blobs=blobs, settings=app.settings.model_copy(update=changed))

        return settled

    def test_without_a_store_the_cap_is_that_of_messages(self, settled: Callable[..., Application]) -> None:
        outcome = Outcome({"answer": "x" * 5_000}, USED)
        assert kept_outputs(settled(None, 6_000), outcome, "default") == outcome.outputs
        with pytest.raises(AdapterError, match="5013 bytes; DSPEX_MAX_MESSAGE_BYTES allows 5000") as caught:
            kept_outputs(settled(None, 5_000), outcome, "default")
        assert (caught.value.code, caught.value.usage) == (ErrorCode.INVALID_OUTPUT, USED)

    def test_a_store_that_is_down_costs_no_answer_that_fits(self, settled: Callable[..., Application]) -> None:
        outcome, down = Outcome({"answer": "x" * 5_000}, USED), BlobStore(Down())
        assert kept_outputs(settled(down, 6_000), outcome, "default") == outcome.outputs
        with pytest.raises(AdapterError, match="DSPEX_BLOBS: blobs in memory://: away") as caught:
            kept_outputs(settled(down, 5_000), outcome, "default")
        assert (caught.value.code, caught.value.usage) == (ErrorCode.TRANSIENT, USED)

    def test_the_cap_of_blobs_is_one_of_outputs(self, settled: Callable[..., Application]) -> None:
        small = BlobStore(MemoryObjects(), max_bytes=3_000)
        with pytest.raises(AdapterError, match="DSPEX_BLOB_MAX_BYTES: the body has more than 3000 bytes") as caught:
            kept_outputs(settled(small, 6_000), Outcome({"answer": "x" * 5_000}, USED), "default")
        assert (caught.value.code, caught.value.usage) == (ErrorCode.INVALID_OUTPUT, USED)


def test_an_execution_waits_for_a_store_that_is_down(system: System) -> None:
    """Over the broker: the attempt is retried, and the adapter sees the whole inputs."""
    objects = Down()
    objects.is_down = False
    object.__setattr__(system.app, "blobs", BlobStore(objects))
    blob = stored(system.app)
    program_id = system.program(adapter="scripted")
    objects.is_down = True
    execution_id = system.execute(program_id, **asked(blob))
    assert wait_until(lambda: getattr(system.row(execution_id), "error", None) is not None, PATIENCE)
    row = system.row(execution_id)
    assert row is not None
    assert row.error is not None
    assert (row.status, row.error.code) == (ExecutionStatus.PENDING, "transient")
    objects.is_down = False
    row = system.ended(execution_id)
    assert (row.status, row.attempt, row.inputs) == (ExecutionStatus.COMPLETED, 2, asked(blob))
    assert system.scripted.runs == [{"question": "why"}]
