"""Classes of the caller's own: DSPy's signatures and modules, given as they are or as `package.module:Class`.

They are imported and read where the caller is, and sent as data: a worker imports nothing for them. Needs DSPy only in
so far as the classes do.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any

from dspex.errors import InvalidValues, Problem
from dspex.signatures.dspy_class import signature_of
from dspex.signatures.signature import Signature

REFERENCE = re.compile(r"[A-Za-z_][A-Za-z0-9_.]*:[A-Za-z_][A-Za-z0-9_]*", re.ASCII)
"""A class of a module: `package.module:Class`."""

MODULES = "dspex.modules"
"""The entry-point group by which a distribution registers modules of its own."""

Import = Callable[[str], Any]
"""Imports `package.module:Class`."""

_NAMELESS = ("StringSignature", "Signature")
"""What DSPy calls a class that was made of a text."""


@dataclass(frozen=True)
class OwnModule:
    """A module of one's own: the name by which a program names it, and its signature."""

    name: str
    signature: Signature


def import_class(reference: str) -> Any:
    """Import `package.module:Class` in this process.

    Raises:
        InvalidValues: it cannot be imported.
    """
    module, _, name = reference.partition(":")
    try:
        return getattr(import_module(module), name)
    except Exception as error:  # noqa: BLE001  # the caller's own code, which may raise anything
        reason = f"'{reference}' cannot be imported here: {type(error).__name__}: {error}"
        raise InvalidValues([Problem("signature", reason)]) from None


def is_of_dspy(found: object, base: str) -> bool:
    """Whether something is a class that is derived from a class of DSPy's, such as `Signature` or `Module`."""
    bases = found.__mro__[1:] if isinstance(found, type) else ()
    return any(each.__name__ == base and each.__module__.partition(".")[0] == "dspy" for each in bases)


def signature_of_class(found: Any, *, asked: str | None = None) -> Signature:
    """The signature of a class derived from `dspy.Signature`.

    It has the class's name, and no module or version: these are of `dspex signature from-module`.

    Raises:
        InvalidValues: it is no such class.
        InvalidSignature: it cannot be data.
    """
    if not is_of_dspy(found, "Signature"):
        reason = f"{asked or _called(found)} is not a class derived from dspy.Signature"
        raise InvalidValues([Problem("signature", reason)])
    return signature_of(found, name=None if found.__name__ in _NAMELESS else found.__name__)


def read_class(found: Any, *, asked: str | None = None) -> Signature | OwnModule:
    """What a class stands for: a signature, or a module of one's own with the signature that its class names.

    Args:
        asked: `package.module:Class`, if it was given so.

    Raises:
        InvalidValues: it is neither, or a module without a signature, or one that no worker could import.
        InvalidSignature: its signature cannot be data.
    """
    if not is_of_dspy(found, "Module"):
        if not is_of_dspy(found, "Signature"):
            reason = f"{asked or _called(found)} is neither a dspy.Signature nor a dspy.Module class"
            raise InvalidValues([Problem("signature", reason)])
        return signature_of_class(found)
    name = _registered(found)
    given = getattr(found, "signature", None)
    if given is None:
        reason = (
            f"the module {name} does not say its signature: give its class one (signature = 'question -> answer', or a "
            f"class derived from dspy.Signature), or give the signature, and configuration.module = '{name}'"
        )
        raise InvalidValues([Problem("signature", reason)])
    signature = Signature.parse(given) if isinstance(given, str) else signature_of_class(given)
    return OwnModule(name, signature)


def _registered(module: type) -> str:
    """The name by which programs may name a module: that of its entry point, or else where it is."""
    reference = f"{module.__module__}:{module.__qualname__}"
    for point in entry_points(group=MODULES):
        if point.value.replace(" ", "") == reference:
            return point.name
    if module.__module__ == "__main__" or not REFERENCE.fullmatch(reference):
        reason = (
            f"{_called(module)} cannot be imported by workers: define it at the top of a module that they have, and "
            f"register it there by an entry point in the group {MODULES}, or allow it by DSPEX_MODULES"
        )
        raise InvalidValues([Problem("configuration.module", reason)])
    return reference


def _called(found: Any) -> str:
    return f"{found.__module__}.{found.__qualname__}" if isinstance(found, type) else f"a {type(found).__name__}"
