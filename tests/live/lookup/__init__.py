"""`rmap.live.lookup`: one page of the running machine."""
