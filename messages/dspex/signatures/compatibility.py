"""Compares two versions of a signature, field by field: which changes break callers of the old version.

A caller sends inputs and reads outputs. The new version must accept its inputs: every value that fits the old inputs
must fit the new ones. The caller must be able to read the outputs: every value that fits the new outputs must fit the
old ones.

| the new version                                | of an input | of an output |
|------------------------------------------------|-------------|--------------|
| takes a field away                             | breaking    | breaking     |
| adds a field that must be given                | breaking    | compatible   |
| adds a field that may be left out              | compatible  | compatible   |
| lets more values fit (integer → number, a      | compatible  | breaking     |
| looser bound, a longer enum, null)             |             |              |
| lets fewer values fit (the other way round)    | breaking    | compatible   |
| lets others fit (string → integer)             | breaking    | breaking     |
| has another default                            | compatible  |              |

The same rules hold for properties of nested objects, items of lists and values of maps. Callers read outputs by name,
so a new one is compatible, nested or not. Whole numbers beyond the range of a double are ignored.
"""

from __future__ import annotations

from collections.abc import Iterator
from uuid import UUID

from dspex.errors import BreakingChange
from dspex.ids import canonical_json
from dspex.model import Frozen
from dspex.signatures.differences import ALWAYS, Comparison, Difference, Direction, Kind, added, removed, required
from dspex.signatures.field import SignatureField
from dspex.signatures.measures import in_order
from dspex.signatures.references import RefType
from dspex.signatures.signature import Signature
from dspex.signatures.types import ArrayType, FieldType, MapType, ObjectType, OptionalType, TupleType, takes_null

MAX_NAMED = 10
"""How many breaking changes an error names."""


class Change(Frozen):
    """One thing that a caller may notice.

    Attributes:
        field: the path: `k`, or a part of a field: `ticket.subject` (property), `tags[]` (items), `scores{}` (values of
            a map).
        direction: whether the field is one of the inputs or of the outputs.
        kind: `required`, `optional`: it must be given now, it may be absent or null now; `widened`, `narrowed`,
            `changed`: more, fewer, other values fit.
        compatible: whether callers of the old version still work.
        message: what happened to it, for a person.
    """

    field: str
    direction: Direction
    kind: Kind
    compatible: bool
    message: str

    def __str__(self) -> str:
        """One line, such as `input k: must be given now`."""
        return f"{self.direction.removesuffix('s')} {self.field}: {self.message}"


class Compatibility(Frozen):
    """The changes in a new version.

    Attributes:
        compatible: no change is breaking.
        changes: all changes, inputs first, in the order of the fields.
        notes: changes that only the LM sees: in instructions, descriptions, the order of fields, and types that are
            written differently for the same values.
    """

    compatible: bool
    changes: tuple[Change, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def breaking(self) -> tuple[Change, ...]:
        """The changes that break callers of the old version."""
        return tuple(change for change in self.changes if not change.compatible)


def compare(old: Signature, new: Signature) -> Compatibility:
    """The changes from `old` to `new`. The result is empty only if both have the same digest.

    Does not compare name, module and version, as callers do not depend on them.
    """
    changes: list[Change] = []
    notes: list[str] = []
    if old.instructions != new.instructions:
        notes.append("the instructions changed")
    pairs: tuple[tuple[Direction, tuple[SignatureField, ...], tuple[SignatureField, ...]], ...] = (
        ("inputs", old.inputs, new.inputs),
        ("outputs", old.outputs, new.outputs),
    )
    for direction, before, after in pairs:
        notes.extend(_notes(direction, before, after))
        for field, kind, message, harmless in _fields(direction, before, after):
            compatible = direction in harmless
            changes.append(Change(field=field, direction=direction, kind=kind, compatible=compatible, message=message))
    return Compatibility(
        compatible=all(change.compatible for change in changes), changes=tuple(changes), notes=tuple(notes)
    )


def check_compatible(compatibility: Compatibility, program_id: UUID) -> None:
    """Check that callers of a program's signature fit the new one.

    Raises:
        BreakingChange: they do not. It names the changes, up to `MAX_NAMED`.
    """
    breaking = [str(change) for change in compatibility.changes if not change.compatible]
    if breaking:
        more = f", and {len(breaking) - MAX_NAMED} more" if len(breaking) > MAX_NAMED else ""
        raise BreakingChange(
            f"signature: it breaks callers of program {program_id}: {'; '.join(breaking[:MAX_NAMED])}{more}: "
            "give allow_breaking, or create another program"
        )


def _fields(
    direction: Direction, before: tuple[SignatureField, ...], after: tuple[SignatureField, ...]
) -> Iterator[Difference]:
    old, new = {field.name: field for field in before}, {field.name: field for field in after}
    for name in [*old, *(name for name in new if name not in old)]:
        if name not in new:
            yield removed(name)
        elif name not in old:
            yield added(name, now=direction == "inputs" and new[name].required)
        else:
            yield from Comparison().types(old[name].type, new[name].type, name)
            if direction == "inputs":
                yield from _presence(old[name], new[name])


def _presence(old: SignatureField, new: SignatureField) -> Iterator[Difference]:
    """Differences in whether an input may be absent, and in its default."""
    was, now = takes_null(old.type), takes_null(new.type)
    if old.required != new.required and was == now:  # otherwise the comparison of the types reports it
        yield required(new.name, new.required)
    if not (old.required or new.required) and canonical_json(old.default) != canonical_json(new.default):
        yield Difference(
            new.name, "default", "has another default: callers that leave it out get another value", ALWAYS
        )


# What only the LM sees


def _notes(
    direction: Direction, before: tuple[SignatureField, ...], after: tuple[SignatureField, ...]
) -> Iterator[str]:
    old, new = {field.name: field for field in before}, {field.name: field for field in after}
    if [name for name in old if name in new] != [name for name in new if name in old]:
        yield f"{direction}: the order changed"
    for name in old:
        if name in new:
            yield from _field_notes(f"{direction}.{name}", old[name], new[name], direction)


def _field_notes(path: str, old: SignatureField, new: SignatureField, direction: Direction) -> Iterator[str]:
    before, after = dict(_descriptions(old.type, path, set())), dict(_descriptions(new.type, path, set()))
    before[path], after[path] = (old.description, *before[path]), (new.description, *after[path])
    described = [place for place in before if place in after and before[place] != after[place]]
    yield from (f"{place}: the description changed" for place in described)
    same = _told(old) == _told(new)
    if not same and not described and next(_fields(direction, (old,), (new,)), None) is None:
        yield f"{path}: is written differently, the same values fit"


def _told(field: SignatureField) -> bytes:
    data = field.model_dump(mode="json")
    for one in (data["type"], *data.get("$defs", {}).values()):
        in_order(one)
    return canonical_json(data)


def _descriptions(field_type: FieldType, path: str, seen: set[str]) -> Iterator[tuple[str, tuple[str | None, ...]]]:
    """The descriptions of a type and its members, by their paths. Those of a type with a name are there once."""
    here = [field_type.description]
    while isinstance(field_type, OptionalType | RefType):
        if isinstance(field_type, RefType):
            if field_type.name in seen:
                return
            seen.add(field_type.name)
            field_type = field_type.target
        else:
            field_type = field_type.anyOf[0]
        here.append(field_type.description)
    # Ignores null: a description is the same if its type becomes optional.
    yield path, tuple(text for text in here if text is not None)
    match field_type:
        case ArrayType(items=inner):
            yield from _descriptions(inner, f"{path}[]", seen)
        case MapType(additionalProperties=inner):
            yield from _descriptions(inner, f"{path}{{}}", seen)
        case TupleType(prefixItems=inners):
            for number, inner in enumerate(inners):
                yield from _descriptions(inner, f"{path}[{number}]", seen)
        case ObjectType(properties=properties):
            for name, inner in properties.items():
                yield from _descriptions(inner, f"{path}.{name}", seen)
