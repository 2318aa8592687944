"""Which predictors of a module the names and patterns of `Configuration.lms` mean."""

from __future__ import annotations

from collections.abc import Iterable
from fnmatch import fnmatchcase


def matching(path: str, globs: Iterable[str]) -> list[str]:
    """Those of these names and patterns that a predictor has, or a module that it is in; the one that applies first."""
    parts = path.split(".")
    names = [".".join(parts[:length]) for length in range(1, len(parts) + 1)]
    found = [glob for glob in globs if any(name == glob or fnmatchcase(name, glob) for name in names)]
    return sorted(found, key=_rank)


def _rank(glob: str) -> tuple[bool, int, str]:
    """Names first, then longer patterns: the order of keys in a message is not kept."""
    return any(sign in glob for sign in "*?["), -len(glob), glob
