"""Signatures: typed inputs and outputs as data, and how they are written, read and compared."""
