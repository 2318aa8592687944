"""Outgoing messages: answers and events, encoded within the limits of the broker."""
