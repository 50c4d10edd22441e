"""`rmap.snapshot.rules`: sound snapshots pass, broken ones are caught."""
