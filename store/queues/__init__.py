"""Queues: what waits of one tenant, program, lane and group; offered, chosen by who has a free place, and counted."""
