"""The parts of a module in a configuration (`Configuration.modules`)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from dspex import LM, Configuration
from dspex.client.deployment_file import read_deployment
from dspex.contract.configuration import ConfigurationChange, Part


def test_an_lm_may_be_a_name() -> None:
    made = Configuration.model_validate({"module": "rag", "modules": {"judge": {"module": "Predict", "lm": "house"}}})
    assert made.modules == {"judge": Part(module="Predict", lm=LM(model="house"))}
    assert made.named_lms == {"modules.judge.lm": LM(model="house")}
    assert Configuration.model_validate_json(made.model_dump_json()) == made


def test_no_parts_are_left_out() -> None:
    assert "modules" not in Configuration(module="rag").model_dump()


def test_parts_are_replaced_as_a_whole() -> None:
    before = Configuration.model_validate({"module": "rag", "modules": {"a": {"module": "Predict"}, "b": {"lm": "x"}}})
    change = ConfigurationChange.model_validate({"modules": {"a": {"module": "ChainOfThought"}}})
    assert change.of(before).modules == {"a": Part(module="ChainOfThought")}
    assert ConfigurationChange(modules=None).of(before).modules == {}


def test_a_deployments_file_names_parts(tmp_path: Path) -> None:
    file = tmp_path / "rag.toml"
    file.write_text(
        'name = "rag"\nsignature = "question -> answer"\nmodule = "rag"\n'
        '[modules.answer]\nmodule = "ChainOfThought"\n'
        '[modules.judge]\nmodule = "BestOfN"\nparameters = {N = 3}\nlm = "house"\n',
        encoding="utf-8",
    )
    assert read_deployment(file).configuration.modules == {
        "answer": Part(module="ChainOfThought"),
        "judge": Part(module="BestOfN", parameters={"N": 3}, lm=LM(model="house")),
    }


def test_a_state_may_name_the_lm_of_a_part() -> None:
    field = {"prefix": "Answer:", "description": "${answer}"}
    predictor = {"demos": [], "signature": {"instructions": "x", "fields": [field]}, "lm": {"model": "openai/o3"}}
    given = {"module": "rag", "state": {"predictors": {"judge.predict": predictor}}}
    with pytest.raises(ValidationError, match="has the LM 'openai/o3' of its own"):
        Configuration.model_validate(given)
    Configuration.model_validate(given | {"modules": {"judge": {"lm": "house"}}})


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({"modules": {"a": {}}}, "give 'module', 'lm' or both"),
        ({"modules": {"a": {"lm": "x", "parameters": {"M": 1}}}}, "they are of a module: give 'module', too"),
        ({"modules": {"a": {"module": "os:system"}}}, "String should match pattern"),
        ({"modules": {"a b": {"lm": "x"}}}, "String should match pattern"),
        ({"modules": {f"a{number}": {"lm": "x"} for number in range(17)}}, "at most 16 items"),
        ({"modules": {"a": {"lm": "x"}}, "lms": {"a": {"model": "y"}}}, "'lms' has an LM for 'a', too"),
    ],
)
def test_what_says_nothing_or_too_much_is_refused(given: dict[str, Any], text: str) -> None:
    with pytest.raises(ValidationError, match=text):
        Configuration.model_validate({"module": "rag"} | given)
