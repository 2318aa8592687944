"""Loads plugins from the entry points of other distributions: adapters, modules, rewards, tools, prompt adapters.

| group                   | an entry point gives                                                                       |
|-------------------------|--------------------------------------------------------------------------------------------|
| `dspex.adapters`        | `create_adapter(catalog: adapters.lm.LMCatalog) -> adapters.port.Adapter`                  |
| `dspex.modules`         | a `dspy.Module` class, or a function that makes one (`adapters.native.modules.own`)        |
| `dspex.rewards`         | a reward of `BestOfN` and `Refine`, as in DSPy: `reward(inputs, prediction) -> float`      |
| `dspex.tools`           | a tool of `ReAct`: a function with type hints and a docstring, or a `dspy.Tool`            |
| `dspex.prompt_adapters` | a subclass of `dspy.Adapter` that is made without arguments                                |

Programs name what they use, and never contain its code. A plugin is looked up by name when it is needed, among the
installed distributions; nothing else of a distribution is imported. See
https://packaging.python.org/specifications/entry-points/.
"""

from __future__ import annotations

from importlib.metadata import EntryPoint, entry_points
from typing import Any, Final

from adapters.port import MAX_QUOTE, AdapterError, NotHere
from dspex import ErrorCode

ADAPTERS: Final = "dspex.adapters"
MODULES: Final = "dspex.modules"
REWARDS: Final = "dspex.rewards"
TOOLS: Final = "dspex.tools"
PROMPT_ADAPTERS: Final = "dspex.prompt_adapters"


def registered(group: str) -> list[str]:
    """The names in a group, sorted."""
    return sorted({point.name for point in entry_points(group=group)})


def load(group: str, name: str, *, asked_by: str) -> Any:
    """Import the object that a group has under a name.

    Args:
        asked_by: the field that contains the name. Errors begin with it.

    Raises:
        NotHere: no distribution on this worker offers the name.
        AdapterError: `permanent`: several do, or the object cannot be imported.
    """
    point = find(group, name, asked_by=asked_by)
    if point is None:
        names = ", ".join(registered(group)) or "none"
        raise NotHere(f"{asked_by}: '{name}' is not one of {group} (known: {names})")
    try:
        return point.load()
    except Exception as error:  # noqa: BLE001  whatever happens in its import, the program cannot be built
        raise AdapterError(ErrorCode.PERMANENT, f"{asked_by}: '{name}' {broken(point, error)}") from None


def find(group: str, name: str, *, asked_by: str) -> EntryPoint | None:
    """The entry point with this name, or None.

    Raises:
        AdapterError: `permanent`: several distributions offer it.
    """
    points = list({point.value: point for point in entry_points(group=group, name=name)}.values())
    if len(points) > 1:
        owners = " and ".join(sorted(map(owner, points)))
        text = f"{asked_by}: '{name}' is offered by {owners}: remove all but one"
        raise AdapterError(ErrorCode.PERMANENT, text)
    return points[0] if points else None


def owner(point: EntryPoint) -> str:
    """The distribution of an entry point, with its version."""
    return f"{point.dist.name} {point.dist.version}" if point.dist else "an unknown distribution"


def broken(point: EntryPoint, error: Exception) -> str:
    """Why the object of an entry point cannot be loaded, with its distribution."""
    reason = " ".join(f"{type(error).__name__}: {error}".split())[:MAX_QUOTE]
    return f"of {owner(point)} ({point.value}) cannot be loaded: {reason}"
