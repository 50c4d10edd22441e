"""A page and what stands around it: as text, exactly; as SVG, well formed, whole, and nothing outside the paper."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from dataclasses import replace
from itertools import pairwise

from rmap.show.family import branches, family
from rmap.show.family_svg import family_svg
from rmap.snapshot.questions.family import AnonVmaOfPage, FamilyVma, PageFamily
from tests.support import PAGE

SVG = "{http://www.w3.org/2000/svg}"


def vma(
    number: int, active: str, chain: tuple[str, ...], *, first: int = 0, entry: str = "hit", pfn: int = 0
) -> FamilyVma:
    start = 0x7F5A176CA000 + first * PAGE
    address = 0x7F5A176CB000
    place = (start, 0x7F5A176CF000, start >> 12, "rw-p")
    return FamilyVma(f"V{number}", 4710 + number, "gunicorn", *place, active, chain, address, entry, pfn)


DRAWN = PageFamily(
    pfn=0x2F8443,
    kind="anon",
    index=0x7F5A176CB,
    mapcount=2,
    order=0,
    exclusive=False,
    raced=False,
    anchor="A0",
    file="",
    anon_vmas=(
        AnonVmaOfPage("A0", "", 0, 4, 3, 1, -1),
        AnonVmaOfPage("A1", "A0", 1, 1, 1, 1, -1),
        AnonVmaOfPage("A2", "A1", 2, 1, 0, 1, -1),
        AnonVmaOfPage("A3", "A0", 1, 1, 0, 0, -1),
    ),
    others=1,
    vmas=(
        vma(1, "A0", ("A0",)),
        vma(2, "A1", ("A2", "A1", "A0"), first=1),
        vma(3, "A2", ("A2", "A1", "A0"), entry="another page", pfn=0x1234),
    ),
    met=3,
    hits=2,
    passed=1,
)
TEXT = """\
page      pfn 0x2f8443: anonymous, 4 KiB
index     0x7f5a176cb: set when the page became anonymous; splits and moves
          leave it
mapping   A0: the anon_vma that the page hangs on
mapcount  2, not exclusive: whoever writes looks first whether it must copy

anon_vmas of the family           VMAs active  children  references
A0                                          1         3           4  <- the page
├─ A1                                       1         1           1
│  └─ A2                                    1         0           1
└─ A3                                       0         0           1
(1 more anon_vma: in the chain of none of these VMAs)

The walk from A0 meets 3 VMAs with this index:
V1  4711 gunicorn  7f5a176ca000-7f5a176cf000 rw-p
    chain [A0]
    0x7f5a176ca000 + (0x7f5a176cb - 0x7f5a176ca) pages
      = 0x7f5a176cb000: HIT, page 1 of the VMA
V2  4712 gunicorn  7f5a176cb000-7f5a176cf000 rw-p
    chain A2 -> [A1] -> A0
    0x7f5a176cb000 + (0x7f5a176cb - 0x7f5a176cb) pages
      = 0x7f5a176cb000: HIT, page 0 of the VMA
V3  4713 gunicorn  7f5a176ca000-7f5a176cf000 rw-p
    chain [A2] -> A1 -> A0
    0x7f5a176ca000 + (0x7f5a176cb - 0x7f5a176ca) pages
      = 0x7f5a176cb000: another page (pfn 0x1234)

found     2 entries of 2 that the kernel counts; 1 VMA looked at in vain; 1 more
          in the same tree, passed by: without this index
found by  reading
"""
FILE = replace(
    DRAWN,
    kind="file",
    index=40,
    exclusive=None,
    order=4,
    anchor="",
    file="/usr/lib/libc.so.6",
    anon_vmas=(),
    others=0,
    vmas=(replace(DRAWN.vmas[0], active="", chain=(), pgoff=39),),
    met=1,
    hits=1,
    mapcount=1,
    passed=0,
)
FILE_TEXT = """\
page      pfn 0x2f8443: page cache, 4 KiB of a 64 KiB folio
index     0x28: page 40 of the file
mapping   the file /usr/lib/libc.so.6
mapcount  1

The walk from its file meets 1 VMA with this index:
V1  4711 gunicorn  7f5a176ca000-7f5a176cf000 rw-p
    0x7f5a176ca000 + (0x28 - 0x27) pages
      = 0x7f5a176cb000: HIT, page 1 of the VMA

found     1 entry of 1 that the kernel counts
found by  reading
"""


def test_an_anonymous_page() -> None:
    assert "\n".join(family(DRAWN, origin="reading", limit=None)) + "\n" == TEXT


def test_a_page_of_a_file() -> None:
    assert "\n".join(family(FILE, origin="reading", limit=None)) + "\n" == FILE_TEXT


def test_vmas_left_out_are_counted_with_their_anon_vmas() -> None:
    lines = family(DRAWN, origin="reading", limit=1)
    assert "    ... 2 more (--all)" in lines
    assert "(4 more anon_vmas: in the chain of none of these VMAs)" in lines
    assert "The walk from A0 meets 3 VMAs with this index:" in lines


def test_no_line_is_too_long() -> None:
    deep = tuple(AnonVmaOfPage(f"A{i}", f"A{i - 1}" if i else "", i, 1, 1, 1, -1) for i in range(60))
    chain = tuple(f"A{i}" for i in reversed(range(60)))
    old = replace(
        DRAWN, anon_vmas=deep, vmas=(replace(DRAWN.vmas[0], chain=chain, active="A59", comm="c" * 60),), raced=True
    )
    lines = family(old, origin="reading", limit=None)
    assert max(map(len, lines)) <= 80
    text = " ".join(" ".join(lines).split())
    assert "chain [A59] -> A58" in text and "-> ... -> A0" in text


def test_branches_of_a_tree() -> None:
    assert branches(DRAWN.anon_vmas) == ["", "├─ ", "│  └─ ", "└─ "]


def parsed(drawn: PageFamily, **options: int) -> ET.Element:
    return ET.fromstring(family_svg(drawn, title="4711:0x7f5a176cb000", **options))


def words(root: ET.Element) -> str:
    return "\n".join(text.text or "" for text in root.iter(f"{SVG}text"))


def test_the_picture_has_every_part() -> None:
    root = parsed(DRAWN)
    text = words(root)
    for part in ("pfn 0x2f8443", "mapping: A0", "not exclusive", "V1  4711 gunicorn", "chain A2 [A1] A0", "parent A1"):
        assert part in text
    assert text.count("HIT, page") == 2
    assert "another page (pfn 0x1234)" in text
    assert "Not drawn: 1 anon_vma in the chain of none of these VMAs" in text
    curves = [path for path in root.iter(f"{SVG}path") if "C" in path.get("d", "")]
    assert len(curves) == 7 + 1, "a line for each link of each chain, and one from the page"
    dashed = [path for path in root.iter(f"{SVG}path") if path.get("stroke-dasharray")]
    assert len(dashed) == 1, "the entry looked at in vain"


def test_the_picture_of_a_file() -> None:
    text = words(parsed(FILE))
    assert "mapping: its file" in text and "/usr/lib/libc.so.6" in text and "file, 4 KiB of 64 KiB" in text


def test_nothing_stands_outside_the_paper() -> None:
    deep = tuple(AnonVmaOfPage(f"A{i}", f"A{i - 1}" if i else "", i, 1, 1, 1, -1) for i in range(30))
    many = tuple(replace(DRAWN.vmas[0], name=f"V{i}", comm="w" * 15) for i in range(90))
    for drawn in (DRAWN, FILE, replace(DRAWN, anon_vmas=deep, raced=True), replace(DRAWN, vmas=many, met=90)):
        root = parsed(drawn)
        width, height = float(root.get("width", "")), float(root.get("height", ""))
        for rect in list(root.iter(f"{SVG}rect"))[1:]:
            x, y, w, h = (float(rect.get(name, "")) for name in ("x", "y", "width", "height"))
            assert min(x, y) >= 0 and x + w <= width and y + h <= height
        for text in root.iter(f"{SVG}text"):
            assert 0 <= float(text.get("x", "")) < width and 0 <= float(text.get("y", "")) <= height


def test_boxes_of_one_column_do_not_overlap() -> None:
    boxes: dict[str, list[tuple[float, float]]] = {}
    for rect in list(parsed(DRAWN).iter(f"{SVG}rect"))[1:]:
        kind = rect.get("width", "")
        boxes.setdefault(kind, []).append((float(rect.get("y", "")), float(rect.get("height", ""))))
    for column in boxes.values():
        column.sort()
        assert all(y + h <= below for (y, h), (below, _) in pairwise(column))


def test_a_process_may_call_itself_anything() -> None:
    evil = replace(DRAWN, vmas=(replace(DRAWN.vmas[0], comm='</text><script>&"\x1b[31m'),))
    made = family_svg(evil, title="<b>")
    ET.fromstring(made)
    assert "<script>" not in made and "\x1b" not in made
    assert re.search(r"<title>&lt;b&gt;</title>", made)


def test_vmas_not_drawn_are_counted() -> None:
    many = replace(DRAWN, vmas=tuple(replace(DRAWN.vmas[0], name=f"V{i}") for i in range(50)), met=50)
    assert "Not drawn: 10 VMAs with this index" in words(parsed(many))
    assert "Not drawn: 47 VMAs" in words(parsed(many, limit=3))
