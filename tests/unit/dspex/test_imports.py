"""What `import dspex` loads, and that its names and its validators come when they are asked for."""

from __future__ import annotations

import os
import subprocess
import sys

import dspex


def run(code: str) -> None:
    """Run code in a new process, which has imported nothing yet."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_every_name_is_there_and_listed() -> None:
    modules: dict[str, str] = vars(dspex)["_MODULES"]
    assert sorted(modules) == sorted(dspex.__all__)
    assert set(dspex.__all__) <= set(dir(dspex))
    for name in dspex.__all__:
        assert getattr(dspex, name).__module__ == f"dspex.{modules[name]}"
    assert not hasattr(dspex, "Nothing")


def test_the_import_alone_loads_nothing() -> None:
    run("import sys, dspex; assert not {'pydantic', 'pika'} & set(sys.modules)")


def test_the_contract_is_imported_without_pika() -> None:
    names = "[getattr(dspex, name) for name in dspex.__all__ if name not in ('AmqpPublisher', 'Producer')]"
    run(f"import sys, dspex, dspex.amqp.topology; {names}; assert 'pika' not in sys.modules")


def test_threads_may_use_a_model_first_at_the_same_time() -> None:
    run("""
import threading, uuid
from concurrent.futures import ThreadPoolExecutor
from dspex import CreateProgram, Signature, decode_command, wrap

begin = threading.Barrier(16)

def use(_):
    begin.wait()
    signature = Signature.parse("tags: list[str] -> answer: dict[str, list[int]]")
    command = CreateProgram(program_id=uuid.uuid4(), signature_id=uuid.uuid4(), name="p", adapter_type="mock")
    assert decode_command(wrap(command, source="/").encode()).data == command
    return signature.digest

with ThreadPoolExecutor(16) as threads:
    assert len(set(threads.map(use, range(16)))) == 1
""")
