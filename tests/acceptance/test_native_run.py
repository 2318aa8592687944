"""The example on real text, by DSPy itself, its HTTP, and an LM that knows the answers: in threads and in children."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from tests.acceptance.deployment import DSPEX
from tests.lm_server import LMServer, answers_by

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(300)]

EXAMPLE = Path(__file__).parent.parent.parent / "examples" / "debian_sections"
KEY = "sk-a-key-that-only-the-header-may-hold"


@pytest.mark.parametrize("adapter", ["native", "python_port"])
def test_every_row_of_the_example_runs_over_http_with_the_known_right_answer(adapter: str, tmp_path: Path) -> None:
    rows = [json.loads(line) for line in (EXAMPLE / "packages.jsonl").read_text().splitlines()]
    assert len(rows) >= 300
    sections = {row["package"]: row["section"] for row in rows}
    with LMServer(answers_by(lambda i: {"section": sections[i["package"]], "confidence": 0.75})) as server:
        alias = {"model": "openai/gpt-4o-mini", "api_base": server.url, "secret": "LOCAL_API_KEY"}
        environment = {name: value for name, value in os.environ.items() if not name.startswith("DSPEX_")}
        environment |= {"DSPEX_LMS": json.dumps({"local": alias}), "LOCAL_API_KEY": KEY}
        command = [*DSPEX, "run", str(EXAMPLE / "signature.json"), "--inputs", str(EXAMPLE / "packages.jsonl")]
        options = ["--adapter", adapter, "--model", "local", "--expect", "section", "--output", "results.jsonl"]
        ran = subprocess.run(
            [*command, *options], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=240
        )
    assert ran.returncode == 0, ran.stderr
    assert f"{len(rows)} of {len(rows)} (100.0%)" in ran.stderr
    results = [json.loads(line) for line in (tmp_path / "results.jsonl").read_text().splitlines()]
    assert {r["inputs"]["package"]: r["outputs"]["section"] for r in results} == sections
    assert all(r["outputs"]["confidence"] == 0.75 for r in results)
    assert all(request.authorization == f"Bearer {KEY}" for request in server.requests)
    assert len(server.requests) == len(rows)
    for kept in tmp_path.iterdir():
        assert KEY.encode() not in kept.read_bytes(), kept.name
    assert KEY not in ran.stdout + ran.stderr
