"""`rmap.live.record`: programs recorded."""
