"""A parser for DSPy's arrow form: `question: str, k: int = 3 -> answer: str, score: float`.

The grammar (white space is free; a field without a type is text, as in DSPy):

    signature := fields "->" fields
    fields    := field ("," field)*
    field     := NAME [":" type] ["=" literal]          a default is for inputs only
    type      := member ("|" member)*
    member    := "str" | "int" | "float" | "bool" | "None" | "Any"
               | "datetime.date" | "datetime.datetime" | "datetime.time" | "datetime.timedelta" | "uuid.UUID"
               | "decimal.Decimal" | "pydantic.AnyUrl" | "pydantic.EmailStr"     also without their modules
               | "dspy.Image" | "dspy.Audio" | "dspy.File" | "dspy.History"      of inputs
               | "list" ["[" type "]"] | "dict" ["[" "str" "," type "]"]
               | "tuple" "[" types "]" | "set" "[" type "]" | "Union" "[" types "]"
               | "Optional" "[" type "]" | "Literal" "[" literal ("," literal)* "]"
    types     := type ("," type)*

DSPy's own parser passes an unknown name to `importlib.import_module` (dspy 3.4, signatures/signature.py). This one
accepts only the names above.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, NoReturn, TypeVar

from dspex.errors import InvalidSignature
from dspex.signatures.formats import Format
from dspex.signatures.scalar_types import MAX_MEMBERS, BooleanType, EnumType, IntegerType, NumberType, StringType
from dspex.signatures.types import (
    MAX_CHOICES,
    MAX_DEPTH,
    AnyArrayType,
    AnyMapType,
    AnyType,
    ArrayType,
    FieldType,
    HistoryType,
    MapType,
    NullType,
    OptionalType,
    TupleType,
    UnionType,
)

Read = TypeVar("Read")

MAX_LENGTH = 10_000

_TOKEN = re.compile(
    r"""\s*(?:
      (?P<arrow>->)
    | (?P<string>'(?:[^'\\\n]|\\.)*' | "(?:[^"\\\n]|\\.)*")
    | (?P<number>[-+]?\d+(?:\.\d*)?(?:[eE][-+]?\d+)?)
    | (?P<name>[^\W\d]\w*(?:\.\w+)*)
    | (?P<mark>[\[\]{}:,=|])
    )""",
    re.VERBOSE,
)

_SCALARS: dict[str, type[StringType | IntegerType | NumberType | BooleanType | AnyType]] = {
    "str": StringType,
    "int": IntegerType,
    "float": NumberType,
    "bool": BooleanType,
    "Any": AnyType,
}
_FORMATS: dict[str, Format] = {
    "datetime.date": "date",
    "datetime.datetime": "date-time",
    "datetime.time": "time",
    "datetime.timedelta": "duration",
    "uuid.UUID": "uuid",
    "decimal.Decimal": "decimal",
    "pydantic.AnyUrl": "uri",
    "pydantic.EmailStr": "email",
}
_FORMATS |= {name.partition(".")[2]: found for name, found in _FORMATS.items()}
_OF_DSPY: dict[str, FieldType] = {
    "dspy.Image": StringType(format="image"),
    "dspy.Audio": StringType(format="audio"),
    "dspy.File": StringType(format="file"),
    "dspy.History": HistoryType(format="history"),
}
_KNOWN = (
    "str, int, float, bool, Any, list[...], dict[str, ...], tuple[...], set[...], Optional[...], "
    "Union[...], Literal[...], date, datetime, time, "
    "timedelta, UUID, Decimal, AnyUrl, EmailStr, dspy.Image, dspy.Audio, dspy.File, dspy.History"
)
_EXAMPLES = {
    "list": "list[str]",
    "dict": "dict[str, int]",
    "tuple": "tuple[int, str]",
    "set": "set[str]",
    "Optional": "Optional[str]",
    "Union": "Union[int, str]",
    "Literal": "Literal['a', 'b']",
}
_CONSTANTS = {"True": True, "False": False, "None": None}


class ArrowField(NamedTuple):
    """One field of the arrow form. `default` is only meaningful where `has_default`."""

    name: str
    type: FieldType
    has_default: bool
    default: Any


class _Token(NamedTuple):
    kind: str
    text: str
    position: int


def parse_arrow(text: str) -> tuple[list[ArrowField], list[ArrowField]]:
    """Read the arrow form into input and output fields, in their order.

    Raises:
        InvalidSignature: what is wrong, and at which character.
    """
    parser = _Parser(text)
    inputs = parser.fields()
    parser.expect("->")
    outputs = parser.fields()
    parser.end()
    for field in outputs:
        if field.has_default:
            raise InvalidSignature(f"output '{field.name}' has a default: only inputs can have one")
    return inputs, outputs


def parse_type(text: str) -> FieldType:
    """Read one type of the arrow form, such as `list[str]`.

    Raises:
        InvalidSignature: what is wrong, and at which character.
    """
    parser = _Parser(text)
    found = parser.type()
    parser.end()
    return found


class _Parser:
    def __init__(self, text: str) -> None:
        if len(text) > MAX_LENGTH:
            raise InvalidSignature(f"the arrow form is longer than {MAX_LENGTH} characters: give the fields as data")
        self._text = text
        self._tokens = list(self._tokenize())
        self._next = 0
        self._depth = 0

    def _tokenize(self) -> Iterator[_Token]:
        position, length = 0, len(self._text.rstrip())
        while position < length:
            match = _TOKEN.match(self._text, position)
            if match is None or match.lastgroup is None:
                start = len(self._text) - len(self._text[position:].lstrip())
                self.fail(f"unexpected {self._text[start]!r}", start)
            yield _Token(match.lastgroup, match[match.lastgroup], match.start(match.lastgroup))
            position = match.end()
        yield _Token("end", "the end", length)

    def fail(self, reason: str, position: int | None = None) -> NoReturn:
        at = self._tokens[self._next].position if position is None else position
        raise InvalidSignature(f"{reason} at character {at + 1} of {self._text[:200]!r}")

    @property
    def _token(self) -> _Token:
        return self._tokens[self._next]

    def _take(self) -> _Token:
        token = self._token
        self._next += token.kind != "end"
        return token

    def _accept(self, text: str) -> bool:
        found = self._token.text == text and self._token.kind in ("mark", "arrow")
        self._next += found
        return found

    def expect(self, text: str) -> None:
        if not self._accept(text):
            self.fail(f"expected '{text}', found {self._token.text!r}")

    def end(self) -> None:
        if self._token.kind != "end":
            self.fail(f"unexpected {self._token.text!r}")

    def fields(self) -> list[ArrowField]:
        found = [self._field()]
        while self._accept(","):
            found.append(self._field())
        return found

    def _field(self) -> ArrowField:
        if self._token.kind != "name":
            self.fail(f"expected a field name, found {self._token.text!r}")
        name = self._take().text
        field_type = self.type() if self._accept(":") else StringType()
        has_default = self._accept("=")
        return ArrowField(name, field_type, has_default, self._literal() if has_default else None)

    def type(self) -> FieldType:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            self.fail(f"types nest deeper than {MAX_DEPTH}")
        members = [self._member()]
        while self._accept("|"):
            members.append(self._member())
        self._depth -= 1
        return self._joined(members)

    def _joined(self, given: list[FieldType | None]) -> FieldType:
        """A type or the union of several, as Python's `Union` joins them: flat, each of them once."""
        flat: list[FieldType | NullType] = []
        for one in given:
            inner: tuple[FieldType | NullType, ...] = (
                (NullType(),) if one is None else one.anyOf if isinstance(one, OptionalType | UnionType) else (one,)
            )
            flat += [member for member in inner if member not in flat]
        some = [member for member in flat if not isinstance(member, NullType)]
        if not some:
            self.fail("None alone is no type")
        if len(flat) > MAX_CHOICES:
            self.fail(f"a union has at most {MAX_CHOICES} types")
        if len(some) > 1:
            return UnionType(anyOf=tuple(flat))
        return some[0] if len(flat) == 1 else OptionalType(anyOf=(some[0], NullType()))

    def _member(self) -> FieldType | None:
        if self._token.kind != "name":
            self.fail(f"expected a type, found {self._token.text!r}")
        token = self._take()
        name = token.text.removeprefix("typing.")
        if name in _SCALARS:
            return _SCALARS[name]()
        if name in _FORMATS:
            return StringType(format=_FORMATS[name])
        if name in _OF_DSPY:
            return _OF_DSPY[name]
        if name == "None":
            return None
        if name in ("list", "List", "dict", "Dict") and self._token.text != "[":
            return AnyArrayType() if name in ("list", "List") else AnyMapType()
        example = _EXAMPLES.get(name.lower() if name in ("List", "Dict", "Tuple", "Set") else name)
        if example is None:
            self.fail(f"unknown type '{token.text}': known are {_KNOWN}", token.position)
        if not self._accept("["):
            self.fail(f"'{name}' says what is in it, for instance {example}")
        inner = self._inside(name)
        self.expect("]")
        return inner

    def _inside(self, name: str) -> FieldType:
        match name.lower():
            case "list":
                return ArrayType(items=self.type())
            case "dict":
                key = self._take()
                if key.text != "str":
                    self.fail("a dict's keys are str", key.position)
                self.expect(",")
                return MapType(additionalProperties=self.type())
            case "optional":
                return self._joined([self._type_or_none(), None])
            case "union":
                return self._joined(self._types(self._type_or_none))
            case "tuple":
                items = self._types(self.type)
                return TupleType(prefixItems=tuple(items), minItems=len(items), maxItems=len(items))
            case "set":
                return ArrayType(items=self.type(), uniqueItems=True)
            case _:
                return self._enum()

    def _type_or_none(self) -> FieldType | None:
        if self._token.text == "None" and self._tokens[self._next + 1].text in (",", "]"):
            self._take()
            return None
        return self.type()

    def _types(self, read: Callable[[], Read]) -> list[Read]:
        found = [read()]
        while self._accept(","):
            if self._token.text == "]":
                break
            found.append(read())
        if len(found) > MAX_MEMBERS:
            self.fail(f"there are more than {MAX_MEMBERS} types")
        return found

    def _enum(self) -> FieldType:
        values = [self._scalar()]
        while self._accept(","):
            if self._token.text == "]":
                break
            values.append(self._scalar())
        if any(value is None or isinstance(value, float) for value in values):
            self.fail("a Literal lists text, whole numbers, True or False")
        kinds = (bool, int, str)
        if len({(kinds.index(type(value)), value) for value in values}) != len(values):
            self.fail("a Literal lists a value twice")
        if all(isinstance(value, str) for value in values):
            return StringType(enum=tuple(values))
        return EnumType(enum=tuple(values))

    def _scalar(self) -> Any:
        token = self._take()
        value: Any
        if token.kind == "name" and token.text in _CONSTANTS:
            value = _CONSTANTS[token.text]
        elif token.kind in ("string", "number"):
            try:
                value = ast.literal_eval(token.text)
            except (ValueError, SyntaxError):
                self.fail(f"{token.text!r} cannot be read", token.position)
        else:
            self.fail(f"expected a value, found {token.text!r}", token.position)
        return value

    def _literal(self) -> Any:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            self.fail(f"values nest deeper than {MAX_DEPTH}")
        try:
            if self._accept("["):
                return self._items("]", self._literal)
            if self._accept("{"):
                return dict(self._items("}", self._pair))
            return self._scalar()
        finally:
            self._depth -= 1

    def _items(self, close: str, read: Callable[[], Any]) -> list[Any]:
        items: list[Any] = []
        while not self._accept(close):
            items.append(read())
            if not self._accept(","):
                self.expect(close)
                break
        return items

    def _pair(self) -> tuple[str, Any]:
        key = self._scalar()
        if not isinstance(key, str):
            self.fail("a dict's keys are text")
        self.expect(":")
        return key, self._literal()
