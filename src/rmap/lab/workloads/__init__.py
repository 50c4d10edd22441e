"""Workloads: programs of system calls, the same under every design; each aims at what one design does badly.

Three kinds: rmap's own small ones, with a parameter for whatever matters; those that somebody published, with one
factor for their size; and the worst case of each design.
"""

from __future__ import annotations

from rmap.lab.workloads import (
    families,
    file_windows,
    fork_line,
    fork_server,
    mmap_windows,
    permutation,
    process_mixes,
    rmap_test,
    segments,
    shell_storm,
    split_storm,
    worst_cases,
    zygote,
)
from rmap.lab.workloads.base import Parameter, Sample, Size, Steps, Workload

__all__ = ["WORKLOADS", "Parameter", "Sample", "Size", "Steps", "Workload"]

_ALL: tuple[Workload, ...] = (
    *(module.WORKLOAD for module in (fork_server, fork_line, zygote, file_windows, shell_storm, split_storm)),
    *rmap_test.WORKLOADS,
    *mmap_windows.WORKLOADS,
    *permutation.WORKLOADS,
    *segments.WORKLOADS,
    *families.WORKLOADS,
    *process_mixes.WORKLOADS,
    *worst_cases.WORKLOADS,
)

WORKLOADS: dict[str, Workload] = {workload.name: workload for workload in _ALL}
"""Every workload by its name."""
