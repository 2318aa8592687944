"""The native adapter: DSPy in this process, one run per calling thread."""

from adapters.lm import LMCatalog
from adapters.native.adapter import NativeAdapter

__all__ = ["NativeAdapter", "create_adapter"]


def create_adapter(catalog: LMCatalog) -> NativeAdapter:
    """Make the adapter, for the registry."""
    return NativeAdapter(catalog)
