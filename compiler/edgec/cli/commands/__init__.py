"""One module per command; each holds the click command as ``command``."""
