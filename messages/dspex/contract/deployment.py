"""A deployment: a program as a file says it, with its signature, and what is to be true after `deploy`.

    name = "triage"
    signature = "ticket -> urgency: Literal['low', 'high']"
    adapter_type = "native"
    module = "ChainOfThought"

    [lm]
    model = "openai/gpt-4o-mini"

    [check]
    ticket = "It is on fire."

The members of `Configuration` are members of it, too. `messages/contract/schemas/deployment.json` is the JSON Schema of
a file.
"""

from __future__ import annotations

from typing import Annotated, Any
from uuid import UUID

from pydantic import BeforeValidator, JsonValue

from dspex.contract.callback import Callback
from dspex.contract.commands import Name
from dspex.contract.configuration import AdapterType, Configuration
from dspex.contract.results import ProgramView
from dspex.contract.retry_policy import ExecutionPolicy
from dspex.model import Frozen
from dspex.signatures.compatibility import Change, Compatibility
from dspex.signatures.signature import Signature


def _parsed(given: Any) -> Any:
    return Signature.parse(given) if isinstance(given, str) else given


class Deployment(Configuration):
    """A program as it is to be.

    Attributes:
        name: the program's name, by which `deploy` finds it.
        program_id: which program it is, if several have the name; the id of a new program.
        signature: data, or the arrow form.
        check: inputs of an execution that shows whether it works.
    """

    name: Name
    signature: Annotated[Signature, BeforeValidator(_parsed)]
    adapter_type: AdapterType = "python_port"
    policy: ExecutionPolicy = ExecutionPolicy()
    callback: Callback | None = None
    program_id: UUID | None = None
    check: dict[str, JsonValue] | None = None

    @property
    def configuration(self) -> Configuration:
        """The configuration of the program."""
        return Configuration(**{name: getattr(self, name) for name in Configuration.model_fields})


class Difference(Frozen):
    """A member that a deployment changes.

    Attributes:
        member: its path: `lm.parameters.temperature`.
        before, after: JSON values; None: absent.
    """

    member: str
    before: JsonValue = None
    after: JsonValue = None


class Plan(Frozen):
    """What a deployment would do.

    Attributes:
        program_id: of the program that is there, or that will be made.
        program: the program that is there, if one is.
        differences: from the program that is there, or from an empty one.
        signature: what changes in the signature, if anything does.
        initialize: the program is not ready, and will be initialized.
    """

    program_id: UUID
    program: ProgramView | None
    differences: tuple[Difference, ...] = ()
    signature: Compatibility | None = None
    initialize: bool = True

    @property
    def is_empty(self) -> bool:
        """Nothing would change."""
        return not (self.differences or self.signature or self.initialize)

    @property
    def breaking(self) -> tuple[Change, ...]:
        """The changes of the signature that callers of the old one do not fit."""
        changes = () if self.signature is None else self.signature.changes
        return tuple(change for change in changes if not change.compatible)


def differences(before: dict[str, Any], after: dict[str, Any], path: str = "") -> list[Difference]:
    """The members in which two JSON objects differ; those of objects in both, one by one."""
    found: list[Difference] = []
    for name in dict.fromkeys((*before, *after)):
        old, new, member = before.get(name), after.get(name), f"{path}{name}"
        if isinstance(old, dict) and isinstance(new, dict):
            found += differences(old, new, f"{member}.")
        elif old != new:
            found.append(Difference(member=member, before=old, after=new))
    return found
