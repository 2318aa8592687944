"""Reads signatures from Python modules: `package.module:Class`, or all in a module.

Importing a module runs its code. So a reference is only read for an operator's command, or if an operator has allowed
the module's prefix (`DSPEX_MODULES`); a message alone is never enough.

How a class is converted to data, or refused: `dspex.signatures.dspy_class`.

A module is imported once per process; a process that is started later sees changes of its file.
"""

from __future__ import annotations

import importlib
import re
import types
from collections.abc import Collection, Generator, Mapping
from contextlib import contextmanager
from typing import Any

from adapters import versions
from dspex import DspexError, Problem, Signature
from dspex.errors import InvalidModule, InvalidSignature, InvalidValues, ModuleNotAllowed
from dspex.signatures.dspy_class import signature_of

_NAME = r"[A-Za-z_][A-Za-z0-9_]*"
_REFERENCE = re.compile(rf"(?P<module>{_NAME}(?:\.{_NAME})*)(?::(?P<name>{_NAME}))?", re.ASCII)
_MAX_LENGTH = 200


def read_signatures(reference: str, *, allowed_prefixes: Collection[str] | None) -> list[Signature]:
    """Read the signatures of a reference. Each has the name of its class, and `package.module.Class` as `module`.

    Args:
        reference: `package.module:Class`; or `package.module`, for the classes in its list `SIGNATURES` or, without
            one, those defined in it whose name does not begin with an underscore.
        allowed_prefixes: `acme.signatures` allows itself and `acme.signatures.x`, and not `acme.signatures_old`. None
            allows every installed module; only for an operator's own command.

    Raises:
        ModuleNotAllowed: the module has no allowed prefix; nothing was imported.
        InvalidModule: the reference is malformed, the module or class does not exist or has no signature, or its code
            failed.
        InvalidSignature: a class cannot be converted to data. The text names every wrong field.
    """
    match = _REFERENCE.fullmatch(reference)
    if match is None or len(reference) > _MAX_LENGTH:
        raise InvalidModule(
            f"{reference[:_MAX_LENGTH]!r} is not a reference: use package.module:Class or package.module"
        )
    path, name = match["module"], match["name"]
    if allowed_prefixes is not None and not _allowed(path, allowed_prefixes):
        raise ModuleNotAllowed(
            f"{path} may not be imported: an operator may allow it, or what it is in, in DSPEX_MODULES"
        )
    module = _imported(path)
    with _their_code(f"reading {reference}"):
        return _read(path, _listed(module) if name is None else {name: _named(module, name)})


def renamed(
    found: list[Signature],
    reference: str,
    *,
    name: str | None = None,
    description: str | None = None,
    version: str | None = None,
) -> list[Signature]:
    """The signatures of a reference under another name or version, or with a description.

    Raises:
        InvalidValues: a name or a description is given for several.
    """
    of_one = {"name": name, "description": description}
    given = {key: value for key, value in {**of_one, "version": version}.items() if value is not None}
    if len(found) != 1 and (wrong := given.keys() & of_one.keys()):
        reason = f"{reference} has {len(found)} signatures: give one of them, as package.module:Class"
        raise InvalidValues([Problem(member, reason) for member in sorted(wrong)])
    if not given:
        return found
    return [Signature.parse(each.model_dump(mode="json") | given).losing(each.lost) for each in found]


def check_whole(found: list[Signature]) -> None:
    """Check that nothing of the classes was lost.

    Raises:
        InvalidSignature: something was. It names each.
    """
    lost = [Problem(f"{each.name}.{one.field}", one.message) for each in found for one in each.lost]
    if lost:
        raise InvalidSignature(lost)


def _read(path: str, classes: Mapping[str, Any]) -> list[Signature]:
    signatures: list[Signature] = []
    wrong: list[Problem] = []
    for class_name, found in classes.items():
        try:
            signatures.append(signature_of(found, name=class_name, module=f"{path}.{class_name}"))
        except InvalidSignature as error:
            wrong += [Problem(f"{class_name}.{field}" if field else class_name, said) for field, said in error.problems]
    if wrong:
        raise InvalidSignature(wrong)
    return signatures


def import_named(reference: str) -> Any:
    """Import `package.module:Class` for an operator's command, which may import any module on this machine.

    Raises:
        InvalidModule: the module or the name does not exist, or the module's code failed.
    """
    path, _, name = reference.partition(":")
    found = getattr(_imported(path), name, None)
    if found is None:
        raise _nothing(path, name)
    return found


def validate_module(reference: str, allowed_prefixes: Collection[str] | None) -> bool:
    """Whether `read_signatures` would find signatures. Never raises, and imports only allowed modules."""
    try:
        return bool(read_signatures(reference, allowed_prefixes=allowed_prefixes))
    except Exception:  # noqa: BLE001  # whatever it is, the answer is no
        return False


# Importing


def _allowed(path: str, prefixes: Collection[str]) -> bool:
    return any(path == prefix or path.startswith(f"{prefix}.") for prefix in prefixes)


@contextmanager
def _their_code(doing: str) -> Generator[None]:
    """Report an exception of foreign code by its type only, as its text may contain anything.

    Raises:
        InvalidModule: the code raised an exception or tried to exit.
    """
    try:
        yield
    except (DspexError, KeyboardInterrupt):
        raise
    except BaseException as error:  # noqa: BLE001  # sys.exit() in a module is no reason for a worker to end
        raise InvalidModule(f"{doing} raised {type(error).__name__}: correct the module") from None


def _imported(path: str) -> types.ModuleType:
    # Imported here because it takes seconds, which a refused reference need not wait. Before the module's own code,
    # which imports DSPy, too.
    from adapters.native.setup import prepare_dspy

    if wrong := versions.of(versions.ON_USE):
        raise InvalidModule(f"a module of signatures cannot be read: {'; '.join(wrong)}")
    prepare_dspy()
    importlib.invalidate_caches()  # finds modules that were installed while this process runs
    with _their_code(f"importing {path}"):
        try:
            return importlib.import_module(path)
        except ModuleNotFoundError as error:
            missing = error.name or ""
    if f"{path}.".startswith(f"{missing}."):
        raise InvalidModule(f"there is no module {missing}: install it here, or name its folder in PYTHONPATH")
    known = missing if _REFERENCE.fullmatch(missing) else "a module"
    raise InvalidModule(f"importing {path} needs {known}, which is not installed: install it here")


def _is_signature(value: object) -> bool:
    import dspy

    return isinstance(value, type) and issubclass(value, dspy.Signature) and value is not dspy.Signature


def _named(module: types.ModuleType, name: str) -> Any:
    nothing = object()
    found = getattr(module, name, nothing)
    if found is nothing:
        raise _nothing(module.__name__, name)
    if not _is_signature(found):
        raise InvalidModule(f"{module.__name__}:{name} is not a signature: use a class derived from dspy.Signature")
    return found


def _nothing(path: str, name: str) -> InvalidModule:
    return InvalidModule(f"{path} has no {name}: correct the name, or define the class")


def _listed(module: types.ModuleType) -> dict[str, Any]:
    """The signatures of a module by name, in the order of its list or of its source."""
    given = vars(module).get("SIGNATURES")
    names = {id(value): name for name, value in reversed(vars(module).items())}
    if given is None:
        found = [value for name, value in vars(module).items() if _is_own(module, name, value)]
    elif isinstance(given, list | tuple):
        found = list(given)
    else:
        raise InvalidModule(f"{module.__name__}: SIGNATURES is not a list of classes")
    classes: dict[str, Any] = {}
    for value in found:
        if not _is_signature(value):
            raise InvalidModule(f"{module.__name__}: SIGNATURES holds what is not a class derived from dspy.Signature")
        name = names.get(id(value)) or str(value.__name__)
        if classes.setdefault(name, value) is not value:
            raise InvalidModule(f"{module.__name__}: SIGNATURES holds two classes called {name}: rename one")
    if not classes:
        raise InvalidModule(f"{module.__name__} has no signatures: define them in it, or list them in SIGNATURES")
    return classes


def _is_own(module: types.ModuleType, name: str, value: Any) -> bool:
    # A class made by `dspy.Signature("question -> answer")` does not know its module.
    return (
        not name.startswith("_")
        and _is_signature(value)
        and value.__module__ in (module.__name__, "dspy.signatures.signature")
    )
