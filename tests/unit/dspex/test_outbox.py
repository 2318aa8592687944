"""What the outbox does without a database, and that nobody pays for it who does not use it."""

import os
import subprocess
import sys

from sqlalchemy.exc import OperationalError

from dspex.errors import Unroutable
from dspex.outbox.relay import MAX_ERROR, _line


def test_an_error_is_a_line_that_can_be_stored() -> None:
    assert _line(Unroutable("a\nb\x00 \ud800 ü")) == r"unroutable: a\nb\x00 \ud800 ü"
    assert _line(ValueError("a\nb\x00 \ud800 ü")) == "ValueError: a b ü"
    assert _line(ValueError("x" * 10_000)) == f"ValueError: {'x' * 10_000}"[:MAX_ERROR]


def test_an_error_of_the_database_is_told_without_parameters() -> None:
    error = OperationalError("UPDATE dspex_outbox", {"body": b"secret"}, RuntimeError("no connection\nLINE 1"))
    assert _line(error) == "RuntimeError: no connection LINE 1"


def run(code: str) -> "subprocess.CompletedProcess[str]":
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.run([sys.executable, "-c", code], env=environment, check=False, capture_output=True, text=True)


def test_dspex_does_not_load_sqlalchemy() -> None:
    everything = "dspex, dspex.client, dspex.producer, dspex.client.remote, dspex.amqp.publisher, dspex.amqp.topology"
    assert run(f"import sys, {everything}; sys.exit('sqlalchemy' in sys.modules)").returncode == 0


def test_without_sqlalchemy_it_says_what_to_install() -> None:
    ended = run("import sys; sys.modules['sqlalchemy'] = None; import dspex.outbox")
    assert "ImportError: dspex.outbox needs SQLAlchemy 2: pip install 'dspex[sqlalchemy]'" in ended.stderr
