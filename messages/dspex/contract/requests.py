"""All commands and queries by type, collected from the modules of the contract.

Every class there with a `type` of its own is one; there is no other list of them.
"""

from __future__ import annotations

from dspex.contract import backlog, commands, dead_letters, endpoints, external, gates, queries, selections, workers
from dspex.contract.commands import Command
from dspex.contract.defined import by_type
from dspex.contract.queries import Query

REQUESTS: dict[str, type[Command]] = by_type(
    Command, (backlog, commands, dead_letters, endpoints, external, gates, queries, selections, workers)
)
QUERIES: dict[str, type[Query]] = {type_: found for type_, found in REQUESTS.items() if issubclass(found, Query)}
"""The commands that change nothing."""
