"""The state of a DSPy program, or of the file that its `save` wrote. Imports no DSPy and unpickles nothing."""

from __future__ import annotations

import os
import platform
from importlib import metadata
from pathlib import Path
from typing import Any

import pydantic
from pydantic_core import from_json, to_jsonable_python

from dspex.contract.state import State
from dspex.errors import InvalidValues, Problem
from dspex.model import problems

_AGAIN = 'DSPex runs no code that comes as data: save the state alone, program.save("state.json")'


def state_of(program: Any) -> State:
    """The state of a DSPy program, for `Configuration.state`.

    Args:
        program: a `dspy.Module`, which has `dump_state`; or the path of the JSON file that its `save` wrote.

    Raises:
        InvalidValues: it is neither, it is a pickle, or it holds what a state cannot have. The text names it.
    """
    if isinstance(program, str | os.PathLike):
        return _read(Path(program))
    dump = getattr(program, "dump_state", None)
    if not callable(dump):
        raise InvalidValues([Problem("program", "is no DSPy program: it has no dump_state()")])
    try:
        dumped = to_jsonable_python(dump())
    except ValueError as error:
        raise InvalidValues([Problem("program", f"its state is not JSON: {error}")]) from None
    # Else `dump_state` of an own module may have a predictor named `metadata`, or `module`.
    named = {"module": type(program).__name__} if type(program).__module__.partition(".")[0] == "dspy" else {}
    return _state({"predictors": dumped, "metadata": _versions()} | named)


def _versions() -> dict[str, str]:
    python = ".".join(platform.python_version_tuple()[:2])
    try:
        return {"python": python, "dspy": metadata.version("dspy")}
    except metadata.PackageNotFoundError:
        return {"python": python}


def _read(path: Path) -> State:
    if path.is_dir():
        raise _refusal(path, f"is a folder, as save_program=True writes it: the program's code, pickled. {_AGAIN}")
    try:
        content = path.read_bytes()
    except OSError as error:
        raise _refusal(path, f"cannot be read: {error.strerror}") from None
    if path.suffix == ".pkl" or content.startswith(b"\x80"):
        raise _refusal(path, f"is a pickle. {_AGAIN}")
    try:
        saved = from_json(content, allow_inf_nan=False)
    except ValueError as error:
        raise _refusal(path, f"is not JSON: {error}") from None
    return _state(saved)


def _state(saved: Any) -> State:
    try:
        return State.model_validate(saved)
    except pydantic.ValidationError as error:
        raise InvalidValues(problems(error, ["state"])) from None


def _refusal(path: Path, text: str) -> InvalidValues:
    return InvalidValues([Problem("state", f"{path} {text}")])
