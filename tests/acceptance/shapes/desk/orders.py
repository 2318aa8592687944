"""What is ordered: a model that checks and changes what it reads."""

from typing import Annotated

import dspy
from pydantic import AfterValidator, BaseModel, BeforeValidator, Field, model_validator


class Order(BaseModel):
    sku: Annotated[str, AfterValidator(str.upper)]
    count: Annotated[int, Field(gt=0), BeforeValidator(int)]
    street: str = Field(description="where it goes")

    @model_validator(mode="after")
    def is_deliverable(self) -> "Order":
        if self.street == "Elm Street" and self.count > 9:
            raise ValueError("Elm Street takes no pallets")
        return self


class ReadOrder(dspy.Signature):
    """Read the order."""

    mail: str = dspy.InputField()
    order: Order = dspy.OutputField()
