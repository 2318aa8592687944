"""References to types that have a name: `{"$ref": "#/$defs/Node"}`, where a field has `"$defs": {"Node": ...}`.

A reference holds what its field defines, so that whoever reads a type needs nothing beside it. A type that is there in
a thousand places, or that contains itself, is one type; what is found out about it is kept, and costs no more.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, ConfigDict, Field, PrivateAttr, StrictStr

from dspex.signatures.scalar_types import LATER, Type

Found = TypeVar("Found")

POINTER = re.compile(r"#/\$defs/([A-Za-z0-9._-]{1,200})")


def _here(pointer: str) -> str:
    if POINTER.fullmatch(pointer) is None:
        raise ValueError(
            "only types in $defs of the same field can be referred to, as '#/$defs/NAME': no file, no address, and no "
            "other place is read"
        )
    return pointer


class RefType(Type):
    """The type that has this name in the `$defs` of the field. A description beside it is that of the place."""

    model_config = LATER | ConfigDict(serialize_by_alias=True)

    ref: Annotated[StrictStr, AfterValidator(_here)] = Field(alias="$ref")

    _definitions: Definitions | None = PrivateAttr(default=None)

    @property
    def name(self) -> str:
        """The name in `$defs`."""
        return self.ref.rpartition("/")[2]

    def belong_to(self, definitions: Definitions) -> None:
        """Tell the reference what its field defines."""
        self._definitions = definitions

    def belongs_to(self, types: Mapping[str, Any]) -> bool:
        """Whether it was told already that these are the definitions."""
        known = {} if self._definitions is None else self._definitions.types
        return bool(known) and known.keys() == types.keys() and all(known[name] is one for name, one in types.items())

    @property
    def definitions(self) -> Definitions:
        """What the field of this reference defines."""
        if self._definitions is None:
            raise ValueError(f"{self.ref} stands in no field that defines it")
        return self._definitions

    @property
    def target(self) -> Any:
        """The type that it refers to, which may be a reference itself: a `FieldType`, whose file imports this one."""
        return self.definitions.types[self.name]

    def known(self, what: str, find: Callable[[Any], Found]) -> Found:
        """What is true of the type referred to, which is found out once."""
        found: dict[tuple[str, str], Any] = self.definitions.known
        key = what, self.name
        if key not in found:
            found[key] = find(self.target)
        kept: Found = found[key]
        return kept

    def __eq__(self, other: object) -> bool:
        """Whether both are written the same. What they refer to may contain them."""
        return isinstance(other, RefType) and vars(self) == vars(other)

    def __hash__(self) -> int:
        return hash(self.ref)


class Definitions:
    """The types that a field names, by their names.

    Attributes:
        known: what was found out about them, by what it is, and the name.
        made: the Python annotations of them, by their names and by how values are read.
        keys: for each name, a text that says what the type is, with all that it refers to.
        circular: the names of those that refer to themselves, by way of others or not.
        size: how many types they contain, in all.
    """

    def __init__(self, types: Mapping[str, Any]) -> None:
        self.types = types
        self.known: dict[tuple[str, str], Any] = {}
        self.made: dict[tuple[str, Any], Any] = {}
        self.keys: dict[str, str] = {}
        self.circular: frozenset[str] = frozenset()
        self.size = 0
