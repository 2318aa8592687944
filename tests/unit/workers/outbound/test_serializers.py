"""A view has each field of its row by the same name and type, or it is said here that it is made of something else."""

from __future__ import annotations

from datetime import datetime
from types import UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

import pytest
from pydantic import AwareDatetime, BaseModel

from dspex.contract.results import (
    DeliveryView,
    EndpointView,
    ExecutionView,
    ProgramView,
    RejectedMessageView,
    SignatureView,
)
from store.executions import Execution
from store.programs import Program
from store.rejections import RecordedRejection
from store.signatures import SignatureRow
from store.webhooks import Delivery, Endpoint

MADE: dict[type[BaseModel], set[str]] = {
    SignatureView: {"signature_id", "digest", "compatibility", "warnings"},
    ProgramView: {"program_id", "code", "warnings"},
    ExecutionView: {"execution_id", "executed_at", "callback", "metadata", "extra_outputs", "timeline", "waiting"},
    RejectedMessageView: {"rejection_id", "error", "body", "body_encoding"},
    EndpointView: {"endpoint_id", "previous_until"},
    DeliveryView: {"delivery_id", "log"},
}
"""The fields that are no column."""
ROWS: dict[type[BaseModel], type] = {
    SignatureView: SignatureRow,
    ProgramView: Program,
    ExecutionView: Execution,
    RejectedMessageView: RecordedRejection,
    EndpointView: Endpoint,
    DeliveryView: Delivery,
}


def types(hint: Any) -> set[str]:
    """The members of a union, or the one type. A view reads a moment strictly, and any JSON."""
    members = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
    return {repr(datetime if one is AwareDatetime else one).replace("JsonValue", repr(Any)) for one in members}


def hint_of(row: type, name: str) -> Any:
    found = getattr(row, name, None)
    return get_type_hints(found.fget)["return"] if isinstance(found, property) else get_type_hints(row)[name]


@pytest.mark.parametrize("view", MADE, ids=lambda view: view.__name__)
def test_what_has_the_same_name_has_the_same_type(view: type[BaseModel]) -> None:
    same = {name: hint for name, hint in get_type_hints(view).items() if name in view.model_fields.keys() - MADE[view]}
    assert {name: types(hint) for name, hint in same.items()} == {
        name: types(hint_of(ROWS[view], name)) for name in same
    }
