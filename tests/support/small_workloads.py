"""Every workload so small that it is run in no time."""

from __future__ import annotations

from typing import Any

from rmap import Kernel
from rmap.lab.workloads import WORKLOADS, Sample

SMALL: dict[str, dict[str, Any]] = {
    "fork-server": {"children": 4, "pages": 700, "rewrite": 0.1},
    "fork-line": {"depth": 6, "pages": 300, "rewrite": 0.2, "exits": 0.5},
    "zygote": {"vmas": 30, "children": 4, "pages": 3, "rewrite": 0.2},
    "file-windows": {"processes": 4, "windows": 12, "pages": 40, "file_pages": 300, "touched": 0.5},
    "shell-storm": {"commands": 20, "alive": 5, "libraries": 3, "pages": 40, "lifo": 0.5},
    "split-storm": {"splits": 20, "children": 3, "pages": 64, "merge": 0.5},
    "T1": {"scale": 0.05},
    "T2": {"scale": 0.05},
    "T3": {"scale": 0.004},
    "T4": {"scale": 0.008},
    "test-mmap2": {"scale": 0.02},
    "test-mmap3": {"scale": 0.0005},
    "thought-case": {"scale": 0.01},
    "remap-permutation": {"scale": 0.0002},
    "sga": {"scale": 0.01},
    "sga-windows": {"scale": 0.003},
    "decision-support": {"scale": 0.02, "pages": 5000},
    "aim7": {"scale": 0.01},
    "apache-prefork": {"scale": 0.02},
    "redis-bgsave": {"scale": 0.002},
    "kvm-rmap-fork": {"scale": 0.02},
    "mremap-after-fork": {"scale": 0.05, "areas": 80},
    "kernbench": {"scale": 0.01, "alive": 400},
    "sdet": {"scale": 0.005, "alive": 800},
    "patch-scripts": {"scale": 0.01, "alive": 300},
    "shells-fifo": {"scale": 0.002},
    "shells-lifo": {"scale": 0.002},
    **{name: {"processes": 6, "pages": 12} for name in WORKLOADS if name.startswith("worst-")},
}


def played(
    name: str, design: str = "anon_vma_chain", seed: int = 1, **chosen: Any
) -> tuple[Kernel, tuple[Sample, ...]]:
    """A machine just large enough after a workload, and the samples that it returned."""
    workload = WORKLOADS[name]
    settings = workload.settings({**SMALL[name], **chosen})
    size = workload.size(**settings)
    kernel = Kernel(design, nr_pages=size.frames + 1024, nr_swap=0, nr_tables=size.tables + 64)
    steps = workload.run(kernel, seed=seed, **settings)
    while True:
        try:
            assert next(steps)
        except StopIteration as done:
            return kernel, done.value
