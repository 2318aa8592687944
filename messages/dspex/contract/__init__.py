"""The contract: every message that goes over the wire, and every answer, as models."""
