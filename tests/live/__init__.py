"""`rmap.live`: the running kernel. Tests that ask it are marked `live`, and name what they need of it."""
