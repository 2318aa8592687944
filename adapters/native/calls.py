"""One LM call by DSPy's own steps, where a step with the same result for every call of an LM is taken once.

Nothing here changes DSPy for others in this process, such as a tool or a module that calls DSPy itself. Its steps are
DSPy's internals: `tests/integration/test_dspy_insides.py` tests them, as those in `insides.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Final

from dspy.clients import costs, execution
from dspy.clients.backend_selection import CLIENT_KEYS, BackendSelection, select_backend
from dspy.clients.model_metadata import model_info

from adapters.native.insides import rebound

LONGEST_NAME: Final = 200
"""The prices of a model with a longer name are not kept: the name is what the LM's server says."""


def execute(lm: Any, prompt: Any, messages: Any, options: Mapping[str, Any]) -> tuple[Any, Any]:
    """Make one call of an LM. Returns DSPy's `PreparedCall` and `CallResult` (dspy 3.4: clients/execution.py).

    Raises:
        dspy.LMError: as the LM itself does.
    """
    call = execution.prepare(lm, prompt, messages, options)
    return call, _execute(lm, call)


def _select(lm: Any, options: Mapping[str, Any]) -> BackendSelection:
    clients = {key: value for key, value in options.items() if key in CLIENT_KEYS}
    kept = _kept(lm)
    if kept is None or kept.clients != clients:
        kept = select_backend(lm, options)
        lm._kept = _settings(lm), kept  # noqa: SLF001  an LM's own; its copies begin with the same
    return kept


def _kept(lm: Any) -> BackendSelection | None:
    settings, selection = vars(lm).get("_kept", (None, None))
    return selection if settings == _settings(lm) else None


def _settings(lm: Any) -> tuple[Any, ...]:
    return lm.model, lm.model_type, lm.engine


def _price(lm: Any, result: Any, response: Any, provider: str | None, request: Any) -> None:
    kept = _kept(lm)
    resolution: Any = None if kept is None or provider is None else kept.resolution
    if resolution is None or resolution.declared:
        execution._price_result(lm, result, response, provider, request)  # noqa: SLF001
        return
    result.cost, result.cost_details = _estimate(
        response, provider=provider, requested_model=resolution.model, request=request
    )


def _prices(provider: str, model: str, *, namespaces: Any = None) -> Mapping[str, Any]:
    if namespaces is not None or len(model) > LONGEST_NAME:
        found: dict[str, Any] = model_info(provider, model, namespaces=namespaces)
        return found
    return _kept_prices(provider, model)


@lru_cache(maxsize=512)
def _kept_prices(provider: str, model: str) -> Mapping[str, Any]:
    """What DSPy reads of a model for its price. For a model that it does not know, it searches its whole table."""
    info = model_info(provider, model)
    return {key: value for key, value in info.items() if "_cost" in key} or info


_estimate = rebound(
    costs.estimate_cost,
    _estimate_cost=rebound(costs._estimate_cost, model_info=_prices),  # noqa: SLF001
)
_execute = rebound(
    execution.execute,
    _engine=rebound(
        execution._engine,  # noqa: SLF001
        _select_engine=rebound(execution._select_engine, select_backend=_select),  # noqa: SLF001
    ),
    _price_result=_price,
)
