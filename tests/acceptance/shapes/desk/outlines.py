"""What a manual is made of: parts of parts."""

import dspy
from pydantic import BaseModel


class Part(BaseModel):
    """A part of a manual."""

    title: str
    parts: list["Part"] = []


class Outline(dspy.Signature):
    """Write the outline of the manual."""

    text: str = dspy.InputField()
    outline: Part = dspy.OutputField()
