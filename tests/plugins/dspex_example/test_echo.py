"""What the author of a plug-in runs: `pytest test_echo.py`, with the plug-in and `dspex-server[contract]` installed."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import pytest

pytest.register_assert_rewrite("adapters.contract")

from adapters.contract import AdapterContract, Subject  # noqa: E402
from adapters.port import ProgramSpec  # noqa: E402
from adapters.registry import AdapterRegistry  # noqa: E402
from dspex import Configuration, ErrorCode  # noqa: E402


@contextmanager
def told_to(spec: ProgramSpec, **parameters: Any) -> Generator[ProgramSpec, None, None]:
    configuration = Configuration(module=spec.configuration.module, parameters=parameters)
    yield ProgramSpec(spec.adapter_type, spec.signature, configuration)


class TestEcho(AdapterContract):
    """The contract of DSPex, over the adapter of this plug-in."""

    @pytest.fixture
    def subject(self) -> Subject:
        made = AdapterRegistry().get("echo")
        return Subject(
            "echo",
            type(made),
            lambda spec, code: told_to(spec, fail=code.value),
            codes=frozenset({ErrorCode.TRANSIENT, ErrorCode.REFUSED}),
            slow=lambda spec: told_to(spec, hang=True),
        )
