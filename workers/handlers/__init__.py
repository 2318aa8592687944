"""The handlers of commands: actors take the messages, and one function carries each out; one file per entity."""
