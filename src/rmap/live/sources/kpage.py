"""/proc/kpagecount and kpageflags of one frame, in plain numbers: what the kernel says of it, and of its folio.

The same for columns of frames is in :mod:`rmap.live.sources.kpage_columns`.
"""

from __future__ import annotations

import os
from array import array
from typing import NamedTuple

from rmap.errors import NotPermitted
from rmap.live.sources.root import root_path
from rmap.snapshot.kinds import KINDS
from rmap.uapi.kpageflags import KPF_COMPOUND_HEAD, KPF_COMPOUND_TAIL, KPF_NOPAGE

_WINDOW = 512
_PFN_BITS = 55
_GIGANTIC = 1 << 18  # pages of the largest folio there is: hugetlb, 1 GiB
_WORKS = "rmap who -i FILE KEY, rmap compare"


def open_kpage(name: str) -> int:
    """Open one of the files /proc/kpage*; the descriptor.

    Raises:
        NotPermitted: this user may not read it, or the kernel does not have it.
    """
    try:
        return os.open(root_path(f"/proc/{name}"), os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        raise NotPermitted(
            f"this kernel has no /proc/{name}", needed="a kernel with CONFIG_PROC_PAGE_MONITOR", works=_WORKS
        ) from None
    except PermissionError:
        raise NotPermitted(
            f"/proc/{name} may be read by root only", needed="CAP_DAC_READ_SEARCH, or to be root", works=_WORKS
        ) from None


def count_of(pfn: int) -> int:
    """How many entries the kernel counts for a frame now; 0 for one without struct page.

    Raises:
        NotPermitted: this user may not.
    """
    fd = open_kpage("kpagecount")
    try:
        return _read(fd, pfn, 1, 0)[0]
    finally:
        os.close(fd)


class OnePage(NamedTuple):
    """What the kernel says of a frame.

    Attributes:
        flags: KPF bits; ``KPF_NOPAGE`` for one without struct page.
        kind: as ``frames.kind``, as far as the flags alone tell.
        order, head: of its folio; 0 and the frame itself for a single page.
        torn: its folio changed while it was read.
    """

    pfn: int
    flags: int
    kind: int
    order: int
    head: int
    torn: bool


def page_at(pfn: int) -> OnePage:
    """Read the flags of a frame, and of the rest of its folio.

    Raises:
        NotPermitted: this user may not.
    """
    fd = open_kpage("kpageflags")
    try:
        flags = _read(fd, pfn, 1, KPF_NOPAGE)[0]
        order, head, torn = 0, pfn, False
        if flags & (KPF_COMPOUND_HEAD | KPF_COMPOUND_TAIL):
            head = _head(fd, pfn)
            order = (_end(fd, head) - head).bit_length() - 1
            torn = not _is_folio(fd, head, order) or not head <= pfn < head + (1 << order)
            if torn:
                order, head = 0, pfn
        return OnePage(pfn, flags & KINDS.kept_bits, KINDS.kind_of(flags), order, head, torn)
    finally:
        os.close(fd)


def _read(fd: int, pfn: int, count: int, beyond: int) -> array[int]:
    values = array("Q")
    if pfn >> _PFN_BITS == 0:  # else no file offset can hold it
        values.frombytes(os.pread(fd, count * 8, pfn * 8))
    values.extend([beyond] * (count - len(values)))
    return values


def _head(fd: int, pfn: int) -> int:
    # The frame that begins the folio: the last one, up to this, that is not a tail.
    high = pfn + 1
    while high > max(0, pfn - _GIGANTIC):
        low = (high - 1) // _WINDOW * _WINDOW
        values = _read(fd, low, high - low, KPF_NOPAGE)
        for at in range(high - low - 1, -1, -1):
            if not values[at] & KPF_COMPOUND_TAIL:
                return low + at
        high = low
    return pfn


def _end(fd: int, head: int) -> int:
    # The first frame behind the tails of the folio that begins here.
    low = head + 1
    while low <= head + _GIGANTIC:
        values = _read(fd, low, _WINDOW, KPF_NOPAGE)
        for at, value in enumerate(values):
            if not value & KPF_COMPOUND_TAIL:
                return low + at
        low += _WINDOW
    return low


def _is_folio(fd: int, head: int, order: int) -> bool:
    size = _end(fd, head) - head
    return bool(_read(fd, head, 1, 0)[0] & KPF_COMPOUND_HEAD) and size == 1 << order and not head % size


def mapcount_kind(release: str) -> str:
    """``precise`` or ``average``: whether kpagecount is exact for pages of large folios.

    It is not with CONFIG_NO_PAGE_MAPCOUNT (Linux 6.15).
    """
    try:
        with open(root_path(f"/boot/config-{release}"), encoding="utf-8", errors="replace") as config:
            return "average" if "CONFIG_NO_PAGE_MAPCOUNT=y" in config.read() else "precise"
    except OSError:
        return "precise"
