"""Prints the trace of an execution, and the prompt of a program: messages and answers as they are read."""

from __future__ import annotations

from pydantic import JsonValue

from dspex.contract.results import ProgramPrompt
from dspex.contract.trace import ExecutionTrace
from dspex.text import visible
from workers.cli.output import json_line, say

CONVERSATION = ("messages", "answers")


def show_steps(trace: ExecutionTrace) -> None:
    """Print a trace."""
    shortened = ", shortened" if trace.shortened else ""
    say(f"execution {trace.execution_id}, attempt {trace.attempt}: {len(trace.steps)} steps{shortened}")
    for number, step in enumerate(trace.steps, 1):
        took = "" if step.duration_ms is None else f", {step.duration_ms:.1f} ms"
        say(f"\n{number}. {step.kind} {visible(step.name)}{took}")
        for name, value in step.details.items():
            for line in lines_of(name, value):
                say(f"   {line}")


def show_prompt(prompt: ProgramPrompt) -> None:
    """Print a prompt."""
    say(f"to {visible(prompt.model)}, for {prompt.backend_id}")
    for message in prompt.messages:
        say("")
        for line in _message("messages", message):
            say(line)


def lines_of(name: str, value: JsonValue) -> list[str]:
    """A detail of a step: a text with its lines, the messages of a conversation one by one, anything else as JSON."""
    match value:
        case str() if "\n" in value:
            return [f"{name}:", *(f"  {line}" for line in value.split("\n"))]
        case str():
            return [f"{name}: {value}"]
        case list() if name in CONVERSATION:
            return [line for item in value for line in _message(name, item)]
        case _:
            return [f"{name}: {json_line(value)}"]


def _message(name: str, item: JsonValue) -> list[str]:
    if isinstance(item, dict) and "content" in item:
        return lines_of(str(item.get("role", name)), item["content"])
    return lines_of("answer" if name == "answers" else name, item)
