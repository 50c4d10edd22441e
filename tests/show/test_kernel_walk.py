"""``rmap who --kernel`` as text."""

from __future__ import annotations

from dataclasses import replace

from rmap.show.kernel_walk import kernel_walk
from rmap.structs.walk import Candidate, KernelWalk, WalkDifference, compare

WALK = KernelWalk(
    pfn=0x2F8443,
    kind="anon",
    anchor=0xFFFF888104A3C0D0 - (1 << 64),
    index=0x7F5A176CB,
    mapcount=1,
    head=0x2F8440,
    order=2,
    nodes=12,
    visited=7,
    candidates=[
        Candidate(4711, -1, 0x7F5A176CA000, 0x7F5A1B6CA000, 0x7F5A176CA, 0x7F5A176CB000, "hit"),
        Candidate(-1, -1, 0x7F5A176CA000, 0x7F5A1B6CA000, 0x7F5A176CA, 0x7F5A176CB000, "not readable"),
    ],
)
TEXT = """\
page      pfn 0x2f8443, phys 0x2f8443000: anonymous, 4 KiB of a 16 KiB folio
          (head 0x2f8440)
mapping   anon_vma ffff888104a3c0d0, page index 0x7f5a176cb
tree      12 nodes, 7 looked at: 2 VMAs cover the index
found     1 hit of 2 entries looked at; the page's mapcount is 1
equal     to the page tables of every process: the same 1 entry

   PID  COMMAND   ADDRESS         VMA                        ENTRY
  4711  gunicorn  0x7f5a176cb000  7f5a176ca000-7f5a1b6ca000  hit
     -  ?         0x7f5a176cb000  7f5a176ca000-7f5a1b6ca000  not readable

found by  as rmap_walk() goes: the index in the tree, in each VMA start + (index
          - pgoff) pages, its pagemap there
"""
NAMES = {4711: "gunicorn"}


def test_a_walk_that_equals_the_page_tables() -> None:
    difference = compare(WALK, [(4711, 0x7F5A176CB000)])
    assert difference.equal
    assert "\n".join(kernel_walk(WALK, difference, NAMES, limit=None)) + "\n" == TEXT
    assert "    ... 1 more (--all)" in kernel_walk(WALK, difference, NAMES, limit=1)


def test_a_difference_names_the_places() -> None:
    difference = compare(WALK, [(1, 0x1000), (2, 0x2000)])
    assert (difference.common, difference.missed, difference.invented) == (
        0,
        [(1, 0x1000), (2, 0x2000)],
        [(4711, 0x7F5A176CB000)],
    )
    text = " ".join(" ".join(kernel_walk(WALK, difference, NAMES, limit=None)).split())
    assert "DIFFERENT from the page tables: missed: 1:0x1000, 2:0x2000; found only here: 4711:0x7f5a176cb000" in text


def test_a_difference_counts_if_it_is_there_each_time() -> None:
    before = WalkDifference(1, [(1, 1), (2, 2)], [], 0)
    now = WalkDifference(1, [(2, 2), (3, 3)], [(4, 4)], 1)
    settled = now.settled(before)
    assert (settled.missed, settled.invented, settled.raced) == ([(2, 2)], [], 2)
    gone = replace(now, missed=[]).settled(before)
    assert gone.equal
    text = "\n".join(kernel_walk(WALK, gone, NAMES, limit=None))
    assert "rmap's own" in text and "1 came or went" in text.replace("\n          ", " ")


def test_pages_without_a_walk() -> None:
    for kind, says in (("ksm", "stable node"), ("none", "no reverse map leads back")):
        lines = kernel_walk(replace(WALK, kind=kind), None, NAMES, limit=None)
        assert lines[0] == "page      pfn 0x2f8443, phys 0x2f8443000"
        assert says in lines[1]
