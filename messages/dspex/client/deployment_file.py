"""Reads a deployment from a file: TOML, or JSON. What it names by a path is read from beside it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from dspex.client.classes import REFERENCE, Import, import_class, signature_of_class
from dspex.contract.deployment import Deployment
from dspex.contract.saved_state import state_of
from dspex.errors import InvalidSignature, InvalidValues, Problem
from dspex.json_text import NotJson, NotToml, read_json, read_toml
from dspex.model import problems
from dspex.signatures.signature import Signature

MAX_BYTES = 16 * 1024 * 1024
"""The largest file that is read."""


def read_deployment(
    path: Path, changes: Mapping[str, Any] | None = None, *, import_class: Import = import_class
) -> Deployment:
    """Read a deployment.

    `signature` may be the arrow form, the path of a JSON file, or `package.module:Class`. `state` may be the path of
    the JSON file that DSPy's `save` wrote. Paths are relative to the file.

    Args:
        changes: members that replace those of the file; those of objects one by one. Paths in them are relative to
            the file, too.
        import_class: imports `package.module:Class`.

    Raises:
        InvalidValues: the file, or one that it names, cannot be read, or a member is wrong. It names each.
    """
    data = json_file(path, str(path)) if path.suffix == ".json" else _toml(path)
    if not isinstance(data, dict):
        raise InvalidValues([Problem(str(path), "must have members, such as name and signature")])
    return as_deployment(_merged(data, changes or {}), path.parent, import_class=import_class)


def as_deployment(data: Mapping[str, Any], folder: Path, *, import_class: Import = import_class) -> Deployment:
    """A deployment of the members that a file may have. See `read_deployment`; `folder` is where paths begin."""
    found = dict(data)
    if isinstance(given := found.get("signature"), str):
        found["signature"] = _signature(given, folder, import_class)
    if isinstance(given := found.get("signature"), Mapping):
        found["signature"] = _of_data(given)
    if isinstance(given := found.get("state"), str):
        found["state"] = state_of(folder / given)
    try:
        return Deployment.model_validate(found)
    except ValidationError as error:
        raise InvalidValues(problems(error)) from None


def _merged(data: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(data)
    for name, value in changes.items():
        before = merged.get(name)
        if isinstance(before, Mapping) and isinstance(value, Mapping):
            value = {**before, **value}
        merged[name] = value
    return merged


def _signature(given: str, folder: Path, import_class: Import) -> Any:
    if "->" in given:
        return Signature.parse(given)
    if given.endswith(".json"):
        return json_file(folder / given, "signature")
    if not REFERENCE.fullmatch(given):
        reason = "is no arrow form ('question -> answer'), no path of a .json file, and no package.module:Class"
        raise InvalidValues([Problem("signature", reason)])
    return signature_of_class(import_class(given), asked=given)


def _of_data(given: Mapping[str, Any]) -> Signature:
    try:
        return Signature.given(given)
    except InvalidSignature as error:
        wrong = [Problem(f"signature.{one.field}".rstrip("."), one.message) for one in error.problems]
        raise InvalidValues(wrong) from None


def _toml(path: Path) -> Any:
    try:
        return read_toml(_text(path, str(path)))
    except NotToml as error:
        raise InvalidValues([Problem(str(path), str(error))]) from None


def json_file(path: Path, member: str) -> Any:
    """Read a JSON file. An error is that of `member`.

    Raises:
        InvalidValues: it cannot be read.
    """
    try:
        return read_json(_text(path, member))
    except NotJson as error:
        raise _wrong(member, path, str(error)) from None


def _text(path: Path, member: str) -> str:
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise _wrong(member, path, f"cannot be read: {error.strerror}") from None
    if len(content) > MAX_BYTES:
        raise _wrong(member, path, f"has more than {MAX_BYTES} bytes")
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError:
        raise _wrong(member, path, "is not UTF-8 text") from None


def _wrong(member: str, path: Path, reason: str) -> InvalidValues:
    return InvalidValues([Problem(member, reason if member == str(path) else f"{path} {reason}")])
