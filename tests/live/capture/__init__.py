"""`rmap.live.capture`: the running machine as a snapshot."""
