"""`rmap conform`: what it compares, how it finds, cuts down and reports, and what it leaves behind."""
