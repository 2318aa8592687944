"""The benchmarks of the queue run, at a small size; what they measure is judged where the machine is theirs.

Each has servers and workers of its own, which takes half a minute: under torture only.
"""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path

import pytest

from benchmarks.harness.rounds import once
from benchmarks.harness.runs import Stage
from benchmarks.harness.scenario import Options
from benchmarks.harness.servers import servers
from benchmarks.scenarios import SCENARIOS
from benchmarks.systems import OWN, SYSTEMS
from tests.sizes import TORTURE

QUEUE = ("accept", "choose", "lanes", "shares", "joins", "wakes", "limits", "refusals", "cancels")


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Generator[Stage]:
    with servers() as started:
        yield Stage(started, Path(tmp_path_factory.mktemp("logs")), 120)


@pytest.mark.skipif(not TORTURE, reason="half a minute each: make torture")
@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", QUEUE)
def test_each_variant_has_its_figures(stage: Stage, name: str) -> None:
    scenario, options = SCENARIOS[name], Options.quick()
    for variant in scenario.variants(options):
        measured = once(scenario, stage, options, SYSTEMS[OWN], variant, 1)
        assert measured.void is None
        assert scenario.columns[0].key in measured.figures
