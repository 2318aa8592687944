"""What nobody catches is lines of the log: escaped, with where it happened, and without what was said."""

from __future__ import annotations

import subprocess
import sys

import pytest

HOSTILE = "\x1b]0;owned\x07 \u202e https://u:sesame@h/ the inputs"

RAISE = """
import errno, sys, threading
from workers.telemetry.uncaught import log_uncaught
log_uncaught()

def inner():
    raise ValueError(sys.argv[1])

def outer():
    try:
        inner()
    except ValueError as error:
        raise KeyError(sys.argv[1]) from error

class Cursed:
    def __del__(self):
        outer()
"""


def said(code: str) -> tuple[int, str]:
    """The exit code and standard error of a process."""
    # As an argument: from Python 3.13 on a traceback shows the source, also of `-c`.
    ended = subprocess.run([sys.executable, "-c", RAISE + code, HOSTILE], capture_output=True, text=True, timeout=60)
    return ended.returncode, ended.stderr


@pytest.mark.parametrize(
    ("code", "line", "exit_code"),
    [
        ("outer()", "This process ends: uncaught KeyError", 1),
        (
            "thread = threading.Thread(target=outer, name='\\x1b[2Jname'); thread.start(); thread.join()",
            r"Thread \x1b[2Jname ends: uncaught KeyError",
            0,
        ),
        ("Cursed()", "An error could not be raised: uncaught KeyError", 0),
    ],
)
def test_it_is_a_line_and_where_it_happened(code: str, line: str, exit_code: int) -> None:
    ended, text = said(code)
    first, *others = text.splitlines()
    assert ended == exit_code
    assert first.endswith(f" CRITICAL workers.telemetry.uncaught: {line}")
    assert all(other.startswith("    ") for other in others)
    assert "in inner" in text
    assert "in outer" in text
    assert text.index("ValueError") < text.index("    KeyError")
    for hidden in ("\x1b", "\x07", "\u202e", "owned", "sesame", "the inputs"):
        assert hidden not in text


def test_what_the_system_said_is_told() -> None:
    _, text = said("raise OSError(errno.ENOSPC, 'of a file called by somebody')")
    assert "OSError (No space left on device)" in text
    assert "called by" not in text.replace("raise OSError(errno.ENOSPC, 'of a file called by somebody')", "")


def test_an_interrupt_and_an_exit_are_none() -> None:
    assert "CRITICAL" not in said("raise KeyboardInterrupt")[1]
    assert said("raise SystemExit(3)") == (3, "")
    assert said("t = threading.Thread(target=lambda: exit(1)); t.start(); t.join()") == (0, "")


def test_dspex_has_it_before_anything_else() -> None:
    code = """
import sys
from workers.cli import start
start._require_versions = lambda: 1 / 0
start.main()
"""
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert ended.returncode == 1
    assert " CRITICAL workers.telemetry.uncaught: This process ends: uncaught ZeroDivisionError\n" in ended.stderr
    assert "Traceback" not in ended.stderr
