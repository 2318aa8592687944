"""Whether what is installed is within the ranges that our distributions declare: those that `make versions` tries.

An installer keeps to them once; the next `pip install` of something else may not. Only Python's own library is used:
what is wrong here may be any other.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Container, Iterator
from importlib import metadata
from typing import Final

DISTRIBUTIONS: Final = ("dspex-server", "dspex")
ON_USE: Final = frozenset({"dspy", "dspy-ai"})
"""What is looked at when an adapter is made that needs it, and not at the start."""

_REQUIREMENT = re.compile(r"([A-Za-z0-9._-]+)\s*(?:\[[^\]]*\])?\s*\(?([<>=!~0-9a-z.*,\s]*)\)?")
_BOUND = re.compile(r"(>=|<)\s*([0-9.]+)")
_RELEASE = re.compile(r"[0-9]+(?:\.[0-9]+)*")
_BEFORE = re.compile(r"[-_.]?(?:a|b|rc|dev|alpha|beta|pre|c)[-_.0-9]*")

Wanted = Callable[[str], bool]


def at_start() -> list[str]:
    """A line for each package that is not in its range, but for what only some adapters need."""
    return list(_problems(lambda name: name not in ON_USE))


def of(names: Container[str]) -> list[str]:
    """A line for each of these packages that is missing, or not in its range."""
    return list(_problems(lambda name: name in names, missing=True))


def _problems(wanted: Wanted, *, missing: bool = False) -> Iterator[str]:
    seen = set[str]()
    for distribution in DISTRIBUTIONS:
        for name, bounds in _required(distribution):
            if name in seen or not wanted(name):
                continue
            seen.add(name)
            try:
                version = metadata.version(name)
            except metadata.PackageNotFoundError:
                if missing:
                    yield f"{name} is not installed: DSPex needs {name}{bounds}"
                continue
            if not within(version, bounds):
                yield f"{name} {version} is installed, and DSPex needs {name}{bounds}: pip install '{name}{bounds}'"


def _required(distribution: str) -> Iterator[tuple[str, str]]:
    """What a distribution requires, and its range; nothing where it runs without being installed."""
    try:
        lines = metadata.requires(distribution) or []
    except metadata.PackageNotFoundError:
        return
    for line in lines:
        requirement, _, marker = line.partition(";")
        found = _REQUIREMENT.match(requirement.strip())
        if found is not None and "extra" not in marker:
            yield (
                found[1].lower().replace("_", "-"),
                ",".join(sorted(found[2].replace(" ", "").split(","), reverse=True)),
            )


def within(version: str, bounds: str) -> bool:
    """Whether a version is in a range such as `>=3.4,<3.5`. A pre-release comes before its release; `<` takes none."""
    release = _RELEASE.match(version)
    if release is None:
        return True  # nobody can say
    number = _number(release[0])
    early = _BEFORE.match(version[release.end() :]) is not None
    for sign, bound in _BOUND.findall(bounds):
        limit = _number(bound)
        if sign == ">=" and (number < limit or (number == limit and early)):
            return False
        if sign == "<" and number >= limit:
            return False
    return True


def _number(release: str) -> tuple[int, ...]:
    """Comparable: 3.4.0 is 3.4."""
    parts = [int(part) for part in release.split(".") if part]
    while parts and parts[-1] == 0:
        parts.pop()
    return tuple(parts)
