"""Maintenance in every worker process: the heartbeat and the relay."""
