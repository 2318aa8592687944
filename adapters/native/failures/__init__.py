"""Reads and classifies the errors of LM providers."""
