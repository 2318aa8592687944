"""What goes out: answers and events, encoded within what the broker takes, and where they may go."""
