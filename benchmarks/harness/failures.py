"""What makes a figure void."""


class Void(Exception):
    """A run did not do what it should have done: its figures say nothing, and the table says why."""
