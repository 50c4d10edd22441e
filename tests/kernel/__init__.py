"""`rmap.kernel`: the public machine, and what becomes of a snapshot that it loads."""
