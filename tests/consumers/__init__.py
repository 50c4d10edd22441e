"""`rmap.consumers`: who asks the reverse map."""
