"""`rmap.live.sources`: readers of /proc, of pagemap and of other processes."""
