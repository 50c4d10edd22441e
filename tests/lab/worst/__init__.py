"""`rmap.lab.worst`: the search for a design's worst case."""
