"""What is to be run, as a caller gives it: a signature, a class, a file, or a program that is there.

| given                                       | stands for                                                        |
|---------------------------------------------|-------------------------------------------------------------------|
| `question -> answer`, data, a `.json` file  | a signature                                                       |
| a class, `package.module:Class`             | a signature; or a module of one's own, with the signature that it |
|                                             | names. Imported where the caller is                               |
| a `.toml` file, or `.json` with `signature` | a deployment                                                      |
| any other text, an id                       | a program, by its id or name                                      |

A text is the caller's own and never one that came from elsewhere: it can import a module and read a file.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias
from uuid import UUID

from dspex.client.classes import REFERENCE, Import, OwnModule, import_class, read_class
from dspex.client.deployment_file import as_deployment, json_file, read_deployment
from dspex.contract.deployment import Deployment
from dspex.errors import InvalidValues, Problem
from dspex.signatures.signature import Signature


@dataclass(frozen=True)
class NamedProgram:
    """A program by its id or its name."""

    given: UUID | str


Subject: TypeAlias = Signature | OwnModule | Deployment | NamedProgram
Given: TypeAlias = Subject | UUID | Mapping[str, Any] | Path | str | type
"""What `read_subject` takes."""


def read_subject(
    given: object, *, changes: Mapping[str, Any] | None = None, import_class: Import = import_class
) -> Subject:
    """What something stands for. See the table at the top.

    Args:
        changes: members that replace those of a deployment.
        import_class: imports `package.module:Class`.

    Raises:
        InvalidSignature, InvalidValues: it cannot be read, or is nothing of that.
    """
    match given:
        case Signature() | OwnModule() | Deployment() | NamedProgram():
            return given
        case UUID():
            return NamedProgram(given)
        case type():
            return read_class(given)
        case Path():
            return _file(given, changes, import_class)
        case Mapping():
            if _deploys(given):
                return as_deployment(given, Path(), import_class=import_class)
            return Signature.given(given)
        case str():
            return _text(given, changes, import_class)
    reason = "give a signature, a class derived from dspy.Signature or dspy.Module, a file, or a program's id or name"
    raise InvalidValues([Problem("signature", f"{reason}, and no {type(given).__name__}")])


def read_signature(given: object, *, import_class: Import = import_class) -> Signature:
    """What something stands for, if that is a signature.

    Raises:
        InvalidSignature, InvalidValues: it is none, or cannot be read.
    """
    found = read_subject(given, import_class=import_class)
    if not isinstance(found, Signature):
        reason = "is no signature: give 'question -> answer', data, a .json file, or a dspy.Signature class"
        raise InvalidValues([Problem("signature", reason)])
    return found


def _text(given: str, changes: Mapping[str, Any] | None, import_class: Import) -> Subject:
    if "->" in given:
        return Signature.parse(given)
    if REFERENCE.fullmatch(given):
        return read_class(import_class(given), asked=given)
    if given.endswith((".json", ".toml")) or _is_file(given):
        return _file(Path(given), changes, import_class)
    return NamedProgram(given)


def _file(path: Path, changes: Mapping[str, Any] | None, import_class: Import) -> Signature | Deployment:
    if path.suffix != ".toml":
        data = json_file(path, "signature")
        if not (isinstance(data, Mapping) and _deploys(data)):
            return Signature.given(data)
    return read_deployment(path, changes, import_class=import_class)


def _is_file(given: str) -> bool:
    with suppress(OSError):  # too long for a path, and so a name
        return Path(given).is_file()
    return False


def _deploys(data: Mapping[str, Any]) -> bool:
    return "signature" in data
