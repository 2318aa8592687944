"""The prompt of a program: a run that ends before its first LM call, and says what it would have sent."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from dspy.utils.callback import BaseCallback

from adapters.port import Prompt
from adapters.trace import bounded_message


class NotSent(BaseException):
    """An LM call is not made. No `Exception`, which DSPy's prompt adapters and callbacks would go on after."""


class FirstCall(BaseCallback):  # type: ignore[misc]  # DSPy has no type information
    """A DSPy callback that ends a run before each LM call, and keeps the first.

    Attributes:
        call: the LM and the arguments of the first call, once there was one.
    """

    def __init__(self) -> None:
        super().__init__()
        self.call: tuple[Any, dict[str, Any]] | None = None

    def on_lm_start(self, call_id: str, instance: Any, inputs: dict[str, Any]) -> None:  # noqa: ARG002
        """DSPy is about to call an LM.

        Raises:
            NotSent: always.
        """
        self.call = self.call or (instance, inputs)
        raise NotSent

    def prompt(self, secrets: Collection[str]) -> Prompt | None:
        """What would have been sent, without the secrets; None if no LM was called."""
        if self.call is None:
            return None
        lm, inputs = self.call
        messages = inputs.get("messages") or [{"role": "user", "content": inputs.get("prompt")}]
        return Prompt(str(lm.model), tuple(bounded_message(message, secrets) for message in messages))
