"""What is left when a run of faults is over, held against what was sent: by plain SQL, and nothing of the product."""

from __future__ import annotations

import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final
from uuid import UUID

from dspex.amqp.topology import QUEUES
from tests.faults.backlog import wrong_at_rest
from tests.faults.load import Key, Ledger
from tests.faults.tenants import HEARD, TenantsDeployment
from workers.brokers.topology import DEAD_LETTERS, dead_letter_queue

MAX_ATTEMPTS: Final = 3
ENDS: Final = frozenset({"completed", "failed", "cancelled"})
LATE: Final = frozenset({"dspex.execution.cancel.v1", "dspex.execution.replay.v1", "dspex.execution.discard.v1"})
"""Commands that somebody waited for: they are recorded where the answer found nobody, and what they met had ended."""
LATE_CODES: Final = frozenset({"illegal_transition", "not_found"})


@dataclass(frozen=True)
class Row:
    """An execution as it stands, and the webhooks of its last end."""

    status: str
    program_id: UUID
    lock_version: int
    error_code: str | None
    timeline: Sequence[Mapping[str, Any]]
    delivered: int = 0


@dataclass
class Remains:
    """What was found.

    Attributes:
        heard: what events said of each execution, by the event's id.
        calls: of the adapter.
        counters: by tenant, program and status.
        rejected: recorded messages, by tenant and digest: the code and the type.
        dead: the digests of what lies in dead-letter queues.
        unsent: events, and deliveries that are under way.
        waiting: messages in queues.
        backlog: what is wrong with queues, counts and gates.
    """

    rows: Mapping[Key, Row] = field(default_factory=dict)
    heard: Mapping[Key, Mapping[str, set[str]]] = field(default_factory=dict)
    calls: Mapping[Key, int] = field(default_factory=dict)
    counters: Mapping[tuple[str, UUID, str], int] = field(default_factory=dict)
    rejected: Mapping[tuple[str, str], tuple[str, str | None]] = field(default_factory=dict)
    dead: Counter[str] = field(default_factory=Counter)
    unsent: int = 0
    waiting: int = 0
    backlog: Sequence[str] = ()


class Inspector:
    """Looks at a deployment; what its listener has heard is taken from the broker, and kept."""

    def __init__(self, deployment: TenantsDeployment) -> None:
        self._deployment = deployment
        self._heard: dict[Key, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
        self._dead: Counter[str] = Counter()

    def look(self) -> Remains:
        """What there is now."""
        rows = self._deployment.rows
        self._listen()
        delivered = Counter(
            (Key(tenant, id_), version)
            for tenant, id_, version in rows(
                "SELECT tenant, execution_id, event_version FROM webhook_deliveries WHERE status = 'delivered'"
            )
        )
        executions = {
            Key(tenant, id_): Row(status, program, version, code, timeline, delivered[Key(tenant, id_), version])
            for tenant, id_, status, program, version, code, timeline in rows(
                "SELECT tenant, id, status, program_id, lock_version, error ->> 'code', timeline FROM executions"
            )
        }
        counted = rows(
            "SELECT tenant, program_id, sum(completed), sum(failed), sum(cancelled) FROM program_counters GROUP BY 1, 2"
        )
        calls = (Key(call["tenant"], UUID(call["id"])) for call in self._deployment.history.records("call"))
        return Remains(
            rows=executions,
            heard=self._heard,
            calls=Counter(calls),
            counters={
                (tenant, program, status): int(number)
                for tenant, program, *numbers in counted
                for status, number in zip(("completed", "failed", "cancelled"), numbers, strict=True)
                if number
            },
            rejected={
                (tenant, digest): (code, type_)
                for tenant, digest, code, type_ in rows(
                    "SELECT tenant, md5(body), error_code, message_type FROM rejected_messages"
                )
            },
            dead=self._dead,
            unsent=self._deployment.scalar(
                "SELECT (SELECT count(*) FROM event_outbox) "
                "+ (SELECT count(*) FROM webhook_deliveries WHERE status NOT IN ('delivered', 'failed', 'discarded'))"
            ),
            waiting=sum(self._deployment.waiting(queue) for queue in (*QUEUES, DEAD_LETTERS)),
            backlog=list(wrong_at_rest(self._deployment)),
        )

    def _listen(self) -> None:
        with self._deployment.channel() as channel:
            for routing_key, body in _take(channel, HEARD):
                event = json.loads(body)
                if event["type"].startswith("dspex.execution."):
                    key = Key(routing_key.partition(".")[0], UUID(event["data"]["execution_id"]))
                    said = {"type": event["type"], "data": event["data"]}
                    self._heard[key][event["id"]].add(json.dumps(said, sort_keys=True))
            for queue in QUEUES:
                self._dead.update(digest(body) for _, body in _take(channel, dead_letter_queue(queue)))


def _take(channel: Any, queue: str) -> Iterator[tuple[str, bytes]]:
    for method, _, body in channel.consume(queue, inactivity_timeout=0.2):
        if body is None:
            break
        yield method.routing_key, body
        channel.basic_ack(method.delivery_tag)
    channel.cancel()


def digest(body: bytes) -> str:
    """Of a message's body."""
    return hashlib.md5(body, usedforsecurity=False).hexdigest()


def wrong(ledger: Ledger, remains: Remains) -> list[str]:
    """A line for each thing that is not as it was promised."""
    return [
        *_lost(ledger, remains),
        *(line for key, row in remains.rows.items() for line in _row(key, row, ledger, remains)),
        *_counters(remains),
        *_letters(ledger, remains),
        *([f"unsent: {remains.unsent} events and webhooks"] if remains.unsent else []),
        *([f"waiting: {remains.waiting} messages"] if remains.waiting else []),
        *(f"backlog: {line}" for line in remains.backlog),
    ]


def _lost(ledger: Ledger, remains: Remains) -> Iterator[str]:
    """What was confirmed has one row; so has a key, whichever of its ids that is."""
    keys: dict[tuple[str, str], list[Key]] = defaultdict(list)
    for key, asked in ledger.asked.items():
        if asked.key is not None:
            keys[key.tenant, asked.key].append(key)
        elif asked.confirmed and key not in remains.rows:
            yield f"lost: {key}: no row"
    for name, members in keys.items():
        rows = sum(key in remains.rows for key in members)
        if rows > 1 or (rows == 0 and any(ledger.asked[key].confirmed for key in members)):
            yield f"lost: key {name}: {rows} rows"
    for key in remains.rows.keys() - ledger.asked.keys():
        yield f"double: {key}: nobody asked for it"
    for key in remains.heard.keys() - remains.rows.keys():
        yield f"double: {key}: told of, and no row"


def _row(key: Key, row: Row, ledger: Ledger, remains: Remains) -> Iterator[str]:
    if row.status not in ENDS:
        yield f"lost: {key}: still {row.status}: {_story(row)}"
        return
    lives = list(_lives(row.timeline))
    for life in lives:
        if sum(entry["status"] in ENDS for entry in life) != 1:
            yield f"double: {key}: a life without one end: {_story(row)}"
    asked = ledger.asked.get(key)
    if asked is not None:
        yield from _end(key, row, asked.may, cancelled=asked.cancelled, claims=_claims(lives[-1]))
        if asked.webhook and not row.delivered:
            yield f"untold: {key}: no webhook: {_story(row)}"
    if row.delivered > 1:
        yield f"double: {key}: {row.delivered} deliveries of one end"
    heard = remains.heard.get(key, {})
    if not any(f'"dspex.execution.{row.status}.v1"' in said for said in heard.get(f"{key.id}.{row.lock_version}", ())):
        yield f"untold: {key}: {row.status}, version {row.lock_version}, heard {sorted(heard)}: {_story(row)}"
    if len(heard) > len(lives) or any(len(said) > 1 for said in heard.values()):
        yield f"double: {key}: {len(lives)} ends, heard {dict(heard)}"
    allowed = sum(min(_claims(life), MAX_ATTEMPTS + _given_back(life)) for life in lives)
    if remains.calls.get(key, 0) > allowed:
        yield f"overrun: {key}: {remains.calls[key]} calls, {allowed} allowed: {_story(row)}"


def _end(key: Key, row: Row, may: str, *, cancelled: bool, claims: int) -> Iterator[str]:
    """Whether it ended in a way that it may."""
    end = row.error_code if row.status == "failed" else row.status
    if end == "cancelled" and not cancelled:
        yield f"end: {key}: nobody cancelled it: {_story(row)}"
    elif end == "attempts_exhausted" and claims < MAX_ATTEMPTS:
        yield f"end: {key}: exhausted after {claims} claims: {_story(row)}"
    elif end not in ("cancelled", "attempts_exhausted", may):
        yield f"end: {key}: {end}, which should be {may}: {_story(row)}"


def _lives(timeline: Iterable[Mapping[str, Any]]) -> Iterator[list[Mapping[str, Any]]]:
    """A timeline, cut where a replay took back an end."""
    life: list[Mapping[str, Any]] = []
    for entry in timeline:
        if entry["status"] == "discarded":
            continue
        if entry["status"] == "pending" and life and life[-1]["status"] in ENDS:
            yield life
            life = []
        life.append(entry)
    yield life


def _claims(life: Iterable[Mapping[str, Any]]) -> int:
    return sum(entry["status"] == "running" for entry in life)


def _given_back(life: Iterable[Mapping[str, Any]]) -> int:
    number, before = 0, 0
    for entry in life:
        number += entry["status"] == "pending" and entry["attempt"] < before
        before = entry["attempt"]
    return number


def _counters(remains: Remains) -> Iterator[str]:
    there = Counter((key.tenant, row.program_id, row.status) for key, row in remains.rows.items() if row.status in ENDS)
    for place in sorted(there.keys() | remains.counters.keys(), key=str):
        if there[place] != remains.counters.get(place, 0):
            yield f"double: {place}: the counters say {remains.counters.get(place, 0)}, the rows {there[place]}"


def _letters(ledger: Ledger, remains: Remains) -> Iterator[str]:
    """What is to be rejected is recorded, for its reason; and nothing else is."""
    for place, (code, confirmed) in ledger.refused.items():
        recorded = remains.rejected.get(place)
        if recorded is None:
            if confirmed:
                yield f"lost: a message of {place} is not recorded as {code}"
        elif recorded[0] != code:
            yield f"dead letter: a message of {place} is recorded as {recorded[0]}, not {code}"
    late = set[str]()
    for place, (code, type_) in remains.rejected.items():
        if type_ in LATE and code in LATE_CODES:
            late.add(place[1])
        elif place not in ledger.refused:
            yield f"dead letter: a message of {place}, {type_}, is recorded as {code}"
    known = {digest for _, digest in ledger.refused} | late
    for found, number in remains.dead.items():
        if found not in known:
            yield f"dead letter: {number} of {found} in a dead-letter queue"


def _story(row: Row) -> str:
    return " > ".join(f"{entry['status']} ({entry['attempt']})" for entry in row.timeline)
