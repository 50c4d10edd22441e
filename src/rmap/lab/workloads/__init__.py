"""Workloads: programs of system calls, the same under every design; each aims at what one design does badly."""

from __future__ import annotations

from rmap.lab.workloads import file_windows, fork_line, fork_server, shell_storm, split_storm, zygote
from rmap.lab.workloads.base import Parameter, Sample, Size, Steps, Workload

__all__ = ["WORKLOADS", "Parameter", "Sample", "Size", "Steps", "Workload"]

WORKLOADS: dict[str, Workload] = {
    module.WORKLOAD.name: module.WORKLOAD
    for module in (fork_server, fork_line, zygote, file_windows, shell_storm, split_storm)
}
"""Every workload by its name."""
