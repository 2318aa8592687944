"""All commands and queries by type, collected from the modules of the contract.

Every class there with a `type` of its own is one; there is no other list of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from types import ModuleType

from dspex.contract import commands, dead_letters, endpoints, queries
from dspex.contract.commands import Command
from dspex.contract.queries import Query


def _defined(modules: Iterable[ModuleType]) -> Iterator[type[Command]]:
    """The commands that these modules define, in their order. A class without a type is a base class."""
    for module in modules:
        for found in vars(module).values():
            written_here = isinstance(found, type) and found.__module__ == module.__name__
            if written_here and issubclass(found, Command) and "type" in vars(found):
                yield found


def _by_type(found: Iterable[type[Command]]) -> dict[str, type[Command]]:
    by_type: dict[str, type[Command]] = {}
    for command in found:
        if by_type.setdefault(command.type, command) is not command:
            raise TypeError(f"{command.__name__} has the type of {by_type[command.type].__name__}: {command.type}")
    return by_type


REQUESTS: dict[str, type[Command]] = _by_type(_defined((commands, dead_letters, endpoints, queries)))
QUERIES: dict[str, type[Query]] = {type_: found for type_, found in REQUESTS.items() if issubclass(found, Query)}
"""The commands that change nothing."""
