"""Worker processes: run, watch, replace and drain them."""
