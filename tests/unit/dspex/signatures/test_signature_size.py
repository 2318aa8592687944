"""What a signature costs is bounded by how many types it has, wherever it comes from; what was refused is not kept."""

from __future__ import annotations

import gc
import json
import tracemalloc
from datetime import UTC, datetime
from typing import Any

import pytest

from adapters.port import ProgramSpec
from adapters.programs import Programs
from dspex import CreateSignature, Signature, uuid7
from dspex.client.subject import read_signature
from dspex.contract.envelope import decode_command
from dspex.contract.results import Page, SignatureList, SignatureView
from dspex.contract.status import SignatureStatus
from dspex.errors import DspexError, InvalidInput, InvalidMessage, InvalidSignature
from dspex.signatures import signature as signatures
from dspex.signatures.annotations import MAX_NAMED
from dspex.signatures.arrow import MAX_LENGTH
from dspex.signatures.compatibility import compare
from dspex.signatures.measures import count_types, count_values
from workers.handlers.signature_modules import read_signatures

MEGABYTE = 1 << 20


def _objects(properties: int) -> dict[str, Any]:
    """A type of `1 + 2 * properties` types."""
    inner = {"type": "object", "properties": {"a": {"type": "boolean"}}}
    return {"type": "object", "properties": {f"p{i}": inner for i in range(properties)}}


def _signature(inputs: int, properties: int, default: Any = None) -> dict[str, Any]:
    field = {"type": _objects(properties), "default": {} if default is None else default}
    return {
        "inputs": [{"name": f"f{i}", **field} for i in range(inputs)],
        "outputs": [{"name": "answer", "type": "str"}],
    }


LARGEST = _signature(7, 141, {"p0": {}})
"""7 * (283 + 2) + 1 = 1,996."""
TOO_LARGE = _signature(8, 130)
"""8 * (261 + 1) + 1 = 2,097, which earlier versions took."""


def _create(signature: Any, padding: int = 0) -> bytes:
    data = {"signature_id": str(uuid7()), "signature": signature}
    message = {"specversion": "1.0", "id": "1", "source": "/x", "type": CreateSignature.type, "data": data}
    return json.dumps(message | {"subject": "x" * padding} if padding else message).encode()


@pytest.mark.parametrize(
    ("field_type", "count"),
    [
        ({"type": "string"}, 1),
        ({"type": "string", "enum": ["a", "b", "c"]}, 4),
        ({"enum": [1, True]}, 3),
        ({"type": "array", "items": {"type": "array", "items": {"type": "integer"}}}, 3),
        ({"type": "object", "additionalProperties": {"type": "integer"}}, 2),
        ({"anyOf": [{"type": "integer"}, {"type": "null"}]}, 2),
        (_objects(3), 7),
    ],
)
def test_types_are_counted_as_data_and_as_read(field_type: dict[str, Any], count: int) -> None:
    assert count_types(field_type) == count
    read = Signature.parse({"inputs": [{"name": "a", "type": field_type}], "outputs": [{"name": "b", "type": "str"}]})
    assert count_types(read.inputs[0].type) == count


def test_values_are_counted() -> None:
    assert count_values({"a": [1, 2, {"b": None}], "c": "text"}) == 7


@pytest.mark.parametrize(
    "wrong",
    [
        _signature(54, 256),
        {"inputs": [{"name": f"a{i}", "type": {"enum": list(range(250))}} for i in range(9)], "outputs": "b"},
        {
            "inputs": [{"name": "a", "type": "list[int]", "default": [1] * 2000}],
            "outputs": [{"name": "b", "type": "str"}],
        },
        {
            "inputs": [{"name": "a", "type": "str"}],
            "outputs": [{"name": f"b{i}", "type": _objects(250)} for i in range(5)],
        },
        {"inputs": [{"name": "a", "type": "str"}] * 2100, "outputs": [{"name": "b", "type": "str"}]},
        {"arrow": ", ".join(f"a{i}: Literal[{', '.join(map(str, range(200)))}]" for i in range(11)) + " -> b"},
    ],
)
def test_one_that_is_too_large_is_refused_with_its_count_and_the_limit(wrong: Any) -> None:
    with pytest.raises(InvalidSignature, match=r"the signature has \d+ .* at most 2000 are allowed") as raised:
        Signature.parse(wrong)
    assert raised.value.code == "invalid_signature"
    with pytest.raises(InvalidMessage, match=r"data\.signature: the signature has \d+ .* at most 2000") as refused:
        decode_command(_create(wrong))
    assert refused.value.code == "invalid_message"


def test_in_a_file_and_in_a_module(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "large.json"
    path.write_text(json.dumps(_signature(8, 256)))
    with pytest.raises(InvalidSignature, match="4113"):
        read_signature(str(path))
    fields = "\n".join(
        f"    a{i}: Literal[{', '.join(map(str, range(i, i + 250)))}] = dspy.InputField()" for i in range(9)
    )
    source = (
        f"from typing import Literal\nimport dspy\nclass Large(dspy.Signature):\n{fields}\n    b = dspy.OutputField()"
    )
    (tmp_path / "large_module.py").write_text(source)
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(DspexError, match="2260"):
        read_signatures("large_module", allowed_prefixes=None)


def test_the_arrow_form_of_types_is_bounded_in_all() -> None:
    text = "Literal[" + ", ".join(f"'{'x' * 900}{i}'" for i in range(5)) + "]"
    fields = [{"name": f"a{i}", "type": text} for i in range(3)]
    with pytest.raises(InvalidSignature, match=rf"have \d+ characters; at most {MAX_LENGTH}"):
        Signature.parse({"inputs": fields, "outputs": fields[:1]})


def test_one_that_was_accepted_before_is_read() -> None:
    with pytest.raises(InvalidSignature, match="2097"):
        Signature.parse(TOO_LARGE)
    assert len(Signature.accepted(TOO_LARGE).inputs) == 8


@pytest.mark.parametrize("later", [False, True])
def test_an_answer_with_one_that_was_accepted_before_is_read(later: bool) -> None:
    """Of every answer that has one: as JSON that came over the broker, and from one in the same process."""
    large = Signature.accepted(TOO_LARGE)
    now = datetime(2026, 11, 30, tzinfo=UTC)
    view = SignatureView(
        signature_id=uuid7(),
        signature=large,
        status=SignatureStatus.ACTIVE,
        digest=large.digest,
        lock_version=1,
        inserted_at=now,
        updated_at=now,
    )
    for answer in (view, SignatureList(signatures=(view,)), Page[SignatureView](items=(view,))):
        assert type(answer).model_validate(answer.model_dump()) == answer
        data = answer.model_dump(mode="json")
        if later:
            for one in (data, *data.get("signatures", []), *data.get("items", [])):
                if "signature" in one:
                    one["signature"]["tags"] = one["signature"]["inputs"][0]["colour"] = "new"
        assert type(answer).model_validate(data, extra="ignore" if later else None) == answer


def test_the_largest_is_taken_for_little_memory() -> None:
    body = _create(LARGEST)
    decode_command(_create("a -> b"))  # the models of the contract
    tracemalloc.start()
    try:
        signature: Signature = decode_command(body).data.signature  # type: ignore[attr-defined]
        signature.validate_inputs({})
        _ = signature.output_model
        used, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 64 * MEGABYTE
    assert used < signature.size * 2


def test_refused_ones_leave_memory_as_it_was() -> None:
    small = _signature(2, 30)
    wrong_default = small | {"inputs": [small["inputs"][0], small["inputs"][1] | {"default": {"p0": 1}}]}
    bodies = [_create(_signature(54, 256)), _create(wrong_default), _create(small | {"version": "x"})]

    def refuse() -> None:
        for body in bodies:
            with pytest.raises(InvalidMessage):
                decode_command(body)

    refuse()
    gc.collect()
    kept = signatures._models.size
    tracemalloc.start()
    try:
        for _ in range(3):
            refuse()
        gc.collect()
        used, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert used < MEGABYTE
    assert signatures._models.size == kept


def test_compiled_models_are_bounded_by_size() -> None:
    for number in range(6):
        large = Signature.parse(
            LARGEST
            | {"outputs": [{"name": f"b{number}", "type": _objects(200)}]}
            | {"inputs": [{"name": "a", "type": "str"}]}
        )
        _ = large.output_model
    assert signatures._models.size <= signatures.MODELS_BYTES


def test_programs_are_bounded_by_size_and_the_last_one_is_there() -> None:
    specs = [ProgramSpec("mock", Signature.parse(f"a{number} -> b")) for number in range(5)]
    programs: Programs[int] = Programs(100, max_bytes=2 * specs[0].size)
    for number, spec in enumerate(specs):
        programs.put(spec, number)
    assert [programs.find(spec.backend_id) for spec in specs] == [None, None, None, 3, 4]
    large = ProgramSpec("mock", Signature.parse(LARGEST))
    programs.put(large, 5)
    assert (programs.find(large.backend_id), len(programs)) == (5, 1)
    programs.put(specs[0], 0)
    assert (programs.find(large.backend_id), programs.find(specs[0].backend_id)) == (None, 0)


def test_a_list_of_wrong_items_is_an_error_of_the_first() -> None:
    signature = Signature.parse("a: list[Literal['x', 'y']] -> b")
    tracemalloc.start()
    try:
        with pytest.raises(InvalidInput, match=r"^a\.0: input should be one of 'x', 'y'$"):
            signature.validate_inputs({"a": [1] * 300_000})
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 8 * MEGABYTE


def test_a_map_of_wrong_values_is_counted() -> None:
    signature = Signature.parse("a: dict[str, int] -> b")
    with pytest.raises(InvalidInput, match=r"^has 20000 problems, too many to name them$"):
        signature.validate_inputs({"a": {str(i): "x" for i in range(20_000)}})


def test_what_an_error_says_is_bounded() -> None:
    values = [f"{i}{'x' * 4_000}" for i in range(MAX_NAMED * 2)]
    signature = Signature.parse(
        {"inputs": [{"name": "a", "type": {"enum": values}}], "outputs": [{"name": "b", "type": "str"}]}
    )
    with pytest.raises(InvalidInput, match="input should be one of") as raised:
        signature.validate_inputs({"a": "z"})
    assert len(raised.value.message) < 600


@pytest.mark.parametrize(("number", "end"), [(MAX_NAMED, f"{MAX_NAMED - 1}"), (MAX_NAMED + 1, f"{MAX_NAMED - 1}, ...")])
def test_so_many_values_of_an_enum_are_named(number: int, end: str) -> None:
    signature = Signature.parse(
        {"inputs": [{"name": "a", "type": {"enum": [*range(number)]}}], "outputs": [{"name": "b", "type": "str"}]}
    )
    with pytest.raises(InvalidInput) as raised:
        signature.validate_inputs({"a": "z"})
    assert raised.value.message.endswith(f" {MAX_NAMED - 2}, {end}")


def test_two_of_the_largest_are_compared() -> None:
    old = Signature.parse(LARGEST)
    other = {"type": "object", "properties": {"a": {"type": "string"}}}
    changed = {"type": "object", "properties": {f"p{i}": other for i in range(141)}}
    new = Signature.parse(LARGEST | {"inputs": [{"name": f"f{i}", "type": changed} for i in range(7)]})
    compatibility = compare(old, new)
    assert len(compatibility.breaking) == 7 * 142
    assert len(compatibility.model_dump_json()) < MEGABYTE
