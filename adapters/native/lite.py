"""Configures LiteLLM for a worker, so that it sends only what it is given, and only to the address that it is given.

By default it follows redirects, uses proxies, addresses, accounts and headers from the environment, and reads a `.env`
file in the working directory. Configured once per process, when a program first needs it.
"""

from __future__ import annotations

import os
import threading
from typing import Any, Final

_AMBIENT: Final = frozenset(
    {
        "OPENAI_BASE_URL",
        "OPENAI_API_BASE",
        "OPENAI_ORG_ID",
        "OPENAI_ORGANIZATION",
        "OPENAI_PROJECT_ID",
        "OPENAI_CUSTOM_HEADERS",
        "USE_LITELLM_PROXY",
        "LITELLM_PROXY_API_BASE",
        "LITELLM_PROXY_API_KEY",
        "LITELLM_LOG",
        "SSL_CERTIFICATE",
    }
)
"""Variables that LiteLLM, and OpenAI's client under it, add to every call (openai 2.54: _client.py).

An explicit address or key takes precedence over the environment; for these there is no such argument.
"""

_lock = threading.Lock()
_done = False


def prepare_litellm(proxy: str | None) -> None:
    """Import LiteLLM and turn off its defaults for the whole process. Thread-safe; may be called again.

    Args:
        proxy: `http://host:port`, the proxy for all LM calls.

    Raises:
        RuntimeError: the LiteLLM here is too old to be kept from redirects. That of an environment may be any.
    """
    global _done
    with _lock:
        if _done:
            return
        for name in _AMBIENT:
            os.environ.pop(name, None)
        # Imported here because it takes 2 s and 120 MB. `prepare_dspy` has set `LITELLM_MODE`, so it reads no .env
        # file.
        import httpx
        import litellm
        from litellm.llms.custom_httpx import http_handler

        class Client(httpx.Client):
            """Follows no redirect, even if a caller asks for it."""

            def send(self, request: httpx.Request, **options: Any) -> httpx.Response:
                """See `httpx.Client.send`."""
                options["follow_redirects"] = False
                return super().send(request, **options)

        if not hasattr(http_handler.HTTPHandler, "create_client"):
            raise RuntimeError(
                "this LiteLLM makes its connections in a way that DSPex does not know: install a later one"
            )
        unbounded = httpx.Limits(max_connections=None, max_keepalive_connections=100)

        def create(handler: http_handler.HTTPHandler | None = None) -> httpx.Client:
            timeout = None if handler is None else handler.timeout
            verify = http_handler.get_ssl_configuration()
            return Client(verify=verify, trust_env=False, proxy=proxy, limits=unbounded, timeout=timeout)

        litellm.client_session = create()  # used by OpenAI's client
        http_handler.HTTPHandler.create_client = create  # type: ignore[assignment, method-assign]
        _done = True
