"""DSPy made fit for a worker: no downloads, no caches, no chatter. Done once per process, before the first program."""

from __future__ import annotations

import logging
import os
import threading
import warnings

import dspy

_lock = threading.Lock()
_done = False


def prepare_dspy() -> None:
    """Turn off, for the whole process, what DSPy does on its own accord. Safe to call from any thread, any time."""
    global _done
    with _lock:
        if _done:
            return
        # Else the first price asked for downloads a list from GitHub, waiting up to 5 s
        # (dspy 3.4, clients/model_metadata; LiteLLM reads the same name when it is imported).
        os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"
        # Else LiteLLM reads a .env file, of the working directory or above it, into the environment when imported.
        os.environ["LITELLM_MODE"] = "PRODUCTION"
        # The key of DSPy's cache has neither api_key nor api_base: one tenant would get another's answers.
        dspy.configure_cache(enable_disk_cache=False, enable_memory_cache=False)
        # Its warnings quote inputs and outputs.
        for name in ("dspy", "LiteLLM"):
            logging.getLogger(name).setLevel(logging.ERROR)
        # A field may be called "copy" or "json"; and DSPy 3.4 warns of its own use of what it deprecates.
        warnings.filterwarnings(
            "ignore", message=r'Field name "\w+" in "\w+" shadows an attribute', category=UserWarning
        )
        warnings.filterwarnings("ignore", category=DeprecationWarning, module=r"dspy\b")
        _done = True
