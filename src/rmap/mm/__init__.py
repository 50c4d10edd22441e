"""THE MODEL: a memory manager with frames, page tables, VMAs, faults and system calls.

Pure and deterministic: no I/O, no clock, no random number. It knows no reverse-map design; it owns the
protocol (:mod:`rmap.mm.interface`) and is handed an implementation.
"""
