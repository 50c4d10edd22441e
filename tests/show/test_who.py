"""``rmap who`` as text: the page, how complete, the rows, how found."""

from __future__ import annotations

from dataclasses import replace

import pytest

from rmap.show.who import who
from rmap.snapshot import Mapping, Who
from rmap.uapi.kpageflags import KPF_DIRTY, KPF_MLOCKED, KPF_WRITEBACK


def mapping(pid: int, address: int, start: int) -> Mapping:
    return Mapping(pid, "gunicorn", address, start, start + 0x3000, "rw-p", None, None)


FOUR = Who(
    pfn=0x2F8443,
    kind="anon",
    mapcount=2,
    found=2,
    status="complete",
    # Not in the order of the answer.
    mappings=[mapping(4714, 0x7F5A12000000, 0x7F5A11FFF000), mapping(471, 0x7F5A176CB000, 0x7F5A176CB000)],
)

TEXT = """\
page      pfn 0x2f8443, phys 0x2f8443000: anonymous, 4 KiB
mappings  found 2 of 2: complete

   PID  COMMAND   ADDRESS         VMA                        +OFFSET  PERM
   471  gunicorn  0x7f5a176cb000  7f5a176cb000-7f5a176ce000      0x0  rw-p
  4714  gunicorn  0x7f5a12000000  7f5a11fff000-7f5a12002000   0x1000  rw-p

found by  reading
"""


def test_an_anonymous_page() -> None:
    assert "\n".join(who(FOUR, origin="reading", limit=None)) + "\n" == TEXT


def test_rows_left_out_are_counted() -> None:
    lines = who(FOUR, origin="reading", limit=1)
    assert "    ... 1 more (--all)" in lines
    assert not any("4714" in line for line in lines)


def test_a_file_page_of_a_large_folio_with_hidden_mappers() -> None:
    answer = replace(
        FOUR,
        kind="file",
        order=4,
        mapcount=1_203,
        status="hidden",
        file="/usr/lib/libc.so.6",
        file_offset=0x28000,
        note="1,201 of its mappings are in processes that were not recorded",
        hidden=["process 1 (init, uid 0) does not show its memory to anybody, not even to root"],
        flags=0,
    )
    lines = who(answer, origin="reading", limit=None)
    assert lines[:4] == [
        "page      pfn 0x2f8443, phys 0x2f8443000: page cache, clean, 4 KiB of a 64 KiB",
        "          folio",
        "file      /usr/lib/libc.so.6, offset 0x28000 (page 40)",
        "mappings  found 2 of 1,203: 1,201 hidden",
    ]
    assert lines[-4:-1] == [
        "hidden    1,201 of its mappings are in processes that were not recorded",
        "hidden    process 1 (init, uid 0) does not show its memory to anybody, not even",
        "          to root",
    ]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"kind": "file", "flags": KPF_DIRTY | KPF_WRITEBACK}, "page cache, dirty, being written, 4 KiB"),
        ({"kind": "file", "flags": KPF_MLOCKED}, "page cache, clean, locked in memory, 4 KiB"),
        ({"flags": KPF_DIRTY}, "anonymous, 4 KiB"),  # anonymous memory has no other copy: it is never clean
        ({"order": 9}, "anonymous, 4 KiB of a 2 MiB huge page (THP)"),
        ({"order": 5}, "anonymous, 4 KiB of a 128 KiB folio"),
        ({"kind": "hugetlb", "order": 18}, "hugetlb, 4 KiB of a 1 GiB huge page"),
        ({"kind": "kernel"}, "the kernel's own, 4 KiB"),
    ],
)
def test_the_kind_of_page_is_named(change: dict[str, object], words: str) -> None:
    text = " ".join(" ".join(who(replace(FOUR, **change), origin="reading", limit=None)).split())
    assert f": {words} mappings " in text


def test_names_give_way_where_a_row_would_be_too_wide() -> None:
    long = Mapping(4194303, "a-name-of-15-ch", 0x7F5A176CB000, 0x7F5A176CB000, 0x7F5A176CE000, "rw-p", None, None)
    lines = who(replace(FOUR, mappings=[long, *FOUR.mappings]), origin="reading", limit=None)
    assert max(map(len, lines)) == 80
    assert any(" 4194303  a-name-of-+ " in line for line in lines), "\n".join(lines)
    assert any("  gunicorn " in line for line in lines)


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"mapcount": 3, "own": 1}, "mappings  found 2 of 3: complete; 1 more is rmap's own"),
        ({"mapcount": 6, "own": 2, "status": "hidden"}, "mappings  found 2 of 6: 2 hidden; 2 more are rmap's own"),
        ({"status": "raced", "mapcount": 1}, "mappings  found 2 of 1: raced"),
        ({"status": "approximate", "mapcount": 9}, "mappings  found 2: approximate"),
        ({"status": "unmapped", "mapcount": 0, "found": 0, "mappings": []}, "mappings  none"),
    ],
)
def test_completeness_stands_beside_the_number(change: dict[str, object], line: str) -> None:
    assert who(replace(FOUR, **change), origin="reading", limit=None)[1] == line


def test_a_swap_slot_has_no_frame() -> None:
    answer = Who(None, "swap", None, 0, "unmapped", [], swap=(0, 1234))
    assert who(answer, origin="reading", limit=None)[0] == "page      slot 1,234 of swap area 0: swapped out, no frame"
