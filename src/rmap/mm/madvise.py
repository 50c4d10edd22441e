"""madvise: advice about areas changes their flags, advice about pages acts on the pages (``mm/madvise.c``).

Rules 3.10, 4.12. Not modelled (ENOSYS): guard regions, collapse into huge pages, and poisoning. Of MADV_MERGEABLE and
MADV_HUGEPAGE the flags are modelled, which split and merge areas; KSM and huge pages themselves are not.
"""

from __future__ import annotations

import errno
from collections.abc import Callable

from rmap.errors import SyscallError
from rmap.mm.core import Core
from rmap.mm.costs import MADVISE
from rmap.mm.madvise_pages import cold, dontneed, lazy_free, pageout, remove, willneed
from rmap.mm.merge import vma_modify_flags
from rmap.mm.mm_types import Mm, Vma
from rmap.mm.populate import madvise_populate
from rmap.mm.ranges import find_vma
from rmap.uapi.vm_flags import (
    VM_DONTCOPY,
    VM_DONTDUMP,
    VM_HUGEPAGE,
    VM_IO,
    VM_LOCKED,
    VM_MAYSHARE,
    VM_MAYWRITE,
    VM_MERGEABLE,
    VM_NOHUGEPAGE,
    VM_PFNMAP,
    VM_RAND_READ,
    VM_SEQ_READ,
    VM_SHARED,
    VM_SPECIAL,
    VM_WIPEONFORK,
)
from rmap.units import PAGE_MASK, page_align

FLAG_ADVICE = {
    "normal": (VM_RAND_READ | VM_SEQ_READ, 0),
    "random": (VM_SEQ_READ, VM_RAND_READ),
    "sequential": (VM_RAND_READ, VM_SEQ_READ),
    "dontfork": (0, VM_DONTCOPY),
    "dofork": (VM_DONTCOPY, 0),
    "wipeonfork": (0, VM_WIPEONFORK),
    "keeponfork": (VM_WIPEONFORK, 0),
    "dontdump": (0, VM_DONTDUMP),
    "dodump": (VM_DONTDUMP, 0),
    "hugepage": (VM_NOHUGEPAGE, VM_HUGEPAGE),
    "nohugepage": (VM_HUGEPAGE, VM_NOHUGEPAGE),
    "mergeable": (0, VM_MERGEABLE),
    "unmergeable": (VM_MERGEABLE, 0),
}
"""Advice about areas: the flags it clears, and those it sets."""

PAGE_ADVICE: dict[str, Callable[[Core, Vma, int, int], None]] = {
    "willneed": willneed,
    "dontneed": dontneed,
    "dontneed_locked": dontneed,
    "free": lazy_free,
    "cold": cold,
    "pageout": pageout,
    "remove": remove,
}
"""Advice about pages: what it does to a range of one area."""

NEVER_MERGEABLE = VM_SHARED | VM_MAYSHARE | VM_SPECIAL
"""Areas whose pages KSM never takes (``vma_ksm_compatible``)."""

POPULATE_ADVICE = {"populate_read": False, "populate_write": True}
NOT_MODELLED = {"collapse", "guard_install", "guard_remove", "hwpoison", "soft_offline"}
ADVICE = frozenset((*FLAG_ADVICE, *PAGE_ADVICE, *POPULATE_ADVICE, *NOT_MODELLED))


def madvise(core: Core, mm: Mm, addr: int, length: int, advice: str) -> None:
    """Give advice about a range.

    Args:
        addr, length: in bytes; ``addr`` page aligned.
        advice: the name of a MADV constant in lower case: ``"dontneed"``, ``"free"``, ``"pageout"``, ...

    Raises:
        SyscallError: EINVAL: unknown advice, unaligned, or an area that cannot have it; ENOMEM: there are holes, and
            everything else was done; EAGAIN: too many areas; EACCES: ``remove`` of a mapping that is not shared and
            writable; EFAULT: ``populate_*`` beyond the end of a file; ENOSYS: advice that is not modelled. Areas
            before the one refused keep what was done.
    """
    core.costs.enter(MADVISE)
    end = addr + page_align(length)
    recognised = advice in ADVICE and advice not in core.profile.unknown_advice
    if not recognised or addr & ~PAGE_MASK or not 0 <= addr <= end < 1 << 64:
        raise SyscallError(errno.EINVAL, "madvise", f"{advice} of address {addr:#x}, length {length:#x}")
    if advice in NOT_MODELLED:
        raise SyscallError(errno.ENOSYS, "madvise", f"{advice} is not modelled")
    if advice in POPULATE_ADVICE:
        madvise_populate(core, mm, addr, end, POPULATE_ADVICE[advice])
    elif addr < end and not _walk_vmas(core, mm, addr, end, advice):
        raise SyscallError(errno.ENOMEM, "madvise", f"there are holes from {addr:#x} to {end:#x} in process {mm.id}")


def _walk_vmas(core: Core, mm: Mm, start: int, end: int, advice: str) -> bool:
    # Every area of the range, over holes. False: there were some.
    at, complete = start, True
    while at < end:
        vma = find_vma(mm, at)
        if vma is None or vma.start >= end:
            return False
        if vma.start > at:
            at, complete = vma.start, False
        stop = min(vma.end, end)
        if advice in FLAG_ADVICE:
            vma = _change_flags(core, vma, at, stop, advice)
        else:
            _refuse_pages(vma, advice)
            PAGE_ADVICE[advice](core, vma, at, stop)
        at = vma.end
    return complete


def _change_flags(core: Core, vma: Vma, start: int, end: int, advice: str) -> Vma:
    refused = {"dodump": VM_SPECIAL, "dofork": VM_IO if core.profile.dofork_of_special else VM_SPECIAL}
    if vma.flags & refused.get(advice, 0):
        raise SyscallError(errno.EINVAL, "madvise", f"{advice}: {vma} is a special mapping")
    if advice == "wipeonfork" and (vma.file is not None or vma.flags & VM_SHARED):
        raise SyscallError(errno.EINVAL, "madvise", f"wipeonfork: {vma} is not private anonymous memory")
    if advice == "mergeable" and vma.flags & NEVER_MERGEABLE:
        return vma  # ksm_madvise accepts it, and does nothing
    clear, set_ = FLAG_ADVICE[advice]
    flags = vma.flags & ~clear | set_
    if flags == vma.flags:
        return vma
    try:
        vma = vma_modify_flags(core, vma, start, end, flags, "madvise")
    except SyscallError as refusal:
        error = errno.EAGAIN if refusal.errno == errno.ENOMEM else errno.EINVAL
        raise SyscallError(error, "madvise", refusal.detail) from refusal
    vma.flags = flags
    return vma


def _refuse_pages(vma: Vma, advice: str) -> None:
    if advice == "willneed":
        return
    if advice == "remove":
        if vma.flags & VM_LOCKED or vma.file is None:
            raise SyscallError(errno.EINVAL, "madvise", f"remove: {vma} is locked, or not of a file")
        if vma.flags & (VM_SHARED | VM_MAYWRITE) != VM_SHARED | VM_MAYWRITE:
            raise SyscallError(errno.EACCES, "madvise", f"remove: {vma} is not shared and writable")
        return
    if vma.flags & (VM_PFNMAP if advice == "dontneed_locked" else VM_PFNMAP | VM_LOCKED):
        raise SyscallError(errno.EINVAL, "madvise", f"{advice}: {vma} is locked, or a special mapping")
    if advice == "free" and (vma.mapping is not None or vma.flags & VM_SPECIAL):
        raise SyscallError(errno.EINVAL, "madvise", f"free: {vma} is not anonymous")
