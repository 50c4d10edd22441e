"""Who maps one page of the running machine, found as an object-based reverse map would find it.

A KEY leads to a place (:mod:`.place`), and a place has ways that lead to the entries (:mod:`.ways`), the likely ones
first. Once as many entries are found as the kernel counts, the answer is complete. Only otherwise everything is
searched, for what was moved, merged by KSM, or is of a device.

What was found is read again before it is told, and the kernel's count before and after. If either has changed, all is
done anew; what changes each time is said to be raced. What is missing is hidden, and the reasons for that are named.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable

from rmap.live.capture.settle import AGAIN, read_until
from rmap.live.lookup.mappings import changed, mappings_of, reasons
from rmap.live.lookup.place import NoPage as NoPage
from rmap.live.lookup.place import Place, at, place_of
from rmap.live.lookup.search import Hit, Search, for_page, for_slot
from rmap.live.lookup.ways import Everywhere
from rmap.live.sources import procfs
from rmap.live.sources.areas import is_device
from rmap.live.sources.kpage import OnePage, count_of, mapcount_kind, page_at
from rmap.snapshot.keys import Key
from rmap.snapshot.kinds import DEVICE, KERNEL, KINDS
from rmap.snapshot.questions.answer import Completeness, Mapping, Who, judge
from rmap.units import PAGE_SHIFT

__all__ = ["NoPage", "look_up"]

Say = Callable[[str], None]

_SLOWLY = "searching every page table"


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

    def read() -> Who | NoPage:
        place = place_of(key)
        if isinstance(place, NoPage):
            return place
        return _who_swap(place, say) if place.pfn is None else _who_page(place, place.pfn, say)

    return read_until(read, lambda answer: isinstance(answer, NoPage) or answer.status != "raced", readings=AGAIN)


def _who_page(place: Place, pfn: int, say: Say) -> Who:
    page, counted = page_at(pfn), count_of(pfn)
    search = for_page(pfn)
    # Entries that the kernel does not count: of the zero page, of its own pages, of devices.
    uncounted = page.kind in KINDS.untracked or (not counted and place.address is not None)
    ways = _search(search, place, None if uncounted else counted, say)
    hits = search.distinct()
    own = sum(hit.pid == os.getpid() for hit in hits)
    live, gone = mappings_of(hit for hit in hits if hit.pid != os.getpid())
    raced = changed(search, live) or gone or _moved(page, counted)
    mappings = [one.mapping for one in live]
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
        hidden=reasons(search.unread, counted - own - len(mappings)) if status in ("hidden", "raced") else [],
        own=own,
        flags=page.flags,
    )


def _who_swap(place: Place, say: Say) -> Who:
    assert place.slot is not None
    search = for_slot(*place.slot)
    ways = _search(search, place, None, say)
    live, gone = mappings_of(hit for hit in search.distinct() if hit.pid != os.getpid())
    mappings = [one.mapping for one in live]
    status, note = "unmapped", "no entry names it: the slot is free, or what it holds is in memory only"
    if mappings:
        status, note = "approximate", "the kernel does not show how many entries name a swap slot"
    if gone or changed(search, live):
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
        hidden=reasons(search.unread, 1) if search.unread.refused else [],
    )


def _search(search: Search, place: Place, expected: int | None, say: Say) -> list[str]:
    # On one way after the other, until as many entries are found as are expected. Answers the ways, in words.
    if expected == 0:
        return ["the kernel's own count: nothing maps it"]

    def enough() -> bool:
        return expected is not None and len(search.hits) >= expected and len(search.distinct()) >= expected

    pids = procfs.pids()
    words: list[str] = []
    if expected is not None and not place.is_located:
        # The first entry says where the others may be.
        scan = Everywhere()
        say(_SLOWLY)
        scan.look(search, pids, lambda: True)
        if enough() or not search.hits:
            return [scan.in_words(_hits(search))]
        words.append(f"a scan until it was found ({_hits(search)})")
        place = _located_at(min(search.hits), place)
    for way in place.ways():
        if way.slow:
            if expected is not None and place.pfn is not None and count_of(place.pfn) != expected:
                break  # it was mapped or unmapped meanwhile: no reason to search everything
            say(_SLOWLY)
        before = _hits(search)
        way.look(search, pids, enough)
        words.append(way.in_words(_hits(search) - before))
        if enough():
            break
    return words


def _located_at(hit: Hit, page: Place) -> Place:
    there = at(hit.pid, hit.address)
    if isinstance(there, NoPage) or there.pfn != page.pfn:  # it has gone from there already
        return Place(page.pfn, address=hit.address)
    return there


def _hits(search: Search) -> int:
    return sum(hit.pid != os.getpid() for hit in search.distinct())


def _moved(page: OnePage, counted: int) -> bool:
    # Whether the frame is another page now, or is mapped more or less often. Flags alone flicker.
    again = page_at(page.pfn)
    same = (again.kind, again.order, again.head) == (page.kind, page.order, page.head)
    return page.torn or not same or count_of(page.pfn) != counted


def _file_of(kind: int, place: Place, mappings: Iterable[Mapping]) -> tuple[str | None, int | None]:
    # Path and offset (bytes) of the file that a page belongs to.
    if not KINDS[kind].of_file:
        return None, None
    if place.file is not None and place.address is None:
        return place.path, place.page << PAGE_SHIFT
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
