"""Steps that several migrations share."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import sqlalchemy as sa
from alembic import context, op
from alembic.util import CommandError

LOCK_TIMEOUT = "SET lock_timeout = '2s'"
"""How long a change of a table waits for its lock. Meanwhile, everybody who wants the table waits behind it."""
LOCK_TIMEOUT_HERE = "SET LOCAL lock_timeout = '2s'"
"""The same, for the transaction of one migration."""
NO_LOCK_TIMEOUT = "SET lock_timeout = 0"
"""For concurrent index builds, which wait for every older transaction, while nobody waits for them."""

POLICY = "tenant = current_setting('dspex.tenant', true) OR current_setting('dspex.tenant', true) = '*'"

CALLBACKS_MADE = (
    """
    CREATE TABLE callbacks (
        execution_id UUID NOT NULL,
        tenant VARCHAR(64) DEFAULT 'default' NOT NULL,
        lock_version INTEGER NOT NULL,
        due_at TIMESTAMP WITH TIME ZONE NOT NULL,
        tries INTEGER DEFAULT 0 NOT NULL,
        CONSTRAINT pk_callbacks PRIMARY KEY (execution_id, tenant)
    ) PARTITION BY LIST (tenant)
    """,
    "ALTER TABLE callbacks ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY",
    f"CREATE POLICY tenant ON callbacks USING ({POLICY})",
    # The only partition, and the default one: it takes every row, and has nothing to be checked.
    "ALTER TABLE callbacks ATTACH PARTITION event_outbox DEFAULT",
    # Privileges and policies are checked on the table that a statement names, so they are copied to the other name.
    """
    DO $$
    DECLARE
        held RECORD;
    BEGIN
        FOR held IN
            SELECT a.privilege_type, CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(r.rolname) END AS grantee
            FROM pg_class c CROSS JOIN aclexplode(c.relacl) a LEFT JOIN pg_roles r ON r.oid = a.grantee
            WHERE c.oid = 'event_outbox'::regclass AND a.grantee <> c.relowner
        LOOP
            EXECUTE 'GRANT ' || held.privilege_type || ' ON callbacks TO ' || held.grantee;
        END LOOP;
    END $$
    """,
)
"""Creates `callbacks`, the name by which workers from before 0010 use `event_outbox`.

It is a partitioned table with `event_outbox` as its only partition. These workers read, lock and write the rows by that
name, and name the key `pk_callbacks` in ON CONFLICT, which a view does not allow.
"""
CALLBACKS_DROPPED = ("ALTER TABLE callbacks DETACH PARTITION event_outbox", "DROP TABLE callbacks")


def ddl(column: sa.Column[Any]) -> str:
    """The definition of a column in the SQL of this database."""
    return str(sa.schema.CreateColumn(column).compile(dialect=op.get_context().dialect))


def drop_if_broken(index: str, table: str) -> None:
    """Drop an index that a failed build has left, so that it can be built again. PostgreSQL only."""
    if context.is_offline_mode():
        return
    broken = sa.text("SELECT 1 FROM pg_index WHERE indexrelid = to_regclass(:name) AND NOT indisvalid")
    if op.get_bind().execute(broken, {"name": index}).first() is not None:
        op.drop_index(op.f(index), table, postgresql_concurrently=True, if_exists=True)


STOP = "stop them, then migrate again"
REPLACE = "replace them, then migrate again; workers of this version run on what there is"


def refuse_beside(names: Collection[str], what_they_could_not: str, advice: str = STOP) -> None:
    """Refuse to migrate while older workers are connected. PostgreSQL only.

    Args:
        names: the application names of their sessions, see `store.database.engine.APPLICATION_NAME`.
        advice: `REPLACE` if this version also runs on the revision before.

    Raises:
        CommandError: older workers are connected.
    """
    found = op.get_bind().execute(
        sa.text(
            "SELECT count(*) FROM pg_stat_activity "
            "WHERE datname = current_database() AND application_name = ANY (:names)"
        ),
        {"names": list(names)},
    )
    sessions = found.scalar_one()
    if sessions:
        raise CommandError(
            f"workers of an earlier version are connected ({sessions} sessions), and {what_they_could_not} after this: "
            f"{advice}"
        )
