"""The parameters of LM calls that a program may set: those of the contract, and others that an LM's alias allows."""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Final

from adapters.port import AdapterError
from dspex import LM, ErrorCode, LMParameters

MEMBERS: Final = frozenset(LMParameters.model_fields)
"""The parameters that every LM may have."""

_NEVER: Final = frozenset(
    [
        *["model", "model_type", "model_list", "base_model", "messages", "input", "prompt", "instructions", "text"],
        *["tools", "tool_choice", "parallel_tool_calls", "functions", "function_call", "web_search_options"],
        *["response_format", "prediction", "previous_response_id", "conversation", "container", "file_ids", "store"],
        *["stream", "stream_options", "cache", "caching", "prompt_cache", "rollout_id", "num_generations"],
        *["engine", "async_engine", "client", "callbacks", "num_retries", "max_retries", "retry_strategy"],
        *["fallbacks", "context_window_fallback_dict", "mock_response", "extra_body", "extra_query"],
        *["organization", "project", "finetuning_model", "launch_kwargs", "train_kwargs", "use_developer_role"],
        *["ssl_verify", "verbose", "logger_fn", "drop_params", "allowed_openai_params", "additional_drop_params"],
    ]
)
_NEVER_LIKE = re.compile(
    r"key|secret|token(?!s)|auth|credential|password|url|base|host|proxy|header|litellm|^api_|^aws_|^azure_|^vertex_"
)


def may_be_allowed(name: str) -> bool:
    """Whether an alias may allow a parameter: none that says what is asked, where, with which key, or how often."""
    return re.fullmatch(r"[a-z][a-z0-9_]*", name) is not None and not (
        name in _NEVER or name in MEMBERS or _NEVER_LIKE.search(name)
    )


def check_names(allowed: Collection[str]) -> None:
    """Check the parameters that an alias is to allow.

    Raises:
        ValueError: one that cannot be allowed. The text begins with `parameters`.
    """
    for name in allowed:
        if not may_be_allowed(name):
            reason = "every program may set it" if name in MEMBERS else "no program may decide it"
            raise ValueError(f"parameters: '{name}' cannot be allowed, {reason}: remove it")


def check_allowed(lm: LM, allowed: Collection[str]) -> None:
    """Check that an LM is given no parameters of its provider but allowed ones, by its program or by an execution.

    Raises:
        AdapterError: `permanent`. The text begins with the field below the LM.
    """
    for name in lm.parameters.provider or ():
        if name not in allowed:
            known = ", ".join(allowed) or "none"
            text = f"parameters.provider.{name}: '{lm.model}' does not allow it (its alias allows: {known})"
            raise AdapterError(ErrorCode.PERMANENT, text)
    for name in lm.overridable or ():
        if name not in (MEMBERS - {"provider"}) and name not in allowed:
            known = ", ".join(sorted({*MEMBERS - {"provider"}, *allowed}))
            raise AdapterError(ErrorCode.PERMANENT, f"overridable: '{name}' is not one of {known}")
