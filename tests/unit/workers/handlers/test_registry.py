"""Every command of the contract has one handler, which answers what the contract says, and an actor's priority."""

from __future__ import annotations

from collections import Counter
from types import NoneType
from typing import get_args, get_type_hints

import pytest

from dspex.contract.commands import DestroyProgram
from dspex.contract.requests import REQUESTS
from workers.handlers import dispatch as dispatch  # which imports the handlers
from workers.handlers.registry import REGISTRY, handles
from workers.security.authorization import ADMINS, ROLES

SLOW = {
    "dspex.signature.create.v1",
    "dspex.signature.create_from_module.v1",
    "dspex.signature.validate_module.v1",
    "dspex.program.create.v1",
    "dspex.program.create_with_signature.v1",
    "dspex.program.initialize.v1",
    "dspex.program.update.v1",
    "dspex.program.prompt.v1",
    "dspex.program.restore.v1",
    "dspex.execution.cancel_many.v1",
    "dspex.execution.replay.v1",
    "dspex.execution.discard.v1",
    "dspex.message.replay.v1",
    "dspex.message.discard.v1",
    "dspex.delivery.replay.v1",
}
"""What builds a program, reads a module, or goes through all that a filter finds."""


def test_every_command_has_a_handler_and_roles() -> None:
    assert set(REGISTRY) == {action.type for action in ROLES} == set(REQUESTS)
    assert len(REQUESTS) == 58


@pytest.mark.parametrize("type_", sorted(REQUESTS))
def test_a_handler_takes_its_command_and_answers_as_the_contract_says(type_: str) -> None:
    handler = REGISTRY[type_].handler
    hints = get_type_hints(handler)
    assert hints["received"].__args__ == (REQUESTS[type_],)
    answers = [one for one in get_args(hints["return"]) if one is not NoneType] or [hints["return"]]
    assert answers == [REQUESTS[type_].answer]


def test_one_function_handles_one_command() -> None:
    assert set(Counter(registered.handler for registered in REGISTRY.values()).values()) == {1}
    with pytest.raises(ValueError, match="has its roles already"):
        handles(DestroyProgram, roles=ADMINS)(lambda app, received: None)  # noqa: ARG005


@pytest.mark.parametrize("type_", sorted(REQUESTS))
def test_what_is_slow_leaves_threads_to_what_is_quick(type_: str) -> None:
    expected = 5 if type_ in SLOW else 0  # what runs executions is an actor of its own, without a command
    assert REGISTRY[type_].priority == expected
