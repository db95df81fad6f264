"""The web page and the HTTP API, built on restore.batch."""
