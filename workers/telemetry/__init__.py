"""What is seen of a process: log lines, episodes, metrics."""
