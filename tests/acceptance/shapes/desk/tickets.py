"""What is asked about a ticket."""

from enum import Enum
from typing import Any, Literal

import dspy


class Urgency(Enum):
    """How soon somebody has to look."""

    LOW = "low"
    HIGH = "high"


class Triage(dspy.Signature):
    """Judge how urgent a ticket is."""

    ticket: str = dspy.InputField(desc="what the customer wrote")
    urgency: Urgency = dspy.OutputField()
    team: Literal["network", "printers", "other"] = dspy.OutputField()


class Label(dspy.Signature):
    """Judge how urgent a ticket is."""

    ticket: str = dspy.InputField()
    label: str = dspy.OutputField(desc="low or high")


class Explained(dspy.Signature):
    """Say whether the ticket is to be closed."""

    ticket: str = dspy.InputField()
    reasoning: str = dspy.OutputField(desc="at most one sentence, for the customer")
    close: bool = dspy.OutputField()


class Reply(dspy.Signature):
    """Answer the customer."""

    ticket: str = dspy.InputField()
    tone: str | None = dspy.InputField()
    words: int = dspy.InputField(default=40, ge=1)
    reply: str = dspy.OutputField(max_length=400)
    confidence: float = dspy.OutputField(ge=0, le=1)


class ReadForm(dspy.Signature):
    """Take out whatever the form has."""

    form: str = dspy.InputField()
    found: dict[str, Any] = dspy.OutputField(desc="by the names in the form")
    rest: Any = dspy.OutputField()
