"""The options that the running kernel was built with, as far as it or its distribution tells."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass

from rmap.live.sources.root import root_path

_TRACES = {
    "PROC_PAGE_MONITOR": "/proc/kpagecount",
    "SWAP": "/proc/swaps",
    "KSM": "/sys/kernel/mm/ksm",
    "TRANSPARENT_HUGEPAGE": "/sys/kernel/mm/transparent_hugepage",
    "MEMORY_FAILURE": "/proc/sys/vm/memory_failure_recovery",
    "DEBUG_INFO_BTF": "/sys/kernel/btf/vmlinux",
}
"""Files that are there only with an option."""


@dataclass(frozen=True)
class KernelConfig:
    """What is known of the options.

    Attributes:
        options: those that are set (y or m), without ``CONFIG_``.
        path: where they were read; ``""`` if nowhere.
    """

    options: frozenset[str]
    path: str

    def has(self, name: str) -> bool | None:
        """Whether an option is set, by the list or else by what it leaves in /proc and /sys; None if unknown."""
        if self.options:
            return name in self.options
        trace = _TRACES.get(name)
        return None if trace is None else os.path.exists(root_path(trace))


def read_config(release: str) -> KernelConfig:
    """Read the options of the running kernel.

    Args:
        release: of that kernel, as uname has it.
    """
    for path in ("/proc/config.gz", f"/boot/config-{release}", f"/lib/modules/{release}/config"):
        try:
            with open(root_path(path), "rb") as file:
                data = file.read()
        except OSError:
            continue
        if path.endswith(".gz"):
            import gzip

            data = gzip.decompress(data)
        text = data.decode(errors="replace")
        return KernelConfig(frozenset(re.findall(r"^CONFIG_(\w+)=[ym]$", text, re.MULTILINE)), path)
    return KernelConfig(frozenset(), "")
