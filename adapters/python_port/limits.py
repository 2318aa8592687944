"""The limits of the python_port adapter's children."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

PASSED: Final = (
    "PATH HOME TMPDIR TZ LANG LANGUAGE LC_ALL LC_CTYPE LC_NUMERIC LC_TIME LC_COLLATE LC_MONETARY LC_MESSAGES "
    "LD_LIBRARY_PATH SSL_CERT_FILE SSL_CERT_DIR REQUESTS_CA_BUNDLE CURL_CA_BUNDLE"
)
PROXIES: Final = "HTTP_PROXY HTTPS_PROXY ALL_PROXY NO_PROXY http_proxy https_proxy all_proxy no_proxy"
"""Passed only if they contain no password."""

MIB: Final = 1024 * 1024


@dataclass(frozen=True)
class Limits:
    """The limits of the children, and the environment that they get.

    Attributes:
        max_children: the most processes, and so the most concurrent runs; further ones wait. A child takes 20-25 MB of
            its own.
        memory_bytes: how much memory a child may allocate after its start (RLIMIT_DATA). A run that needs more ends as
            `crashed`.
        recycle_runs: a child ends after about so many runs.
        recycle_bytes: a child ends when its resident memory has grown by so much.
        idle_seconds: a child ends when it has been idle for so long.
        start_seconds: how long the server may take to load DSPy, and a child to start.
        build_seconds: how long a child may take to build a program.
        output_bytes: how much of a run's stdout, and of its stderr, is kept; the beginning.
        max_frame_bytes: the largest frame.
        environment: the names of the environment variables that are passed to children.
        preload: modules that the server imports before it forks children. Include `litellm` if programs need it;
            otherwise every child imports it (4 s of CPU, 120 MB).
        lm_proxy: the proxy for LM calls, `http://host:port`. Proxies in the environment are for tools only.
    """

    max_children: int = 64
    memory_bytes: int = 1024 * MIB
    recycle_runs: int = 1_000
    recycle_bytes: int = 256 * MIB
    idle_seconds: float = 60.0
    start_seconds: float = 60.0
    build_seconds: float = 60.0
    output_bytes: int = 64 * 1024
    max_frame_bytes: int = 64 * MIB
    environment: tuple[str, ...] = (*PASSED.split(), *PROXIES.split())
    preload: tuple[str, ...] = ()
    lm_proxy: str | None = None

    def environment_of(self, environment: Mapping[str, str]) -> dict[str, str]:
        """The part of an environment that is passed to children. Reads only the names that are passed."""
        proxies = PROXIES.split()
        found = {name: environment[name] for name in self.environment if name in environment}
        return {name: value for name, value in found.items() if name not in proxies or "@" not in value}
