"""`rmap.lab.explain`: stories."""
