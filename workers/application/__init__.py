"""The wiring of a process, and the objects that its threads share."""
