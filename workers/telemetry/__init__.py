"""Observability of a process: log lines, episodes, metrics."""
