"""What kind of machine and kernel this is, as far as it matters to rmap, and what each missing thing costs.

Reads, and changes nothing.
"""

from __future__ import annotations

import mmap
import os
import re
from dataclasses import dataclass, field

from rmap.live.sources import procfs, sysfs
from rmap.live.sources.kernel_config import read_config
from rmap.live.sources.memcg import hierarchy

_CAPABILITIES = {
    1: "CAP_DAC_OVERRIDE",
    2: "CAP_DAC_READ_SEARCH",
    19: "CAP_SYS_PTRACE",
    21: "CAP_SYS_ADMIN",
    23: "CAP_SYS_NICE",
    38: "CAP_PERFMON",
    39: "CAP_BPF",
}
"""Those that rmap can make use of, by their numbers (include/uapi/linux/capability.h)."""

_OPTIONS = {
    "PROC_PAGE_MONITOR": "everything on the running machine",
    "MEMCG": "cgroups of pages; evict --whole-cgroup",
    "SWAP": "evict of anonymous memory; swap entries",
    "KSM": "nothing: pages are never merged",
    "TRANSPARENT_HUGEPAGE": "nothing: there are no huge folios of this kind",
    "MEMORY_FAILURE": "whatever badframe says that the kernel could do",
    "CHECKPOINT_RESTORE": "map_files for others than root: file sizes of deleted files",
    "KCMP": "telling sharers of one mm apart: page tables are compared instead",
    "DEBUG_INFO_BTF": "everything read by BPF: check, who --kernel, record",
}
"""Kernel options, and what is missing without each."""


@dataclass(frozen=True)
class Facts:
    """The facts.

    Attributes:
        page_size: bytes. levels: of the page tables, None if unknown.
        capabilities: of this process, those of ``_CAPABILITIES``.
        namespaces: by kind (pid, user, mnt): whether it is the first of the machine; None if that is not told.
        options: kernel options: there, not there, None if unknown.
        costs: what each option that is not there costs, in words.
        config: where the options were read, ``""`` where only by their traces.
        average_mapcounts: the kernel counts mappings of large folios on average only (CONFIG_NO_PAGE_MAPCOUNT).
        hidepid: the option of that name of the mount of /proc.
        cgroup: version of the memory hierarchy and where it is mounted, None if nowhere.
        swap: active areas. ksm: ``off`` or ``running``. thp: the setting. memory: bytes.
    """

    page_size: int
    levels: int | None
    capabilities: list[str]
    namespaces: dict[str, bool | None]
    options: dict[str, bool | None]
    costs: dict[str, str]
    config: str
    average_mapcounts: bool | None
    hidepid: str
    cgroup: tuple[int, str] | None
    swap: int
    ksm: str
    thp: str
    memory: int = field(default=0)


def machine() -> Facts:
    """Look at this machine."""
    config = read_config(os.uname().release)
    options = {name: config.has(name) for name in _OPTIONS}
    return Facts(
        page_size=mmap.PAGESIZE,
        levels=_levels(),
        capabilities=_capabilities(),
        namespaces=_namespaces(),
        options=options,
        costs={name: _OPTIONS[name] for name, there in options.items() if there is False},
        config=config.path,
        average_mapcounts=("NO_PAGE_MAPCOUNT" in config.options) if config.options else None,
        hidepid=_hidepid(),
        cgroup=_cgroup(),
        swap=procfs.nr_swap_areas(),
        ksm=_ksm(),
        thp=_chosen("kernel/mm/transparent_hugepage/enabled"),
        memory=os.sysconf("SC_PHYS_PAGES") * mmap.PAGESIZE,
    )


def _levels() -> int | None:
    if os.uname().machine != "x86_64":
        return None
    return 5 if "la57" in procfs.cpu_flags() else 4


def _capabilities() -> list[str]:
    held = procfs.capabilities()
    return [name for number, name in _CAPABILITIES.items() if held >> number & 1]


def _namespaces() -> dict[str, bool | None]:
    first: dict[str, bool | None] = {}
    for kind in ("pid", "user", "mnt"):
        number = procfs.namespace(procfs.SELF, kind)
        if kind in procfs.FIRST_NAMESPACES:
            first[kind] = None if number is None else number == procfs.FIRST_NAMESPACES[kind]
        else:  # no fixed number in every release: that of init, where it may be looked at
            of_init = procfs.namespace(1, kind)
            first[kind] = None if of_init is None else number == of_init
    return first


def _hidepid() -> str:
    options = procfs.own_mount_options()
    if options is None:
        return "unknown"
    return next((one.partition("=")[2] for one in options if one.startswith("hidepid=")), "off")


def _cgroup() -> tuple[int, str] | None:
    memory = hierarchy()
    return None if memory is None else (memory.version, str(memory.folder))


def _ksm() -> str:
    run = sysfs.value("kernel/mm/ksm/run")
    return "not there" if run is None else {"0": "off", "1": "running", "2": "off"}.get(run, "unknown")


def _chosen(setting: str) -> str:
    text = sysfs.value(setting)
    if text is None:
        return "not there"
    match = re.search(r"\[(\w+)\]", text)
    return match[1] if match is not None else "unknown"
