"""The transactional outbox: a command is a row of the service's own database until the broker has confirmed it.

For services on SQLAlchemy 2 with PostgreSQL or SQLite (`pip install dspex[sqlalchemy]`). `Outbox` is the table and
adds commands in the caller's transaction, `OutboxRelay` publishes them. `docs/outbox.md` shows both in a service. What
they promise, and `tests/contract/test_outbox.py` checks:

- **What commits is published, what rolls back is not.**
- **At least once.** A row is deleted after the broker's confirm, and not before. A crash between the two publishes its
  message again, with the same id, when the claim of the crashed relay has run out: workers run one id once.
- **No row is skipped.** A row is due or claimed, and nothing remembers how far a relay has come: a transaction that
  commits late is published late.
- **Any number of relays** work side by side; each takes rows that no other has claimed.
- **An outage of the broker or of the database costs time only**, and so does a broker on which nothing is declared
  yet. Relays try again with a growing pause, at most half a minute, and the rows keep their places.
- **A row that the broker refuses waits alone**, longer each time, at most five minutes; the others go on. It is tried
  until the broker takes it or somebody deletes it.
- **In order**, nearly: the rows of one thread are published in the order of `add`, save those that were refused or
  claimed by a relay that crashed, and where several relays each have a part.

There is no status and nothing to purge: a row that is there is pending. The table is as large as what is still to be
published, and the record of what was sent is the workers' own.
"""

from importlib.util import find_spec

if find_spec("sqlalchemy") is None:
    raise ImportError("dspex.outbox needs SQLAlchemy 2: pip install 'dspex[sqlalchemy]'", name="sqlalchemy")

from dspex.outbox.relay import OutboxRelay
from dspex.outbox.table import Outbox

__all__ = ["Outbox", "OutboxRelay"]
