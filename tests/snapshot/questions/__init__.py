"""`rmap.snapshot.questions`: each against brute force over single entries."""
