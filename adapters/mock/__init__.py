"""The mock adapter: outputs made from the signature alone. No LM, no network, no key, no DSPy."""

from adapters.lm import LMCatalog
from adapters.mock.adapter import MockAdapter

__all__ = ["MockAdapter", "create_adapter"]


def create_adapter(catalog: LMCatalog) -> MockAdapter:  # noqa: ARG001  it calls no LM
    """Make the adapter, for the registry."""
    return MockAdapter()
