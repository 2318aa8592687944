"""The entity commands: call a verb of the interface in this process as the operator, and print the answer."""

from __future__ import annotations

import re
import sys
import warnings
from collections.abc import Generator, Iterable, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

from pydantic import BaseModel, ValidationError
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from dspex import Configuration, Signature, state_of
from dspex.client.interface import Interface
from dspex.client.losses import SignatureWarning
from dspex.client.subject import NamedProgram, read_signature, read_subject
from dspex.contract.backlog import BacklogView
from dspex.contract.callback import Callback
from dspex.contract.configuration import ConfigurationChange
from dspex.contract.deployment import Deployment
from dspex.contract.gates import GateView
from dspex.contract.options import ExecutionOptions
from dspex.contract.results import (
    DeliveryView,
    EndpointView,
    ExecutionView,
    Page,
    ProgramPrompt,
    ProgramStatistics,
    ProgramView,
    RejectedMessageView,
    SignatureView,
)
from dspex.contract.trace import ExecutionTrace
from dspex.contract.workers import WorkerView
from dspex.errors import InvalidInput, InvalidValues, NotFound, Problem
from dspex.model import problems
from dspex.signatures.compatibility import Compatibility
from dspex.text import visible_json
from store.database.tenancy import ALL, owners
from workers.application.wiring import bootstrap
from workers.cli.backlog import show_backlog
from workers.cli.begin import check_servers, configure_logging
from workers.cli.external import mark_completed, mark_failed
from workers.cli.from_module import create_from_module
from workers.cli.inputs.reading import read_rows
from workers.cli.operator import operator_of
from workers.cli.output import cell, of_known, say, say_json, say_warnings
from workers.cli.steps import show_prompt, show_steps
from workers.handlers.signature_modules import import_named, validate_module
from workers.local import LocalClient
from workers.process.worker import WorkerProcess
from workers.settings import Settings, load_settings

EXECUTE_SECONDS = 3600.0
MAX_IDS = 1000
"""The most ids in a command or a statement."""
_ID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")


class OperatorClient(LocalClient):
    """The client of an operator. As it has the database, it may tell which tenant owns an id."""

    def refuse_others(self, ids: Iterable[UUID]) -> None:
        """Check that no id belongs to another tenant.

        Raises:
            NotFound: an id belongs to another tenant. The text names the tenant.
        """
        asked = list(dict.fromkeys(ids))
        with self._app.read(ALL) as connection:
            for start in range(0, len(asked), MAX_IDS):
                for id_, tenant in owners(connection, asked[start : start + MAX_IDS], self._principal.tenant).items():
                    raise NotFound(f"{id_} is of tenant '{tenant}': add --tenant {tenant}")


def ask(verb: str, *, tenant: str | None = None, **arguments: Any) -> Any:
    """Call one verb of the interface, for a tenant.

    Raises:
        DspexError: the request was refused, or a server does not answer.
    """
    settings = load_settings()
    # Without a server, this process must run the execution itself.
    with asking(settings, tenant, work=settings.embedded and verb == "execute_program") as client:
        prepare = _SPECIAL.get(verb)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SignatureWarning)  # `show` tells them
            found = prepare(client, **arguments) if prepare else getattr(client, verb)(**zoned(arguments))
        if found == 0 or (isinstance(found, Page) and not found.items):
            client.refuse_others(value for value in arguments.values() if isinstance(value, UUID))
        return found


@contextmanager
def asking(settings: Settings, tenant: str | None = None, *, work: bool = False) -> Generator[OperatorClient]:
    """Open the interface in this process.

    Args:
        tenant: the tenant of the entities; None: the default tenant.
        work: whether this process also runs the executions that it submits.

    Raises:
        SettingsError, BrokerUnavailable: a server does not answer, or a tenant is named although tenancy is off.
        InvalidValues: an argument is invalid.
    """
    principal = operator_of(settings, tenant)
    configure_logging(settings)
    check_servers(settings)
    app = bootstrap(settings, run_others=not settings.embedded)
    worker = WorkerProcess(app) if work else None
    try:
        if worker is not None:
            worker.start()
        with OperatorClient(app, principal) as client:
            try:
                yield client
            except NotFound as error:
                client.refuse_others(map(UUID, _ID.findall(error.message)))
                raise
    except ValidationError as error:
        raise InvalidValues(problems(error)) from None
    finally:
        if worker is not None:
            worker.stop(settings.shutdown_seconds)
        app.close()


def zoned(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Set the zone of times without one to UTC."""
    return {
        key: value.replace(tzinfo=UTC) if isinstance(value, datetime) and value.tzinfo is None else value
        for key, value in arguments.items()
    }


def _create_signature(
    client: Interface, signature: str, draft: bool, description: str | None = None, strict: bool = False
) -> Any:
    return client.create_signature(_signature(signature, description), activate=not draft, strict=strict)


def _validate_module(client: Interface, module: str) -> bool:  # noqa: ARG001
    return validate_module(module, allowed_prefixes=None)


def _create_program(
    client: Interface,
    name: str,
    signature: str,
    adapter_type: str | None = None,
    module: str | None = None,
    model: str | None = None,
    state: str | None = None,
    extra_outputs: tuple[str, ...] = (),
    environment: str | None = None,
    strict: bool = False,
) -> Any:
    given: dict[str, Any] = {"module": module, "lm": model and {"model": model}, "environment": environment}
    given["extra_outputs"] = list(extra_outputs) or None
    given = {member: value for member, value in given.items() if value is not None}
    if state:
        given["state"] = state_of(Path(state))
    subject = read_subject(signature, changes=given, import_class=import_named)
    if isinstance(subject, NamedProgram) and (id_ := _uuid(signature)):
        return client.create_program(name, id_, adapter_type=adapter_type, configuration=_configuration(given))
    configuration = None
    if isinstance(subject, NamedProgram):
        found = client.find_program(subject.given)
        configuration = ConfigurationChange.model_validate(given).of(found.configuration)
        subject = NamedProgram(found.program_id)
    elif not isinstance(subject, Deployment):
        configuration = _configuration(given)
    return client.create_program(name, subject, adapter_type=adapter_type, configuration=configuration, strict=strict)


def _configuration(given: Mapping[str, Any]) -> Configuration | None:
    return Configuration.model_validate(given) if given else None


def _uuid(text: str) -> UUID | None:
    try:
        return UUID(text)
    except ValueError:
        return None


def _id_or_signature(text: str) -> UUID | Signature:
    return _uuid(text) or _signature(text)


def _signature(text: str, description: str | None = None) -> Signature:
    found = read_signature(text, import_class=import_named)
    if description is None:
        return found
    return Signature.parse(found.model_dump(mode="json") | {"description": description}).losing(found.lost)


def _update_signature(
    client: Interface, signature_id: UUID, signature: str, description: str | None = None, strict: bool = False
) -> Any:
    return client.update_signature(signature_id, _signature(signature, description), strict=strict)


def _update_program(
    client: Interface,
    program_id: UUID,
    name: str | None = None,
    signature: str | None = None,
    allow_breaking: bool = False,
    adapter_type: str | None = None,
    module: str | None = None,
    model: str | None = None,
    secret: str | None = None,
    state: str | None = None,
    extra_outputs: tuple[str, ...] = (),
    environment: str | None = None,
    traceparent: str | None = None,
    strict: bool = False,
) -> Any:
    change: dict[str, Any] = {} if module is None else {"module": module}
    if state is not None:
        change["state"] = state_of(Path(state)) if state else None
    if extra_outputs:
        change["extra_outputs"] = [name for name in extra_outputs if name]
    if environment is not None:
        change["environment"] = environment or None
    lm = {} if model is None else {"model": model}
    if secret is not None:
        lm["secret"] = secret or None  # type: ignore[assignment]  # null takes it away
    if lm:
        change["lm"] = lm
    return client.update_program(
        program_id,
        change or None,
        signature=None if signature is None else _id_or_signature(signature),
        allow_breaking=allow_breaking,
        adapter_type=adapter_type,
        name=name,
        traceparent=traceparent,
        strict=strict,
    )


def _execute_program(
    client: Interface,
    program_id: UUID,
    pairs: tuple[str, ...],
    metadata: tuple[str, ...] = (),
    trace: bool = False,
    traceparent: str | None = None,
) -> Any:
    inputs = _inputs(client, program_id, pairs)
    kept = named("--metadata", metadata)
    options = ExecutionOptions(trace=trace or None)
    return client.execute_program(
        program_id, inputs, options=options, metadata=kept, traceparent=traceparent, timeout=EXECUTE_SECONDS
    )


def _get_program_prompt(client: Interface, program_id: UUID, pairs: tuple[str, ...]) -> Any:
    return client.get_program_prompt(program_id, _inputs(client, program_id, pairs))


def _inputs(client: Interface, program_id: UUID, pairs: tuple[str, ...]) -> Mapping[str, Any]:
    signature = client.get_signature(client.get_program(program_id).signature_id).signature
    (row,) = read_rows(signature, None, pairs)
    if row.inputs is None:
        raise InvalidInput(row.problems)
    return row.inputs


def _get_execution(client: Interface, execution_id: UUID, whole: bool) -> Any:
    found = client.get_execution(execution_id)
    return client.whole(found) if whole else found


def _create_execution(
    client: Interface, program_id: UUID, pairs: tuple[str, ...], metadata: tuple[str, ...] = (), **given: Any
) -> Any:
    inputs, kept = _inputs(client, program_id, pairs), named("--metadata", metadata)
    return client.create_execution(program_id, inputs, metadata=kept, **given)


def _list_executions(client: Interface, labels: tuple[str, ...] = (), **filters: Any) -> Any:
    return client.list_executions(metadata=named("--label", labels) or None, **zoned(filters))


def _count_executions(client: Interface, labels: tuple[str, ...] = (), **filters: Any) -> Any:
    return client.count_executions(metadata=named("--label", labels), **zoned(filters))


def named(option: str, pairs: tuple[str, ...]) -> dict[str, str]:
    """Parse options of the form NAME=VALUE."""
    named: dict[str, str] = {}
    for pair in pairs:
        name, given, value = pair.partition("=")
        if not given or name in named:
            raise InvalidInput([Problem(option, "must be NAME=VALUE, each name once")])
        named[name] = value
    return named


def _register_endpoint(client: Interface, endpoint_id: UUID | None = None, **what: Any) -> Any:
    return client.register_endpoint(_callback(**what), endpoint_id=endpoint_id)


def _update_endpoint(client: Interface, endpoint_id: UUID, **what: Any) -> Any:
    return client.update_endpoint(endpoint_id, _callback(**what))


def _callback(url: str, secret: str, events: tuple[str, ...], headers: tuple[str, ...], thin: bool) -> Callback:
    given: dict[str, Any] = {"url": url, "secret": secret, "thin": thin}
    given["headers"] = {name: value for name, _, value in (header.partition("=") for header in headers)}
    if events:
        given["events"] = events
    return Callback(**given)


_SPECIAL: dict[str, Any] = {
    "register_endpoint": _register_endpoint,
    "update_endpoint": _update_endpoint,
    "create_signature": _create_signature,
    "create_signature_from_module": create_from_module,
    "validate_module": _validate_module,
    "create_program": _create_program,
    "execute_program": _execute_program,
    "get_execution": _get_execution,
    "get_program_prompt": _get_program_prompt,
    "create_execution": _create_execution,
    "mark_completed": mark_completed,
    "mark_failed": mark_failed,
    "list_executions": _list_executions,
    "count_executions": _count_executions,
    "update_program": _update_program,
    "update_signature": _update_signature,
}


def show(answer: Any, *, as_json: bool) -> None:
    """Print an answer. A negative validation exits with code 1."""
    _tell_losses(answer)
    match answer:
        case bool():
            say("true" if answer else "false")
            sys.exit(0 if answer else 1)
        case None:
            say("null" if as_json else "Done.")
        case _ if as_json:
            say_json(_json(answer))
        case Page():
            show_list(answer.items)
            if answer.next_cursor:
                say(f"More: --cursor {answer.next_cursor}", err=True)
        case int():
            say(f"{answer} will be delivered again.")
        case tuple():
            show_list(answer)
        case ProgramPrompt():
            show_prompt(answer)
        case ExecutionTrace():
            show_steps(answer)
        case BacklogView():
            show_backlog(answer)
        case Compatibility():
            _show_compatibility(answer)
        case _:
            _show_one(answer)


def _tell_losses(answer: Any) -> None:
    for view in answer if isinstance(answer, tuple) else (answer,):
        if isinstance(view, SignatureView | ProgramView):
            say_warnings(view.warnings)


def _json(answer: Any) -> str:
    if isinstance(answer, int):
        return str(answer)
    if isinstance(answer, tuple):
        return "[" + ", ".join(item.model_dump_json() for item in answer) + "]"
    text: str = answer.model_dump_json(indent=2)
    return text


_COLUMNS: dict[type[BaseModel], dict[str, Any]] = {
    SignatureView: {
        "id": lambda v: v.signature_id,
        "name": lambda v: v.signature.name,
        "module": lambda v: v.signature.module,
        "version": lambda v: v.signature.version,
        "status": lambda v: v.status,
        "inserted": lambda v: v.inserted_at,
    },
    ProgramView: {
        "id": lambda v: v.program_id,
        "name": lambda v: v.name,
        "adapter": lambda v: v.adapter_type,
        "status": lambda v: v.status,
        "executions": lambda v: v.execution_count,
        "last executed": lambda v: v.last_executed_at,
    },
    ExecutionView: {
        "id": lambda v: v.execution_id,
        "program": lambda v: v.program_id,
        "status": lambda v: v.status,
        "error": lambda v: v.error and v.error.code,
        "attempt": lambda v: v.attempt,
        "ms": lambda v: v.duration_ms and round(v.duration_ms, 1),
        "inserted": lambda v: v.inserted_at,
    },
    RejectedMessageView: {
        "id": lambda v: v.rejection_id,
        "status": lambda v: v.status,
        "error": lambda v: v.error.code,
        "type": lambda v: v.message_type,
        "queue": lambda v: v.queue,
        "deliveries": lambda v: v.deliveries,
        "inserted": lambda v: v.inserted_at,
    },
    EndpointView: {
        "id": lambda v: v.endpoint_id,
        "url": lambda v: v.callback.url,
        "events": lambda v: " ".join(v.callback.events),
        "enabled": lambda v: "yes" if v.enabled else f"no: {v.disabled_reason}",
        "failing since": lambda v: v.failing_since,
        "inserted": lambda v: v.inserted_at,
    },
    DeliveryView: {
        "id": lambda v: v.delivery_id,
        "execution": lambda v: v.execution_id,
        "event": lambda v: v.event,
        "host": lambda v: v.host,
        "status": lambda v: v.status,
        "attempts": lambda v: v.attempts,
        "due": lambda v: v.due_at,
        "reason": lambda v: v.reason,
    },
    GateView: {
        "of": lambda v: v.scope,
        "by": lambda v: "all" if v.shared else "its tenant",
        "paused": lambda v: v.paused and f"since {_text(v.paused.at)} by {v.paused.by}: {v.paused.reason or '-'}",
        "limits": lambda v: v.limits and " ".join(f"{k}={n}" for k, n in v.limits.model_dump().items()),
        "in flight": lambda v: v.allowed and f"{v.in_flight} of {v.allowed}",
        "closed until": lambda v: v.closed_until,
    },
    WorkerView: {
        "name": lambda v: v.name,
        "version": lambda v: v.version,
        "state": lambda v: f"{v.state}, paused" if v.paused else v.state,
        "serves": lambda v: "; ".join(f"{k} {', '.join(map(str, n))}" for k, n in v.serves if n) or "everything",
        "running": lambda v: f"{v.taken} of {v.places}",
        "started": lambda v: v.started_at,
        "seen": lambda v: v.seen_at,
    },
}


def show_list(items: tuple[BaseModel, ...]) -> None:
    """Print a table of views of one kind."""
    if not items:
        say("None.")
        return
    columns = _COLUMNS[type(items[0])]
    table = Table(box=SIMPLE_HEAD)
    for name in columns:
        table.add_column(name, no_wrap=True)
    for item in items:
        table.add_row(*(cell(_text(read(item))) for read in columns.values()))
    # Lines may be wider than the terminal, so that ids can be copied.
    Console(width=max(Console().width, 160), soft_wrap=True).print(table)


def _show_one(answer: BaseModel) -> None:
    table = Table(show_header=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    fields = answer.model_dump(mode="json")
    if isinstance(answer, ProgramStatistics):
        fields = _with_what_is_known(fields)
    for name, value in fields.items():
        table.add_row(name.replace("_", " "), cell(_text(value)))
    Console().print(table)


def _with_what_is_known(statistics: dict[str, Any]) -> dict[str, Any]:
    known = {name: statistics.pop(name) for name in ("tokens_known", "cost_known")}
    for name in ("input_tokens", "output_tokens", "cost"):
        number = known["cost_known" if name == "cost" else "tokens_known"]
        total = f"{statistics[name]:.6g}" if name == "cost" else str(statistics[name])
        statistics[name] = of_known(total, number, statistics["total"])
    return statistics


def _show_compatibility(answer: Compatibility) -> None:
    say("compatible" if answer.compatible else "breaking")
    for change in answer.changes:
        say(f"  {'+' if change.compatible else '!'} {change}")


def _text(value: Any) -> str:
    match value:
        case None:
            return "-"
        case datetime():
            return value.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S")
        case dict() | list():
            return visible_json(_compact(value))
        case _:
            return str(value)


def _compact(value: Any) -> str:
    from pydantic_core import to_json

    return to_json(value).decode()
