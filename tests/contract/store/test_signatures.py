"""Signatures: kept whole, found, changed while they are drafts, activated, deprecated, destroyed."""

from __future__ import annotations

import random
from contextlib import suppress
from uuid import UUID

import pytest
from sqlalchemy import Connection, Engine

from dspex import Signature, SignatureStatus, uuid7
from dspex.contract.status import SIGNATURE_TRANSITIONS
from dspex.errors import Conflict, IllegalTransition, NotFound
from store import programs, signatures
from tests.contract.store.rows import SIGNATURE, at_once, keep_program, keep_signature


class TestSignatures:
    def test_is_kept_whole(self, connection: Connection) -> None:
        signature = Signature.parse(
            {
                "name": "Größe",
                "module": "shop.sizes",
                "version": "2.1.0",
                "instructions": "Größe?\n\t\"'",
                "inputs": [
                    {"name": "text", "type": "str", "description": "ü"},
                    {"name": "k", "type": "int", "default": 3},
                    {"name": "maybe", "type": "Optional[float]", "default": None},
                ],
                "outputs": [{"name": "size", "type": "Literal['S', 'M']"}, {"name": "all", "type": "list[str]"}],
            }
        )
        signature_id = uuid7()
        created = signatures.create(connection, signature_id, signature, activate=True)
        assert created == signatures.get(connection, signature_id)
        assert created.signature == signature
        assert created.signature.digest == signature.digest
        assert (created.status, created.lock_version) == (SignatureStatus.ACTIVE, 1)

    @pytest.mark.parametrize("activate", [True, False])
    def test_again_changes_nothing(self, connection: Connection, activate: bool) -> None:
        signature_id = uuid7()
        created = signatures.create(connection, signature_id, SIGNATURE, activate=activate)
        assert signatures.create(connection, signature_id, SIGNATURE, activate=True) == created
        assert created.status == (SignatureStatus.ACTIVE if activate else SignatureStatus.DRAFT)

    def test_the_id_of_another_is_a_conflict(self, connection: Connection) -> None:
        signature_id = keep_signature(connection)
        with pytest.raises(Conflict, match=str(signature_id)):
            signatures.create(connection, signature_id, Signature.parse("question -> answer"), activate=True)
        assert signatures.get(connection, signature_id).signature == SIGNATURE

    def test_a_version_is_there_once_in_a_module(self, connection: Connection) -> None:
        first = SIGNATURE.model_copy(update={"module": "shop", "version": "1.0.0"})
        keep_signature(connection, first)
        with pytest.raises(Conflict, match=r"'shop' has a version 1\.0\.0"):
            keep_signature(connection, first)
        keep_signature(connection, first.model_copy(update={"version": "1.0.1"}))
        keep_signature(connection, first.model_copy(update={"module": "other"}))

    def test_without_a_module_any_number_have_the_same_version(self, connection: Connection) -> None:
        assert keep_signature(connection) != keep_signature(connection)

    def test_not_found(self, connection: Connection) -> None:
        unknown = uuid7()
        with pytest.raises(NotFound, match=str(unknown)):
            signatures.get(connection, unknown)
        for function in (signatures.activate, signatures.deprecate, signatures.destroy):
            with pytest.raises(NotFound, match=str(unknown)):
                function(connection, unknown)
        with pytest.raises(NotFound, match=str(unknown)):
            signatures.update(connection, unknown, SIGNATURE)

    @pytest.mark.parametrize("start", SignatureStatus)
    def test_activate_and_deprecate(self, connection: Connection, start: SignatureStatus) -> None:
        for change, to, allowed, text in (
            (
                signatures.activate,
                SignatureStatus.ACTIVE,
                SignatureStatus.DRAFT,
                "Only draft signatures can be activated",
            ),
            (
                signatures.deprecate,
                SignatureStatus.DEPRECATED,
                SignatureStatus.ACTIVE,
                "Only active signatures can be deprecated",
            ),
        ):
            signature_id = keep_signature(connection, activate=start != SignatureStatus.DRAFT)
            if start == SignatureStatus.DEPRECATED:
                signatures.deprecate(connection, signature_id)
            before = signatures.get(connection, signature_id)
            assert before.status == start
            assert (to in SIGNATURE_TRANSITIONS[start]) == (start == allowed)
            if start == allowed:
                after = change(connection, signature_id)
                assert (after.status, after.lock_version) == (to, before.lock_version + 1)
            else:
                with pytest.raises(IllegalTransition, match=f"^{text}: {signature_id} is {start}$"):
                    change(connection, signature_id)
                after = before
            assert signatures.get(connection, signature_id) == after

    def test_many_create_the_same_at_once(self, engine: Engine) -> None:
        signature_id = uuid7()

        def create() -> None:
            with engine.begin() as connection:
                signatures.create(connection, signature_id, SIGNATURE, activate=True)

        at_once([create] * 8)


def version(number: str, module: str | None = "shop.sizes", arrow: str = "text -> size") -> Signature:
    return Signature.parse({"arrow": arrow, "name": "Sizes", "module": module, "version": number})


class TestUpdate:
    def test_of_a_draft(self, connection: Connection) -> None:
        before = signatures.create(connection, uuid7(), version("1.0.0"), activate=False)
        changed = version("1.1.0", arrow="text, k: int -> size")
        after = signatures.update(connection, before.id, changed, lock_version=before.lock_version)
        assert (after.signature, after.status) == (changed, SignatureStatus.DRAFT)
        assert after.signature.digest == changed.digest
        assert after.lock_version == before.lock_version + 1
        assert after == signatures.get(connection, before.id)
        assert signatures.find(connection, "shop.sizes", "1.1.0") == after

    def test_of_another_status_is_refused(self, connection: Connection) -> None:
        active = signatures.create(connection, uuid7(), version("1.0.0"), activate=True)
        deprecated = signatures.create(connection, uuid7(), version("1.0.1"), activate=True)
        for row in (active, signatures.deprecate(connection, deprecated.id)):
            with pytest.raises(
                IllegalTransition, match=f"Only draft signatures can be updated: {row.id} is {row.status}"
            ):
                signatures.update(connection, row.id, version("2.0.0"))
            assert signatures.get(connection, row.id) == row

    def test_of_what_has_been_changed_meanwhile_is_a_conflict(self, connection: Connection) -> None:
        before = signatures.create(connection, uuid7(), version("1.0.0"), activate=False)
        after = signatures.update(connection, before.id, version("1.0.1"))
        with pytest.raises(Conflict, match="it is at lock_version 2"):
            signatures.update(connection, before.id, version("1.0.2"), lock_version=before.lock_version)
        assert signatures.get(connection, before.id) == after

    def test_to_a_version_that_is_taken_is_a_conflict(self, connection: Connection) -> None:
        signatures.create(connection, uuid7(), version("1.0.0"), activate=True)
        draft = signatures.create(connection, uuid7(), version("2.0.0"), activate=False)
        with pytest.raises(Conflict, match=r"'shop.sizes' has a version 1\.0\.0"):
            signatures.update(connection, draft.id, version("1.0.0"))
        assert signatures.get(connection, draft.id) == draft


class TestDestroy:
    def test_whatever_its_status(self, connection: Connection) -> None:
        for activate in (True, False):
            signature_id = keep_signature(connection, activate=activate)
            signatures.destroy(connection, signature_id)
            with pytest.raises(NotFound):
                signatures.get(connection, signature_id)

    def test_not_while_programs_use_it(self, connection: Connection) -> None:
        signature_id = keep_signature(connection)
        program_id = keep_program(connection, signature_id)
        programs.archive(connection, program_id)
        with pytest.raises(IllegalTransition, match="1 programs use it"):
            signatures.destroy(connection, signature_id)
        programs.destroy(connection, program_id)
        signatures.destroy(connection, signature_id)

    def test_beside_programs_that_are_being_created(self, engine: Engine) -> None:
        """Either the program is there and its signature too, or neither: nobody sees an error of the database."""
        for _ in range(10):
            with engine.begin() as connection:
                signature_id = keep_signature(connection)

            def create(signature_id: UUID = signature_id) -> None:
                with engine.begin() as connection, suppress(NotFound):
                    keep_program(connection, signature_id)

            def destroy(signature_id: UUID = signature_id) -> None:
                with engine.begin() as connection, suppress(IllegalTransition):
                    signatures.destroy(connection, signature_id)

            at_once([create, destroy, create])
            with engine.begin() as connection:
                users = programs.page(connection, signature_id=signature_id).items
                kept = {row.id for row in signatures.page(connection).items}
            assert (signature_id in kept) == bool(users)


class TestVersions:
    def test_the_highest_first(self, connection: Connection) -> None:
        """In the order of SemVer 2.0.0, section 11."""
        ordered = ["1.0.0-alpha", "1.0.0-alpha.1", "1.0.0-alpha.beta", "1.0.0-beta", "1.0.0-beta.2", "1.0.0-beta.11"]
        ordered += ["1.0.0-rc.1", "1.0.0", "1.2.0", "1.10.0", "2.0.0", "10.0.0"]
        for number in random.Random(1).sample(ordered, len(ordered)):
            signatures.create(connection, uuid7(), version(number), activate=True)
        signatures.create(connection, uuid7(), version("3.0.0", "other"), activate=True)
        found = signatures.versions(connection, "shop.sizes")
        assert [row.signature.version for row in found] == ordered[::-1]
        assert signatures.versions(connection, "nobody") == []

    def test_find(self, connection: Connection) -> None:
        rows = [signatures.create(connection, uuid7(), version(n), activate=True) for n in ("1.0.0", "1.1.0")]
        assert [signatures.find(connection, "shop.sizes", n) for n in ("1.0.0", "1.1.0")] == rows
        for module, number in (("shop.sizes", "1.2.0"), ("shop", "1.0.0")):
            with pytest.raises(NotFound, match=f"there is no version {number} of '{module}'"):
                signatures.find(connection, module, number)


class TestFindOrCreate:
    @pytest.mark.parametrize("module", [None, "shop.sizes"])
    def test_finds_what_it_has_created(self, connection: Connection, module: str | None) -> None:
        created = signatures.find_or_create(connection, version("1.0.0", module))
        assert created.status == SignatureStatus.ACTIVE
        assert signatures.find_or_create(connection, version("1.0.0", module), activate=False) == created
        other = signatures.find_or_create(connection, version("1.0.1", module))
        assert other.id != created.id

    def test_finds_what_another_has_created_the_active_one_first(self, connection: Connection) -> None:
        draft = signatures.create(connection, uuid7(), version("1.0.0", None), activate=False)
        assert signatures.find_or_create(connection, version("1.0.0", None)) == draft
        active = signatures.create(connection, uuid7(), version("1.0.0", None), activate=True)
        assert signatures.find_or_create(connection, version("1.0.0", None)) == active
        assert signatures.find_or_create(connection, version("1.0.0", None, "text -> other")).id not in (
            draft.id,
            active.id,
        )

    def test_a_version_with_other_content_is_a_conflict(self, connection: Connection) -> None:
        signatures.find_or_create(connection, version("1.0.0"))
        with pytest.raises(Conflict, match=r"'shop.sizes' has a version 1\.0\.0"):
            signatures.find_or_create(connection, version("1.0.0", arrow="text -> other"))

    def test_what_was_changed_after_it_was_created_is_another(self, connection: Connection) -> None:
        for _ in range(3):
            draft = signatures.find_or_create(connection, version("1.0.0", None), activate=False)
            assert draft.signature == version("1.0.0", None)
            signatures.update(connection, draft.id, version("1.0.0", None, "text -> other"))

    @pytest.mark.parametrize("module", [None, "shop.sizes"])
    def test_many_at_once_get_the_same(self, engine: Engine, module: str | None) -> None:
        found = list[UUID]()

        def find() -> None:
            with engine.begin() as connection:
                found.append(signatures.find_or_create(connection, version("1.0.0", module)).id)

        at_once([find] * 8)
        assert len(set(found)) == 1
        with engine.begin() as connection:
            assert [row.id for row in signatures.page(connection).items] == found[:1]
