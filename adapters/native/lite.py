"""LiteLLM made fit for a worker: it sends what it is given to the address it is given, and nothing else anywhere else.

By itself it follows redirects, calls by the proxies of the environment, and reads addresses, accounts and headers from
there, and from a `.env` file of the working directory. Done once per process, when a program first needs it.
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
"""What the client of OpenAI, by which LiteLLM calls most providers, and LiteLLM add to every call (openai 2.54:
_client.py). An address or a key that is given wins over the environment's; for these there is no such argument."""

_lock = threading.Lock()
_done = False


def prepare_litellm(proxy: str | None) -> None:
    """Import it and take from it, for the whole process, what it does on its own accord. From any thread, any time.

    Args:
        proxy: `http://host:port`, by which every LM is called.
    """
    global _done
    with _lock:
        if _done:
            return
        for name in _AMBIENT:
            os.environ.pop(name, None)
        # Imported here: 2 s and 120 MB. DSPy has set `LITELLM_MODE`, without which it reads a .env file.
        import httpx
        import litellm
        from litellm.llms.custom_httpx import http_handler

        class Client(httpx.Client):
            """Follows no redirect, whoever asks for it."""

            def send(self, request: httpx.Request, **options: Any) -> httpx.Response:
                """See `httpx.Client.send`."""
                options["follow_redirects"] = False
                return super().send(request, **options)

        unbounded = httpx.Limits(max_connections=None, max_keepalive_connections=100)

        def create(handler: http_handler.HTTPHandler | None = None) -> httpx.Client:
            timeout = None if handler is None else handler.timeout
            verify = http_handler.get_ssl_configuration()
            return Client(verify=verify, trust_env=False, proxy=proxy, limits=unbounded, timeout=timeout)

        litellm.client_session = create()  # of the client of OpenAI
        http_handler.HTTPHandler.create_client = create  # type: ignore[assignment, method-assign]
        _done = True
