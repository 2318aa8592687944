"""What commands do: actors take their messages, and one function carries each out; one file an entity."""
