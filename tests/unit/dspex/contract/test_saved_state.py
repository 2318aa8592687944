"""The files that `program.save` of DSPy writes, and `state_of`: read as data, bound to a program, never code."""

from __future__ import annotations

import copy
import json
import pickle
import re
from datetime import date
from pathlib import Path
from typing import Any

import pydantic
import pytest

from dspex import Configuration, Signature, State, state_of
from dspex.errors import InvalidValues
from dspex.model import problems

PREDICTOR: dict[str, Any] = {
    "traces": [],
    "train": [],
    "demos": [{"augmented": True, "ticket": "t0", "reasoning": "r", "label": "low"}],
    "signature": {
        "instructions": "Judge the ticket.",
        "fields": [
            {"prefix": "Ticket:", "description": "${ticket}"},
            {"prefix": "Reasoning:", "description": "${reasoning}"},
            {"prefix": "Label:", "description": "${label}"},
        ],
    },
    "lm": None,
}
METADATA = {"dependency_versions": {"python": "3.11", "dspy": "3.4.1", "cloudpickle": "3.1"}}
LM_DUMP = {
    "model": "openai/gpt-4o-mini",
    "model_type": "chat",
    "temperature": 0.0,
    "api_base": "http://127.0.0.1:9/v1",
    "extra_headers": {"X-Key": "hidden"},
}
SIGNATURE = Signature.parse("ticket -> label")


def saved(**predictors: Any) -> dict[str, Any]:
    return (predictors or {"predict": PREDICTOR}) | {"metadata": METADATA}


def refusal(**configuration: Any) -> str:
    with pytest.raises(pydantic.ValidationError) as caught:
        Configuration.model_validate(configuration)
    return "; ".join(map(str, problems(caught.value)))


def test_a_saved_file_is_taken_as_it_is_and_bound_to_its_program() -> None:
    configuration = Configuration.model_validate({"module": "ChainOfThought", "state": saved()})
    assert configuration.state is not None
    assert configuration.state.metadata is not None
    assert (configuration.state.metadata.dspy, configuration.state.metadata.python) == ("3.4.1", "3.11")
    kept = configuration.bound_to(SIGNATURE).model_dump(mode="json")["state"]
    assert kept == {
        "signature_digest": SIGNATURE.digest,
        "module": "ChainOfThought",
        "predictors": {"predict": {"demos": PREDICTOR["demos"], "signature": PREDICTOR["signature"]}},
    }
    assert Configuration.model_validate_json(configuration.model_dump_json()) == configuration


def test_a_state_that_is_bound_stays_what_it_is() -> None:
    state = {"signature_digest": "0" * 64, "module": "Predict", "predictors": {"self": PREDICTOR}}
    bound = Configuration.model_validate({"state": state}).bound_to(SIGNATURE)
    assert bound.state is not None
    assert bound.state.signature_digest == "0" * 64


def test_the_file_of_a_single_predict_has_no_path() -> None:
    state = State.model_validate(PREDICTOR | {"metadata": METADATA})
    assert list(state.predictors) == ["self"]


@pytest.mark.parametrize(
    "path", ["generate", "steps[0]", "steps[1].predict", "parts['my-part']", "parts['a b']", "predictors", "module"]
)
def test_a_predictor_may_have_any_path_of_dspy(path: str) -> None:
    state = State.model_validate(saved(**{path: PREDICTOR}))
    assert list(state.predictors) == [path]


@pytest.mark.parametrize("path", ["parts['a\n']", "a b", "x(1)", "parts['a'](1)"])
def test_no_other_path_is_taken(path: str) -> None:
    assert refusal(state=saved(**{path: PREDICTOR})).startswith("state.predictors.")


def test_an_lm_that_is_the_programs_is_left_out_and_nothing_of_it_is_kept() -> None:
    state = saved(predict=PREDICTOR | {"lm": LM_DUMP})
    lm = {"model": "openai/gpt-4o-mini"}
    with_one = Configuration.model_validate({"lm": lm, "state": state})
    assert with_one == Configuration.model_validate({"lm": lm, "state": saved()})
    for hidden in ("127.0.0.1", "hidden"):
        assert hidden not in with_one.model_dump_json()


@pytest.mark.parametrize(
    ("lm", "ours"), [({"model": "house"}, "the program's is 'house'"), (None, "the program has none")]
)
def test_another_lm_is_refused_with_the_way_out(lm: Any, ours: str) -> None:
    found = refusal(lm=lm, state=saved(predict=PREDICTOR | {"lm": LM_DUMP}))
    assert found == (
        f"state.predictors.predict.lm: the predictor has the LM 'openai/gpt-4o-mini' of its own, and {ours}: name an "
        "LM for it in 'lms', or save the state again after program.set_lm(None)"
    )


def test_an_lm_is_mapped_by_the_name_of_its_predictor() -> None:
    judge = PREDICTOR | {"lm": LM_DUMP | {"model": "openai/gpt-4o"}}
    state = saved(**{"answer.predict": PREDICTOR | {"lm": LM_DUMP}, "judges[0]": judge, "judges[1]": judge})
    lms = {"answer": {"model": "house"}, "judges*": {"model": "strict"}}
    configuration = Configuration.model_validate({"lm": {"model": "other"}, "lms": lms, "state": state})
    assert configuration.state is not None
    assert {predictor.lm for predictor in configuration.state.predictors.values()} == {None}
    found = refusal(lm={"model": "other"}, lms={"answer": {"model": "house"}}, state=state)
    assert found.startswith("state.predictors.judges[0].lm: the predictor has the LM 'openai/gpt-4o' of its own")


@pytest.mark.parametrize(
    ("more", "field"),
    [
        ({"lm": {"api_base": "http://127.0.0.1:9"}}, "lm"),
        ({"config": {"api_base": "http://127.0.0.1:9"}}, "config"),
        ({"config": {"temperature": 1.0}}, "config"),
        ({"traces": [1]}, "traces"),
        ({"train": [{"ticket": "x"}]}, "train"),
        ({"fields": {"label": {"cuts": [0.5]}}}, "fields"),
        ({"stage": "x"}, "stage"),
    ],
)
def test_what_a_state_cannot_have_is_named(more: dict[str, Any], field: str) -> None:
    found = refusal(state=saved(predict=PREDICTOR | more))
    assert found.startswith(f"state.predictors.predict.{field}: ")
    assert "127.0.0.1" not in found


def test_a_partial_change_takes_a_saved_file_too() -> None:
    from dspex.contract.configuration import ConfigurationChange

    before = Configuration.model_validate({"lm": {"model": "openai/gpt-4o-mini"}})
    given = {"state": saved(self=PREDICTOR | {"lm": LM_DUMP})}
    sent = ConfigurationChange.model_validate(given).model_dump_json()
    assert "hidden" not in sent
    changed = ConfigurationChange.model_validate_json(sent).of(before)
    assert changed.state is not None
    assert (changed.state.module, changed.state.predictors["self"].lm) == ("Predict", None)


class _Program:
    """As much of a `dspy.Module` as `state_of` uses."""

    def __init__(self, dumped: dict[str, Any]) -> None:
        self._dumped = dumped

    def dump_state(self) -> dict[str, Any]:
        return copy.deepcopy(self._dumped)


def test_the_state_of_a_program_is_json() -> None:
    demo = {"ticket": "t", "label": "low", "day": date(2026, 1, 2)}
    state = state_of(_Program({"steps[0]": PREDICTOR | {"demos": [demo]}}))
    assert state.predictors["steps[0]"].demos == ({"ticket": "t", "label": "low", "day": "2026-01-02"},)
    assert state.module is None  # a class of one's own is named by the operator
    assert state.metadata is not None
    assert state.metadata.python


def test_a_file_is_read_by_its_path(tmp_path: Path) -> None:
    path = tmp_path / "optimized.json"
    path.write_text(json.dumps(saved()), encoding="utf-8")
    assert state_of(path) == state_of(str(path)) == State.model_validate(saved())


def test_code_and_what_is_no_state_are_refused_with_the_reason(tmp_path: Path) -> None:
    class Loaded:
        def __reduce__(self) -> Any:
            return (pytest.fail, ("it was unpickled",))

    folder = tmp_path / "saved"
    folder.mkdir()
    (folder / "program.pkl").write_bytes(pickle.dumps(Loaded()))
    (tmp_path / "state.pkl").write_bytes(pickle.dumps(Loaded()))
    (tmp_path / "state.json").write_bytes(pickle.dumps(Loaded()))
    (tmp_path / "broken.json").write_text("{")
    (tmp_path / "list.json").write_text("[]")
    (tmp_path / "nan.json").write_text('{"predict": {"demos": [{"a": NaN}]}}')
    (tmp_path / "wrong.json").write_text(json.dumps(saved(predict={"demos": "x"})))
    again = 'DSPex runs no code that comes as data: save the state alone, program.save("state.json")'
    for name, expected in {
        "saved": f"is a folder, as save_program=True writes it: the program's code, pickled. {again}",
        "state.pkl": f"is a pickle. {again}",
        "state.json": "is a pickle. ",
        "missing.json": "cannot be read: No such file or directory",
        "broken.json": "is not JSON: ",
        "nan.json": "is not JSON: ",
        "list.json": "state: ",
        "wrong.json": "state.predictors.predict.demos: ",
    }.items():
        with pytest.raises(InvalidValues) as caught:
            state_of(tmp_path / name)
        assert expected in caught.value.message, name
    with pytest.raises(InvalidValues, match="program: is no DSPy program"):
        state_of(object())


def test_a_path_that_rows_may_have_from_before_is_still_read() -> None:
    assert list(State.model_validate({"predictors": {"a.0['b": {}}}).predictors) == ["a.0['b"]


def test_the_pattern_of_paths_takes_linear_time_in_an_engine_that_backtracks() -> None:
    pattern = re.compile(State.model_json_schema()["anyOf"][1]["patternProperties"].popitem()[0])
    for piece in ("['a.b']", "['a']", ".a", "[0]", "['a-b']"):
        assert pattern.search("a" + piece * 2_000 + "!") is None
        assert pattern.search("a" + piece * 2_000) is not None
