"""Reads an adapter's parameters from `Configuration.parameters`: a model per module, unknown keys refused by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

import pydantic
from pydantic import BaseModel, ConfigDict, JsonValue

from adapters.port import AdapterError
from dspex import ErrorCode
from dspex.model import problems


class Parameters(BaseModel):
    """Base of the models: frozen, no coercion, no other keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False, hide_input_in_errors=True)


Model = TypeVar("Model", bound=Parameters)


def read_parameters(model: type[Model], parameters: Mapping[str, JsonValue]) -> Model:
    """Validate parameters by their model.

    Raises:
        AdapterError: `permanent`: keys are unknown or invalid. The text names every one.
    """
    try:
        return model.model_validate(dict(parameters))
    except pydantic.ValidationError as error:
        found = "; ".join(map(str, problems(error, prefix=("parameters",))))
        raise AdapterError(ErrorCode.PERMANENT, found) from None
