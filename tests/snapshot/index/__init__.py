"""`rmap.snapshot.index`: the reverse map of a snapshot, and its sets of mappers."""
