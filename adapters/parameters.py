"""What an adapter reads from `Configuration.parameters`: a model per module, unknown keys refused by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

import pydantic
from pydantic import BaseModel, ConfigDict, JsonValue

from adapters.port import AdapterError
from dspex import ErrorCode
from dspex.model import problems


class Parameters(BaseModel):
    """Base of the models: frozen, nothing coerced, no other key allowed."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False, hide_input_in_errors=True)


Model = TypeVar("Model", bound=Parameters)


def read_parameters(model: type[Model], parameters: Mapping[str, JsonValue]) -> Model:
    """The parameters as the model has them.

    Raises:
        AdapterError: `permanent`; every key that is unknown or wrong is named.
    """
    try:
        return model.model_validate(dict(parameters))
    except pydantic.ValidationError as error:
        found = "; ".join(map(str, problems(error, prefix=("parameters",))))
        raise AdapterError(ErrorCode.PERMANENT, found) from None
