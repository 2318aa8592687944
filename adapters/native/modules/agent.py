"""`ReAct`: the LM calls registered tools, one at a time, before it answers."""

from __future__ import annotations

from typing import Any

import dspy
from pydantic import Field

from adapters import plugins
from adapters.native.signatures import dspy_signature
from adapters.parameters import Parameters
from adapters.port import MAX_QUOTE, AdapterError
from dspex import ErrorCode, Signature


class AgentParameters(Parameters):
    """The parameters of `ReAct`, with DSPy's names.

    Attributes:
        tools: names of tools (`dspex.tools`); the LM sees them by these names.
        max_iters: the most tool calls. A run makes one LM call for each, and one for the answer.
    """

    tools: list[str] = Field(min_length=1, max_length=64)
    max_iters: int = Field(default=20, ge=1, le=200)


class Agent(dspy.ReAct):  # type: ignore[misc]  # DSPy has no type information
    """`dspy.ReAct`, with tools given by name."""

    def __init__(self, signature: Signature | type[dspy.Signature], parameters: AgentParameters) -> None:
        super().__init__(dspy_signature(signature), _tools(parameters.tools), parameters.max_iters)


class RegisteredTool(dspy.Tool):  # type: ignore[misc]  # DSPy has no type information
    """A tool that reports a failure to the LM in one line. DSPy would add a traceback with the tool's source."""

    def __call__(self, **arguments: Any) -> Any:
        try:
            return super().__call__(**arguments)
        except Exception as error:  # noqa: BLE001  the LM may call it otherwise, or another one
            return f"failed with {type(error).__name__}: {error}"[:MAX_QUOTE]


def _tools(names: list[str]) -> list[RegisteredTool]:
    tools = []
    for number, name in enumerate(names):
        field = f"parameters.tools.{number}"
        if name == "finish" or name in names[:number]:
            reason = "ReAct has a tool of this name itself" if name == "finish" else "is listed twice"
            raise AdapterError(ErrorCode.PERMANENT, f"{field}: '{name}': {reason}")
        tools.append(_tool(plugins.load(plugins.TOOLS, name, asked_by=field), name, field))
    return tools


def _tool(found: Any, name: str, field: str) -> RegisteredTool:
    try:
        if isinstance(found, dspy.Tool):
            known = {key: getattr(found, key) for key in ("desc", "args", "arg_types", "arg_desc")}
            return RegisteredTool(func=found.func, name=name, **known)
        return RegisteredTool(func=found, name=name)
    except Exception as error:  # noqa: BLE001  DSPy reads signature and type hints: anything may be wrong with them
        text = f"{field}: '{name}' cannot be a tool: {type(error).__name__}: {error}"
        raise AdapterError(ErrorCode.PERMANENT, text[:MAX_QUOTE]) from None
