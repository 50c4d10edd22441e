"""`rmap.uapi`: the kernel's numbers."""
