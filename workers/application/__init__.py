"""The wiring of a process, and what its threads share."""
