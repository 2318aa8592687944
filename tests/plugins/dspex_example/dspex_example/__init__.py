"""A plug-in of DSPex, as small as one can be that keeps every promise."""
