"""What the errors of the blob store mean for an execution whose inputs are there."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager

from adapters.port import AdapterError
from dspex import ErrorCode
from dspex.errors import BlobCorrupt, BlobsUnavailable, BlobTooLarge, InvalidBlob, InvalidInput, NotFound, Problem
from workers.telemetry.episodes import Episodes


@contextmanager
def store_errors(field: str, episodes: Episodes | None) -> Generator[None]:
    """Turn errors of the store into those of an attempt. The log has one line a minute of a store that is away.

    Raises:
        InvalidInput: the blob of this field is not there, or is larger than it may be.
        AdapterError: `transient`: the store cannot be reached; `permanent`: a body in it is another.
    """
    try:
        yield
    except (NotFound, InvalidBlob, BlobTooLarge) as error:
        raise InvalidInput([Problem(field, error.message)]) from None
    except BlobCorrupt as error:
        raise AdapterError(ErrorCode.PERMANENT, f"{field}: {error.message}") from None
    except BlobsUnavailable as error:
        tell_away(episodes, error)
        raise AdapterError(ErrorCode.TRANSIENT, f"{field}: DSPEX_BLOBS: {error.message}") from None


def tell_away(episodes: Episodes | None, error: BlobsUnavailable) -> None:
    """Log that the store is away."""
    if episodes is not None:
        episodes.tell("The blob store cannot be reached", f"DSPEX_BLOBS: {error.message}")
