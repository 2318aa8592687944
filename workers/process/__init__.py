"""A worker process: it runs, is watched, is replaced, and drains."""
