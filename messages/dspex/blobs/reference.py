"""The reference to a blob: its digest, size and media type. It is what messages and rows have instead of the body."""

from __future__ import annotations

import hashlib
import re
from typing import Annotated, Final

from pydantic import Field, StrictInt

from dspex.errors import InvalidBlob
from dspex.model import Frozen
from dspex.scalars import WHOLE

DIGEST_PATTERN: Final = r"^sha256:[0-9a-f]{64}$"
MEDIA_TYPE_PATTERN: Final = r"^[a-z0-9][a-z0-9.+_-]{0,62}/[a-z0-9][a-z0-9.+_-]{0,62}$"
"""A media type of RFC 6838, in lower case and without parameters."""
OCTETS: Final = "application/octet-stream"
JSON: Final = "application/json"

_DIGEST = re.compile(DIGEST_PATTERN.replace("$", r"\Z"))
_MEDIA_TYPE = re.compile(MEDIA_TYPE_PATTERN.replace("$", r"\Z"))
_URI = re.compile(r"blob:(sha256:[0-9a-f]{64})\Z")


class Blob(Frozen):
    """A reference to a blob. Its tenant is that of the message or the row that has it."""

    digest: str = Field(pattern=DIGEST_PATTERN, examples=[f"sha256:{hashlib.sha256(b'').hexdigest()}"])
    size: Annotated[StrictInt, Field(ge=0), WHOLE]
    media_type: str = Field(default=OCTETS, pattern=MEDIA_TYPE_PATTERN)

    @property
    def uri(self) -> str:
        """The blob as a text, for values that are addresses: `blob:sha256:…`."""
        return f"blob:{self.digest}"


def blob_digest(body: bytes) -> str:
    """The digest of a body, as blobs are named by."""
    return f"sha256:{hashlib.sha256(body).hexdigest()}"


def checked_digest(digest: str) -> str:
    """The digest, if it is one.

    Raises:
        InvalidBlob: it is not `sha256:` and 64 digits of lower-case hex.
    """
    if not _DIGEST.match(digest):
        raise InvalidBlob(f"{digest[:100]!r} is not a digest: use sha256: and 64 digits of hex, in lower case")
    return digest


def checked_media_type(media_type: str) -> str:
    """The media type, if it is one.

    Raises:
        InvalidBlob: it is none, or has parameters.
    """
    if not _MEDIA_TYPE.match(media_type):
        raise InvalidBlob(f"{media_type[:100]!r} is not a media type: use for instance image/png, without parameters")
    return media_type


def digest_of_uri(text: str) -> str | None:
    """The digest in a text `blob:sha256:…`; None if it is another text."""
    found = _URI.match(text)
    return found[1] if found else None
