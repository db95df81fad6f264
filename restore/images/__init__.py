"""Pictures: read, held, resized and written."""
