"""KERNEL STRUCTURES as columns, whoever reads them: struct pages, VMAs with their anon_vmas, interval trees, entries.

:class:`rmap.structs.memory.KernelMemory` is the protocol of a source. What follows from the structures alone stands
here: the kernel's own walk, the check of its promises, and a snapshot made of them. No source is known here.
"""
