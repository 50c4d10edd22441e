"""The kernel's own reverse map, read by BPF programs: what /proc does not show.

``memory.bpf.c`` is compiled when the package is built and shipped inside it; where it is missing, or the kernel refuses
it, :func:`why_not` says so and everything else goes on with /proc alone. What is read has the shape of
:mod:`rmap.structs`: whoever uses it asks for a ``KernelMemory``, and :func:`open_memory` gives the running kernel's.
"""

from __future__ import annotations

from rmap.live.bpf.kernel_memory import BpfMemory, memory_or_none, open_memory, why_not

__all__ = ["BpfMemory", "memory_or_none", "open_memory", "why_not"]
