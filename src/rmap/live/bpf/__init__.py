"""The kernel's own reverse map, read by BPF programs: what /proc does not show.

``memory.bpf.c`` is compiled when the package is built and shipped inside it; where it is missing, or the kernel refuses
it, :func:`why_not` says so and everything else goes on with /proc alone.
"""

from __future__ import annotations

from rmap.live.bpf.kernel_memory import KernelMemory, StructPages, TreeNodes, why_not
from rmap.live.bpf.topology import KernelAnonVmas, KernelLinks, KernelVmas, Topology

__all__ = [
    "KernelAnonVmas",
    "KernelLinks",
    "KernelMemory",
    "KernelVmas",
    "StructPages",
    "Topology",
    "TreeNodes",
    "why_not",
]
