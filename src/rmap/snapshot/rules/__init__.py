"""The kernel's invariants, asked of a picture."""
