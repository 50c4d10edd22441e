"""`rmap.lab`: experiments."""
