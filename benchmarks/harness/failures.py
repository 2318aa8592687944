"""The error that makes a figure void."""


class Void(Exception):
    """A run did not do its work, so its figures are meaningless. The table says why."""
