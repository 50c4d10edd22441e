"""One page of the running machine, of kinds that only some machines have: KSM, huge pages, swap, rings of devices."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from rmap.live.lookup.look_up import NoPage, look_up
from rmap.show.who import who
from rmap.snapshot import Who, parse_key
from tests.support import PAGE
from tests.support.judged import asked, judged
from tests.support.live_family import family
from tests.support.needs import need
from tests.support.proc import FRAME, PRESENT, brute, entries, entry
from tests.support.system import PAGED_OUT, huge_pages, ksm_at_work, ksm_stops, swap_file
from tests.support.waiting import until

HUGE = 512
KSM = Path("/sys/kernel/mm/ksm")
pytestmark = [pytest.mark.live, pytest.mark.needs("frames", "page_state", "same_mm")]


def shown(answer: Who) -> str:
    return " ".join(" ".join(who(answer, origin="", limit=None)).split())


TRANSPARENT = """
area = mm(2 * 512)
at = (address(area) + (512 * PAGE - 1)) // (512 * PAGE) * (512 * PAGE)
libc.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
libc.madvise(at, 512 * PAGE, 14)
touch(area, *range((at - address(area)) // PAGE, (at - address(area)) // PAGE + 512))
fork(lambda: None)
def part():
    libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
    libc.munmap(at + 16 * PAGE, 8 * PAGE)
fork(part)
ready(at)
"""


def test_a_page_of_a_transparent_huge_page_is_counted_for_itself() -> None:
    with family(TRANSPARENT) as tree:
        answer = asked(f"{tree.pid}:{tree.value + 5 * PAGE:#x}")
        need(None if answer.order == 9 else "transparent huge pages (madvise)")
        for page, mappers in ((5, 3), (16, 2), (23, 2), (24, 3), (511, 3)):
            answer = judged(f"{tree.pid}:{tree.value + page * PAGE:#x}", tree.pids)
            assert (answer.kind, answer.order, answer.found) == ("anon", 9, mappers)
            assert answer.pfn == (answer.head or 0) + page
        assert "anonymous, 4 KiB of a 2 MiB huge page (THP)" in shown(answer)


HUGETLB = """
area = mmap.mmap(-1, 512 * PAGE, mmap.MAP_SHARED | mmap.MAP_ANONYMOUS | 0x40000, 3)
area[0] = 1
fork(lambda: area[5 * PAGE])
ready(address(area))
"""


def test_hugetlb(machine_lock: None) -> None:
    with huge_pages(4), family(HUGETLB) as tree:
        answer = judged(f"{tree.pid}:{tree.value + 5 * PAGE:#x}", tree.pids)
        assert (answer.kind, answer.order, answer.found) == ("hugetlb", 9, 2)
        assert "hugetlb, 4 KiB of a 2 MiB huge page" in shown(answer)


MERGED = """
first = mm(4)
first[:] = b"m" * len(first)
second = mm(4)
second[:] = b"m" * len(second)
first.madvise(12)
second.madvise(12)
fork(lambda: None)
ready([address(first), address(second)])
"""


def test_pages_merged_by_ksm_are_found_wherever_they_are(machine_lock: None) -> None:
    with ksm_at_work(), family(MERGED) as tree:
        first, second = tree.value

        def frames() -> set[int]:
            return {entries(pid)[at] & FRAME for pid in tree.pids for at in (first, second)}

        until(lambda: len(frames()) == 1, 60, "KSM did not merge")
        ksm_stops()
        answer = judged(f"{tree.pid}:{first:#x}", tree.pids)
        assert (answer.kind, answer.status) == ("ksm", "complete")
        assert answer.found >= 16 and answer.found_by.startswith("same address in the fork family (2), then a scan")


def test_a_slot_of_swap_is_named_and_its_entries_found(machine_lock: None, disk: Path) -> None:
    with swap_file(disk), family(PAGED_OUT) as tree:
        word = entry(tree.pid, tree.value)
        need(None if not word & PRESENT else "MADV_PAGEOUT to swap")
        area, slot = word & 31, (word & FRAME) >> 5
        expected = [(pid, tree.value) for pid in sorted(tree.pids)]
        for key in (f"{tree.pid}:{tree.value:#x}", f"swap:{area}:{slot}"):
            answer = asked(key)
            assert (answer.pfn, answer.swap, answer.status) == (None, (area, slot), "approximate")
            assert [(one.pid, one.address) for one in answer.mappings] == expected
    if not Path("/proc/swaps").read_text().splitlines()[1:]:
        assert look_up(parse_key("swap:0:1")) == NoPage("no swap area is in use on this machine")


RINGS = """
import socket, struct
libc.syscall.restype = ctypes.c_long
attr = bytearray(128)  # perf_event_open: a software event that counts nothing
struct.pack_into("<IIQ", attr, 0, 1, 128, 9)
event = libc.syscall(298, (ctypes.c_char * 128).from_buffer(attr), 0, -1, -1, 0)
try:
    packets = socket.socket(17, socket.SOCK_RAW, 0)  # AF_PACKET, and a ring for what arrives: nothing does
    packets.setsockopt(263, 5, struct.pack("<IIII", PAGE, 2, PAGE // 2, 4))
    ring = mm(2, mmap.MAP_SHARED, packets.fileno())
    ring[0]
    places = [address(ring)]
except OSError:
    places = [0]
if event >= 0:
    counters = mm(3, mmap.MAP_SHARED, event)
    counters[0]
    places.append(address(counters))
ready(places)
"""


def test_rings_of_the_kernel_are_nobodys_file() -> None:
    need(None if os.uname().machine == "x86_64" else "perf_event_open by its number on x86-64")
    with family(RINGS) as tree:
        packets, *counters = tree.value
        need(None if packets else "AF_PACKET")
        answer = asked(f"{tree.pid}:{packets:#x}")
        assert answer.pfn is not None
        found = {(one.pid, one.address) for one in answer.mappings}
        assert found == brute(tree.pids, answer.pfn) == {(tree.pid, packets)}
        assert (answer.kind, answer.file) == ("kernel", None)
        need(None if counters else "perf_event_open")
        hidden = look_up(parse_key(f"{tree.pid}:{counters[0]:#x}"))
        assert isinstance(hidden, NoPage) and "PFNMAP" in hidden.reason
