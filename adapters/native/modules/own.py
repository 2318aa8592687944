"""Modules of one's own: `dspy.Module` classes, and functions that make such a module, of installed distributions.

    class RAG(dspy.Module):
        def __init__(self, k: int = 3) -> None: ...      # {"module": "acme.programs:RAG", "parameters": {"k": 5}}
        def forward(self, question: str) -> dspy.Prediction: ...

The class or function is called with the program's `parameters`, by name, and also gets the program's signature, as
DSPy's class, if it has a parameter `signature`. `forward`, or `aforward` of a module without it, gets the signature's
inputs by name. What it returns has the signature's outputs, and may have more, which are left out.

The code was installed by the operator, so it is trusted, but it may be wrong: it ends no process, and as its errors
may quote a prompt, only their type and place are told.
"""

from __future__ import annotations

import asyncio
import inspect
import threading
import traceback
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from typing import Any, Final

import dspy

from adapters.native.lm_errors import AdapterParseError, LMError
from adapters.native.signatures import dspy_signature
from adapters.own_modules import is_current, package_of
from adapters.port import AdapterError, ModuleCode, NotHere
from dspex import Configuration, ErrorCode, Problem, Signature
from dspex.errors import InvalidOutput

MAX_AT_ONCE: Final = 32
"""The most LM calls that an async module of one's own makes at once in a run; further ones wait."""

PASSING: Final = (ConnectionError, TimeoutError)
"""Errors that may not come again, such as those of a retriever elsewhere: `transient`. Others are `permanent`."""

_UNDERSTOOD: Final = (AdapterError, AdapterParseError, LMError, InvalidOutput, MemoryError)
"""Errors that say what they mean."""

_SIGNATURE: Final = "signature"
_BY_NAME: Final = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)

_imported: dict[ModuleCode, Any] = {}
_importing = threading.RLock()


def build_own(code: ModuleCode, signature: Signature, configuration: Configuration) -> Any:
    """Import a module's code and make the module, once for all runs.

    Raises:
        AdapterError: `permanent`: the code is not that of the program, cannot be imported, fails, takes other
            parameters or inputs, or makes something else.
        NotHere: the code has changed since this process started.
    """
    name = configuration.module
    made = _loaded(code, name)
    arguments: dict[str, Any] = dict(configuration.parameters)
    taken = _parameters(_function(made))
    if _SIGNATURE in taken and _SIGNATURE not in arguments:
        arguments[_SIGNATURE] = dspy_signature(signature)
    _check_arguments(name, made, taken, arguments)
    module = _guarded(code, f"module: '{name}' cannot be made: it failed", lambda: made(**arguments))
    if not isinstance(module, dspy.Module):
        raise _refusal(f"module: '{name}' made a {type(module).__name__}, and no dspy.Module")
    _check_inputs(name, module, signature)
    return module


def runner(module: Any, code: ModuleCode, signature: Signature, name: str) -> Callable[..., Any]:
    """A function that runs the module on the signature's inputs, and returns a prediction with its outputs."""
    taken = _parameters(_forward(module))
    defaults = {key for key, given in taken.items() if given.default is not inspect.Parameter.empty}
    optional = defaults & {field.name for field in signature.inputs}
    call = module if _is_sync(module) else _in_loop(module)

    def run(**inputs: Any) -> Any:
        # Left out where nothing is given, so that the default of `forward` holds.
        given = {key: value for key, value in inputs.items() if value is not None or key not in optional}
        prediction = _guarded(code, f"module: '{name}' failed", lambda: call(**given))
        return _checked(prediction, signature, name)

    return run


def _loaded(code: ModuleCode, name: str) -> Any:
    """The class or function. Imported once; the import of one may import others."""
    with _importing:
        if code not in _imported:
            _imported[code] = _import(code, name)
        return _imported[code]


def _import(code: ModuleCode, name: str) -> Any:
    module, _, attribute = code.reference.partition(":")
    found: Any = _guarded(code, f"module: '{name}' cannot be imported: it failed", lambda: import_module(module))
    for part in attribute.split("."):
        if not hasattr(found, part):
            raise _refusal(f"module: '{name}': there is no '{attribute}' in {module}")
        found = getattr(found, part)
    if not (inspect.isfunction(found) or (inspect.isclass(found) and issubclass(found, dspy.Module))):
        raise _refusal(f"module: '{name}' is neither a dspy.Module class nor a function that makes such a module")
    if package_of(found.__module__) != package_of(module):
        # Otherwise a change of its code would not change the program's backend id.
        text = f"module: '{name}' is defined in {found.__module__}: name it there, or wrap it in a function of {module}"
        raise _refusal(text)
    if not is_current(code):
        raise NotHere(f"module: the code of '{name}' has changed since this worker started: restart the worker")
    return found


def _check_arguments(
    name: str, made: Any, taken: Mapping[str, inspect.Parameter], arguments: Mapping[str, Any]
) -> None:
    own = (None,) if inspect.isclass(made) else ()
    try:
        inspect.signature(_function(made)).bind(*own, **arguments)
    except TypeError as error:
        takes = ", ".join(key for key in taken if key not in ("self", _SIGNATURE)) or "none"
        raise _refusal(f"parameters: '{name}' does not take these: {error} (it takes: {takes})") from None


def _check_inputs(name: str, module: Any, signature: Signature) -> None:
    """Check that `forward` takes the inputs of the program's signature."""
    forward = _forward(module)
    if forward is None:
        raise _refusal(f"module: '{name}' has neither 'forward' nor 'aforward'")
    try:
        inspect.signature(forward).bind(module, **{field.name: None for field in signature.inputs})
    except TypeError as error:
        text = f"signature: '{forward.__name__}' of '{name}' does not take its inputs: {error}"
        raise _refusal(text) from None


def _function(made: Any) -> Any:
    """What takes the parameters: DSPy's metaclass hides those of a class."""
    return made.__init__ if inspect.isclass(made) else made


def _forward(module: Any) -> Any:
    """The function `forward` or `aforward`, of the class: DSPy warns of whoever reads the method."""
    return getattr(type(module), "forward", None) or getattr(type(module), "aforward", None)


def _is_sync(module: Any) -> bool:
    return hasattr(type(module), "forward")


def _in_loop(module: Any) -> Callable[..., Any]:
    """A function that runs a module that has `aforward` alone, in an event loop of the run's own.

    Its LM calls are made in threads: DSPy's async client would have connections of its own.
    """

    async def run(inputs: Mapping[str, Any]) -> Any:
        # By default a loop has four threads more than the machine has cores.
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(MAX_AT_ONCE))
        return await module.acall(**inputs)

    return lambda **inputs: asyncio.run(run(inputs))


def _parameters(function: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    found = inspect.signature(function).parameters
    return {name: parameter for name, parameter in found.items() if parameter.kind in _BY_NAME}


def _guarded(code: ModuleCode, what: str, call: Callable[[], Any]) -> Any:
    """Call code that is not DSPex's. Its errors are told by their type and place.

    Raises:
        AdapterError: `transient` or `permanent`, or what an LM or DSPy has said.
    """
    try:
        return call()
    except _UNDERSTOOD:
        raise
    except BaseException as error:  # sys.exit() in a module is no reason for a worker to end
        passing = isinstance(error, PASSING)
        text = f"{what} with {type(error).__name__}{_place(error, code)}"
        raise AdapterError(ErrorCode.TRANSIENT if passing else ErrorCode.PERMANENT, text) from error


def _place(error: BaseException, code: ModuleCode) -> str:
    """Where in the module's own package an error came from: the innermost line of it."""
    package = package_of(code.reference.partition(":")[0])
    for frame, line in reversed(list(traceback.walk_tb(error.__traceback__))):
        module = frame.f_globals.get("__name__", "")
        if module == package or module.startswith(f"{package}."):
            return f" in {module}, line {line}"
    return ""


def _checked(prediction: Any, signature: Signature, name: str) -> Any:
    outputs = [field.name for field in signature.outputs]
    if not isinstance(prediction, dspy.Prediction | Mapping):
        wrong = f"'{name}' returned a {type(prediction).__name__}, and no dspy.Prediction"
        raise InvalidOutput([Problem(key, wrong) for key in outputs])
    missing = [key for key in outputs if key not in prediction]
    if missing:
        raise InvalidOutput([Problem(key, f"'{name}' returned no such output") for key in missing])
    return prediction


def _refusal(text: str) -> AdapterError:
    return AdapterError(ErrorCode.PERMANENT, text)
