"""What kind of machine and kernel this is, as far as it matters to rmap, and what each missing thing costs.

Reads, and changes nothing.
"""

from __future__ import annotations

import gzip
import mmap
import os
import re
from dataclasses import dataclass, field
from pathlib import Path

from rmap.live.sources import procfs
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

_FIRST = {"pid": 0xEFFFFFFC, "user": 0xEFFFFFFD}  # the namespaces the machine booted with, include/linux/proc_ns.h

_OPTIONS = {
    "PROC_PAGE_MONITOR": ("/proc/kpagecount", "everything on the running machine"),
    "MEMCG": ("", "cgroups of pages; evict --whole-cgroup"),
    "SWAP": ("/proc/swaps", "evict of anonymous memory; swap entries"),
    "KSM": ("/sys/kernel/mm/ksm", "nothing: pages are never merged"),
    "TRANSPARENT_HUGEPAGE": ("/sys/kernel/mm/transparent_hugepage", "nothing: there are no huge folios of this kind"),
    "MEMORY_FAILURE": ("/proc/sys/vm/memory_failure_recovery", "whatever badframe says that the kernel could do"),
    "CHECKPOINT_RESTORE": ("", "map_files for others than root: file sizes of deleted files"),
    "KCMP": ("", "telling sharers of one mm apart: page tables are compared instead"),
    "DEBUG_INFO_BTF": ("/sys/kernel/btf/vmlinux", "everything read by BPF: check, who --kernel, record"),
}
"""Kernel options: a file that shows one, and what is missing without it."""


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
    config, where = _config()
    options = {name: _option(config, name, trace) for name, (trace, _) in _OPTIONS.items()}
    return Facts(
        page_size=mmap.PAGESIZE,
        levels=_levels(),
        capabilities=_capabilities(),
        namespaces=_namespaces(),
        options=options,
        costs={name: _OPTIONS[name][1] for name, there in options.items() if there is False},
        config=where,
        average_mapcounts=("NO_PAGE_MAPCOUNT" in config) if config else None,
        hidepid=_hidepid(),
        cgroup=_cgroup(),
        swap=procfs.nr_swap_areas(),
        ksm=_ksm(),
        thp=_chosen("/sys/kernel/mm/transparent_hugepage/enabled"),
        memory=os.sysconf("SC_PHYS_PAGES") * mmap.PAGESIZE,
    )


# The options that are set, and where that was read.
def _config() -> tuple[set[str], str]:
    release = os.uname().release
    for path in ("/proc/config.gz", f"/boot/config-{release}", f"/lib/modules/{release}/config"):
        try:
            data = Path(path).read_bytes()
        except OSError:
            continue
        text = (gzip.decompress(data) if path.endswith(".gz") else data).decode(errors="replace")
        return set(re.findall(r"^CONFIG_(\w+)=[ym]$", text, re.MULTILINE)), path
    return set(), ""


def _option(config: set[str], name: str, trace: str) -> bool | None:
    if config:
        return name in config
    return Path(trace).exists() if trace else None


def _levels() -> int | None:
    if os.uname().machine != "x86_64":
        return None
    flags = re.search(r"^flags\s*:(.*)$", Path("/proc/cpuinfo").read_text(errors="replace"), re.MULTILINE)
    return 5 if flags is not None and "la57" in flags[1].split() else 4


def _capabilities() -> list[str]:
    held = int(procfs.read_status(os.getpid())["CapEff"], 16)
    return [name for number, name in _CAPABILITIES.items() if held >> number & 1]


def _namespaces() -> dict[str, bool | None]:
    found: dict[str, bool | None] = {}
    for kind in ("pid", "user", "mnt"):
        link = procfs.read_link(f"/proc/self/ns/{kind}")
        number = link.strip(f"{kind}:[]")
        if kind in _FIRST:
            found[kind] = int(number) == _FIRST[kind] if number.isdigit() else None
        else:  # no fixed number in every release: that of init, where it may be looked at
            other = procfs.read_link("/proc/1/ns/mnt")
            found[kind] = link == other if other else None
    return found


def _hidepid() -> str:
    for line in Path("/proc/self/mounts").read_text(errors="replace").splitlines():
        _, place, kind, options, *_ = line.split()
        if place == "/proc" and kind == "proc":
            return next((one.partition("=")[2] for one in options.split(",") if one.startswith("hidepid=")), "off")
    return "unknown"


def _cgroup() -> tuple[int, str] | None:
    found = hierarchy()
    return None if found is None else (found.version, str(found.folder))


def _ksm() -> str:
    try:
        run = Path("/sys/kernel/mm/ksm/run").read_text().strip()
    except OSError:
        return "not there"
    return {"0": "off", "1": "running", "2": "off"}.get(run, "unknown")


def _chosen(path: str) -> str:
    try:
        match = re.search(r"\[(\w+)\]", Path(path).read_text())
    except OSError:
        return "not there"
    return match[1] if match is not None else "unknown"
