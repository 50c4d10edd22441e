"""`rmap.trace`: the recorded program, its file, what it refuses."""
