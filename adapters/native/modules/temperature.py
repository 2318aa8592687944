"""The temperature that a module calls with: its own default is not sent where the model would refuse it."""

from __future__ import annotations

from adapters.native.insides import fixed_temperature
from adapters.port import AdapterError
from dspex import ErrorCode

ITS_OWN = 1.0
"""What the models take that take one value."""


def temperature_of(given: float | None, default: float, model: str) -> dict[str, float]:
    """The setting of a call: what was given, else the module's default, or none.

    Raises:
        AdapterError: `permanent`; one was given that the model does not take.
    """
    if not fixed_temperature(model):
        return {"temperature": default if given is None else given}
    check_temperature(given, model, "parameters.temperature")
    return {}


def check_temperature(given: float | None, model: str, field: str) -> None:
    """That a model takes a temperature.

    Raises:
        AdapterError: `permanent`; it does not.
    """
    if given not in (None, ITS_OWN) and fixed_temperature(model):
        text = f"{field}: '{model}' takes no temperature but its own: remove {given:g}"
        raise AdapterError(ErrorCode.PERMANENT, text)
