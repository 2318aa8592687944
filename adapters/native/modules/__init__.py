"""The DSPy modules that are built from JSON."""
