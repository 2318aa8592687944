"""The signatures that a client knows: fetched once, and again where they may have changed."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from uuid import UUID

import pytest

from dspex import Signature, SignatureStatus, uuid7
from dspex.client.signature_cache import SignatureCache
from dspex.contract.results import SignatureView
from dspex.errors import NoAnswer


class Programs:
    """Gives out signatures, and counts."""

    def __init__(self) -> None:
        self.fetched: list[UUID] = []
        self.status = SignatureStatus.ACTIVE
        self.failures = 0
        self.open = threading.Event()
        self.open.set()
        self.known = SignatureCache(self._fetch)

    def _fetch(self, program_id: UUID) -> SignatureView:
        self.fetched.append(program_id)
        self.open.wait(30)
        if self.failures:
            self.failures -= 1
            raise NoAnswer("nobody is there")
        now = datetime.now(UTC)
        return SignatureView(
            signature_id=uuid7(),
            signature=Signature.parse(f"question_{len(self.fetched)} -> answer"),
            status=self.status,
            digest="",
            lock_version=1,
            inserted_at=now,
            updated_at=now,
        )


def test_one_that_many_threads_ask_for_is_fetched_once() -> None:
    programs, program_id = Programs(), uuid7()
    programs.open.clear()
    with ThreadPoolExecutor(16) as threads:
        asked = [threads.submit(programs.known.of, program_id) for _ in range(16)]
        programs.open.set()
        assert len({id(future.result(30)) for future in asked}) == 1
    assert programs.known.of(program_id) is asked[0].result()
    assert programs.fetched == [program_id]


def test_a_failure_is_not_kept() -> None:
    programs, program_id = Programs(), uuid7()
    programs.failures = 1
    with pytest.raises(NoAnswer):
        programs.known.of(program_id)
    assert programs.known.of(program_id).inputs[0].name == "question_2"


def test_a_draft_is_fetched_each_time() -> None:
    programs, program_id = Programs(), uuid7()
    programs.status = SignatureStatus.DRAFT
    assert programs.known.of(program_id).inputs[0].name == "question_1"
    programs.status = SignatureStatus.ACTIVE
    assert programs.known.of(program_id).inputs[0].name == "question_2"
    assert programs.known.of(program_id).inputs[0].name == "question_2"


def test_it_knows_no_more_than_its_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    size = Signature.parse("question_1 -> answer").size
    monkeypatch.setattr("dspex.client.signature_cache.MAX_BYTES", 10 * size)
    programs, first = Programs(), uuid7()
    for program_id in (first, *(uuid7() for _ in range(10))):
        programs.known.of(program_id)
    assert len(programs.fetched) == 11
    programs.known.of(first)
    assert len(programs.fetched) == 12


def test_one_that_is_too_old_is_fetched_again() -> None:
    programs, program_id = Programs(), uuid7()
    first = programs.known.of(program_id)
    assert programs.known.of(program_id, max_age=60) is first
    second = programs.known.of(program_id, max_age=-1)
    assert [field.name for field in second.inputs] == ["question_2"]
    assert programs.known.of(program_id) is second
    assert programs.fetched == [program_id] * 2


def test_an_old_one_stays_if_no_newer_one_can_be_fetched() -> None:
    programs, program_id = Programs(), uuid7()
    first = programs.known.of(program_id)
    programs.failures = 1
    with pytest.raises(NoAnswer):
        programs.known.of(program_id, max_age=-1)
    assert programs.known.of(program_id) is first
