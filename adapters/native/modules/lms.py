"""Gives the predictors of a module the LMs that a program names for them (`Configuration.lms`)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from fnmatch import fnmatchcase
from typing import Any

from adapters.port import AdapterError
from dspex import ErrorCode


def give_lms(module: Any, lms: Mapping[str, Any]) -> None:
    """Set the LM of each predictor that a pattern names. The others use that of the run.

    Args:
        lms: by patterns of the names of predictors, or of the modules that they are in.

    Raises:
        AdapterError: `permanent`: a pattern names no predictor. The text has the names that there are.
    """
    predictors = dict(module.named_predictors())
    unused = set(lms)
    for path, predictor in predictors.items():
        matching = sorted(_matching(path, lms), key=_rank)
        unused -= set(matching)
        if matching:
            predictor.lm = lms[matching[0]]
    if unused:
        known = ", ".join(predictors) or "none"
        raise AdapterError(ErrorCode.PERMANENT, f"lms.{min(unused)}: no predictor has this name (there are: {known})")


def _matching(path: str, globs: Iterable[str]) -> Iterator[str]:
    parts = path.split(".")
    names = [".".join(parts[:length]) for length in range(1, len(parts) + 1)]
    for glob in globs:
        if any(name == glob or fnmatchcase(name, glob) for name in names):
            yield glob


def _rank(glob: str) -> tuple[bool, int, str]:
    """Names first, then longer patterns: the order of keys in a message is not kept."""
    return any(sign in glob for sign in "*?["), -len(glob), glob
