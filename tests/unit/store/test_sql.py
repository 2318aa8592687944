"""The SQL that is shown in `docs/sql` is that of the code: `make sql` writes it again."""

from __future__ import annotations

import inspect
from pathlib import Path
from types import ModuleType

import pytest

from deploy.sql import ALL_CALLS, DIALECTS, document, statements
from store import event_outbox
from store.executions import adoption, alone, cancels, choosing, early, external, leases, replays, transitions
from store.queues import forgetting, reconciling
from store.tables import metadata
from store.webhooks import sending

NOT_SHOWN: dict[ModuleType, set[str]] = {
    transitions: {"finish", "has_program", "explain"},  # which are in those that are
    alone: set(),
    adoption: {"adopt_these"},  # in `claim`
    leases: {"left"},  # at the end of `dspex run`
    replays: set(),
    cancels: set(),
    external: {"create", "mark_running", "end"},  # of services that run one on their own
    sending: set(),
    choosing: set(),
    forgetting: set(),
    reconciling: set(),
    early: set(),
    event_outbox: {"pending", "adding", "forget"},  # of a message that comes again; in `finish`; in `replay`
}
"""Functions of these modules whose statements are not in the files."""

FOLDER = Path(__file__).parents[3] / "docs" / "sql"


@pytest.mark.parametrize("database", DIALECTS)
def test_it_is_what_is_committed(database: str) -> None:
    assert (FOLDER / f"{database}.sql").read_text(encoding="utf-8") == document(database)


@pytest.mark.parametrize("database", DIALECTS)
def test_the_indexes_that_it_needs_are_there(database: str) -> None:
    there = {str(index.name) for table in metadata.tables.values() for index in table.indexes}
    there |= {f"pk_{table}" for table in metadata.tables}
    assert {name for seen in statements(database) for name in seen.told.needs} <= there


@pytest.mark.parametrize("module", NOT_SHOWN, ids=lambda module: module.__name__)
def test_what_changes_rows_is_shown(module: ModuleType) -> None:
    there = {
        name
        for name, function in inspect.getmembers(module, inspect.isfunction)
        if function.__module__ == module.__name__ and not name.startswith("_")
    }
    shown = {call.function.__name__ for call in ALL_CALLS if inspect.getmodule(call.function) is module}
    assert there - shown == NOT_SHOWN[module]
