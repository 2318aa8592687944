"""The parts of a prompt that depend on the program alone, which are formatted once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any
from weakref import WeakKeyDictionary

from dspy import ChatAdapter

from adapters.native.insides import user_message_content


@dataclass
class _Parts:
    instructions: str | None
    texts: dict[str, Any] = field(default_factory=dict)
    demos: tuple[Any, ...] = ()
    messages: list[dict[str, Any]] | None = None


class Kept:
    """A base for subclasses of DSPy's own adapters: keeps the system message, the demos and the reminder.

    They are kept for each signature as long as that lives. Instructions that were replaced in it, and other demos, are
    noticed.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._kept: WeakKeyDictionary[Any, _Parts] = WeakKeyDictionary()

    def format_system_message(self, signature: Any) -> Any:
        """See `dspy.Adapter`."""
        return self._once("system", signature, super().format_system_message)  # type: ignore[misc]

    def user_message_output_requirements(self, signature: Any) -> Any:
        """See `dspy.ChatAdapter`."""
        return self._once("reminder", signature, super().user_message_output_requirements)  # type: ignore[misc]

    def format_user_message_content(self, *args: Any, **kwargs: Any) -> str:
        """See `dspy.ChatAdapter`."""
        content = super().format_user_message_content  # type: ignore[misc]
        if content.__func__ is ChatAdapter.format_user_message_content:
            content = partial(user_message_content, self)
        text: str = content(*args, **kwargs)
        return text

    def format_demos(self, signature: Any, demos: Sequence[Any]) -> list[dict[str, Any]]:
        """See `dspy.Adapter`."""
        parts = self._parts(signature)
        same = len(demos) == len(parts.demos) and all(a is b for a, b in zip(demos, parts.demos, strict=True))
        if parts.messages is None or not same:
            parts = _Parts(parts.instructions, parts.texts, tuple(demos))
            parts.messages = super().format_demos(signature, demos)  # type: ignore[misc]
            self._kept[signature] = parts
        return [dict(message) for message in parts.messages or ()]

    def _once(self, name: str, signature: Any, make: Callable[[Any], Any]) -> Any:
        texts = self._parts(signature).texts
        if name not in texts:
            texts[name] = make(signature)
        return texts[name]

    def _parts(self, signature: Any) -> _Parts:
        parts = self._kept.get(signature)
        if parts is None or parts.instructions != signature.__doc__:
            parts = self._kept[signature] = _Parts(signature.__doc__)
        return parts
