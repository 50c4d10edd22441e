"""`rmap.snapshot`: its tables, its file, what it refuses."""
