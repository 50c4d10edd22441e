"""`rmap.live.bpf`: the kernel's own memory."""
