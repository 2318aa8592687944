"""What providers say when they fail, and what it means."""
