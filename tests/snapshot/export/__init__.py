"""`rmap.snapshot.export`: a snapshot asked in SQL."""
