"""Who maps one page of the running machine, found as an object-based reverse map would find it.

First where it is likely: a page of a file in every area of that file, at the place that its offset gives; an anonymous
page at the same address of every process, for a fork keeps addresses. As soon as the kernel counts no more than were
found, the answer is complete. Only else everything is searched, for what was moved, merged by KSM, or is of a device.

What was found is read again before it is told, and the kernel's count before and after: what changed meanwhile is said
to be raced. What is missing is hidden, and the reasons for that are named.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

import numpy as np

from rmap.live import procfs, search
from rmap.live.page_state import KpageFile, kinds, mapcount_kind, read_page_state
from rmap.live.pagemap import PFN_MASK, Pagemap
from rmap.live.same_mm import compare_mms, groups
from rmap.live.search import Hit, Search
from rmap.live.syscalls import address_of
from rmap.snapshot import flags as f
from rmap.snapshot.keys import Key
from rmap.snapshot.who import NOTES, Mapping, Who
from rmap.units import PAGE_SHIFT

Say = Callable[[str], None]

_INIT_PIDNS = 0xEFFFFFFC  # PROC_PID_INIT_INO, include/linux/proc_ns.h
_GUARD = 1 << 58
_FIRST_SPECIAL_TYPE = 23  # swap types above are markers (rmap.live.pagemap)
_ALL = "a scan of every page table"


@dataclass(frozen=True)
class NoPage:
    """Why a KEY names no page now: one sentence."""

    reason: str


@dataclass(frozen=True)
class _Place:
    """What a KEY names: a frame or a slot, and what is known of where to look.

    Attributes:
        address: of the page in the process that was named, bytes.
        file: device and inode as maps shows them, with the page's number; None without file.
        path: of the file.
    """

    pfn: int | None = None
    slot: tuple[int, int] | None = None
    address: int | None = None
    pid: int | None = None
    file: tuple[tuple[int, int], int] | None = None
    path: str | None = None


def look_up(key: Key, *, say: Say = lambda doing: None) -> Who | NoPage:
    """Find who maps the page that a KEY names.

    Args:
        key: of any kind but ``process``.
        say: told what is being done, when it takes longer.

    Raises:
        NotPermitted: this user may not see page frames.
        PermissionError: the process that the KEY names may not be read.
        OSError: the file that it names cannot be.
    """
    place = _place_of(key)
    if isinstance(place, NoPage):
        return place
    if place.slot is not None:
        return _who_swap(place, say)
    return _who_page(place, say)


# -- what the KEY names ------------------------------------------------------------------------------------------------


def _place_of(key: Key) -> _Place | NoPage:
    if key.kind == "pfn":
        return _Place(pfn=key.pfn)
    if key.kind == "swap":
        return _Place(slot=key.swap)
    return _at(key.pid, key.address) if key.kind == "address" else _of_file(key.path, key.offset)


def _at(pid: int, address: int) -> _Place | NoPage:
    area = area_at(pid, address)
    if area is None:
        return NoPage(f"process {pid} has nothing at {address:#x}")
    with Pagemap(pid) as pagemap:
        entry = pagemap.entry(address) & (1 << 64) - 1
    if not entry & (search.PRESENT | search.SWAP):
        return NoPage(f"{address:#x} of process {pid} is mapped, but no page is there yet")
    value = entry & PFN_MASK
    if entry & search.PRESENT:
        file = None
        if area.inode and entry & search.FILE:
            file = (area.dev, area.inode), (area.offset + address - area.start) >> PAGE_SHIFT
        return _Place(pfn=value, address=address, pid=pid, file=file, path=area.path if area.inode else None)
    if entry & _GUARD:
        return NoPage(f"{address:#x} of process {pid} holds a guard marker")
    if value & (f.SWAP_STEP - 1) >= max(_FIRST_SPECIAL_TYPE, procfs.nr_swap_areas()):
        return NoPage(f"{address:#x} of process {pid} holds no page now: a migration entry, or another marker")
    return _Place(slot=(value & (f.SWAP_STEP - 1), value >> f.SWAP_TYPE_BITS), address=address, pid=pid)


# The frame of a file's page: from the page cache itself; where the file may not be opened, from whoever maps it.
def _of_file(path: str, offset: int) -> _Place | NoPage:
    real, page = os.path.realpath(path), offset >> PAGE_SHIFT
    found = os.stat(real)
    if page << PAGE_SHIFT >= found.st_size:
        return NoPage(f"{path} has no page {page:,}: it is {found.st_size:,} bytes long")
    identity = file_identity(real, found)
    pfn = search.cached_page(real, page)
    if pfn is None:
        return NoPage(f"page {page:,} of {path} is not in memory: nobody maps it")
    return _Place(pfn=pfn, file=(identity, page), path=real)


def file_identity(path: str, found: os.stat_result) -> tuple[int, int]:
    """Device and inode of a file as /proc/PID/maps shows them: on btrfs and overlayfs not those of stat."""
    import mmap

    with open(path, "rb", buffering=0) as file, mmap.mmap(file.fileno(), 1, prot=mmap.PROT_READ) as own:
        area = area_at(os.getpid(), address_of(own))
    return (area.dev, area.inode) if area is not None and area.inode else (found.st_dev, found.st_ino)


def area_at(pid: int, address: int) -> procfs.MapsLine | None:
    """The VMA of a process at an address (bytes), None if there is none."""
    with open(f"/proc/{pid}/maps", "rb") as file:
        for line in file:
            end = line[line.index(b"-") + 1 : line.index(b" ")]
            if address < int(end, 16):
                area = procfs.parse_maps_line(line.decode(errors="replace").rstrip("\n"))
                return area if area.start <= address else None
    return None


# -- the answer --------------------------------------------------------------------------------------------------------


def _who_page(place: _Place, say: Say) -> Who:
    assert place.pfn is not None
    pfn = place.pfn
    state = read_page_state(np.array([pfn]), np.array([1]))
    at = int(np.searchsorted(state.pfn, pfn))
    kind, order = int(kinds(state.flags)[at]), int(state.order[at])
    looked = search.for_page(pfn)
    counted = _count(pfn)
    own = _own_hits(looked, place)
    ways = _search(looked, place, counted - own if kind not in f.UNTRACKED else None, say)
    mappings = _mappings(looked)
    again = _count(pfn)
    raced = bool(state.raced[at]) or counted != again or _changed(looked, mappings)
    own = max(own, _own_hits(looked, place))
    status, note = _status(kind, order, counted, len(mappings) + own, raced)
    if own and not note:
        note = f"{'one of its mappings is' if own == 1 else f'{own} of its mappings are'} rmap's own, and left out"
    area = _area_of(mappings)
    file = place.path if place.file is not None else (area[0] if kind in (f.FILE, f.SHMEM) else None)
    return Who(
        pfn,
        f.FRAME_KINDS[kind],
        counted,
        len(mappings),
        status,
        mappings,
        order=order,
        head=pfn - int(state.head_offset[at]),
        file=file,
        file_offset=place.file[1] << PAGE_SHIFT if place.file is not None else (area[1] if file else None),
        note=note,
        found_by=", then ".join(ways),
        hidden=_reasons(looked, counted - own - len(mappings)) if status in ("hidden", "raced") else [],
    )


def _who_swap(place: _Place, say: Say) -> Who:
    assert place.slot is not None
    looked = search.for_slot(*place.slot)
    ways = _search(looked, place, None, say)
    mappings = _mappings(looked)
    note = "the kernel does not show how many entries name a swap slot"
    return Who(
        None,
        "swap",
        None,
        len(mappings),
        "approximate" if mappings else "unmapped",
        mappings,
        swap=place.slot,
        note=note,
        found_by=", then ".join(ways),
    )


# Where it is likely, and everywhere if that is not enough. Answers the ways it went, in words.
def _search(looked: Search, place: _Place, expected: int | None, say: Say) -> list[str]:
    pids = [pid for pid in procfs.pids() if pid != os.getpid()]
    ways = []

    def satisfied() -> bool:
        return expected is not None and len(_distinct(looked)) >= expected

    if place.file is not None:
        say("looking in every area of the file")
        search.in_file(looked, pids, *place.file)
        ways.append("dev:inode and offset in every VMA of the file")
    elif place.address is not None:
        say("looking at the same address of every process")
        search.at_address(looked, pids, place.address)
        ways.append(f"same address in the fork family ({len(_distinct(looked))})")
    if satisfied():
        return ways
    before = len(_distinct(looked))
    say("searching every page table")
    search.everywhere(looked, pids)
    rest = len(_distinct(looked)) - before
    return [*ways, f"a scan of the rest ({rest})"] if ways else [_ALL]


# Processes that share an mm are one mapper: of each mm only the lowest pid counts.
def _distinct(looked: Search) -> set[Hit]:
    lowest = _lowest_of(looked)
    return {hit for hit in looked.hits if lowest.get(hit.pid, hit.pid) == hit.pid}


def _lowest_of(looked: Search) -> dict[int, int]:
    by_place: dict[frozenset[int], list[int]] = {}
    places: dict[int, set[int]] = {}
    for hit in looked.hits:
        places.setdefault(hit.pid, set()).add(hit.address)
    for pid, addresses in places.items():
        by_place.setdefault(frozenset(addresses), []).append(pid)
    lowest = {}
    for pids in by_place.values():
        for pid, others in groups(sorted(pids), compare_mms).items():
            lowest.update(dict.fromkeys(others, pid))
    return lowest


def _mappings(looked: Search) -> list[Mapping]:
    lowest = _lowest_of(looked)
    comms: dict[int, str] = {}
    mappings = []
    for hit in sorted(looked.hits):
        if hit.pid in lowest:
            continue
        try:
            comm = comms.setdefault(hit.pid, procfs.read_stat(hit.pid).comm)
            area = area_at(hit.pid, hit.address)
        except (FileNotFoundError, ProcessLookupError):
            looked.ended.add(hit.pid)
            continue
        if area is not None:
            offset = area.offset + hit.address - area.start if area.inode else None
            path = area.path if area.inode else None
            perms = f.perms(area.flags)
            mappings.append(Mapping(hit.pid, comm, hit.address, area.start, area.end, perms, path, offset))
    return mappings


# Whether one of these is not any more what it was.
def _changed(looked: Search, mappings: Iterable[Mapping]) -> bool:
    for mapping in mappings:
        try:
            with Pagemap(mapping.pid) as pagemap:
                if not looked.matches(pagemap.entry(mapping.address)):
                    return True
        except OSError:
            return True
    return False


# How many entries of this very process map the page; it is left out of the answer, and the kernel counts it.
def _own_hits(looked: Search, place: _Place) -> int:
    own = replace(looked, hits=set())
    if place.file is not None:
        search.in_file(own, [os.getpid()], *place.file)
    elif place.address is not None and place.path is None:
        search.at_address(own, [os.getpid()], place.address)
    else:
        search.everywhere(own, [os.getpid()])
    return len(own.hits)


def _count(pfn: int) -> int:
    file = KpageFile("kpagecount")
    try:
        return int(file.read(np.array([pfn]), np.array([1]), 0)[0])
    finally:
        file.close()


def _status(kind: int, order: int, counted: int, found: int, raced: bool) -> tuple[str, str]:
    if kind in f.UNTRACKED and found != counted:
        return "approximate", NOTES[kind]
    if raced:
        return "raced", "the page changed while it was looked for"
    if order and mapcount_kind(os.uname().release) == "average":
        return "approximate", "this kernel counts mappings of large folios on average only"
    if found == counted:
        return ("complete", NOTES.get(kind, "")) if found else ("unmapped", "")
    return ("hidden", "") if found < counted else ("raced", "more entries were found than the kernel counts")


# Why entries that the kernel counts were not found.
def _reasons(looked: Search, missing: int) -> list[str]:
    reasons = []
    refused = sorted(looked.refused)
    if len(refused) == 1:
        reasons.append(f"process {refused[0]} does not show its memory to this user")
    elif refused:
        named = ", ".join(map(str, refused[:5])) + (", ..." if len(refused) > 5 else "")
        reasons.append(f"{len(refused)} processes do not show their memory to this user: {named}")
    namespace = procfs.read_link("/proc/self/ns/pid").strip("pid:[]")
    if namespace.isdigit() and int(namespace) != _INIT_PIDNS:
        reasons.append("rmap runs in a PID namespace of its own, and sees no process outside it")
    if looked.ended:
        reasons.append(f"processes that ended while they were read: {len(looked.ended)}")
    if missing > 0 and not reasons:
        reasons.append("no process that is visible here has them: another PID namespace, or the kernel itself")
    return reasons


# The file and offset (bytes) that the first mapping with a file gives.
def _area_of(mappings: Iterable[Mapping]) -> tuple[str | None, int | None]:
    return next(((one.file, one.offset) for one in mappings if one.file is not None), (None, None))
