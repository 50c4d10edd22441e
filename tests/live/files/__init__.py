"""`rmap.live.files`: what of files is in memory, and who maps it."""
