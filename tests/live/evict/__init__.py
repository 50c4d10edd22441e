"""`rmap.live.evict`: pages of files sent out of memory."""
