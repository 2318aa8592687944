"""Which LM a predictor gets: by its name, by that of its module, by a pattern."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from adapters.native.modules.lms import give_lms
from adapters.port import AdapterError

PATHS = ("self", "answer.predict", "answers[0]", "judge.first.predict", "judge.second.predict")


@pytest.mark.parametrize(
    ("lms", "given"),
    [
        ({}, {}),
        ({"*": 1}, dict.fromkeys(PATHS, 1)),
        ({"answer": 1}, {"answer.predict": 1}),
        ({"answer.predict": 1, "answer": 2}, {"answer.predict": 1}),
        ({"answers[[]0]": 1}, {"answers[0]": 1}),
        ({"answers[0]": 1}, {"answers[0]": 1}),
        ({"judge": 1, "judge.second": 2}, {"judge.first.predict": 1, "judge.second.predict": 2}),
        ({"judge.*": 1, "judge.second": 2}, {"judge.first.predict": 1, "judge.second.predict": 2}),
        (
            {"judge.s*": 2, "*": 1, "j*": 3},
            dict.fromkeys(PATHS, 1) | {"judge.first.predict": 3, "judge.second.predict": 2},
        ),
    ],
)
@pytest.mark.parametrize("order", [1, -1])
def test_the_nearest_name_wins_in_any_order(lms: dict[str, int], given: dict[str, int], order: int) -> None:
    predictors = {path: SimpleNamespace(lm=None) for path in PATHS}
    module: Any = SimpleNamespace(named_predictors=lambda: list(predictors.items()))
    give_lms(module, dict(list(lms.items())[::order]))
    assert {path: it.lm for path, it in predictors.items() if it.lm is not None} == given


@pytest.mark.parametrize("glob", ["answe", "predict", "judge.third", "judge.[ab]*"])
def test_a_name_that_names_nothing_is_refused(glob: str) -> None:
    module: Any = SimpleNamespace(named_predictors=lambda: [(path, SimpleNamespace(lm=None)) for path in PATHS])
    with pytest.raises(AdapterError, match="no predictor has this name"):
        give_lms(module, {glob: 1})
