"""Checks that installed packages are within the ranges of our distributions, which `make versions` tests.

An installer respects the ranges once, but a later `pip install` of something else may not. Uses only Python's standard
library, as any other package may be the wrong one.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Container, Iterator, Mapping
from importlib import metadata
from typing import Final

DISTRIBUTIONS: Final = ("dspex-server", "dspex")
ON_USE: Final = frozenset({"dspy", "dspy-ai"})
"""Packages that are checked when an adapter that needs them is made, and not at the start."""

DSPY_OF_ENVIRONMENTS: Final = ">=3.0,<3.5"
"""The versions of DSPy that programs run on in environments of their own."""

_REQUIREMENT = re.compile(r"([A-Za-z0-9._-]+)\s*(?:\[[^\]]*\])?\s*\(?([<>=!~0-9a-z.*,\s]*)\)?")
_BOUND = re.compile(r"(>=|<)\s*([0-9.]+)")
_RELEASE = re.compile(r"[0-9]+(?:\.[0-9]+)*")
_BEFORE = re.compile(r"[-_.]?(?:a|b|rc|dev|alpha|beta|pre|c)[-_.0-9]*")

Wanted = Callable[[str], bool]


def at_start() -> list[str]:
    """One line for each package out of its range, except for those that only some adapters need."""
    return list(_problems(lambda name: name not in ON_USE))


def of(names: Container[str]) -> list[str]:
    """One line for each of these packages that is missing or out of its range."""
    return list(_problems(lambda name: name in names, missing=True))


def of_environments() -> dict[str, str]:
    """The ranges of the packages that a named environment must have."""
    found = dict(_ranges(lambda name: name == "pydantic"))
    return {"dspy": DSPY_OF_ENVIRONMENTS, "pydantic": found.get("pydantic", "")}


def out_of(ranges: Mapping[str, str], *, missing: bool = True) -> Iterator[str]:
    """One line for each package that is not in its range here.

    Args:
        missing: whether one that is not installed has a line, too.
    """
    for name, bounds in ranges.items():
        try:
            version = metadata.version(name)
        except metadata.PackageNotFoundError:
            if missing:
                yield f"{name} is not installed, and DSPex needs {name}{bounds}: pip install '{name}{bounds}'"
            continue
        if not within(version, bounds):
            yield f"{name} {version} is installed, and DSPex needs {name}{bounds}: pip install '{name}{bounds}'"


def _problems(wanted: Wanted, *, missing: bool = False) -> Iterator[str]:
    return out_of(dict(_ranges(wanted)), missing=missing)


def _ranges(wanted: Wanted) -> Iterator[tuple[str, str]]:
    seen = set[str]()
    for distribution in DISTRIBUTIONS:
        for name, bounds in _required(distribution):
            if name not in seen and wanted(name):
                seen.add(name)
                yield name, bounds


def _required(distribution: str) -> Iterator[tuple[str, str]]:
    """The requirements of a distribution with their ranges; empty if it is not installed."""
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
    """Whether a version is in a range such as `>=3.4,<3.5`. `>=` and `<` exclude pre-releases of their bound."""
    release = _RELEASE.match(version)
    if release is None:
        return True  # cannot be decided
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
    """A form to compare: 3.4.0 equals 3.4."""
    parts = [int(part) for part in release.split(".") if part]
    while parts and parts[-1] == 0:
        parts.pop()
    return tuple(parts)
