"""A page and what stands around it, as an SVG picture: pure data in, one text out.

From left to right: the page; the anon_vmas of its family, children right of and below their parents; the VMAs that the
walk meets, each with lines to the anon_vmas of its chain; the entry in the page table where the page would be. What is
said by colour is also said by words or by the kind of line.
"""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING

from rmap.show.family import entry_text, found_text
from rmap.show.text import plural, whole_size
from rmap.units import PAGE_SIZE, format_count

if TYPE_CHECKING:
    from rmap.snapshot.questions.family import AnonVmaOfPage, FamilyVma, PageFamily

VMAS = 40
"""VMAs that are drawn; the rest is counted."""

_TOP, _GAP = 96, 14
_PAGE_X, _PAGE_W, _PAGE_H = 20, 190, 150
_TREE_X, _INDENT, _ANON_W, _ANON_H = 270, 26, 168, 58
_VMA_W, _VMA_H = 330, 62
_ENTRY_W = 230
_BETWEEN = 110
_DEEPEST = 8  # generations that are indented; further ones stand below each other

_INK, _SOFT, _GREEN, _BLUE, _PAPER = "#1b1f24", "#6b7280", "#157347", "#1d4ed8", "#ffffff"
_STYLE = (
    "text{font-family:ui-sans-serif,'DejaVu Sans',Helvetica,Arial,sans-serif;font-size:12px;fill:#1b1f24}"
    ".m{font-family:ui-monospace,'DejaVu Sans Mono',Menlo,monospace;font-size:11px}"
    ".h{font-size:12px;font-weight:bold;fill:#6b7280}.t{font-size:16px;font-weight:bold}.b{font-weight:bold}"
    ".s{fill:#6b7280}"
)


@dataclass(frozen=True)
class _Box:
    x: float
    y: float
    w: float
    h: float

    @property
    def left(self) -> tuple[float, float]:
        return self.x, self.y + self.h / 2

    @property
    def right(self) -> tuple[float, float]:
        return self.x + self.w, self.y + self.h / 2


def family_svg(drawn: PageFamily, *, title: str, limit: int = VMAS) -> str:
    """One picture, as the text of an SVG file.

    Args:
        drawn: the page, its anon_vmas, its VMAs.
        title: stands above it.
        limit: draw at most so many VMAs.
    """
    drawn = drawn.first(limit)
    vmas = drawn.vmas
    depth = max((min(one.depth, _DEEPEST) for one in drawn.anon_vmas), default=0)
    vma_x = _TREE_X + max(_ANON_W + depth * _INDENT, 200) + _BETWEEN
    entry_x = vma_x + _VMA_W + 50
    width = entry_x + _ENTRY_W + 20
    anon = {
        one.name: _Box(_TREE_X + min(one.depth, _DEEPEST) * _INDENT, _TOP + i * (_ANON_H + _GAP), _ANON_W, _ANON_H)
        for i, one in enumerate(drawn.anon_vmas)
    }
    if not drawn.anon_vmas:
        anon = {"": _Box(_TREE_X, _TOP, 200, _ANON_H)}
    page = _Box(_PAGE_X, _TOP, _PAGE_W, _PAGE_H)
    places = [_Box(vma_x, _TOP + i * (_VMA_H + _GAP), _VMA_W, _VMA_H) for i in range(len(vmas))]
    bottom = max(box.y + box.h for box in (page, *anon.values(), *places)) + 30
    parts = [
        *_heading(drawn, title, vma_x, entry_x),
        *_links(drawn, vmas, anon, places),
        *_page(drawn, page, anon[drawn.anchor]),
        *(part for one in drawn.anon_vmas for part in _anon_vma(one, drawn, anon)),
        *([] if drawn.anon_vmas else _file(drawn, anon[""])),
        *(part for vma, box in zip(vmas, places) for part in _vma(vma, drawn, box, entry_x)),
        *_legend(drawn, bottom),
    ]
    height = bottom + 100
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:g}" height="{height:g}" '
        f'viewBox="0 0 {width:g} {height:g}" role="img">'
    )
    arrow = (
        '<defs><marker id="arrow" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="7" markerHeight="7" '
        f'orient="auto-start-reverse"><path d="M0 0L10 5L0 10z" fill="{_INK}"/></marker></defs>'
    )
    paper = f'<rect width="100%" height="100%" fill="{_PAPER}"/>'
    name = f"<title>{_safe(title)}</title>"
    return "\n".join([head, name, f"<style>{_STYLE}</style>", arrow, paper, *parts, "</svg>", ""])


def _safe(text: str) -> str:
    # What a process calls itself may hold anything; an SVG file may not.
    return escape("".join(letter if letter.isprintable() else "?" for letter in text))


def _text(x: float, y: float, text: str, kind: str = "", room: int = 0) -> str:
    if room and len(text) > room:
        text = text[: room - 1] + "…"
    return f'<text x="{x:g}" y="{y:g}" class="{kind}">{_safe(text)}</text>'


def _rect(box: _Box, stroke: str, *, fill: str = _PAPER, width: float = 1.2, dashed: bool = False) -> str:
    dash = ' stroke-dasharray="5 4"' if dashed else ""
    return (
        f'<rect x="{box.x:g}" y="{box.y:g}" width="{box.w:g}" height="{box.h:g}" rx="6" fill="{fill}" '
        f'stroke="{stroke}" stroke-width="{width:g}"{dash}/>'
    )


def _heading(drawn: PageFamily, title: str, vma_x: float, entry_x: float) -> list[str]:
    tree = "ANON_VMAS OF THE FAMILY" if drawn.anon_vmas else "FILE"
    return [
        _text(_PAGE_X, 32, f"Who maps this page?   {title}", "t"),
        _text(_PAGE_X, 54, f"The walk finds {found_text(drawn)}.", "s"),
        _text(_PAGE_X, _TOP - 14, "PAGE", "h"),
        _text(_TREE_X, _TOP - 14, tree, "h"),
        _text(vma_x, _TOP - 14, "VMAS THAT HAVE ITS INDEX", "h"),
        _text(entry_x, _TOP - 14, "ENTRY AT ITS ADDRESS", "h"),
    ]


def _page(drawn: PageFamily, box: _Box, anchor: _Box) -> list[str]:
    size = whole_size(PAGE_SIZE) + (f" of {whole_size(PAGE_SIZE << drawn.order)}" if drawn.order else "")
    exclusive = {None: "", True: "exclusive", False: "not exclusive"}[drawn.exclusive]
    rows = [
        (f"pfn {drawn.pfn:#x}", "m b"),
        (f"{drawn.kind}, {size}", ""),
        (f"index {drawn.index:#x}", "m"),
        (f"mapping: {drawn.anchor or 'its file'}", ""),
        (f"mapcount {format_count(drawn.mapcount)}", ""),
        (exclusive, ""),
        ("raced: it changed meanwhile" if drawn.raced else "", ""),
    ]
    parts = [_rect(box, _INK, fill="#fff7e0", width=2)]
    parts += [_text(box.x + 12, box.y + 22 + 20 * i, text, kind, 26) for i, (text, kind) in enumerate(rows) if text]
    (x1, _), (x2, y2) = box.right, anchor.left
    y1 = box.y + 78
    middle = (x1 + x2) / 2
    path = f"M{x1:g} {y1:g}C{middle:g} {y1:g} {middle:g} {y2:g} {x2 - 2:g} {y2:g}"
    return [
        *parts,
        f'<path d="{path}" fill="none" stroke="{_INK}" stroke-width="2" marker-end="url(#arrow)"/>',
    ]


def _anon_vma(one: AnonVmaOfPage, drawn: PageFamily, anon: dict[str, _Box]) -> list[str]:
    box = anon[one.name]
    here = one.name == drawn.anchor
    role = "root" if not one.parent else f"parent {one.parent}"
    parts = []
    if one.parent:
        above = anon[one.parent]
        x = min(above.x + 12, box.x - 6)
        parts.append(f'<path d="M{x:g} {above.y + above.h:g}V{box.left[1]:g}H{box.x:g}" fill="none" stroke="{_INK}"/>')
    counters = f"active {one.num_active_vmas:,}  children {one.num_children:,}  refs {one.refcount:,}"
    return [
        *parts,
        _rect(box, _INK, fill="#fff7e0" if here else "#f3f6fb", width=2.4 if here else 1.2),
        _text(box.x + 10, box.y + 22, one.name, "b"),
        _text(box.x + 42, box.y + 22, role, "s", 19),
        _text(box.x + 10, box.y + 43, counters, "", 30).replace("class", 'style="font-size:10px" class'),
    ]


def _file(drawn: PageFamily, box: _Box) -> list[str]:
    return [
        _rect(box, _INK, fill="#f3f6fb", width=2),
        _text(box.x + 10, box.y + 22, "address_space, i_mmap", "b"),
        _text(box.x + 10, box.y + 43, (drawn.file or "(unknown)")[-27:], "m"),
    ]


def _links(drawn: PageFamily, vmas: tuple[FamilyVma, ...], anon: dict[str, _Box], places: list[_Box]) -> list[str]:
    # From each VMA to every anon_vma of its chain; to the active one a thick line.
    parts = []
    for vma, box in zip(vmas, places):
        chain = vma.chain if drawn.anon_vmas else ("",)
        for name in dict.fromkeys(chain):
            if name not in anon:
                continue
            (x1, y1), (x2, y2) = anon[name].right, box.left
            active = bool(name) and name == vma.active
            line = f'stroke="{_BLUE}" stroke-width="2.2"' if active else f'stroke="{_SOFT}" stroke-width="0.9"'
            bend = (x2 - x1) / 2
            path = f"M{x1:g} {y1:g}C{x1 + bend:g} {y1:g} {x2 - bend:g} {y2:g} {x2:g} {y2:g}"
            parts.append(f'<path d="{path}" fill="none" {line}/>')
    return parts


def _vma(vma: FamilyVma, drawn: PageFamily, box: _Box, entry_x: float) -> list[str]:
    hit = vma.entry == "hit"
    entry = _Box(entry_x, box.y, _ENTRY_W, box.h)
    color = _GREEN if hit else _SOFT
    chain = "chain " + " ".join(f"[{name}]" if name == vma.active else name for name in vma.chain) if vma.chain else ""
    (x1, y1), (x2, _) = box.right, entry.left
    dash = "" if hit else ' stroke-dasharray="5 4"'
    return [
        _rect(box, _INK, fill="#f3f6fb"),
        _text(box.x + 10, box.y + 18, f"{vma.name}  {vma.pid} {vma.comm}", "b", 36),
        _text(box.x + box.w - 42, box.y + 18, vma.perms, "m"),
        _text(box.x + 10, box.y + 36, f"{vma.start:x}-{vma.end:x} pgoff {vma.pgoff:#x}", "m", 46),
        _text(box.x + 10, box.y + 53, chain, "s", 50),
        f'<path d="M{x1:g} {y1:g}H{x2:g}" stroke="{color}" stroke-width="2"{dash} fill="none"/>',
        _rect(entry, color, fill="#e8f5ec" if hit else _PAPER, width=2 if hit else 1.2, dashed=not hit),
        _text(entry.x + 10, entry.y + 18, f"{vma.address:#x}", "m b"),
        _text(entry.x + 10, entry.y + 36, f"= start + {format_count(drawn.index - vma.pgoff)} pages", "s", 36),
        _text(entry.x + 10, entry.y + 53, entry_text(vma), "b" if hit else "", 36),
    ]


def _legend(drawn: PageFamily, y: float) -> list[str]:
    parts = []
    if drawn.anon_vmas:
        parts += [
            f'<path d="M{_PAGE_X} {y - 4:g}h30" stroke="{_BLUE}" stroke-width="2.2"/>',
            _text(_PAGE_X + 38, y, "the VMA's active anon_vma: new pages hang on it; [A0] in its chain"),
            f'<path d="M{_PAGE_X} {y + 16:g}h30" stroke="{_SOFT}" stroke-width="0.9"/>',
            _text(_PAGE_X + 38, y + 20, "another link of its chain: the VMA is in that anon_vma's tree too"),
        ]
    else:
        parts += [
            f'<path d="M{_PAGE_X} {y - 4:g}h30" stroke="{_SOFT}" stroke-width="0.9"/>',
            _text(_PAGE_X + 38, y, "the VMA is in the file's i_mmap"),
        ]
    sum_ = "address = start + (index - pgoff) pages, in every VMA; a hit: the entry there holds the page's pfn"
    left = []
    if len(drawn.vmas) < drawn.met:
        left.append(f"{plural(drawn.met - len(drawn.vmas), 'VMA')} with this index")
    if drawn.others:
        left.append(f"{plural(drawn.others, 'anon_vma')} in the chain of none of these VMAs")
    parts.append(_text(_PAGE_X, y + 44, sum_))
    if left:
        parts.append(_text(_PAGE_X, y + 64, f"Not drawn: {'; '.join(left)}", "s"))
    return parts
