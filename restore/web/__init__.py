"""The page and the HTTP API, over restore.batch."""
