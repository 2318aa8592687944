"""Which LMs of a run have asked for fewer calls, so that no worker calls them for a while."""

from __future__ import annotations

from collections.abc import Mapping

from adapters.port import AdapterError
from dspex import Configuration, ErrorCode, Usage


def limited_lms(
    configuration: Configuration | None, usage: Usage, error: AdapterError | None = None
) -> Mapping[str, float | None]:
    """The LMs that were rate limited, by their names in the program: for how many seconds; None: it was not said.

    Nothing where a program calls several, and nobody says which it was: such a run waits for itself alone.

    Args:
        error: that of the run, if it failed.
    """
    failed = error is not None and error.code == ErrorCode.RATE_LIMITED
    tries = [one.model for one in usage.tries if one.error == ErrorCode.RATE_LIMITED and one.model is not None]
    if usage.tries or not failed or configuration is None or error is None:
        limited: dict[str, float | None] = dict.fromkeys(tries)
        if failed and error is not None and usage.tries and usage.tries[-1].model is not None:
            limited[usage.tries[-1].model] = error.retry_after
        return limited
    models = {lm.model for lm in configuration.named_lms.values()}
    return dict.fromkeys(models, error.retry_after) if len(models) == 1 else {}
