"""The SQL that is shown in `docs/sql` is that of the code: `make sql` writes it again."""

from __future__ import annotations

from pathlib import Path

import pytest

from deploy.sql import DIALECTS, document, statements
from store.tables import metadata

FOLDER = Path(__file__).parents[3] / "docs" / "sql"


@pytest.mark.parametrize("database", DIALECTS)
def test_it_is_what_is_committed(database: str) -> None:
    assert (FOLDER / f"{database}.sql").read_text(encoding="utf-8") == document(database)


@pytest.mark.parametrize("database", DIALECTS)
def test_the_indexes_that_it_needs_are_there(database: str) -> None:
    there = {str(index.name) for table in metadata.tables.values() for index in table.indexes}
    there |= {f"pk_{table}" for table in metadata.tables}
    assert {name for seen in statements(database) for name in seen.told.needs} <= there
