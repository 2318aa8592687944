"""The prompt adapter `two_step`: one LM answers in its own words, another takes the outputs from what it wrote."""

from __future__ import annotations

from typing import Any

import dspy

from adapters.native.insides import extraction_signature
from adapters.native.prompts.chat import CHAT
from adapters.native.prompts.guards import Neutral


class TwoStep(Neutral, dspy.TwoStepAdapter):  # type: ignore[misc]  # DSPy has no type information
    """`dspy.TwoStepAdapter`, whose second step is `Chat`: the first LM's answer is an input of it, and no order."""

    def parse(self, signature: Any, completion: str) -> dict[str, Any]:
        """Ask the second LM for the outputs in an answer of the first.

        Raises:
            AdapterParseError: its answer, too, lacks outputs, or is ambiguous.
        """
        asked = extraction_signature(self, signature)
        found: dict[str, Any] = CHAT(self.extraction_model, {}, asked, [], {"text": completion})[0]
        return found

    async def acall(
        self,
        lm: Any,
        lm_kwargs: dict[str, Any],
        signature: Any,
        demos: list[dict[str, Any]],
        inputs: dict[str, Any],
    ) -> Any:
        """See `dspy.Adapter`. DSPy's own would have its plain `ChatAdapter` make the second step."""
        return await dspy.Adapter.acall(self, lm, lm_kwargs, signature, demos, inputs)
