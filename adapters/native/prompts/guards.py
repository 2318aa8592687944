"""What guards DSPy's prompt adapters: no markers in inputs, and our own parser of answers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from dspy.adapters.types.base_type import CUSTOM_TYPE_START_IDENTIFIER

from adapters.native import media
from adapters.native.by_version import AsksOnce
from adapters.native.prompts.kept import Kept
from adapters.native.prompts.readings import Reading, outputs_of


def neutral(text: str) -> str:
    """Replace DSPy's marker of an attachment in a text. DSPy would load the file or URL in it.

    See adapters/_legacy_type_markers.py in dspy 3.4. The replacement begins and ends with characters that no marker
    contains, so that it cannot become part of another one.
    """
    return text.replace(CUSTOM_TYPE_START_IDENTIFIER, f"({CUSTOM_TYPE_START_IDENTIFIER.strip('<>')})")


class Neutral:
    """A base for subclasses of `dspy.Adapter`, before DSPy's: what is written for the user has no markers.

    Except those of the images, audio and files that are objects and hold their bodies.
    """

    def format_user_message_content(self, signature: Any, inputs: Mapping[str, Any], *args: Any, **kwargs: Any) -> str:
        """See `dspy.Adapter`. Inputs, turns, demos, results of tools and hints all pass here, as one text."""
        shown = {name: media.shown(value) for name, value in inputs.items()}
        content = super().format_user_message_content(signature, shown, *args, **kwargs)  # type: ignore[misc]  # DSPy's
        return media.with_markers(neutral(content))


class Guarded(AsksOnce, Neutral, Kept):
    """A base for subclasses of DSPy's own adapters: our parser reads the answer. They keep parts of their prompts.

    Attributes:
        readings: how it is read: the first that finds outputs counts.
    """

    readings: ClassVar[tuple[Reading, ...]]

    def parse(self, signature: Any, completion: str) -> dict[str, Any]:
        """Parse the outputs in an answer.

        Raises:
            AdapterParseError: the answer lacks outputs, or is ambiguous.
        """
        return outputs_of(type(self).__name__, signature, completion, self.readings)
