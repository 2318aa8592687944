"""What of DSPy's insides the adapter leans on, beyond its documented interface: all of it, with where it is.

`tests/integration/test_dspy_insides.py` has a test for each: one that fails names what a new DSPy has changed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from dspy._vendor.lm15.transports import StdlibTransport
from dspy.clients.backend_selection import select_backend
from dspy.clients.engines.lm15_engine import LM15Engine
from dspy.lm15 import LM15Error, RouterConfig

__all__ = ["CONNECT_SECONDS", "StdlibTransport", "calls_through", "fixed_temperature", "raw_answer"]

CONNECT_SECONDS: Final = 10.0
"""What DSPy's HTTP client waits for a connection (dspy 3.4: _vendor/lm15/transports/_limits.py)."""


class _OneEngine(dict[Any, Any]):
    """In the place of an LM's engines, which DSPy keeps by their settings (clients/execution.py: `_select_engine`)."""

    def __init__(self, engine: LM15Engine) -> None:
        super().__init__()
        self.engine = engine

    def get(self, _key: Any, _default: Any = None) -> Any:
        """The engine, whatever the settings."""
        return self.engine


def calls_through(lm: Any, transport: Any, api_key: str, api_base: str | None) -> bool:
    """Have an LM call by DSPy's own HTTP client, through this transport; False where that client does not serve it.

    `dspy.LM` gives its engines no transport, and an engine of one's own has no prices and no capabilities.
    """
    try:
        provider = select_backend(lm).resolution.provider
    except LM15Error:
        return False
    lm._engine_store = _OneEngine(  # noqa: SLF001
        LM15Engine(
            RouterConfig(
                env={},  # else addresses and regions come from the environment
                api_keys={provider: api_key},
                base_urls=None if api_base is None else {provider: api_base},
                transport=transport,
            ),
            model_type=lm.model_type,
        )
    )
    return True


def raw_answer(response: Any) -> Mapping[str, Any] | None:
    """The provider's own JSON of an answer: `dspy.lm15.Response` keeps it, LiteLLM's objects can be dumped."""
    raw = getattr(response, "provider_data", None)
    if raw is None and (dump := getattr(response, "model_dump", None)) is not None:
        raw = dump()
    return raw if isinstance(raw, Mapping) else None


_FIXED_TEMPERATURE = re.compile(r"(?:.*/)?(?:o[1-9](?:-.*)?|gpt-5(?![\d])(?!.*-chat).*|codex-.*)", re.IGNORECASE)


def fixed_temperature(model: str) -> bool:
    """Whether a model takes no temperature but its own: OpenAI's reasoning models, whoever serves them.

    https://platform.openai.com/docs/guides/reasoning; `dspy.LM` knows them as well (clients/lm.py), and refuses one
    that is set for the whole LM.
    """
    return _FIXED_TEMPERATURE.fullmatch(model) is not None
