"""Several completions of a call (`n`): the outputs are those that come up most often."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any, Final

from adapters.native.signatures import json_outputs
from adapters.port import AdapterError
from dspex import Configuration, ErrorCode, Signature
from dspex.errors import InvalidOutput

_USE_ONE: Final = frozenset({"MultiChainComparison", "BestOfN", "Refine", "ReAct"})
"""The modules whose further completions nobody would look at."""


def check_n(configuration: Configuration) -> None:
    """Check that several completions of a call are wanted only where they are used.

    Raises:
        AdapterError: `permanent`: they would be paid for and thrown away.
    """
    for field, lm in configuration.named_lms.items():
        if (lm.parameters.n or 1) == 1 and "n" not in (lm.overridable or ()):
            continue
        extracts = field == "extraction_lm"
        if not extracts and configuration.module not in _USE_ONE:
            continue
        user = configuration.prompt_adapter if extracts else configuration.module
        where = "overridable" if (lm.parameters.n or 1) == 1 else "parameters"
        text = f"{field}.{where}.n: {user} uses one completion of each call: remove it"
        raise AdapterError(ErrorCode.PERMANENT, text)


def validated_outputs(signature: Signature, prediction: Any) -> dict[str, Any]:
    """The validated outputs of a prediction.

    If it has several completions, those count that fit the signature; of equally frequent outputs, the first.

    Raises:
        InvalidOutput: no completion fits. It is about the first.
    """
    completions = getattr(prediction, "completions", None)
    if completions is None or len(completions) == 1:
        return signature.validate_outputs(json_outputs(signature, prediction))
    fitting: dict[str, dict[str, Any]] = {}
    votes: Counter[str] = Counter()
    failures: list[InvalidOutput] = []
    for number in range(len(completions)):
        try:
            outputs = signature.validate_outputs(json_outputs(signature, completions[number]))
        except InvalidOutput as error:
            failures.append(error)
            continue
        text = json.dumps(outputs, sort_keys=True)
        fitting.setdefault(text, outputs)
        votes[text] += 1
    if not votes:
        raise failures[0]
    return fitting[votes.most_common(1)[0][0]]
