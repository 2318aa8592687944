"""Hypothesis strategies: field types as data, values that fit them, values that nearly do, whole signatures, and what
either may become in a next version."""

from __future__ import annotations

import math
from datetime import UTC
from itertools import count
from typing import Any

from hypothesis import strategies as st
from pydantic import TypeAdapter

from dspex.ids import canonical_json
from dspex.signatures.measures import depth
from dspex.signatures.types import MAX_DEPTH, FieldType

EXACT = 2**53
"""Whole numbers up to here are the same as an int and as a float."""

TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), max_size=12)
NUMBERS = st.floats(-1e9, 1e9, allow_nan=False).map(lambda number: number + 0.0)
WHOLE = st.integers(-EXACT, EXACT)
NAMES = st.from_regex(r"[a-z][a-z0-9_]{0,8}", fullmatch=True).map(lambda name: f"{name}_f")
PROPERTY_NAMES = st.one_of(
    st.sampled_from(["model_config", "copy", "json", "class", "self", "@type", "due date", "_id", "1", "é"]), NAMES
)

Schema = dict[str, Any]


@st.composite
def strings(draw: st.DrawFn) -> Schema:
    """Text, perhaps with an enum or with lengths."""
    if draw(st.booleans()):
        return {"type": "string"} | draw(limits("minLength", "maxLength", st.integers(0, 40)))
    return {"type": "string", "enum": draw(st.lists(TEXT, min_size=1, max_size=4, unique=True))}


FORMATS: dict[str, st.SearchStrategy[str]] = {
    "date": st.dates().map(str),
    "date-time": st.datetimes(timezones=st.none() | st.just(UTC)).map(lambda moment: moment.isoformat()),
    "time": st.times().map(str),
    "duration": st.sampled_from(["P1D", "PT2H", "-P3DT4H5M6.789S", "P2W"]),
    "uuid": st.uuids().map(str),
    "uri": st.sampled_from(["https://example.org/a?b=c#d", "urn:isbn:0451450523", "mailto:someone@example.org"]),
    "email": st.emails(),
    "decimal": st.decimals(allow_nan=False, allow_infinity=False, places=2).map(str),
}
"""Formats and texts that have them. A reader of JSON Schema may take others as well."""

PATTERNS = ["^[a-c]{1,3}$", "^(ab|cd)+$", "x"]


@st.composite
def texts(draw: st.DrawFn) -> Schema:
    """Text with a format or a pattern."""
    key, known = draw(st.sampled_from([("format", sorted(FORMATS)), ("pattern", PATTERNS)]))
    return {"type": "string", key: draw(st.sampled_from(known))}


@st.composite
def constants(draw: st.DrawFn) -> Schema:
    """One value."""
    value, name = draw(st.sampled_from([("a", "string"), (1, "integer"), (True, "boolean"), (0, "integer")]))
    return {"const": value} | draw(st.sampled_from([{}, {"type": name}]))


ANYTHING: list[Schema] = [{}, {"type": "array"}, {"type": "object"}, {"type": "object", "additionalProperties": True}]
"""Types that leave open what is in them."""


@st.composite
def limits(draw: st.DrawFn, low: str, high: str, bounds: st.SearchStrategy[Any]) -> Schema:
    """No bound, one of them or both, in order."""
    first, second = sorted((draw(bounds), draw(bounds)))
    return draw(st.sampled_from([{}, {low: first}, {high: second}, {low: first, high: second}]))


@st.composite
def integers(draw: st.DrawFn) -> Schema:
    """Whole numbers whose bounds leave at least one."""
    step = draw(st.sampled_from([None, 1, 3, 10]))
    anchor = draw(st.integers(-1000, 1000)) * (step or 1)
    schema: Schema = {"type": "integer"} | ({} if step is None else {"multipleOf": step})
    below, above = draw(st.integers(0, 50)), draw(st.integers(0, 50))
    schema |= draw(st.sampled_from([{}, {"minimum": anchor - below}, {"exclusiveMinimum": anchor - below - 1}]))
    schema |= draw(st.sampled_from([{}, {"maximum": anchor + above}, {"exclusiveMaximum": anchor + above + 1}]))
    return schema


@st.composite
def numbers(draw: st.DrawFn) -> Schema:
    """Numbers whose bounds leave at least one."""
    anchor = draw(NUMBERS)
    low, high = anchor - draw(st.floats(0, 100)), anchor + draw(st.floats(0, 100))
    schema: Schema = {"type": "number"}
    schema |= draw(st.sampled_from([{}, {"minimum": low}, {"exclusiveMinimum": math.nextafter(low, -math.inf)}]))
    schema |= draw(st.sampled_from([{}, {"maximum": high}, {"exclusiveMaximum": math.nextafter(high, math.inf)}]))
    return schema


@st.composite
def enums(draw: st.DrawFn) -> Schema:
    """Texts, whole numbers and booleans, where 1 and true are two values."""
    members = st.one_of(TEXT, WHOLE, st.booleans(), st.sampled_from([0, 1]))
    unique = draw(st.lists(members, min_size=1, max_size=5, unique_by=lambda value: (type(value), value)))
    return {"enum": unique}


def arrays(items: st.SearchStrategy[Schema]) -> st.SearchStrategy[Schema]:
    """Lists, perhaps with lengths."""
    return st.builds(
        lambda item, limits: {"type": "array", "items": item} | limits,
        items,
        limits("minItems", "maxItems", st.integers(0, 4)),
    )


def maps(values: st.SearchStrategy[Schema]) -> st.SearchStrategy[Schema]:
    """Maps from text."""
    return values.map(lambda value: {"type": "object", "additionalProperties": value})


@st.composite
def objects(draw: st.DrawFn, members: st.SearchStrategy[Schema]) -> Schema:
    """Nested objects, some properties of which may be left out."""
    properties = draw(st.dictionaries(PROPERTY_NAMES, members, min_size=1, max_size=3))
    required = [name for name in properties if draw(st.booleans())]
    return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}


@st.composite
def unions(draw: st.DrawFn, members: st.SearchStrategy[Schema]) -> Schema:
    """One of several types, perhaps null too; or of objects that a property tells apart."""
    if draw(st.integers(0, 3)) == 0:
        objects_of = [draw(objects(members)) for _ in range(draw(st.integers(2, 3)))]
        for number, one in enumerate(objects_of):
            one["properties"]["kind"] = draw(
                st.sampled_from([{"const": f"k{number}"}, {"type": "string", "enum": [f"k{number}", f"K{number}"]}])
            )
            one["required"] = [*one["required"], "kind"]
        return {"oneOf": objects_of, "discriminator": {"propertyName": "kind"}}
    several = draw(st.lists(members.filter(lambda schema: "anyOf" not in schema), min_size=2, max_size=3))
    return {"anyOf": draw(st.sampled_from([several, [NULL, *several], [*several, NULL]]))}


NULL = {"type": "null"}


def is_optional(schema: Schema) -> bool:
    """Whether it is one type or null, and not a union of several."""
    return len(schema.get("anyOf", ())) == 2 and schema["anyOf"][1] == NULL


@st.composite
def tuples(draw: st.DrawFn, members: st.SearchStrategy[Schema]) -> Schema:
    """As many items as there are types."""
    items = draw(st.lists(members, min_size=1, max_size=3))
    return {"type": "array", "prefixItems": items, "minItems": len(items), "maxItems": len(items)}


def sets(items: st.SearchStrategy[Schema]) -> st.SearchStrategy[Schema]:
    """Lists without equal items."""
    return items.map(lambda item: {"type": "array", "items": item, "uniqueItems": True})


def optional(inner: st.SearchStrategy[Schema]) -> st.SearchStrategy[Schema]:
    """A value or null."""
    return inner.map(lambda schema: {"anyOf": [schema, {"type": "null"}]})


def field_types() -> st.SearchStrategy[Schema]:
    """Any type that a field may have."""
    plain = st.one_of(strings(), integers(), numbers(), enums(), st.just({"type": "boolean"}))
    scalars = st.one_of(plain, plain, texts(), constants(), st.sampled_from(ANYTHING))
    return st.recursive(
        scalars,
        lambda inner: st.one_of(
            st.one_of(arrays(inner), maps(inner), objects(inner), optional(inner)),
            st.one_of(unions(inner), tuples(inner), sets(inner)),
        ),
        max_leaves=4,
    )


@st.composite
def named_types(draw: st.DrawFn) -> tuple[Schema, dict[str, Schema]]:
    """A type, and definitions to which it and they refer; they may contain themselves, or have no values."""
    names = [f"D{number}" for number in range(draw(st.integers(1, 4)))]
    refs = st.sampled_from(names).map(lambda name: {"$ref": f"#/$defs/{name}"})
    leaves = st.one_of(strings(), integers(), st.just({"type": "boolean"}), constants(), refs, refs)
    several = st.recursive(
        leaves,
        lambda inner: st.one_of(arrays(inner), maps(inner), objects(inner), optional(inner), tuples(inner)),
        max_leaves=3,
    )
    choices = st.lists(several.filter(lambda schema: "anyOf" not in schema), min_size=2, max_size=3)
    types = st.one_of(several, objects(several), choices.map(lambda some: {"anyOf": some}))
    return draw(types), {name: draw(types) for name in names}


@st.composite
def signatures(draw: st.DrawFn) -> dict[str, Any]:
    """Signatures as data."""
    fields = st.fixed_dictionaries({"name": NAMES, "type": field_types()})
    drawn = draw(st.lists(fields, min_size=2, max_size=6, unique_by=lambda field: str(field["name"])))
    split = draw(st.integers(1, len(drawn) - 1))
    signature: dict[str, Any] = {"inputs": drawn[:split], "outputs": drawn[split:]}
    return signature | draw(st.sampled_from([{}, {"instructions": "Do it."}]))


JSON_VALUES: st.SearchStrategy[Any] = st.recursive(
    st.one_of(st.none(), st.booleans(), WHOLE, NUMBERS, TEXT),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(TEXT, inner, max_size=3)),
    max_leaves=6,
)


def values(schema: Schema, *, exact: bool = True) -> st.SearchStrategy[Any]:
    """Values of a type: those that fit it or, if not `exact`, any that come near."""
    if exact:
        return _fitting(schema)
    return st.one_of(_fitting(schema), _near(schema), JSON_VALUES)


def _fitting(schema: Schema) -> st.SearchStrategy[Any]:  # noqa: C901  # one case for each type
    if "enum" in schema:
        return st.sampled_from(schema["enum"])
    if "anyOf" in schema or "oneOf" in schema:
        several = schema["oneOf"] if "oneOf" in schema else schema["anyOf"]
        return st.one_of([st.none() if one == NULL else _fitting(one) for one in several])
    if "prefixItems" in schema:
        return st.tuples(*map(_fitting, schema["prefixItems"])).map(list)
    if "uniqueItems" in schema:
        return st.lists(_fitting(schema["items"]), max_size=3, unique_by=canonical_json)
    if "const" in schema:
        return st.just(schema["const"])
    if schema in ANYTHING:
        return {
            "array": st.lists(JSON_VALUES, max_size=3),
            "object": st.dictionaries(TEXT, JSON_VALUES, max_size=3),
        }.get(schema.get("type", ""), JSON_VALUES)
    if "format" in schema:
        return FORMATS[schema["format"]]
    if "pattern" in schema:
        return st.from_regex(schema["pattern"], alphabet=st.characters(min_codepoint=32, max_codepoint=126)).filter(
            lambda text: "\n" not in text
        )
    match schema["type"]:
        case "string":
            return st.text(
                st.characters(codec="utf-8", exclude_characters="\x00"),
                min_size=schema.get("minLength", 0),
                max_size=schema.get("maxLength", schema.get("minLength", 0) + 5),
            )
        case "integer":
            return _fitting_integer(schema)
        case "number":
            return st.floats(
                schema.get("minimum", schema.get("exclusiveMinimum")),
                schema.get("maximum", schema.get("exclusiveMaximum")),
                allow_nan=False,
                allow_infinity=False,
                exclude_min="exclusiveMinimum" in schema,
                exclude_max="exclusiveMaximum" in schema,
            )
        case "boolean":
            return st.booleans()
        case "array":
            least = schema.get("minItems", 0)
            return st.lists(_fitting(schema["items"]), min_size=least, max_size=schema.get("maxItems", least + 3))
        case _:
            return _fitting_object(schema)


def _fitting_integer(schema: Schema) -> st.SearchStrategy[int]:
    step = schema.get("multipleOf", 1)
    low = schema.get("minimum", schema.get("exclusiveMinimum", -EXACT) + 1)
    high = schema.get("maximum", schema.get("exclusiveMaximum", EXACT) - 1)
    return st.integers(-(-low // step), high // step).map(lambda number: number * step)


def _fitting_object(schema: Schema) -> st.SearchStrategy[dict[str, Any]]:
    if "properties" not in schema:
        return st.dictionaries(TEXT, _fitting(schema["additionalProperties"]), max_size=3)
    members = {name: _fitting(member) for name, member in schema["properties"].items()}
    required = {name: member for name, member in members.items() if name in schema["required"]}
    rest = {name: member for name, member in members.items() if name not in schema["required"]}
    return st.fixed_dictionaries(required, optional=rest)


def _near(schema: Schema) -> st.SearchStrategy[Any]:  # noqa: C901
    """Values of the right kind, without regard to constraints or to what they hold."""
    if "enum" in schema or "const" in schema:
        return st.one_of(TEXT, st.sampled_from([0, 1, 0.0, 1.0, True, False, "0", "1", "a"]))
    if "anyOf" in schema or "oneOf" in schema:
        several = schema["oneOf"] if "oneOf" in schema else schema["anyOf"]
        return st.one_of([st.none() if one == NULL else _near(one) for one in several])
    if "prefixItems" in schema:
        return st.lists(st.one_of([values(one, exact=False) for one in schema["prefixItems"]]), max_size=3)
    if schema in ANYTHING:
        return JSON_VALUES
    if "format" in schema:
        return st.one_of(FORMATS[schema["format"]], NUMBERS, st.none())
    if "pattern" in schema:
        return st.text("abcdx", max_size=5)
    match schema["type"]:
        case "string":
            return st.text(st.characters(codec="utf-8", exclude_characters="\x00"), max_size=45)
        case "integer":
            return st.one_of(st.integers(-1200, 1200), st.integers(-1200, 1200).map(float))
        case "number":
            return st.one_of(NUMBERS, WHOLE)
        case "boolean":
            return st.sampled_from([0, 1, "true", True])
        case "array":
            return st.lists(values(schema["items"], exact=False), max_size=6)
        case _ if "properties" in schema:
            members = {name: values(member, exact=False) for name, member in schema["properties"].items()}
            return st.fixed_dictionaries({}, optional=members | {"unknown": st.just(1)})
        case _:
            return st.dictionaries(TEXT, values(schema["additionalProperties"], exact=False), max_size=3)


# Next versions


def widened(schema: Schema) -> st.SearchStrategy[Schema]:
    """Types that every value of this one fits: looser bounds, longer enums, fewer properties required, null."""
    return _widened(schema).filter(_shallow)


def variants(schema: Schema) -> st.SearchStrategy[Schema]:
    """Types near this one: wider, narrower, of another kind, the same."""
    return _variants(schema).filter(_shallow)


def _shallow(schema: Schema) -> bool:
    return depth(_TYPES.validate_python(schema)) <= MAX_DEPTH


_TYPES: TypeAdapter[Any] = TypeAdapter(FieldType)


@st.composite
def _widened(draw: st.DrawFn, schema: Schema) -> Schema:
    if is_optional(schema):
        return {"anyOf": [draw(_widened(schema["anyOf"][0])), {"type": "null"}]}
    if "anyOf" in schema:
        more = draw(st.sampled_from([[], [{"type": "boolean"}]]))
        return {"anyOf": [one if one == NULL else draw(_widened_bare(one)) for one in schema["anyOf"]] + more}
    loose = draw(_widened_bare(schema))
    return loose if draw(st.integers(0, 5)) else {"anyOf": [loose, {"type": "null"}]}


@st.composite
def _widened_bare(draw: st.DrawFn, schema: Schema) -> Schema:  # noqa: C901
    if "const" in schema:
        return draw(st.sampled_from([schema, {"enum": [schema["const"], "b"]}, {}]))
    if schema in ANYTHING:
        return draw(st.sampled_from([schema, {}]))
    if "format" in schema or "pattern" in schema:
        return draw(st.sampled_from([schema, {"type": "string"}, {}]))
    if "oneOf" in schema:
        return draw(st.sampled_from([schema, {"anyOf": [*schema["oneOf"], {"type": "string"}]}, {}]))
    if "anyOf" in schema:
        return {"anyOf": [*schema["anyOf"], {"type": "boolean"}]}
    if "prefixItems" in schema:
        return schema | {"prefixItems": [draw(_widened(one)) for one in schema["prefixItems"]]}
    if "uniqueItems" in schema:
        return {"type": "array", "items": draw(_widened(schema["items"]))}
    if "enum" in schema:
        return draw(_longer(schema))
    match schema["type"]:
        case "boolean":
            return draw(st.sampled_from([schema, {"enum": [True, False, 0]}]))
        case "array":
            return draw(_loosened(schema)) | {"items": draw(_widened(schema["items"]))}
        case "object" if "properties" in schema:
            members = {name: draw(_widened(member)) for name, member in schema["properties"].items()}
            required = [name for name in schema["required"] if draw(st.booleans())]
            return schema | {"properties": members, "required": required}
        case "object":
            return schema | {"additionalProperties": draw(_widened(schema["additionalProperties"]))}
        case "integer" if draw(st.booleans()):
            bounds = {key: bound for key, bound in schema.items() if key != "multipleOf"}
            return draw(_loosened(bounds)) | {"type": "number"}
        case _:
            return draw(_loosened(schema))


@st.composite
def _longer(draw: st.DrawFn, schema: Schema) -> Schema:
    free = {} if "type" not in schema else {"type": "string"}
    if free and draw(st.integers(0, 3)) == 0:
        return free
    more = draw(st.lists(TEXT if free else st.one_of(TEXT, st.booleans(), st.sampled_from([0, 1])), max_size=2))
    members = {(type(value), value): value for value in [*schema["enum"], *more]}
    kept = free if draw(st.booleans()) else {}
    return kept | {"enum": draw(st.permutations(list(members.values())))}


@st.composite
def _loosened(draw: st.DrawFn, schema: Schema) -> Schema:
    """Each bound as it was, gone, or further away."""
    loose = dict(schema)
    for key in schema.keys() & (_LOWER | _UPPER | {"multipleOf"}):
        change = draw(st.sampled_from(["keep", "drop", "move"]))
        if change == "drop":
            del loose[key]
        elif change == "move" and key in _UPPER:
            loose[key] += draw(st.integers(0, 3))
        elif change == "move" and key in _LOWER:
            moved = loose[key] - draw(st.integers(0, 3))
            loose[key] = max(0, moved) if key in ("minLength", "minItems") else moved
    return loose


_LOWER = {"minimum", "exclusiveMinimum", "minLength", "minItems"}
_UPPER = {"maximum", "exclusiveMaximum", "maxLength", "maxItems"}


@st.composite
def _variants(draw: st.DrawFn, schema: Schema) -> Schema:  # noqa: C901
    match draw(st.sampled_from(["same", "wider", "other", "near", "near", "near"])):
        case "same":
            return schema
        case "wider":
            return draw(_widened(schema))
        case "other":
            return draw(field_types())
    if "oneOf" in schema or ("anyOf" in schema and not is_optional(schema)):
        return draw(unions(field_types()))
    if "prefixItems" in schema:
        return draw(tuples(st.one_of(list(map(_variants, schema["prefixItems"])))))
    if "anyOf" in schema:
        inner = draw(_variants(schema["anyOf"][0]))
        return draw(st.sampled_from([inner, {"anyOf": [inner, {"type": "null"}]}]))
    if "enum" in schema:
        kept = [value for value in schema["enum"] if draw(st.booleans())] or schema["enum"]
        return draw(_longer(schema | {"enum": kept}))
    match schema.get("type") if schema not in ANYTHING else None:
        case None:
            return draw(st.one_of(constants(), enums(), st.sampled_from(ANYTHING)))
        case "string":
            return draw(st.one_of(texts(), strings()))
        case "integer":
            return draw(st.one_of(integers(), numbers(), enums()))
        case "number":
            return draw(st.one_of(integers(), numbers()))
        case "array":
            return draw(arrays(_variants(schema["items"])))
        case "object":
            return draw(_object_variants(schema))
        case _:
            return draw(enums())


@st.composite
def _object_variants(draw: st.DrawFn, schema: Schema) -> Schema:
    if "properties" not in schema:
        value = schema["additionalProperties"]
        return draw(st.one_of(maps(_variants(value)), objects(_variants(value))))
    if draw(st.integers(0, 3)) == 0:
        return draw(maps(field_types()))
    members = {name: draw(_variants(member)) for name, member in schema["properties"].items() if draw(st.booleans())}
    members |= draw(st.dictionaries(PROPERTY_NAMES, field_types(), min_size=0 if members else 1, max_size=1))
    required = [name for name in members if draw(st.booleans())]
    return schema | {"properties": members, "required": required}


@st.composite
def next_versions(draw: st.DrawFn, signature: Schema) -> Schema:
    """Signatures as data that may come after this one: fields that changed, came, went, or may be left out."""
    new: Schema = {}
    names = {field["name"] for direction in ("inputs", "outputs") for field in signature[direction]}
    for direction in ("inputs", "outputs"):
        fields = [draw(_field_variants(field)) for field in signature[direction] if draw(st.integers(0, 4))]
        if not fields or draw(st.integers(0, 3)) == 0:
            free = next(name for number in count() if (name := f"{direction}_{number}") not in names)
            fields.append({"name": free, "type": draw(field_types())})
        if direction == "inputs":
            fields = [draw(_with_default(field)) for field in fields]
        new[direction] = draw(st.permutations(fields)) if draw(st.integers(0, 4)) == 0 else fields
    unchanged: Schema = {"instructions": signature["instructions"]} if "instructions" in signature else {}
    new |= draw(st.sampled_from([unchanged, unchanged, {"instructions": "Do it well."}]))
    return new


@st.composite
def _field_variants(draw: st.DrawFn, field: Schema) -> Schema:
    changed: Schema = {"type": draw(st.one_of(st.just(field["type"]), variants(field["type"])))}
    if draw(st.integers(0, 4)) == 0:
        changed["description"] = draw(st.sampled_from(["one", "two"]))
    return {key: kept for key, kept in field.items() if key != "default"} | changed


@st.composite
def _with_default(draw: st.DrawFn, field: Schema) -> Schema:
    if draw(st.integers(0, 2)):
        return field
    return field | {"default": draw(values(field["type"]))}
