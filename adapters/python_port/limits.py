"""What the children of the python_port adapter may have and do."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

PASSED: Final = (
    "PATH HOME TMPDIR TZ LANG LANGUAGE LC_ALL LC_CTYPE LC_NUMERIC LC_TIME LC_COLLATE LC_MONETARY LC_MESSAGES "
    "LD_LIBRARY_PATH SSL_CERT_FILE SSL_CERT_DIR REQUESTS_CA_BUNDLE CURL_CA_BUNDLE"
)
PROXIES: Final = "HTTP_PROXY HTTPS_PROXY ALL_PROXY NO_PROXY http_proxy https_proxy all_proxy no_proxy"
"""Passed only where they hold no password."""

MIB: Final = 1024 * 1024


@dataclass(frozen=True)
class Limits:
    """Bounds of the children, and what is passed to them.

    Attributes:
        max_children: processes at most, and so runs at once; more wait their turn. A child has 20-25 MB of its own.
        memory_bytes: what a child may allocate besides what it was started with (RLIMIT_DATA); a run that asks for more
            ends as `crashed`.
        recycle_runs: a child ends after about so many runs,
        recycle_bytes: or when its resident memory has grown by so much.
        idle_seconds: a child that had nothing to do for so long ends.
        start_seconds: how long the server of the children may take to load DSPy, and a child to start.
        build_seconds: how long a child may take to build a program.
        output_bytes: what is kept of what a run prints, of stdout and of stderr each: the beginning.
        max_frame_bytes: the size cap of a frame.
        environment: the names of the environment variables that are passed.
        preload: modules that are imported once, before children are forked: such as `litellm`, where programs need it,
            which else every child imports by itself (4 s of CPU, 120 MB).
        lm_proxy: by which LMs are called, `http://host:port`; those of the environment are for tools.
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
        """The part of an environment that is passed to children. Only the names that are passed are asked for."""
        proxies = PROXIES.split()
        found = {name: environment[name] for name in self.environment if name in environment}
        return {name: value for name, value in found.items() if name not in proxies or "@" not in value}
