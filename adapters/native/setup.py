"""Configures DSPy for a worker: no downloads, caches or log noise. Done once per process, before the first program."""

from __future__ import annotations

import logging
import os
import threading
import warnings

import dspy

_lock = threading.Lock()
_done = False


def prepare_dspy() -> None:
    """Turn off such defaults of DSPy for the whole process. Thread-safe; may be called again."""
    global _done
    with _lock:
        if _done:
            return
        # Otherwise the first look-up of a price downloads a list from GitHub, and waits up to 5 s for it (dspy 3.4,
        # clients/model_metadata; LiteLLM reads the same variable when it is imported).
        os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"
        # Otherwise LiteLLM, when imported, loads a .env file from the working directory or above it.
        os.environ["LITELLM_MODE"] = "PRODUCTION"
        # The key of DSPy's cache contains neither api_key nor api_base: tenants would get each other's answers.
        dspy.configure_cache(enable_disk_cache=False, enable_memory_cache=False)
        # Its warnings quote inputs and outputs.
        for name in ("dspy", "LiteLLM"):
            logging.getLogger(name).setLevel(logging.ERROR)
        # Fields may be called "copy" or "json". DSPy 3.4 also warns of its own use of deprecated functions.
        warnings.filterwarnings(
            "ignore", message=r'Field name "\w+" in "\w+" shadows an attribute', category=UserWarning
        )
        warnings.filterwarnings("ignore", category=DeprecationWarning, module=r"dspy\b")
        _done = True
