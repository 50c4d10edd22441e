"""System calls of x86-64 as a trace has them, told to the model.

The model acts where the kernel acted: an mmap goes to the address that the kernel chose, a moved mapping likewise. What
the model answers otherwise, it is told to do all the same, as far as it can, and the difference is a finding.
"""

from __future__ import annotations

import errno
from collections.abc import Callable

from rmap.errors import SyscallError
from rmap.kernel.exec import UNKNOWN_BRK
from rmap.lab.replay.results import NOTED
from rmap.lab.replay.state import ReplayState
from rmap.mm import brk as brk_calls
from rmap.mm import madvise as madvise_calls
from rmap.mm import mlock as mlock_calls
from rmap.mm import mmap as mmap_calls
from rmap.mm import mprotect as mprotect_calls
from rmap.mm import mremap as mremap_calls
from rmap.mm import truncate as truncate_calls
from rmap.mm.mm_types import TASK_SIZE, Mm
from rmap.uapi.mman import (
    FALLOC_FL_KEEP_SIZE,
    FALLOC_FL_PUNCH_HOLE,
    MADVICE,
    MAP_ANONYMOUS,
    MAP_FIXED,
    MAP_GROWSDOWN,
    MAP_HUGETLB,
    MAP_LOCKED,
    MAP_NONBLOCK,
    MAP_NORESERVE,
    MAP_POPULATE,
    MAP_PRIVATE,
    MAP_SHARED,
    MAP_SHARED_VALIDATE,
    MAP_STACK,
    MAP_TYPE,
    MCL_CURRENT,
    MCL_FUTURE,
    MCL_ONFAULT,
    MREMAP_DONTUNMAP,
    PR_SET_VMA,
    PROT_GROWSDOWN,
    SHM_EXEC,
    SHM_RDONLY,
)
from rmap.uapi.unistd import NAMES, NR
from rmap.uapi.vm_flags import VM_ACCESS, VM_EXEC, VM_GROWSDOWN, VM_READ, VM_WRITE
from rmap.units import PAGE_MASK, PAGE_SHIFT, page_align

HARMLESS = frozenset(
    ("msync", "mincore", "shmget", "shmctl", "memfd_create", "pkey_alloc", "pkey_free", "get_mempolicy",
     "kcmp", "clone", "clone3", "fork", "vfork", "execve", "execveat", "exit", "exit_group", "process_vm_readv",
     "io_uring_setup")
)  # fmt: skip
"""Calls that change neither VMAs nor entries, or whose effect is an event of its own."""

WITHOUT_TRACE = frozenset(
    ("set_mempolicy", "migrate_pages", "move_pages", "process_vm_writev", "ptrace", "splice", "vmsplice",
     "io_uring_enter", "io_uring_register", "io_setup", "io_destroy")
)  # fmt: skip
"""Calls that the model does not have and that need no excuse: what they do to entries is an access of the kernel's, in
whichever process, and judged as such; or only which frame a page is in."""

RANGES = {"mbind": 0, "remap_file_pages": 0, "mseal": 0, "set_mempolicy_home_node": 0}
"""Calls that the model does not have, about one range: the argument that is its address; the next is its length."""

ADVICE = {number: name for name, number in MADVICE.items()}

DROPPING = frozenset(("dontneed", "dontneed_locked", "remove"))
"""Advice after which the pages are not there any more."""

MASK64 = (1 << 64) - 1
Args = tuple[int, int, int, int, int, int]


def unsigned(value: int) -> int:
    """An int64 of a trace as the unsigned word it was."""
    return value & MASK64


class NotModelled(Exception):
    """The model cannot do this call; the next picture says what it did to a range of bytes."""

    def __init__(self, what: str, start: int = 0, length: int = TASK_SIZE) -> None:
        super().__init__(what)
        self.start, self.length = start, length


def mmap(state: ReplayState, mm: Mm, args: Args, result: int, file_row: int) -> None:
    """Map where the kernel did."""
    _, length, prot, flags, _, offset = (unsigned(a) for a in args)
    if flags & MAP_HUGETLB:
        raise NotModelled("mmap of huge pages (MAP_HUGETLB)", result, length)
    kind = flags & MAP_TYPE
    if kind not in (MAP_SHARED, MAP_PRIVATE, MAP_SHARED_VALIDATE):
        raise NotModelled(f"mmap of type {kind:#x}", result, length)
    if not flags & MAP_ANONYMOUS and file_row < 0:
        raise NotModelled("mmap of a file the recorder does not know", result, length)
    file = None if flags & MAP_ANONYMOUS else state.files[file_row]
    if file is not None and file.special is not None:
        raise NotModelled(f"mmap of the device {file.name}", result, length)
    length = page_align(length)
    replaces = bool(flags & MAP_FIXED)
    if not replaces and mm.overlapping(result, result + length):
        state.finding("mmap: the model has areas where the kernel had none", f"at {result:#x}")
        replaces = True
    state.seen(mm).forget(result, length)
    populate = flags & (MAP_POPULATE | MAP_NONBLOCK) == MAP_POPULATE
    if populate:
        state.seen(mm).populate(result, length)
    mmap_calls.mmap(
        state.core,
        mm,
        length,
        prot=prot & VM_ACCESS,
        shared=kind != MAP_PRIVATE,
        file=file,
        offset=0 if file is None else offset,
        addr=result,
        fixed=replaces,
        noreplace=not replaces,
        growsdown=bool(flags & MAP_GROWSDOWN),
        populate=populate,
        noreserve=bool(flags & MAP_NORESERVE),
        locked=bool(flags & MAP_LOCKED),
        stack=bool(flags & MAP_STACK),
    )


def munmap(state: ReplayState, mm: Mm, args: Args, result: int, file_row: int) -> None:
    """Unmap."""
    mmap_calls.munmap(state.core, mm, unsigned(args[0]), unsigned(args[1]))
    state.seen(mm).forget(unsigned(args[0]), unsigned(args[1]))


def mprotect(state: ReplayState, mm: Mm, args: Args, result: int, file_row: int) -> None:
    """Change a protection. With PROT_GROWSDOWN the range begins where the stack does."""
    start, length, prot = (unsigned(a) for a in args[:3])
    if prot & PROT_GROWSDOWN:
        vma = mm.find(start)
        if vma is not None and vma.flags & VM_GROWSDOWN:
            length += start - vma.start
            start = vma.start
    mprotect_calls.mprotect(state.core, mm, start, length, prot & VM_ACCESS)


def pkey_mprotect(state: ReplayState, mm: Mm, args: Args, result: int, file_row: int) -> None:
    """The same; a key is not modelled."""
    if args[3] != -1:
        raise NotModelled("pkey_mprotect with a key", unsigned(args[0]), unsigned(args[1]))
    mprotect(state, mm, args, result, file_row)


def brk(state: ReplayState, mm: Mm, args: Args, result: int, file_row: int) -> None:
    """Move the heap's end. The first call, which asks, tells where the heap begins."""
    asked, result = unsigned(args[0]), unsigned(result)
    if mm.start_brk == UNKNOWN_BRK:
        if asked == result:
            raise NotModelled("brk of a heap whose beginning is not known")
        mm.start_brk = mm.brk = result
        return
    if asked:
        if asked < mm.brk:
            state.seen(mm).forget(page_align(asked), mm.brk - asked)
        brk_calls.brk(state.core, mm, asked)
    if mm.brk != result:
        if page_align(mm.brk) != page_align(result):
            state.finding("brk: another end of the heap", f"{mm.brk:#x}, the kernel {result:#x}")
        mm.brk = result


def mremap(state: ReplayState, mm: Mm, args: Args, result: int, file_row: int) -> None:
    """Resize or move a mapping to where the kernel moved it."""
    start, old_size, new_size, flags = (unsigned(a) for a in args[:4])
    moved = result != start or bool(flags & MREMAP_DONTUNMAP)
    if moved:
        state.seen(mm).forget(result, new_size)
    mremap_calls.mremap(
        state.core,
        mm,
        start,
        old_size,
        new_size,
        maymove=moved,
        new_addr=result if moved else None,
        dontunmap=bool(flags & MREMAP_DONTUNMAP),
    )
    if moved:
        state.seen(mm).forget(start, old_size)
        state.seen(mm).add_present(state.core, mm, result, result + page_align(new_size))
        state.seen(mm).move(start, result, min(old_size, new_size))
    elif new_size < old_size:
        state.seen(mm).forget(start + page_align(new_size), old_size - new_size)


def madvise(state: ReplayState, mm: Mm, args: Args, result: int, file_row: int) -> None:
    """Give advice."""
    advice = ADVICE.get(args[2])
    start, length = unsigned(args[0]), unsigned(args[1])
    if advice in madvise_calls.NOT_MODELLED:
        raise NotModelled(f"madvise of {advice}", start, length)
    if advice == "pageout":
        state.reclaimed = True
    if advice in madvise_calls.POPULATE_ADVICE:
        state.seen(mm).populate(start, length)
    if advice == "free":
        state.seen(mm).freed.append((start & PAGE_MASK, start + length))
    if advice in DROPPING:
        state.seen(mm).forget(start, length)
    madvise_calls.madvise(state.core, mm, start, length, advice or f"advice {args[2]}")


def mlock(state: ReplayState, mm: Mm, args: Args, result: int, file_row: int) -> None:
    """Lock a range."""
    state.seen(mm).populate(unsigned(args[0]), unsigned(args[1]))
    mlock_calls.mlock(state.core, mm, unsigned(args[0]), unsigned(args[1]))


def mlock2(state: ReplayState, mm: Mm, args: Args, result: int, file_row: int) -> None:
    """Lock a range, on fault if asked to."""
    state.seen(mm).populate(unsigned(args[0]), unsigned(args[1]))
    mlock_calls.mlock(state.core, mm, unsigned(args[0]), unsigned(args[1]), onfault=bool(args[2] & 1))


def munlock(state: ReplayState, mm: Mm, args: Args, result: int, file_row: int) -> None:
    """Unlock a range."""
    mlock_calls.munlock(state.core, mm, unsigned(args[0]), unsigned(args[1]))


def mlockall(state: ReplayState, mm: Mm, args: Args, result: int, file_row: int) -> None:
    """Lock everything."""
    state.seen(mm).populate(0, TASK_SIZE)
    flags = args[0]
    mlock_calls.mlockall(
        state.core,
        mm,
        current=bool(flags & MCL_CURRENT),
        future=bool(flags & MCL_FUTURE),
        onfault=bool(flags & MCL_ONFAULT),
    )


def munlockall(state: ReplayState, mm: Mm, args: Args, result: int, file_row: int) -> None:
    """Unlock everything."""
    mlock_calls.munlockall(state.core, mm)


def ftruncate(state: ReplayState, mm: Mm, args: Args, result: int, file_row: int) -> None:
    """Set a file's size. A file that nobody maps does not matter."""
    if file_row >= 0:
        resize(state, file_row, unsigned(args[1]))


def resize(state: ReplayState, file_row: int, size: int) -> None:
    """A file has another size now."""
    mapping = state.files[file_row].mapping
    if mapping is None:
        return
    if size < mapping.size:
        state.dropped(mapping, page_align(size) >> PAGE_SHIFT, mapping.nr_pages)
        truncate_calls.truncate(state.core, mapping, size)
    else:
        state.inodes.grow(mapping, size)


def open_truncating(state: ReplayState, mm: Mm, args: Args, result: int, file_row: int) -> None:
    """An open with O_TRUNC: the trace has the size that the file had afterwards as the last argument."""
    if file_row >= 0:
        resize(state, file_row, unsigned(args[5]))


def shmat(state: ReplayState, mm: Mm, args: Args, result: int, file_row: int) -> None:
    """Map a SysV segment, whole."""
    if file_row < 0:
        raise NotModelled("shmat of a segment the recorder does not know")
    file = state.files[file_row]
    if file.mapping is None or not file.mapping.size:
        raise NotModelled("shmat of a segment without a size")
    prot = VM_READ | (0 if args[2] & SHM_RDONLY else VM_WRITE) | (VM_EXEC if args[2] & SHM_EXEC else 0)
    length = page_align(file.mapping.size)
    mmap_calls.mmap(state.core, mm, length, prot=prot, shared=True, file=file, addr=result, fixed=True)


def shmdt(state: ReplayState, mm: Mm, args: Args, result: int, file_row: int) -> None:
    """Unmap a SysV segment: what is left of it behind its beginning."""
    start = unsigned(args[0])
    vma = mm.find(start)
    if vma is None or vma.mapping is None:
        raise SyscallError(errno.EINVAL, "shmdt", f"nothing is attached at {start:#x}")
    for piece in mm.overlapping(start, start + page_align(vma.mapping.size)):
        if piece.file is vma.file:
            mmap_calls.munmap(state.core, mm, piece.start, piece.end - piece.start)


def fallocate(state: ReplayState, mm: Mm, args: Args, result: int, file_row: int) -> None:
    """Punch a hole, or make a file longer."""
    if file_row < 0:
        return
    mode, offset, length = (unsigned(a) for a in args[1:4])
    mapping = state.files[file_row].mapping
    if mapping is None:
        return
    if mode & FALLOC_FL_PUNCH_HOLE:
        state.dropped(mapping, page_align(offset) >> PAGE_SHIFT, ((offset + length) >> PAGE_SHIFT) - 1)
        truncate_calls.punch_hole(state.core, mapping, offset, length)
    elif mode & ~FALLOC_FL_KEEP_SIZE:
        raise NotModelled(f"fallocate with mode {mode:#x}")
    else:
        state.inodes.grow(mapping, unsigned(args[5]))


Call = Callable[[ReplayState, Mm, Args, int, int], None]

CALLS: dict[int, Call] = {
    NR["open"]: open_truncating,
    NR["mmap"]: mmap,
    NR["mprotect"]: mprotect,
    NR["munmap"]: munmap,
    NR["brk"]: brk,
    NR["mremap"]: mremap,
    NR["madvise"]: madvise,
    NR["shmat"]: shmat,
    NR["shmdt"]: shmdt,
    NR["ftruncate"]: ftruncate,
    NR["creat"]: open_truncating,
    NR["mlock"]: mlock,
    NR["munlock"]: munlock,
    NR["mlockall"]: mlockall,
    NR["munlockall"]: munlockall,
    NR["openat"]: open_truncating,
    NR["fallocate"]: fallocate,
    NR["mlock2"]: mlock2,
    NR["pkey_mprotect"]: pkey_mprotect,
    NR["openat2"]: open_truncating,
}
"""The calls that the model has."""

CHANGE_WHEN_REFUSED = frozenset((NR["mprotect"], NR["madvise"]))
"""Calls that Linux leaves half done when it refuses them at a hole: those are played too (mprotect, madvise)."""


def is_error(result: int) -> bool:
    """Whether a result is an errno."""
    return -4095 <= result < 0


def play(state: ReplayState, mm: Mm, nr: int, args: Args, result: int, file_row: int) -> None:
    """Let the model do a call, and compare its answer with the kernel's."""
    name = NAMES.get(nr, f"system call {nr}")
    call = CALLS.get(nr)
    if is_error(result) and nr not in CHANGE_WHEN_REFUSED:
        state.refused += 1
        return
    if call is None:
        if name not in HARMLESS:
            _unknown(state, mm, name, args, result)
        return
    wanted = -result if is_error(result) else 0
    try:
        call(state, mm, args, result, file_row)
    except NotModelled as unknown:
        state.not_modelled(f"call not modelled: {unknown}", mm, unknown.start, unknown.length)
    except SyscallError as refusal:
        got = refusal.errno or 0
        if got != wanted:
            state.finding(f"{name}: {_said(got)}, the kernel {_said(wanted)}", f"process {state.pid}: {refusal}")
    else:
        if wanted:
            state.finding(f"{name}: done, the kernel {_said(wanted)}", f"process {state.pid}: {name}{args[:3]}")


def _unknown(state: ReplayState, mm: Mm, name: str, args: Args, result: int) -> None:
    # A call that the model does not have: what it may have changed, as narrowly as it says itself.
    what = f"call not modelled: {name}{f' option {args[0]}' if name == 'prctl' else ''}"
    if name in WITHOUT_TRACE:
        state.finding(what, f"process {state.pid}", NOTED)
    elif name in RANGES:
        start, length = (unsigned(a) for a in args[RANGES[name] : RANGES[name] + 2])
        state.not_modelled(what, mm, start, length)
    elif name == "prctl" and args[0] == PR_SET_VMA:
        state.not_modelled(what, mm, unsigned(args[2]), unsigned(args[3]))
    elif name == "map_shadow_stack":
        state.not_modelled(what, mm, result, unsigned(args[1]))
    elif name == "process_madvise" and ADVICE.get(args[3]) in ("cold", "willneed", "pageout", "collapse"):
        # Of whichever process: entries in swap and huge pages are seen to be such, the others change nothing.
        state.reclaimed |= ADVICE[args[3]] == "pageout"
        state.finding(f"{what} of {ADVICE[args[3]]}", f"process {state.pid}", NOTED)
    else:
        # Other advice is given only by a process to itself, by ranges that the trace does not have.
        state.not_modelled(what, mm)


def _said(error: int) -> str:
    return f"said {errno.errorcode.get(error, error)}" if error else "did it"
