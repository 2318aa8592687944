"""The example of a plug-in as its author and its user have it: installed, and found by name."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from adapters.plugins import REWARDS, TOOLS, registered
from adapters.port import ProgramSpec, RunOptions
from adapters.registry import AdapterRegistry
from dspex import Signature
from tests.pages import block
from tests.plugin import SOURCE

MY_PACKAGE = """
from adapters.registry import AdapterRegistry
from test_echo import told_to

MyAdapter = type(AdapterRegistry().get("echo"))


def failing(spec, code):
    return told_to(spec, fail=code.value)


def slow(spec):
    return told_to(spec, hang=True)
"""
"""What the page has its reader write: here it is the example's."""


@pytest.mark.usefixtures("example_plugin")
def test_an_installed_plugin_runs_programs() -> None:
    registry = AdapterRegistry()
    adapter = registry.get("echo")
    spec = ProgramSpec("echo", Signature.parse("question -> answer"))
    outcome = adapter.execute_program(adapter.create_program(spec), {"question": "why"}, RunOptions("run"))
    assert outcome.outputs["answer"]
    assert registered(REWARDS) == ["brevity", "broken_reward"]
    assert registered(TOOLS) == ["capital_of", "count_letters"]


def test_its_author_runs_the_contract_where_only_the_distributions_are(plugin_path: Path, tmp_path: Path) -> None:
    """Nothing of this repository is on the path but what is installed."""
    tests = [tmp_path / "test_echo.py", tmp_path / "test_mine.py"]
    tests[0].write_text((SOURCE / "test_echo.py").read_text())
    tests[1].write_text(block("docs/plugins.md", "python", "import pytest").replace('"mine"', '"echo"'))
    (tmp_path / "my_package.py").write_text(MY_PACKAGE)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *map(str, tests)]
    environment = {"PYTHONPATH": str(plugin_path), "PATH": os.environ["PATH"]}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert " passed" in done.stdout
