"""Which modules of one's own a program may name, where their code is, and what tells it from other code."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from adapters.own_modules import OwnModules
from adapters.port import AdapterError, ModuleCode, NotHere, ProgramSpec
from dspex import Configuration, Signature

Package = Callable[..., None]


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Package:
    """Writes files into a new folder on the path."""

    def write(folder: str, /, **files: str) -> None:
        monkeypatch.syspath_prepend(str(tmp_path / folder))
        for name, text in files.items():
            path = tmp_path / folder / f"{name.replace('__in__', '/')}.py"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)

    return write


BOOM = "raise RuntimeError('imported')\n"


def found(name: str, *allowed: str) -> ModuleCode:
    code = OwnModules(allowed or (name,)).find(name)
    assert code is not None
    return code


def test_nothing_is_imported_to_find_a_module(package: Package) -> None:
    package("x", acme_own__in____init__=BOOM, acme_own__in__sub__in____init__=BOOM, acme_own__in__sub__in__rag=BOOM)
    code = found("acme_own.sub.rag:RAG")
    assert (code.reference, code.distribution, len(code.digest)) == ("acme_own.sub.rag:RAG", "", 64)
    assert not [name for name in sys.modules if name.startswith("acme_own")]


@pytest.mark.parametrize(
    "allowed", [(), ("acme_own",), ("acme_own.rag",), ("acme_own.rag:Other",), ("acme_own:*",), ("acme_own.ra:*",)]
)
def test_only_what_is_allowed_by_its_exact_name_is_known(package: Package, allowed: tuple[str, ...]) -> None:
    package("x", acme_own__in____init__="", acme_own__in__rag="")
    with pytest.raises(NotHere, match="may not be imported"):
        OwnModules(allowed).find("acme_own.rag:RAG")
    assert found("acme_own.rag:RAG", "acme_own.rag:*") == found("acme_own.rag:RAG", "acme_own.rag:RAG")


@pytest.mark.parametrize("name", ["acme_none:RAG", "acme_own.none:RAG", "acme_own.rag.none:RAG"])
def test_what_is_allowed_and_not_there_is_not_here(package: Package, name: str) -> None:
    package("x", acme_own__in____init__="", acme_own__in__rag="")
    with pytest.raises(NotHere, match="there is no module"):
        OwnModules((name,)).find(name)


def test_names_of_dspy_and_of_adapters_have_no_code() -> None:
    assert OwnModules().find("Predict") is None
    assert OwnModules().find("Nobody") is None


@pytest.mark.usefixtures("example_plugin")
def test_an_entry_point_has_its_distribution() -> None:
    code = found("rag")
    assert (code.reference, code.distribution) == ("dspex_example.programs:RAG", "dspex-example 1.0.0")
    assert found("dspex_example.programs:RAG", "dspex_example.programs:*") == code


def test_the_identity_is_that_of_the_whole_package(package: Package) -> None:
    package("one", acme_a__in____init__="", acme_a__in__rag="x = 1", acme_a__in__util="y = 1", alone_a="x = 1")
    package("two", acme_b__in____init__="", acme_b__in__rag="x = 1", acme_b__in__util="y = 2", alone_b="x = 1")
    package("three", acme_c__in____init__="", acme_c__in__rag="x = 1", acme_c__in__util="y = 1", alone_c="x = 2")
    packages = {letter: found(f"acme_{letter}.rag:RAG").digest for letter in "abc"}
    assert packages["a"] == packages["c"] != packages["b"]
    assert found("alone_a:RAG").digest != found("alone_c:RAG").digest


def test_a_namespace_has_the_code_of_what_is_in_it(package: Package) -> None:
    package("one", acme_ns__in__first__in____init__="x = 1")
    package("two", acme_ns__in__second__in____init__="x = 2", acme_ns__in__third="x = 1")
    assert len({found(f"acme_ns.{name}:RAG").digest for name in ("first", "second", "third")}) == 3


def test_a_package_without_end_is_refused(package: Package, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("adapters.own_modules.MAX_FILES", 2)
    package("x", acme_big__in____init__="", acme_big__in__a="", acme_big__in__b="")
    with pytest.raises(AdapterError, match="more than 2 source files"):
        found("acme_big.a:RAG")


def test_source_files_that_cannot_be_read_are_told(package: Package, tmp_path: Path) -> None:
    package("x", acme_torn__in____init__="", acme_torn__in__a="")
    (tmp_path / "x" / "acme_torn" / "b.py").symlink_to("nowhere.py")
    with pytest.raises(NotHere, match="module: the source files of 'acme_torn' cannot be read: No such file"):
        found("acme_torn.a:RAG")


def test_the_backend_id_has_the_code() -> None:
    spec = ProgramSpec("native", Signature.parse("a -> b"), Configuration(module="acme.rag:RAG"))
    code = ModuleCode(reference="acme.rag:RAG", distribution="acme 1.0", digest="0" * 64)
    others = [code.model_copy(update={"digest": "1" * 64}), code.model_copy(update={"distribution": "acme 1.1"})]
    ids = [replace(spec, code=given).backend_id for given in (None, code, *others)]
    assert len(set(ids)) == 4


@pytest.mark.usefixtures("example_plugin")
def test_what_is_offered_is_told_with_its_code_or_what_is_wrong(package: Package) -> None:
    package("x", acme_told__in____init__="", acme_told__in__rag="")
    told = {it.name: str(it) for it in OwnModules(("acme_told.rag:*", "acme_none:RAG")).offered()}
    assert list(told) == ["grounded", "rag", "acme_told.rag:*", "acme_none:RAG"]
    assert told["rag"] == f"rag (dspex-example 1.0.0, {found('rag').digest[:12]})"
    assert told["acme_told.rag:*"].startswith("acme_told.rag:* (acme_told.rag:*, ")
    assert told["acme_none:RAG"].startswith("acme_none:RAG (cannot be run: module: there is no module 'acme_none'")
