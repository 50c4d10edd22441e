"""Which processes share one mm (vfork children, CLONE_VM): their page tables are to be counted once.

The kernel compares two processes with kcmp(KCMP_VM), and orders different mms, so that n processes take n log n calls.
Where it is missing or refused, pagemap answers: a page whose mapcount is 1 cannot be in two page tables.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable, Iterable

from rmap.live.sources import procfs
from rmap.uapi.pagemap import PM_MMAP_EXCLUSIVE, PM_PRESENT
from rmap.uapi.unistd import number_here

_KCMP = number_here("kcmp", os.uname().machine)
_KCMP_VM = 1
_PRESENT_EXCLUSIVE = PM_PRESENT | PM_MMAP_EXCLUSIVE

_libc = ctypes.CDLL(None, use_errno=True)


def kcmp_vm(pid: int, other: int) -> int | None:
    """Compare two mms: 0 the same, 1 less, 2 greater.

    Returns:
        None if the kernel does not answer (no such call, no permission, a process ended).
    """
    if _KCMP is None:
        return None
    answer = int(_libc.syscall(_KCMP, pid, other, _KCMP_VM, 0, 0))
    return answer if answer in (0, 1, 2) else None


def groups(pids: Iterable[int], compare: Callable[[int, int], int | None] = kcmp_vm) -> dict[int, list[int]]:
    """Group processes by mm.

    Args:
        pids: processes, ascending.
        compare: as :func:`kcmp_vm`. A pair it cannot compare counts as different.

    Returns:
        the lowest pid of each mm, and the other pids that use it.
    """
    ordered: list[int] = []
    sharers: dict[int, list[int]] = {}
    for pid in pids:
        low, high = 0, len(ordered)
        while low < high:
            middle = (low + high) // 2
            order = compare(pid, ordered[middle])
            if order == 0:
                sharers[ordered[middle]].append(pid)
                break
            low, high = (low, middle) if order == 1 else (middle + 1, high)
        else:
            ordered.insert(low, pid)
            sharers[pid] = []
    return dict(sorted(sharers.items()))


def same_page_tables(entries: list[tuple[int, int]]) -> bool:
    """Whether two processes share their page tables, judged by pagemap entries of the same addresses.

    Args:
        entries: for some addresses, the 64 bits in each of the two.
    """
    return any(
        left == right and left & _PRESENT_EXCLUSIVE == _PRESENT_EXCLUSIVE
        for left, right in ((a & (1 << 64) - 1, b & (1 << 64) - 1) for a, b in entries)
    )


def compare_mms(pid: int, other: int) -> int | None:
    """Compare two mms by kcmp; where that does not answer, by the page tables themselves.

    Returns:
        as :func:`kcmp_vm`; by page tables only 0, or None.
    """
    order = kcmp_vm(pid, other)
    if order is not None:
        return order
    from rmap.live.sources.pagemap_columns import Pagemap

    try:
        vmas = procfs.read_maps(pid)
        if not vmas or vmas != procfs.read_maps(other):
            return None
        with Pagemap(pid) as left, Pagemap(other) as right:
            top = [line for line in vmas if line.path == "[stack]"] or vmas[-1:]
            ranges = [(line.start, line.end) for line in top]
            addresses = left.read(ranges)[0].tolist()
            pairs = [(left.entry(address), right.entry(address)) for address in addresses]
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return None
    return 0 if same_page_tables(pairs) else None
