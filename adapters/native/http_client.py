"""DSPy's own HTTP client, which is new in 3.4: all use of its internals, with the place in DSPy's source.

`tests/integration/test_dspy_insides.py` has a test for each, which fails if a new version of DSPy changes it. What
stands in for it in an older DSPy: `older.py`.
"""

from __future__ import annotations

import select
from collections.abc import Mapping, Sequence
from typing import Any, Final

from dspy._vendor.lm15.transports import StdlibTransport
from dspy._vendor.lm15.transports._sync import _SyncConnection
from dspy.clients import model_metadata
from dspy.clients.backend_selection import select_backend
from dspy.clients.engines.lm15_engine import LM15Engine
from dspy.clients.model_metadata import model_info
from dspy.lm15 import LM15Error, RouterConfig, request_from_openai_chat

from adapters.native.insides import rebound

CONNECT_SECONDS: Final = 10.0
"""The connect timeout of DSPy's HTTP client (dspy 3.4: _vendor/lm15/transports/_limits.py)."""


class _Connection(_SyncConnection):  # type: ignore[misc]  # DSPy has no type information
    """A connection whose descriptor may have any number.

    DSPy looks with `select` whether the other side has closed a connection. That fails for numbers from 1024 on, and
    DSPy opens another connection for each call then.
    """

    __slots__ = ()

    def is_stale(self) -> bool:
        """Whether it cannot be used again: it was closed, or there is something to read before anything was asked."""
        if self.closed:
            return True
        poll = select.poll()
        try:
            poll.register(self.sock, select.POLLIN)
        except (OSError, ValueError):
            return True
        return bool(poll.poll(0))


class Transport(StdlibTransport):  # type: ignore[misc]  # DSPy has no type information
    """DSPy's HTTP client, for more than a thousand connections."""

    _open = rebound(StdlibTransport._open, _SyncConnection=_Connection)  # noqa: SLF001


class _Engine(LM15Engine):  # type: ignore[misc]  # DSPy has no type information
    """DSPy's HTTP client for one LM, which looks for the provider of its model once."""

    def resolve(self, model: str) -> Any:
        """See `LM15Engine`."""
        if self.resolved is None or self.resolved[0] != model:
            self.resolved = model, super().resolve(model)
        return self.resolved[1]

    resolved: tuple[str, Any] | None = None


class _OneEngine(dict[Any, Any]):
    """Replaces an LM's dict of engines, which DSPy keeps by settings (clients/execution.py: `_select_engine`)."""

    def __init__(self, engine: LM15Engine) -> None:
        super().__init__()
        self.engine = engine

    def get(self, _key: Any, _default: Any = None) -> Any:
        """The engine, whatever the settings."""
        return self.engine


def calls_through(lm: Any, transport: Any, api_key: str, api_base: str | None) -> bool:
    """Make an LM use DSPy's own HTTP client with this transport. Returns False if that client does not support the LM.

    `dspy.LM` cannot pass a transport to its engines, and a custom engine has no prices and no capabilities.
    """
    try:
        provider = select_backend(lm).resolution.provider
    except LM15Error:
        return False
    lm._engine_store = _OneEngine(  # noqa: SLF001
        _Engine(
            RouterConfig(
                env={},  # otherwise addresses and regions come from the environment
                api_keys={provider: api_key},
                base_urls=None if api_base is None else {provider: api_base},
                transport=transport,
            ),
            model_type=lm.model_type,
        )
    )
    return True


def carries(lm: Any, blocks: Sequence[Mapping[str, Any]]) -> bool:
    """Whether DSPy's own HTTP client can send these content blocks to an LM. Makes a request without sending it.

    Args:
        lm: an LM that `calls_through`.
    """
    body = {"model": lm.model, "messages": [{"role": "user", "content": list(blocks)}]}
    try:
        lm._engine_store.get(None).plan(request_from_openai_chat(body, compat=select_backend(lm).resolution.compat))  # noqa: SLF001
    except (LM15Error, TypeError, ValueError):
        return False
    return True


def not_sent(lm: Any, settings: Mapping[str, Any]) -> str | None:
    """Why DSPy's own HTTP client would not send these settings to an LM as they are; None if it would.

    Makes a request without sending it. That a value is changed into the nearest one that the provider takes is no
    reason.

    Args:
        lm: an LM that `calls_through`.
    """
    body = {"model": lm.model, "messages": [{"role": "user", "content": "?"}], **settings}
    try:
        request = request_from_openai_chat(body, compat=select_backend(lm).resolution.compat)
        plan = lm._engine_store.get(None).plan(request)  # noqa: SLF001
    except (LM15Error, TypeError, ValueError) as error:
        return str(error)
    return next((adapted.reason for adapted in plan if adapted.action == "dropped"), None)


def reasons(lm: Any) -> bool | None:
    """Whether the model of an LM is one that reasons, by DSPy's list; None if it is not in the list."""
    route = select_backend(lm).resolution
    info = model_info(route.provider, route.model)
    return bool(info.get("supports_reasoning")) if info else None


class AsksOnce:
    """A base of prompt adapters. Of 3.4's own, nothing differs: see `older.AsksOnce`."""


LATE_IMPORTS: Final = ("dspy.clients.execution", "dspy.clients.engines.streaming", "difflib")
"""Modules that DSPy imports at the first call. Loading them and the prices once saves each child 45 ms and some MB."""


def preload(_proxy: str | None) -> None:
    """Load the list of prices, which is otherwise read at the first look-up of one."""
    model_metadata.source_info()
