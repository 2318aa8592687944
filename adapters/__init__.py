"""Adapters run programs. They use the contract (`dspex`), but no queues, tables or settings."""
