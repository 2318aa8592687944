"""References to signatures in modules: which are read at all, before anything is imported."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from dspex.errors import InvalidModule, ModuleNotAllowed
from workers.handlers import signature_modules as modules
from workers.handlers.signature_modules import read_signatures, validate_module

ROOT = Path(__file__).parents[4]


@pytest.fixture
def imported(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The modules that were to be imported; none is."""
    paths: list[str] = []

    def refuse(path: str) -> Any:
        paths.append(path)
        raise InvalidModule("not in this test")

    monkeypatch.setattr(modules, "_imported", refuse)
    return paths


@pytest.mark.parametrize(
    "reference",
    [
        "",
        ".",
        "acme.",
        ".acme",
        "acme..signatures",
        "acme:",
        ":Class",
        "acme:Class:Class",
        "acme:Outer.Inner",
        "acme signatures",
        " acme",
        "acme\n",
        "acme:Class\n",
        "acme/signatures",
        "../acme",
        "acme-signatures",
        "acme:__import__('os')",
        "1acme",
        "ącme",
        "acme٣",
        "a" * 201,
        "acme:" + "C" * 200,
    ],
)
@pytest.mark.parametrize("prefixes", [None, ["acme"]])
def test_what_is_no_reference_is_not_imported(reference: str, prefixes: list[str] | None, imported: list[str]) -> None:
    with pytest.raises(InvalidModule, match="is not a reference"):
        read_signatures(reference, allowed_prefixes=prefixes)
    assert validate_module(reference, prefixes) is False
    assert imported == []


@pytest.mark.parametrize(
    ("reference", "prefixes"),
    [
        ("acme.signatures_evil:Triage", ["acme.signatures"]),
        ("acme.signature", ["acme.signatures"]),
        ("acme", ["acme.signatures"]),
        ("acme", []),
        ("os", ["acme.signatures"]),
        ("evil.acme.signatures", ["acme.signatures"]),
        ("ACME.signatures", ["acme.signatures"]),
        ("acme", [""]),
        ("acme.signatures", [".", "acme."]),
    ],
)
def test_outside_the_prefixes_nothing_is_imported(reference: str, prefixes: list[str], imported: list[str]) -> None:
    with pytest.raises(ModuleNotAllowed, match="DSPEX_MODULES"):
        read_signatures(reference, allowed_prefixes=prefixes)
    assert validate_module(reference, prefixes) is False
    assert imported == []


@pytest.mark.parametrize(
    ("reference", "prefixes"),
    [
        ("acme.signatures", ["acme.signatures"]),
        ("acme.signatures:Triage", ["acme.signatures"]),
        ("acme.signatures.x.y:Triage", ["other", "acme.signatures"]),
        ("anything.at.all", None),
    ],
)
def test_inside_the_prefixes_the_module_is_imported(
    reference: str, prefixes: list[str] | None, imported: list[str]
) -> None:
    with pytest.raises(InvalidModule, match="not in this test"):
        read_signatures(reference, allowed_prefixes=prefixes)
    assert imported == [reference.partition(":")[0]]


@pytest.mark.parametrize("reference", [None, 3, b"acme", ["acme"]])
def test_whatever_is_asked_validation_does_not_raise(reference: Any, imported: list[str]) -> None:
    assert validate_module(reference, None) is False
    assert validate_module(reference, ["acme"]) is False
    assert imported == []


def test_a_refusal_does_not_load_dspy() -> None:
    code = (
        "import sys, workers.handlers.signature_modules; "
        "assert not workers.handlers.signature_modules.validate_module('this', ['acme']); "
        "assert not {'this', 'dspy'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
