"""The transactional outbox: a command is a row of the service's own database until the broker has confirmed it.

For services on SQLAlchemy 2 with PostgreSQL or SQLite (`pip install dspex[sqlalchemy]`). `Outbox` is the table, and
adds commands in the caller's transaction; `OutboxRelay` publishes them. `docs/outbox.md` shows both in a service. They
promise the following, which `tests/contract/test_outbox.py` checks:

- **A command is published if and only if its transaction commits.**
- **At least once.** A row is deleted only after the broker's confirm. After a crash between the two, its message is
  published again with the same id, once the claim of the crashed relay has expired. Workers run one id once.
- **No row is skipped.** A relay keeps no position in the table: each row is due or claimed. A transaction that commits
  late is published late.
- **Any number of relays** work side by side; each takes rows that no other has claimed.
- **An outage of the broker or of the database only delays commands**, and so does a broker on which nothing is declared
  yet. Relays retry with growing pauses of at most half a minute; the rows keep their order.
- **A row that the broker refuses delays no other.** It is retried with growing pauses of at most five minutes, until
  the broker takes it or someone deletes it.
- **Nearly in order.** The rows of one thread are published in the order of `add`. Exceptions are rows that were
  refused, rows that a crashed relay had claimed, and several relays at work.

There is no status and nothing to purge: every row is pending, and is deleted once its message is published. The workers
keep the record of what was sent.
"""

from importlib.util import find_spec

if find_spec("sqlalchemy") is None:
    raise ImportError("dspex.outbox needs SQLAlchemy 2: pip install 'dspex[sqlalchemy]'", name="sqlalchemy")

from dspex.outbox.relay import OutboxRelay
from dspex.outbox.table import Outbox

__all__ = ["Outbox", "OutboxRelay"]
