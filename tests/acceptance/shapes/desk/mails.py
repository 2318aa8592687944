"""What is found in a mail: models with models in them."""

import datetime
from typing import Annotated, Literal

import dspy
from pydantic import BaseModel, Field


class Person(BaseModel):
    """Somebody who comes."""

    name: str
    mail: str | None = Field(default=None, description="only if it is there")


class Meeting(BaseModel):
    """Something in the calendar."""

    title: str
    day: datetime.date
    starts: datetime.time | None = None
    lasts: datetime.timedelta = datetime.timedelta(hours=1)
    people: list[Person] = []
    room: int | str = Field(description="its number, or its name")


class FindMeetings(dspy.Signature):
    """Find the meetings."""

    mail: str = dspy.InputField()
    sent: datetime.datetime = dspy.InputField()
    meetings: list[Meeting] = dspy.OutputField()
    next: datetime.date | None = dspy.OutputField(desc="the day of the first")


class Refund(BaseModel):
    kind: Literal["refund"]
    order: int


class Move(BaseModel):
    kind: Literal["move"]
    street: str
    zip: str = Field(alias="zipCode")


class FindWish(dspy.Signature):
    """Find out what the customer wants."""

    mail: str = dspy.InputField()
    wish: Annotated[Refund | Move, Field(discriminator="kind")] = dspy.OutputField()
    others: list[Refund | Move] = dspy.OutputField()
