"""What keeps a process honest beside its work: the heartbeat and the relay."""
