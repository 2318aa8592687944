"""Reads a deployment from a file: TOML, or JSON. What it names by a path is read from beside it."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from dspex.contract.deployment import Deployment
from dspex.contract.saved_state import state_of
from dspex.errors import InvalidValues, Problem
from dspex.json_text import NotJson, NotToml, read_json, read_toml
from dspex.model import problems
from dspex.signatures.signature import Signature

MAX_BYTES = 16 * 1024 * 1024
"""The largest file that is read."""

CLASS = re.compile(r"[A-Za-z_][A-Za-z0-9_.]*:[A-Za-z_][A-Za-z0-9_]*", re.ASCII)
"""A class of a module: `package.module:Class`."""

ReadClass = Callable[[str], Signature]


def read_deployment(
    path: Path, changes: Mapping[str, Any] | None = None, *, read_class: ReadClass | None = None
) -> Deployment:
    """Read a deployment.

    `signature` may be the arrow form, the path of a JSON file, or `package.module:Class`. `state` may be the path of
    the JSON file that DSPy's `save` wrote. Paths are relative to the file.

    Args:
        changes: members that replace those of the file; those of objects one by one. Paths in them are relative to
            the file, too.
        read_class: reads the signature of `package.module:Class`. It imports the module; None: refuse such a signature.

    Raises:
        InvalidValues: the file, or one that it names, cannot be read, or a member is wrong. It names each.
    """
    data = _json(path, str(path)) if path.suffix == ".json" else _toml(path)
    if not isinstance(data, dict):
        raise InvalidValues([Problem(str(path), "must have members, such as name and signature")])
    return as_deployment(_merged(data, changes or {}), path.parent, read_class=read_class)


def as_deployment(data: Mapping[str, Any], folder: Path, *, read_class: ReadClass | None = None) -> Deployment:
    """A deployment of the members that a file may have. See `read_deployment`; `folder` is where paths begin."""
    found = dict(data)
    if isinstance(given := found.get("signature"), str):
        found["signature"] = _signature(given, folder, read_class)
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


def _signature(given: str, folder: Path, read_class: ReadClass | None) -> Any:
    if "->" in given:
        return Signature.parse(given)
    if given.endswith(".json"):
        return _json(folder / given, "signature")
    if not CLASS.fullmatch(given):
        reason = "is no arrow form ('question -> answer'), no path of a .json file, and no package.module:Class"
        raise InvalidValues([Problem("signature", reason)])
    if read_class is None:
        reason = "a class is read by `dspex deploy`; here, give its data, or the arrow form"
        raise InvalidValues([Problem("signature", reason)])
    return read_class(given)


def _toml(path: Path) -> Any:
    try:
        return read_toml(_text(path, str(path)))
    except NotToml as error:
        raise InvalidValues([Problem(str(path), str(error))]) from None


def _json(path: Path, member: str) -> Any:
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
