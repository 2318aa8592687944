"""The JSON Schema of the fields of a signature: one document, with each type that has a name once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from dspex.signatures.definitions import refs_in
from dspex.signatures.field import SignatureField
from dspex.signatures.types import DIALECT


def document(schema: Mapping[str, Any], definitions: SharedDefinitions) -> dict[str, Any]:
    """A whole document."""
    return {"$schema": DIALECT, **schema} | ({"$defs": definitions.schemas} if definitions.schemas else {})


class SharedDefinitions:
    """The `$defs` of a document.

    Attributes:
        schemas: what they are, by the names that they have there: of two fields, one may have another `Node`.
    """

    def __init__(self) -> None:
        self.schemas: dict[str, dict[str, Any]] = {}
        self._keys: dict[str, str] = {}

    def properties(self, fields: Iterable[SignatureField]) -> dict[str, Any]:
        """An object of these fields, whose definitions are added."""
        fields = list(fields)
        return {
            "type": "object",
            "properties": {field.name: self._property(field) for field in fields},
            "required": [field.name for field in fields if field.required],
            "additionalProperties": False,
        }

    def _property(self, field: SignatureField) -> dict[str, Any]:
        ref = next(refs_in(field.type), None)
        if ref is None:
            return field.json_schema()
        names = {name: self._named(name, key) for name, key in ref.definitions.keys.items()}
        for name, schema in field.definitions(names).items():
            self.schemas.setdefault(names[name], schema)
        return field.json_schema(names)

    def _named(self, name: str, key: str) -> str:
        free, number = name, 1
        while self._keys.setdefault(free, key) != key:
            number += 1
            free = f"{name}_{number}"
        return free
