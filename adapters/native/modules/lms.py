"""Gives the predictors of a module the LMs that a program names for them (`Configuration.lms`)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from adapters.port import AdapterError
from dspex import ErrorCode
from dspex.contract.predictors import matching


def give_lms(module: Any, lms: Mapping[str, Any]) -> None:
    """Set the LM of each predictor that a pattern names. The others use that of the run.

    Args:
        lms: by patterns of the names of predictors, or of the modules that they are in.

    Raises:
        AdapterError: `permanent`: a pattern names no predictor. The text has the names that there are.
    """
    predictors = dict(module.named_predictors())
    unused = set(lms)
    for path, predictor in predictors.items():
        found = matching(path, lms)
        unused -= set(found)
        if found:
            predictor.lm = lms[found[0]]
    if unused:
        known = ", ".join(predictors) or "none"
        raise AdapterError(ErrorCode.PERMANENT, f"lms.{min(unused)}: no predictor has this name (there are: {known})")
