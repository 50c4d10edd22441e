"""`rmap.uapi`: the numbers of the kernel, against its headers."""
