"""The prompt adapters by their names: DSPy's, guarded, and registered ones."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

import dspy

from adapters import plugins
from adapters.native.media import has_media
from adapters.native.prompts.chat import CHAT, AskedAgainAsJson, Json
from adapters.native.prompts.guards import Neutral
from adapters.native.prompts.two_step import TwoStep
from adapters.native.prompts.xml import Xml
from adapters.port import MAX_QUOTE, AdapterError, NotHere
from dspex import ErrorCode

_OWN: Final[Mapping[str, Callable[[Mapping[str, Any]], Any]]] = {
    "chat": lambda _: CHAT,
    "json": lambda _: Json(),
    "xml": lambda _: Xml(),
    "baml": lambda _: _baml(),
    "two_step": lambda lms: TwoStep(lms["extraction_lm"]),
}


def prompt_adapter(name: str, lms: Mapping[str, Any], module: Any) -> Any:
    """Make the prompt adapter of a program, and try whether it can write the prompts of the module.

    Args:
        lms: the LMs of the program, by their fields.

    Raises:
        NotHere: no distribution on this worker registers it, or the DSPy here has none of this name.
        AdapterError: `permanent`: it cannot be made, or it cannot show a type of the signature.
    """
    if name == "chat":
        return CHAT
    own = _OWN.get(name)
    if own is None:
        return _registered(name)
    made = own(lms)
    for path, predictor in module.named_predictors():
        if name == "two_step" and has_media(predictor.signature):
            text = "prompt_adapter: DSPy's 'two_step' writes images, audio and files as text: use another"
            raise AdapterError(ErrorCode.PERMANENT, text)
        try:
            made.format(predictor.signature, predictor.demos, {})
        except Exception as error:  # noqa: BLE001  whatever DSPy cannot show, it cannot show at a run
            text = f"prompt_adapter: '{name}' cannot write the prompt of {path}: {error}"
            raise AdapterError(ErrorCode.PERMANENT, text[:MAX_QUOTE]) from None
    return made


def _baml() -> Any:
    try:
        from adapters.native.prompts.baml import Baml  # older versions of DSPy have none
    except ImportError:
        raise NotHere(f"prompt_adapter: DSPy {dspy.__version__} has no 'baml'") from None
    return Baml()


def _registered(name: str) -> Any:
    """A prompt adapter of another distribution. Its own parser reads the answers; its inputs have no markers."""
    if plugins.find(plugins.PROMPT_ADAPTERS, name, asked_by="prompt_adapter") is None:
        known = ", ".join([*_OWN, *plugins.registered(plugins.PROMPT_ADAPTERS)])
        text = f"prompt_adapter: '{name}' is not one of {known}, and no distribution registers it here"
        raise NotHere(text)
    found = plugins.load(plugins.PROMPT_ADAPTERS, name, asked_by="prompt_adapter")
    if not (isinstance(found, type) and issubclass(found, dspy.Adapter)):
        raise AdapterError(ErrorCode.PERMANENT, f"prompt_adapter: '{name}' is not a subclass of dspy.Adapter")
    guard = Neutral if not issubclass(found, dspy.ChatAdapter) else _NeutralChat
    try:
        return type(found.__name__, (guard, found), {})()
    except Exception as error:  # noqa: BLE001  it is somebody else's code
        text = f"prompt_adapter: '{name}' cannot be made: {type(error).__name__}: {error}"
        raise AdapterError(ErrorCode.PERMANENT, text[:MAX_QUOTE]) from None


class _NeutralChat(Neutral):
    """For subclasses of `dspy.ChatAdapter`: what they ask for once more is read by our parser."""

    _make_json_adapter_fallback = AskedAgainAsJson._make_json_adapter_fallback  # noqa: SLF001
