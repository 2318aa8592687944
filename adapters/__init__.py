"""Adapters run programs. They know the contract (`dspex`), and nothing of queues, tables or settings."""
