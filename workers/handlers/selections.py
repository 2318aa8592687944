"""Finds what a command for many things applies to, in batches."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from uuid import UUID

from dspex.contract.selections import Selection
from store.database.pages import Page
from workers.application.wiring import Application
from workers.security.request import Received

Find = Callable[..., Page[UUID]]
"""Gets a connection, the filters by name, `cursor`, `limit` and `tenant`."""


def chosen(app: Application, received: Received[Selection], find: Find, size: int) -> Iterator[Page[UUID]]:
    """Yield the ids that were given or that match the filter, in batches; no transaction is open meanwhile.

    The last batch has a cursor if the command ends at its limit before the matches do.
    """
    asked, tenant = received.command, received.tenant
    if asked.ids is not None:
        for start in range(0, len(asked.ids), size):
            yield Page(asked.ids[start : start + size], None)
        return
    cursor, left = asked.cursor, asked.limit
    while True:
        most = size if left is None else min(size, left)
        with app.read(tenant) as connection:
            page = find(connection, **asked.filters, cursor=cursor, limit=most, tenant=tenant)
        yield page
        cursor = page.next_cursor
        if left is not None:
            left -= len(page.items)
        if cursor is None or left == 0:
            return
