"""``rmap who`` as text: the page, how complete, the rows, how found."""

from __future__ import annotations

from dataclasses import replace

import pytest

from rmap.show.who import who
from rmap.snapshot import Mapping, Who


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
    )
    lines = who(answer, origin="reading", limit=None)
    assert lines[:3] == [
        "page      pfn 0x2f8443, phys 0x2f8443000: page cache, 4 KiB of a 64 KiB folio",
        "file      /usr/lib/libc.so.6, offset 0x28000 (page 40)",
        "mappings  found 2 of 1,203: 1,201 hidden",
    ]
    assert lines[-2] == "hidden    1,201 of its mappings are in processes that were not recorded"


@pytest.mark.parametrize(
    ("change", "line"),
    [
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
