"""Files of the user as values: `--input image=@cat.png`. Only arguments name files; cells of a table never do."""

from __future__ import annotations

import mimetypes
from collections.abc import Mapping
from pathlib import Path

from pydantic_core import to_json

from dspex import Signature
from dspex.signatures import media
from dspex.signatures.attachments import kind_of
from dspex.signatures.types import ArrayType, FieldType, OptionalType
from workers.cli.inputs.rows import UnreadableInputs

MARK = "@"


def with_files(signature: Signature, cells: Mapping[str, str]) -> dict[str, str]:
    """The cells of arguments, with data URLs for the files that they name in inputs of images, audio and files.

    Raises:
        UnreadableInputs: a file cannot be read, or is not of the kind.
    """
    read = dict(cells)
    for field in signature.attachments:
        kind, cell = kind_of(field.type), cells.get(field.name, "")
        if kind is not None and cell.startswith(MARK):
            url = _data_url(field.name, kind, Path(cell.removeprefix(MARK)))
            read[field.name] = to_json([url]).decode() if _is_list(field.type) else url
    return read


def _data_url(name: str, kind: media.Kind, path: Path) -> str:
    try:
        with path.open("rb") as file:
            body = file.read(media.MAX_BYTES + 1)
    except OSError as error:
        raise UnreadableInputs(f"--input: {name}: {path} cannot be read: {error.strerror}") from None
    try:
        media_type = media.told(kind, mimetypes.guess_type(path.name)[0] or "", body)
        return media.data_url(kind, media_type, body, path.name if kind == "file" else None)
    except ValueError as error:
        raise UnreadableInputs(f"--input: {name}: {path}: {error}") from None


def _is_list(field_type: FieldType) -> bool:
    while isinstance(field_type, OptionalType):
        field_type = field_type.anyOf[0]
    return isinstance(field_type, ArrayType)
