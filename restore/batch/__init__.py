"""Many files: planned, made one by one, and written down in a journal."""
