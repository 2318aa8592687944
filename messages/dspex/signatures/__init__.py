"""Signatures: typed inputs and outputs as data; how to write, read and compare them."""
