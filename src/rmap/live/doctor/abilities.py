"""What this user may see of this kernel: the ground for a diagnosis, and for which live tests can run."""

from __future__ import annotations

import ctypes
import mmap
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields

from rmap.errors import NotPermitted
from rmap.live.sources import procfs
from rmap.live.sources.kpage import open_kpage
from rmap.live.sources.pagemap import PagemapFile
from rmap.live.sources.same_mm import kcmp_vm
from rmap.uapi.pagemap import PM_PFRAME_MASK
from rmap.units import PAGE_SIZE


@dataclass(frozen=True)
class Abilities:
    """One field per ability: None if it is there, else what is missing, in words.

    Attributes:
        frames: page frame numbers in /proc/PID/pagemap.
        page_state: /proc/kpagecount, kpageflags and kpagecgroup.
        other_users: memory maps of every process.
        scan: PAGEMAP_SCAN, to skip holes.
        same_mm: kcmp, to tell processes that share an mm.
        kernel_memory: BPF programs that read the kernel's own anon_vmas, chains and struct pages.
    """

    frames: str | None
    page_state: str | None
    other_users: str | None
    scan: str | None
    same_mm: str | None
    kernel_memory: str | None

    def missing(self, *names: str) -> str | None:
        """What is missing of these abilities (of all, if none is named), None if nothing is."""
        asked = names or tuple(field.name for field in fields(self))
        lacking = [text for text in (getattr(self, name) for name in asked) if text]
        return "; ".join(lacking) or None


def abilities() -> Abilities:
    """Try everything once, on this process and its neighbours. Changes nothing."""
    from rmap.live.bpf import why_not

    return Abilities(
        frames=_frames(),
        page_state=_page_state(),
        other_users=_other_users(),
        scan=_scan(),
        same_mm=None if kcmp_vm(os.getpid(), os.getpid()) == 0 else "kcmp (CONFIG_KCMP, CAP_SYS_PTRACE)",
        kernel_memory=why_not(),
    )


def missing_frames() -> str | None:
    """What is missing of the two abilities without which nothing can be seen, ``frames`` and ``page_state``."""
    return "; ".join(filter(None, (_frames(), _page_state()))) or None


def refuse_without_frames() -> None:
    """Raise NotPermitted, in words for a reader, unless page frames and their state can be read."""
    missing = missing_frames()
    if missing is not None:
        hidden = missing.startswith("CAP_SYS_ADMIN")
        raise NotPermitted(
            "the kernel hides page frames: it shows PFN 0 for every page of a reader without CAP_SYS_ADMIN. "
            "The page is there; its frame is not told."
            if hidden
            else f"the state of page frames cannot be read here: {missing}",
            needed="CAP_SYS_ADMIN (page frames) and CAP_SYS_PTRACE (other users)",
            run="sudo rmap snap -o FILE.rmap",
            works="rmap who -i FILE KEY, rmap compare",
        )


def _frames() -> str | None:
    if mmap.PAGESIZE != PAGE_SIZE:
        return f"a machine with pages of {PAGE_SIZE >> 10} KiB: those of this one have {mmap.PAGESIZE >> 10}"
    with _own_page() as address:
        try:
            with PagemapFile(os.getpid()) as entries:
                entry = entries.entry(address)
        except OSError as error:
            return _no_pagemap(error)
    return None if entry & PM_PFRAME_MASK else "CAP_SYS_ADMIN: page frames are shown as 0"


def _scan() -> str | None:
    from rmap.live.sources.pagemap_columns import Pagemap

    with _own_page() as address:
        try:
            with Pagemap(os.getpid()) as pagemap:
                populated = list(pagemap.populated(address, address + mmap.PAGESIZE))
        except (FileNotFoundError, PermissionError) as error:
            return _no_pagemap(error)
        except OSError:
            populated = []
    return None if populated else "the ioctl PAGEMAP_SCAN (Linux 6.7)"


def _no_pagemap(error: OSError) -> str:
    return f"/proc/PID/pagemap ({os.strerror(error.errno or 0)}; CONFIG_PROC_PAGE_MONITOR)"


@contextmanager
def _own_page() -> Iterator[int]:
    with mmap.mmap(-1, mmap.PAGESIZE) as page:
        page[0] = 1
        yield ctypes.addressof(ctypes.c_char.from_buffer(page))


def _page_state() -> str | None:
    for name in ("kpagecount", "kpageflags", "kpagecgroup"):
        try:
            os.close(open_kpage(name))
        except NotPermitted as error:
            return f"/proc/{name}: {error.needed}"
    return None


def refused_processes() -> dict[int, int]:
    """The processes whose memory maps this user may not read, pid -> owner's uid.

    Even root may meet some: a process that is not dumpable, or that a security module protects.
    """
    refused = {}
    for pid in procfs.pids():
        try:
            owner = procfs.owner_of(pid)
            if not procfs.read_stat(pid).kernel_thread:
                procfs.read_maps(pid)
        except PermissionError:
            refused[pid] = owner
        except (FileNotFoundError, ProcessLookupError):
            continue
    return refused


def _other_users() -> str | None:
    if os.geteuid() == 0 or all(owner == os.getuid() for owner in refused_processes().values()):
        return None
    return "CAP_SYS_PTRACE: the memory maps of other users' processes"
