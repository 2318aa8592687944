"""A worker may open as many files as its executions need, where the machine lets it."""

from __future__ import annotations

import logging
import resource

import pytest

from workers.process.open_files import allow_open_files

LIMITS = dict[str, tuple[int, int]]


@pytest.fixture
def limits(monkeypatch: pytest.MonkeyPatch) -> LIMITS:
    """The limits of a process, which start as those of systemd: 1,024, and 524,288 on request."""
    found = {"now": (1024, 524_288)}
    monkeypatch.setattr(resource, "getrlimit", lambda _: found["now"])
    monkeypatch.setattr(resource, "setrlimit", lambda _, given: found.update(now=given))
    return found


@pytest.mark.parametrize(("executions", "soft"), [(64, 1024), (192, 1024), (193, 1028), (1000, 4256), (4096, 16_640)])
def test_the_soft_limit_is_raised_to_what_is_needed(limits: LIMITS, executions: int, soft: int) -> None:
    assert allow_open_files(executions)
    assert limits["now"] == (soft, 524_288)


@pytest.mark.parametrize("now", [(20_000, 20_000), (resource.RLIM_INFINITY, resource.RLIM_INFINITY)])
def test_a_higher_limit_stays(limits: LIMITS, now: tuple[int, int]) -> None:
    limits["now"] = now
    assert allow_open_files(4096)
    assert limits["now"] == now


def test_a_hard_limit_that_is_too_low_is_said(limits: LIMITS, caplog: pytest.LogCaptureFixture) -> None:
    limits["now"] = (1024, 2048)
    with caplog.at_level(logging.WARNING):
        assert not allow_open_files(1000)
    assert limits["now"] == (2048, 2048)
    (said,) = caplog.messages
    assert "1000 executions at once may need 4256 open files, but 2048 are allowed here" in said
    assert "ulimit -n" in said
    assert "DSPEX_THREADS" in said
