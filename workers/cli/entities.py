"""`dspex signature|program|execution`: the verbs of the code interface, as tables or as `--json`."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from typing import Any

import click

from dspex.contract.status import ExecutionStatus, ProgramStatus, SignatureStatus


@click.group()
def signature() -> None:
    """Signatures: create, activate, compare, ..."""


@click.group()
def program() -> None:
    """Programs: create, initialize, statistics, ..."""


@click.group()
def execution() -> None:
    """Executions: list, count, show, trace, cancel; and those that a service runs itself: create, mark-…"""


as_json = click.option("--json", "as_json", is_flag=True, help="JSON, for programs.")
tenant = click.option("--tenant", help="The tenant, with DSPEX_TENANCY; 'default' otherwise.")
traceparent = click.option("--traceparent", help="W3C Trace Context of the caller.")
limit = click.option("--limit", type=click.IntRange(1, 1000), default=50, show_default=True)
cursor = click.option("--cursor", help="The cursor that the previous page gave.")


def verb(group: click.Group, name: str, asked: str, help_text: str, *parameters: Callable[..., Any]) -> None:
    """Add a command that calls one verb of the interface and prints the answer."""

    def command(as_json: bool, **arguments: Any) -> None:
        from workers.cli.ask import ask, show

        show(ask(asked, **{key: value for key, value in arguments.items() if value is not None}), as_json=as_json)

    command.__doc__ = help_text
    for parameter in reversed((*parameters, tenant, as_json)):
        command = parameter(command)
    group.command(name)(command)


def id_of(of: str) -> Callable[..., Any]:
    return click.argument(f"{of}_id", type=click.UUID, metavar="ID")


def status_of(statuses: type[StrEnum]) -> Callable[..., Any]:
    return click.option("--status", type=click.Choice([status.value for status in statuses]))


def when(name: str) -> Callable[..., Any]:
    """An option for a time."""
    formats = ["%Y-%m-%dT%H:%M:%S%z", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%d"]
    return click.option(f"--{name}", type=click.DateTime(formats), help="A time; UTC if it has no zone.")


name = click.option("--name")
of_program = click.option("--program", "program_id", type=click.UUID)
error_code = click.option("--error-code")
label = click.option("--label", "labels", multiple=True, metavar="NAME=VALUE", help="With this metadata; repeat it.")


def extra_output(more: str) -> Callable[..., Any]:
    """An option for outputs beside the signature."""
    text = f"Keep this output of the module beside those of the signature, such as {more}"
    return click.option("--extra-output", "extra_outputs", multiple=True, metavar="NAME", help=text)


state = click.option(
    "--state", metavar="FILE", help='What an optimizer found: the JSON file that DSPy\'s program.save("x.json") wrote.'
)
environment = click.option("--environment", help="The Python that it runs on, of those in DSPEX_ENVIRONMENTS.")
description = click.option("--description", help="What it is for, for people. The LM is not shown it.")
strict = click.option("--strict", is_flag=True, help="Refuse what would be lost of a class, or of a JSON Schema.")
draft = click.option("--draft", is_flag=True, help="Leave it a draft.")

verb(
    signature, "list", "list_signatures", "List signatures, newest first.",
    name, status_of(SignatureStatus), click.option("--module"), limit, cursor,
)  # fmt: skip
verb(signature, "show", "get_signature", "Show a signature.", id_of("signature"))
verb(
    signature, "schema", "get_signature_schema",
    "Show the JSON Schemas of a signature: of an id, or of the newest active one of a --name.",
    click.argument("signature_id", type=click.UUID, metavar="ID", required=False), name,
)  # fmt: skip
verb(
    signature, "create", "create_signature", "Create a signature from the arrow form or a JSON file.",
    click.argument("signature"), description, draft, strict,
)  # fmt: skip
verb(
    signature, "from-module", "create_signature_from_module",
    "Create drafts of the DSPy signatures in package.module or package.module:Class, which is imported here.",
    click.argument("module"),
    click.option("--name", help="Its name, instead of the class's."), description,
    click.option("--version", help="Its version, instead of 1.0.0."),
    click.option("--bump", is_flag=True, help="If it has changed: the next version, by what has changed."),
    click.option("--activate", is_flag=True, help="Also make it active."), strict,
)  # fmt: skip
verb(
    signature, "validate-module", "validate_module", "Whether a module holds DSPy signatures.", click.argument("module")
)
verb(
    signature, "update", "update_signature", "Replace the content of a draft: the arrow form or a JSON file.",
    id_of("signature"), click.argument("signature"), description, strict,
)  # fmt: skip
verb(signature, "activate", "activate_signature", "draft → active.", id_of("signature"))
verb(signature, "deprecate", "deprecate_signature", "active → deprecated.", id_of("signature"))
verb(signature, "destroy", "destroy_signature", "Delete a signature that no program uses.", id_of("signature"))
verb(
    signature, "compare", "compare_signatures", "What changed from one signature to another, field by field.",
    click.argument("old_id", type=click.UUID), click.argument("new_id", type=click.UUID),
)  # fmt: skip

verb(
    program, "list", "list_programs", "List programs, newest first.",
    name, status_of(ProgramStatus),
    click.option("--archived/--not-archived", default=None, help="Only those that are archived; or that are not."),
    click.option("--signature", "signature_id", type=click.UUID), limit, cursor,
)  # fmt: skip
verb(program, "show", "get_program", "Show a program.", id_of("program"))
verb(
    program, "create", "create_program",
    "Create a program of a signature: an id, the arrow form, a JSON file, package.module:Class. Or as another is: its "
    "id or name, or a deployment's file.",
    click.argument("name"), click.argument("signature"),
    click.option("--adapter", "adapter_type", help="The adapter; python_port by default."),
    click.option("--module", help="The DSPy module; Predict by default."),
    click.option("--model", help="The LM: provider/model, or an alias of DSPEX_LMS."), state,
    extra_output("reasoning; repeat it."), environment, strict,
)  # fmt: skip
verb(program, "initialize", "initialize_program", "Have the adapter build a program.", id_of("program"), traceparent)
verb(
    program, "update", "update_program", "Change the given parts of a program; a ready one is built again.",
    id_of("program"), name,
    click.option("--signature", help="An id, the arrow form, or a JSON file."),
    click.option("--allow-breaking", is_flag=True, help="Also a signature that breaks callers."),
    click.option("--adapter", "adapter_type", help="The adapter that runs it."),
    click.option("--module", help="The DSPy module."),
    click.option("--model", help="The LM: provider/model, or an alias of DSPEX_LMS. Its parameters stay."),
    click.option("--secret", help="The name of the LM's secret; an empty one: that of its provider."),
    click.option("--state", metavar="FILE", help="The state, as for create; an empty one: none."),
    extra_output("reasoning; an empty one: none."), environment, traceparent, strict,
)  # fmt: skip
verb(
    program, "execute", "execute_program", "Run a program once, and wait for it.",
    id_of("program"),
    click.option("--input", "pairs", multiple=True, metavar="NAME=VALUE", help="One input; repeat it."),
    click.option("--metadata", multiple=True, metavar="NAME=VALUE", help="Kept with the execution; repeat it."),
    click.option("--trace", is_flag=True, help="Keep its steps, for `dspex execution trace`."),
    traceparent,
)  # fmt: skip
verb(program, "archive", "archive_program", "Archive a program: it takes no new executions.", id_of("program"))
verb(
    program,
    "restore",
    "restore_program",
    "Take a program out of the archive: it is what it was before.",
    id_of("program"),
)
verb(program, "destroy", "destroy_program", "Delete an archived program.", id_of("program"))
verb(
    program, "prompt", "get_program_prompt", "Show what a program would send to its LM first, without sending it.",
    id_of("program"),
    click.option("--input", "pairs", multiple=True, metavar="NAME=VALUE", help="One input; repeat it."),
)  # fmt: skip
verb(program, "stats", "get_stats", "Show a program and the main figures of its executions.", id_of("program"))
verb(
    program, "statistics", "get_program_statistics", "Show statistics of all time, or of a window of time.",
    id_of("program"), when("since"), when("until"),
)  # fmt: skip

verb(
    execution, "list", "list_executions", "List executions, newest first.",
    of_program, status_of(ExecutionStatus), error_code, label, when("since"), when("until"), limit, cursor,
)  # fmt: skip
verb(
    execution, "count", "count_executions", "Count executions by status, the newest 100,000 at most.",
    of_program, error_code, label, when("since"), when("until"),
)  # fmt: skip
verb(
    execution, "show", "get_execution", "Show an execution, with its timeline.",
    id_of("execution"),
    click.option("--whole", is_flag=True, help="Also what is in the blob store; else its digest and size."),
)  # fmt: skip
verb(
    execution, "trace", "get_execution_trace",
    "Show the steps of an execution: prompts, answers, tools. (Ask for them: options.trace, policy.trace_rate.)",
    id_of("execution"),
)  # fmt: skip

version = click.option("--lock-version", type=click.IntRange(1), required=True, help="The one that was told last.")
usage = click.option("--usage", metavar="JSON", help='Such as {"calls": 1, "input_tokens": 9}; else not known.')
duration = click.option("--duration-ms", type=click.FloatRange(0), help="Else the time since it was marked running.")
mark = click.option("--mark", type=click.UUID, help="The id of this mark, to repeat it after a lost answer.")

verb(
    execution, "create", "create_execution", "Create an execution that no worker runs: mark it running, then its end.",
    id_of("program"),
    click.option("--input", "pairs", multiple=True, metavar="NAME=VALUE", help="One input; repeat it."),
    click.option("--metadata", multiple=True, metavar="NAME=VALUE", help="Kept with the execution; repeat it."),
    click.option("--idempotency-key"), traceparent,
)  # fmt: skip
verb(
    execution, "mark-running", "mark_running", "pending → running, for some seconds; or renew these.",
    id_of("execution"), version,
    click.option("--expires-in", type=float, default=300.0, show_default=True, metavar="SECONDS"), mark, traceparent,
)  # fmt: skip
verb(
    execution, "mark-completed", "mark_completed", "running → completed, with outputs that fit the signature.",
    id_of("execution"), version,
    click.option("--outputs", metavar="JSON", required=True, help="An object."),
    click.option("--extra-outputs", metavar="JSON", help="An object; those that the program asks for."),
    usage, duration, mark, traceparent,
)  # fmt: skip
verb(
    execution, "mark-failed", "mark_failed", "running → failed.",
    id_of("execution"), version,
    click.option("--code", default="permanent", show_default=True),
    click.option("--message", required=True, help="One line for people."),
    usage, duration, mark, traceparent,
)  # fmt: skip
