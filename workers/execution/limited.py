"""Which LMs of a run have asked for fewer calls, so that no worker calls them for a while."""

from __future__ import annotations

from collections.abc import Mapping

from adapters.port import AdapterError
from dspex import Configuration, ErrorCode, Usage


def limited_lms(
    configuration: Configuration | None,
    usage: Usage,
    error: AdapterError | None = None,
    exhausted_for: float | None = None,
) -> Mapping[str, float | None]:
    """The LMs that were rate limited, by their names in the program: for how many seconds; None: it was not said.

    Nothing where a program calls several, and nobody says which it was: such a run waits for itself alone.

    Args:
        error: that of the run, if it failed.
        exhausted_for: for so long, the provider has nothing left, by its answer to a run that went well.
    """
    limited: dict[str, float | None] = dict.fromkeys(
        one.model for one in usage.tries if one.error == ErrorCode.RATE_LIMITED and one.model is not None
    )
    if error is not None and error.code == ErrorCode.RATE_LIMITED:
        seconds = error.retry_after
    elif error is None and exhausted_for is not None:
        seconds = exhausted_for
    else:
        return limited
    if usage.tries:
        last = usage.tries[-1].model
        return limited if last is None else limited | {last: seconds}
    models = {lm.model for lm in configuration.named_lms.values()} if configuration is not None else set()
    return dict.fromkeys(models, seconds) if len(models) == 1 else {}
