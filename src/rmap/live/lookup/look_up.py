"""Who maps one page of the running machine, found as an object-based reverse map would find it.

First where it is likely: a page of a file in every area of that file, at the place that its offset gives; an anonymous
page at the same address of every process, for a fork keeps addresses. As soon as as many entries are found as the
kernel counts, the answer is complete. Only else everything is searched, for what was moved, merged by KSM, or is of a
device.

What was found is read again before it is told, and the kernel's count before and after. If either has changed, all is
done anew; what changes each time is said to be raced. What is missing is hidden, and the reasons for that are named.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable

from rmap.live.lookup import search
from rmap.live.lookup.mappings import changed, reasons, told
from rmap.live.lookup.place import NoPage as NoPage
from rmap.live.lookup.place import Place, area_at, at, is_device, place_of
from rmap.live.lookup.place import file_identity as file_identity
from rmap.live.lookup.search import Search
from rmap.live.sources import procfs
from rmap.live.sources.kpage import OnePage, count_of, mapcount_kind, page_at
from rmap.snapshot.keys import Key
from rmap.snapshot.kinds import DEVICE, KERNEL, KINDS
from rmap.snapshot.questions.answer import Completeness, Mapping, Who, judge
from rmap.units import PAGE_SHIFT

__all__ = ["NoPage", "area_at", "file_identity", "look_up"]

Say = Callable[[str], None]

_READINGS = 3
_ALL = "a scan of every page table"


def look_up(key: Key, *, say: Say = lambda doing: None) -> Who | NoPage:
    """Find who maps the page that a KEY names.

    Args:
        key: of any kind but ``process``.
        say: told what is being done, when it takes longer.

    Raises:
        UsageError: the KEY names something without pages of its own.
        NotPermitted: this user may not see page frames.
        PermissionError: the process that the KEY names may not be read.
        OSError: the file that it names cannot be.
    """
    for reading in range(_READINGS):
        place = place_of(key)
        if isinstance(place, NoPage):
            return place
        answer = _who_swap(place, say) if place.pfn is None else _who_page(place, place.pfn, say)
        if answer.status != "raced" or reading == _READINGS - 1:
            return answer
    raise AssertionError("unreachable")


def _who_page(place: Place, pfn: int, say: Say) -> Who:
    page, counted = page_at(pfn), count_of(pfn)
    looked = search.for_page(pfn)
    # Entries that the kernel does not count: of the zero page, of its own pages, of devices.
    uncounted = page.kind in KINDS.untracked or (not counted and place.address is not None)
    ways = _search(looked, place, None if uncounted else counted, say)
    hits = looked.distinct()
    own = sum(hit.pid == os.getpid() for hit in hits)
    known, gone = told(hit for hit in hits if hit.pid != os.getpid())
    raced = changed(looked, known) or gone or _moved(page, counted)
    mappings = [one.mapping for one in known]
    file, offset = _file_of(page.kind, place, mappings)
    kind = KERNEL if page.kind in KINDS.cached and mappings and file is None else page.kind
    status, note = _completeness(page, kind, counted, len(mappings) + own, raced)
    return Who(
        pfn,
        KINDS[kind].name,
        counted,
        len(mappings),
        status,
        mappings,
        order=page.order,
        head=page.head,
        file=file,
        file_offset=offset,
        note="; ".join(filter(None, (note, place.note))),
        found_by=", then ".join(ways),
        hidden=reasons(looked, counted - own - len(mappings)) if status in ("hidden", "raced") else [],
        own=own,
        flags=page.flags,
    )


def _who_swap(place: Place, say: Say) -> Who:
    assert place.slot is not None
    looked = search.for_slot(*place.slot)
    ways = _search(looked, place, None, say)
    known, gone = told(hit for hit in looked.distinct() if hit.pid != os.getpid())
    mappings = [one.mapping for one in known]
    status, note = "unmapped", "no entry names it: the slot is free, or what it holds is in memory only"
    if mappings:
        status, note = "approximate", "the kernel does not show how many entries name a swap slot"
    if gone or changed(looked, known):
        status, note = "raced", "some of these entries changed while they were looked for"
    return Who(
        None,
        "swap",
        None,
        len(mappings),
        status,
        mappings,
        swap=place.slot,
        note=note,
        found_by=", then ".join(ways),
        hidden=reasons(looked, 1) if looked.refused else [],
    )


# Where it is likely, and everywhere if that is not enough. Answers the ways it went, in words.
def _search(looked: Search, place: Place, expected: int | None, say: Say) -> list[str]:
    if expected == 0:
        return ["the kernel's own count: nothing maps it"]

    def enough() -> bool:
        return expected is not None and len(looked.hits) >= expected and len(looked.distinct()) >= expected

    pids = procfs.pids()
    ways: list[str] = []
    if place.file is None and place.address is None:
        say("searching every page table")
        _scan(looked, pids, enough if expected is None else lambda: True)
        if enough() or expected is None or not looked.hits:
            return [_ALL]
        ways.append(f"a scan until it was found ({_found(looked)})")
        first = min(looked.hits)
        there = at(first.pid, first.address)
        if isinstance(there, NoPage) or there.pfn != place.pfn:  # it has gone from there already
            there = Place(place.pfn, address=first.address)
        place = there
    before = _found(looked)
    if place.file is not None:
        search.in_file(looked, pids, *place.file, enough)
        ways.append("dev:inode and offset in every VMA of the file")
    elif place.address is not None:
        search.at_address(looked, pids, place.address, enough)
        ways.append(f"same address in the fork family ({_found(looked) - before})")
    if enough():
        return ways
    if expected is not None and place.pfn is not None and count_of(place.pfn) != expected:
        return ways  # it was mapped or unmapped meanwhile: no reason to search everything
    say("searching every page table")
    before = _found(looked)
    _scan(looked, pids, enough)
    return [*ways, f"a scan of the rest ({_found(looked) - before})"]


def _scan(looked: Search, pids: list[int], enough: search.Enough) -> None:
    from rmap.live.lookup.scan import everywhere  # and with it NumPy

    everywhere(looked, pids, enough)


def _found(looked: Search) -> int:
    return sum(hit.pid != os.getpid() for hit in looked.distinct())


# Whether the frame is another page now, or is mapped more or less often. Flags alone flicker.
def _moved(page: OnePage, counted: int) -> bool:
    again = page_at(page.pfn)
    same = (again.kind, again.order, again.head) == (page.kind, page.order, page.head)
    return page.torn or not same or count_of(page.pfn) != counted


# Path and offset (bytes) of the file that a page belongs to.
def _file_of(kind: int, place: Place, mappings: Iterable[Mapping]) -> tuple[str | None, int | None]:
    if not KINDS[kind].of_file:
        return None, None
    if place.file is not None and place.address is None:
        return place.path, place.file[1] << PAGE_SHIFT
    for one in mappings:
        if one.file is not None and not is_device(one.pid, one.vma_start, one.vma_end, one.file):
            return one.file, one.offset
    return None, None


def _completeness(page: OnePage, kind: int, counted: int, found: int, raced: bool) -> Completeness:
    no_page = "the kernel has no struct page for it: memory of a device, or no memory at all"
    return judge(
        found,
        counted,
        kind=kind,
        averaged=bool(page.order) and mapcount_kind(os.uname().release) == "average",
        raced="the page changed while it was looked for" if raced else "",
        absent=no_page if kind == DEVICE else "",
    )
