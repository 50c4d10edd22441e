"""`rmap.show`: the exact text of screens."""
