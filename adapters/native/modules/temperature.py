"""The temperature of a module's calls. A module's default is not sent to a model that would refuse it."""

from __future__ import annotations

from adapters.native.insides import fixed_temperature
from adapters.port import AdapterError
from dspex import ErrorCode

ITS_OWN = 1.0
"""The only value that models with a fixed temperature accept."""


def temperature_of(given: float | None, default: float, model: str) -> dict[str, float]:
    """The temperature setting of a call: the given one, else the module's default, or none for a fixed temperature.

    Raises:
        AdapterError: `permanent`: the model does not accept the given temperature.
    """
    if not fixed_temperature(model):
        return {"temperature": default if given is None else given}
    check_temperature(given, model, "parameters.temperature")
    return {}


def check_temperature(given: float | None, model: str, field: str, code: ErrorCode = ErrorCode.PERMANENT) -> None:
    """Check that a model accepts a temperature.

    Raises:
        AdapterError: with `code`: it does not.
    """
    if given not in (None, ITS_OWN) and fixed_temperature(model):
        text = f"{field}: '{model}' takes no temperature but its own: remove {given:g}"
        raise AdapterError(code, text)
