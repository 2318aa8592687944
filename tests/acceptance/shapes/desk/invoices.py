"""What is read from an invoice: numbers that are exact, ids, places, sets."""

import uuid
from decimal import Decimal

import dspy
from pydantic import BaseModel, HttpUrl


class Item(BaseModel):
    text: str
    price: Decimal


class ReadInvoice(dspy.Signature):
    """Read the invoice."""

    text: str = dspy.InputField()
    limit: Decimal = dspy.InputField(desc="what may be paid without being asked")
    id: uuid.UUID = dspy.OutputField()
    total: Decimal = dspy.OutputField()
    items: list[Item] = dspy.OutputField()
    page: HttpUrl | None = dspy.OutputField()


class FindPlace(dspy.Signature):
    """Where is it, and what is said of it?"""

    text: str = dspy.InputField()
    within: tuple[float, float] = dspy.InputField(desc="latitude, longitude")
    place: tuple[float, float] = dspy.OutputField()
    tags: set[str] = dspy.OutputField()
