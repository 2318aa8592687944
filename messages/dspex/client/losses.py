"""What is lost of a signature that a caller gives as another schema or as a class: told as a warning, or refused."""

from __future__ import annotations

import warnings
from typing import TypeVar

from dspex.contract.results import ProgramView, SignatureView
from dspex.signatures.signature import Signature

View = TypeVar("View", SignatureView, ProgramView)

_TO_THE_CALLER = 4


class SignatureWarning(UserWarning):
    """A part of a signature that cannot be kept as data, and is not checked or shown. It names the field."""


def tell_losses(signature: Signature, *, strict: bool, level: int = _TO_THE_CALLER) -> Signature:
    """Warn of what is lost of a signature. Returns the signature.

    Args:
        strict: refuse it instead.
        level: how many calls away the caller is whom it is told.

    Raises:
        InvalidSignature: with `strict`: something is lost. It names each.
    """
    if strict:
        signature.check_whole()
    for lost in signature.lost:
        warnings.warn(SignatureWarning(str(lost)), stacklevel=level)
    return signature


def with_warnings(view: View, signature: object) -> View:
    """A view of what was made of a signature, with what is lost of it."""
    if not isinstance(signature, Signature) or not signature.lost:
        return view
    return view.model_copy(update={"warnings": signature.warnings})
