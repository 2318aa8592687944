"""`dspex deploy`: show what a deployment changes, carry it out, check it, and say how the program is called."""

from __future__ import annotations

import json
import sys
import warnings
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
from pydantic_core import to_json

from dspex.client.deployment_file import as_deployment, read_deployment
from dspex.client.interface import Interface
from dspex.client.losses import SignatureWarning
from dspex.client.remote import RemoteClient
from dspex.contract.deployment import Deployment, Difference, Plan
from dspex.contract.results import ExecutionView, ProgramView
from dspex.contract.status import ExecutionStatus
from dspex.errors import InvalidInput, Problem, SettingsError
from dspex.json_text import NotJson, read_json
from workers.cli.ask import asking
from workers.cli.operator import operator_of
from workers.cli.output import say, say_json, say_warnings
from workers.handlers.signature_modules import import_named
from workers.settings import Settings, load_settings

DEPLOY_SECONDS = 300.0
CHECK_SECONDS = 3600.0
SOURCE = "/dspex/deploy"
MAX_SHOWN = 100
"""The longest value that is shown, in characters."""


@dataclass(frozen=True)
class DeployOptions:
    """The options of `dspex deploy`, as they were given."""

    file: Path | None
    members: Mapping[str, Any]
    check: str | None
    yes: bool
    dry_run: bool
    allow_breaking: bool
    strict: bool
    as_json: bool
    tenant: str | None


def deploy(options: DeployOptions) -> int:
    """Deploy a program. Returns the exit code: 0 it is as the file says, 1 the check failed.

    Raises:
        DspexError: the file is wrong, nobody agreed, or a server does not answer.
    """
    deployment = _deployment(options)
    if options.strict:
        deployment.signature.check_whole()
    say_warnings(deployment.signature.warnings)
    check = _check_inputs(deployment, options.check)
    with _interface(load_settings(), options.tenant) as dspex:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SignatureWarning)  # they were told above
            plan = dspex.plan_deployment(deployment)
        if not options.as_json:
            _show_plan(deployment, plan)
        if options.dry_run:
            return _end(options, plan, deployment=deployment)
        if not plan.is_empty and (options.allow_breaking or not plan.breaking):  # otherwise it is refused anyway
            _agree(options, plan)
        program = dspex.deploy(deployment, plan=plan, allow_breaking=options.allow_breaking, timeout=DEPLOY_SECONDS)
        ran = None
        if check is not None:
            ran = dspex.execute_program(plan.program_id, check, timeout=CHECK_SECONDS)
    return _end(options, plan, program, ran, deployment)


def _deployment(options: DeployOptions) -> Deployment:
    members = dict(options.members)
    if options.file is None:
        if not members.keys() >= {"name", "signature"}:
            raise SettingsError("FILE: give the file of a deployment, or --name and --signature")
        return as_deployment(members, Path.cwd(), import_class=import_named)
    for name in ("signature", "state"):  # a path on the command line begins here, and not at the file
        if str(members.get(name, "")).endswith(".json"):
            members[name] = str(Path(members[name]).absolute())
    return read_deployment(options.file, members, import_class=import_named)


def _check_inputs(deployment: Deployment, given: str | None) -> Mapping[str, Any] | None:
    """The inputs of the check, which fit the signature."""
    inputs = deployment.check
    if given is not None:
        try:
            inputs = read_json(given)
        except NotJson as error:
            raise InvalidInput([Problem("--check", str(error))]) from None
    if inputs is None:
        return None
    if not isinstance(inputs, dict):
        raise InvalidInput([Problem("--check", "must be a JSON object of inputs")])
    try:
        deployment.signature.validate_inputs(inputs)
    except InvalidInput as error:
        raise InvalidInput([Problem(f"check.{problem.field}", problem.message) for problem in error.problems]) from None
    return inputs


@contextmanager
def _interface(settings: Settings, tenant: str | None) -> Generator[Interface]:
    """The workers, over RabbitMQ; without it, this process."""
    if settings.embedded:
        with asking(settings, tenant, work=True) as client:
            yield client
        return
    operator_of(settings, tenant)
    with RemoteClient(settings.broker_url, source=SOURCE, tenant=tenant) as remote:
        yield remote


def _agree(options: DeployOptions, plan: Plan) -> None:
    """Ask whether to go on.

    Raises:
        SettingsError: nobody agrees.
    """
    if options.yes:
        return
    question = "Callers of the signature that is there will break. Go on?" if plan.breaking else "Go on?"
    asked = sys.stdin.isatty() and not options.as_json
    if not (asked and click.confirm(question, err=True)):
        raise SettingsError("nothing is changed: give --yes to change it without being asked")


def _show_plan(deployment: Deployment, plan: Plan) -> None:
    if plan.program is None:
        say(f"{deployment.name}: a new program, {plan.program_id}")
        given, made = deployment.signature.inputs, deployment.signature.outputs
        say(f"  + signature: {', '.join(f.name for f in given)} -> {', '.join(f.name for f in made)}")
    elif plan.is_empty:
        say(f"{deployment.name}: program {plan.program_id} is as the deployment says.")
    else:
        say(f"{deployment.name}: program {plan.program_id}, which is {plan.program.status}")
    for difference in plan.differences:
        say(f"  {_line(difference)}")
    if plan.signature is not None:
        say(f"  signature: {'breaking' if plan.breaking else 'compatible'}")
        for change in plan.signature.changes:
            say(f"    {'+' if change.compatible else '!'} {change}")
        for note in plan.signature.notes:
            say(f"    {note}")


def _line(difference: Difference) -> str:
    before, after = _short(difference.before), _short(difference.after)
    if difference.before is None:
        return f"+ {difference.member}: {after}"
    if difference.after is None:
        return f"- {difference.member}: {before}"
    return f"~ {difference.member}: {before} -> {after}"


def _short(value: Any) -> str:
    text = to_json(value).decode()
    return text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}... ({len(text)} characters)"


def _end(
    options: DeployOptions,
    plan: Plan,
    program: ProgramView | None = None,
    ran: ExecutionView | None = None,
    deployment: Deployment | None = None,
) -> int:
    """Print what came of it. Returns the exit code."""
    if options.as_json:
        told: dict[str, Any] = {"plan": plan, "program": program, "check": ran}
        if deployment is not None and deployment.signature.lost:
            told["warnings"] = deployment.signature.warnings
        say_json(to_json(told, indent=2).decode())
    elif program is not None and deployment is not None:
        renewed = plan.is_empty and plan.program is not None and plan.program.backend_id != program.backend_id
        said = "was built again with the code of its module, and is" if renewed else "is"
        say(f"Program {program.program_id} {said} {program.status} ({program.backend_id}).")
        if ran is not None:
            _show_check(ran)
        _show_calls(program, deployment)
    return 0 if ran is None or ran.status == ExecutionStatus.COMPLETED else 1


def _show_check(ran: ExecutionView) -> None:
    if ran.status == ExecutionStatus.COMPLETED:
        say(f"Check: {to_json(ran.outputs).decode()}")
        return
    why = f"{ran.error.code}: {ran.error.message}" if ran.error else "no reason is known"
    say(f"Check: execution {ran.execution_id} {ran.status}: {why}. The program stays as it was deployed.", err=True)


def _show_calls(program: ProgramView, deployment: Deployment) -> None:
    required = [field.name for field in deployment.signature.inputs if field.required]
    inputs = dict.fromkeys(required, "...")
    options = "".join(f" --input {name}=..." for name in required)
    say("It is called by")
    say(f"  dspex program execute {program.program_id}{options}")
    say(f'  dspex.execute_program(UUID("{program.program_id}"), {json.dumps(inputs)})')
    data = {"execution_id": "<a new UUID>", "program_id": str(program.program_id), "inputs": inputs}
    say(f'  type "dspex.program.execute.v1", data {json.dumps(data)}')
