"""Models: found, read, and put on a device."""
