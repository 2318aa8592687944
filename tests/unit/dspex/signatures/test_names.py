"""A signature has the name that it was given, or one of its fields; never the word `signature`."""

from __future__ import annotations

from typing import Any

import pytest

from dspex import Signature
from dspex.errors import InvalidSignature

DATA = {"inputs": [{"name": "ticket", "type": "str"}], "outputs": [{"name": "urgency", "type": "str"}]}
MANY = ", ".join(f"field_{number:057}" for number in range(20))


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ("question -> answer", "question_to_answer"),
        ("a, b: int -> c, d", "a_b_to_c_d"),
        ("a, b, c, d, e -> f", "a_b_c_2_more_to_f"),
        ({"arrow": "a -> b"}, "a_to_b"),
        ({"arrow": "a -> b", "name": "Triage"}, "Triage"),
        (DATA, "ticket_to_urgency"),
        (DATA | {"name": "Triage"}, "Triage"),
        # As clients from before names were derived send one that was given none.
        (DATA | {"name": "signature"}, "ticket_to_urgency"),
        ({"inputs": list(Signature.parse(DATA).inputs), "outputs": Signature.parse(DATA).outputs}, "ticket_to_urgency"),
    ],
)
def test_a_name_is_given_or_derived(given: Any, name: str) -> None:
    signature = Signature.parse(given)
    assert signature.name == name
    assert signature.json_schema()["title"] == name
    assert Signature.parse(signature.model_dump(mode="json")) == signature


def test_long_names_fit() -> None:
    signature = Signature.parse(f"{MANY} -> {MANY.replace('field', 'other')}")
    assert len(signature.name) <= 200
    assert signature.name.startswith("field_0000")


def test_one_that_was_kept_without_a_name_has_one() -> None:
    assert Signature.accepted(DATA | {"name": "signature", "version": "1.0.0"}).name == "ticket_to_urgency"


@pytest.mark.parametrize("wrong", [{"name": ""}, {"name": None}, {"name": 3}, {"inputs": 3}, {"inputs": [3]}, {}])
def test_what_is_wrong_is_still_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidSignature):
        Signature.parse((DATA | wrong) if wrong else {})
