"""The statements of queues and gates: what is chosen, woken, swept and counted, and what is seen of it."""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import count
from types import SimpleNamespace
from typing import Any

from deploy.sql_calls import ID, LEASE, ROW, WAITS, Call, Statement
from store import gates
from store.executions import choosing, early
from store.gates import GateKey, KnownGates, Used
from store.queues import counts, figures, forgetting, position, reconciling
from store.queues.figures import By, Scope
from store.queues.turns import Turns
from store.tables import executions as executions_table
from store.tables import gates as gates_table

KEY, PROGRAM = "pk_executions", "pk_programs"
QUEUE, HELD, WAKES, WAITING = "pk_queues", "ix_queues_holder", "ix_queues_wake", "ix_executions_queue"
COUNTS, GATE, SLOTS = "pk_queue_counts", "pk_gates", "pk_slots"
NOW = datetime(2026, 1, 1, tzinfo=UTC)

TURNS = Turns(clock=count(0.0, 1_000.0).__next__)  # what was found is never fresh: each choice looks
FOUND = SimpleNamespace(**vars(WAITS) | {"behind": 0, "first": NOW, "unneeded": True, "run_at": NOW})
_NONE: dict[str, Any] = dict.fromkeys(executions_table.c.keys())
TAKEN = SimpleNamespace(
    **_NONE
    | {"id": ID.id, "tenant": ID.tenant, "program_id": ID.id, "lane": 1, "group_key": "", "run_at": NOW}
    | {"status": "running", "source": "/", "inputs": {}, "options": {}, "attempt": 1, "lock_version": 2, "lost": 0}
    | {"cancel_requested": False, "seconds_left": None, "late": None}
)
COUNTED = SimpleNamespace(tenant=ID.tenant, program_id=ID.id, lane=1, came=1, went=0, there=1, counted=0)
LM = GateKey("lm", "fast")
CLOSED = SimpleNamespace(
    **dict.fromkeys(gates_table.c.keys())
    | {"key": LM.text, "kind": LM.kind, "name": LM.name, "tenant": LM.tenant, "paused": False, "closures": 0}
    | {"lock_version": 1, "closed_for": None}
)

_CLOCK = Statement("clock of the database", "where counts are read or written", (), ((NOW,),))
_TURN = Statement("take a turn", "before a gate is changed: one transaction at a time does", (), only="postgresql")
_WAKE = Statement("wake", "where a queue became ready", (), only="postgresql")
_OFFER = Statement("offer, uncounted", "as `offer`, for what was counted before", (QUEUE,), (WAITS,))

QUEUES = (
    Call(
        choosing.choose,
        (LEASE, 2, TURNS),
        (
            Statement("find tenants", "by a choice, unless it has found enough just before", (HELD,), (FOUND,)),
            Statement("find queues", "after that: of these tenants, on SQLite of each", (HELD,), (FOUND,)),
            Statement("take", "for the queues whose turn it is, on SQLite for each", (WAITING, PROGRAM), (TAKEN,)),
            Statement("count moves", "where executions wait no more", ()),
            Statement("find lost chances", "in those that gave fewer than were asked for", (WAITING, PROGRAM), (ROW,)),
            Statement("leave to run alone", "for those: to the process that has found them", (KEY,), (TAKEN,)),
            Statement("hold empty queues", "those that gave fewer", (QUEUE,), (WAITS,), only="postgresql"),
            Statement("mark empty queues", "after that: if nothing in them may run", (QUEUE, WAITING), (WAITS,)),
        ),
        {"alone_at": 3, "known": KnownGates()},
    ),
    Call(
        choosing.wake,
        (),
        (
            Statement("wake queues", "by the relay, and where something is due: at most 500", (WAKES,), (WAITS,)),
            _WAKE,
        ),
    ),
    Call(
        choosing.anything_ready,
        (),
        (Statement("any queue ready", "by the relay, each second: it locks nothing", (HELD,)),),
    ),
    Call(
        reconciling.reconcile,
        (None, 1),
        (
            Statement("next that wait", "by the relay, each second: the next 200 queues", (WAITING,), (FOUND,)),
            Statement("offered by nobody", "after that: it finds nothing", (QUEUE, WAITING), (FOUND,)),
            _OFFER,
            _WAKE,
        ),
    ),
    Call(
        forgetting.forget,
        (None, 1),
        (
            Statement(
                "next queues", "by the relay, every ten seconds: the next 500", (QUEUE, PROGRAM, COUNTS), (FOUND,)
            ),
            Statement(
                "hold unneeded queues",
                "for those that are empty and idle, or whose program is gone",
                (QUEUE,),
                (WAITS,),
            ),
            Statement("forget queues", "after that: if nothing waits in them", (QUEUE, WAITING, PROGRAM, COUNTS)),
        ),
    ),
    Call(
        counts.anything_moved,
        (),
        (Statement("anything moved", "by the relay, each second: it locks nothing", ()),),
    ),
    Call(
        counts.fold,
        (10,),
        (
            Statement("take moves", "by the relay, where something has moved", ("pk_queue_moves",), (COUNTED,)),
            _CLOCK,
            Statement("oldest that waits", "after that", (QUEUE, WAITING)),
            Statement("add moves", "after that", (COUNTS,)),
        ),
    ),
    Call(
        counts.repair,
        (None, 10),
        (
            Statement("next counts", "by the relay, every ten seconds: the next 50", (COUNTS,), (COUNTED,)),
            Statement("next queues to count", "the same, of what may not be counted yet", (QUEUE,)),
            Statement("begin counts", "after that", (COUNTS,)),
            Statement("hold counts", "after that", (COUNTS,), (COUNTED,)),
            Statement("wrong counts", "after that: it reads 10,000 rows of a queue at most", (COUNTS, WAITING)),
            _CLOCK,
            Statement("forget counts", "after that: those of which nothing has moved for an hour", (COUNTS,)),
        ),
    ),
    Call(
        early.leave,
        (ID.id,),
        (Statement("leave an early cancel", "where a cancel came before its execution", ("pk_early_cancels",)),),
        {"by": "ann"},
    ),
    Call(
        early.take_back,
        (ID.id,),
        (Statement("take an early cancel back", "when nobody waits for it any more", ("pk_early_cancels",)),),
    ),
    Call(
        early.anything_old,
        (),
        (Statement("any old early cancel", "by the relay, every 20 seconds; the table is small", ()),),
    ),
    Call(
        early.sweep,
        (),
        (Statement("sweep early cancels", "where there is one, of a worker that has died", ()),),
    ),
    Call(
        gates.settle,
        ([Used(ID, 1, "ok", 1, 1)],),
        (Statement("settle", "after `finish` or `retry`, in its transaction, where something is limited", (SLOTS,)),),
    ),
    Call(
        gates.close,
        ({LM: 1.0},),
        (
            _TURN,
            Statement("make a gate", "where a provider asks for fewer calls", (GATE,)),
            _TURN,
            Statement("lock a gate", "after that", (GATE,), (CLOSED,)),
            Statement("closed until", "after that", (GATE,), (CLOSED,)),
            Statement("close a gate", "after that, unless it is closed for as long", (GATE,), (CLOSED,)),
        ),
    ),
    Call(
        gates.listing,
        (),
        (Statement("list gates", "when asked: for operators of all", (SLOTS, HELD)),),
    ),
    Call(
        figures.lanes,
        (Scope(ID.tenant),),
        (_CLOCK, Statement("figures of lanes", "when asked, of a tenant", (COUNTS,))),
    ),
    Call(
        figures.page,
        (By.PROGRAM, Scope(ID.tenant)),
        (_CLOCK, Statement("figures of programs", "when asked, of a tenant", (COUNTS,))),
        {"cursor": None, "limit": 10},
    ),
    Call(
        position.position,
        (ID.id,),
        (Statement("position", "when asked: what one that waits waits for", (KEY,)),),
    ),
)
