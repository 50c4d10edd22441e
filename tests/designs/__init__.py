"""`rmap.designs`: each reverse map by itself, and what all of them must pass."""
