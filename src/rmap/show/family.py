"""A page and what stands around it, in characters: the anon_vmas as a tree, each VMA with the sum that finds it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rmap.show.text import WIDTH, hex_address, labelled, more, plural, whole_size, wrap
from rmap.snapshot.kinds import KINDS
from rmap.units import PAGE_SHIFT, PAGE_SIZE, format_count

if TYPE_CHECKING:
    from rmap.snapshot.questions.family import AnonVmaOfPage, FamilyVma, PageFamily

_TREE_WIDTH = 34
_NAMED = 12


def family(drawn: PageFamily, *, origin: str, limit: int | None) -> list[str]:
    """The lines of ``rmap explain PID:ADDR``.

    Args:
        drawn: the page, its anon_vmas, its VMAs.
        origin: how it was found, in words.
        limit: show at most so many VMAs, None for all.
    """
    drawn = drawn.first(limit)
    lines = page_lines(drawn)
    if drawn.anon_vmas:
        lines += ["", *_tree(drawn)]
    where = drawn.anchor or "its file"
    lines += ["", *wrap(f"The walk from {where} meets {plural(drawn.met, 'VMA')} with this index:")]
    for vma in drawn.vmas:
        lines += _vma(vma, drawn.index)
    if len(drawn.vmas) < drawn.met:
        lines.append("    " + more(drawn.met - len(drawn.vmas), "--all"))
    lines += ["", *labelled("found", found_text(drawn))]
    return lines + labelled("found by", origin)


def page_lines(drawn: PageFamily) -> list[str]:
    """What the page is, and where it hangs."""
    size = whole_size(PAGE_SIZE)
    if drawn.order:
        size += f" of a {whole_size(PAGE_SIZE << drawn.order)} folio"
    lines = labelled("page", f"pfn {hex_address(drawn.pfn)}: {_kind(drawn)}, {size}")
    lines += labelled("index", f"{hex_address(drawn.index)}: {_index_means(drawn)}")
    if drawn.anchor:
        lines += labelled("mapping", f"{drawn.anchor}: the anon_vma that the page hangs on")
    else:
        lines += labelled("mapping", f"the file {drawn.file or '(unknown)'}")
    lines += labelled("mapcount", f"{format_count(drawn.mapcount)}{_exclusive(drawn)}")
    if drawn.raced:
        lines += labelled("raced", "the page changed while the picture was taken: numbers may not fit together")
    return lines


def _kind(drawn: PageFamily) -> str:
    kind = KINDS.named(drawn.kind)
    return kind.words if kind is not None else drawn.kind


def _index_means(drawn: PageFamily) -> str:
    if not drawn.anchor:
        return f"page {format_count(drawn.index)} of the file"
    return "set when the page became anonymous; splits and moves leave it"


def _exclusive(drawn: PageFamily) -> str:
    if drawn.exclusive is None:
        return ""
    if drawn.exclusive:
        return ", exclusive: a write goes straight to it"
    return ", not exclusive: whoever writes looks first whether it must copy"


def found_text(drawn: PageFamily) -> str:
    """How many entries the walk finds, of how many the kernel counts."""
    text = f"{plural(drawn.hits, 'entry', 'entries')} of {format_count(drawn.mapcount)} that the kernel counts"
    vain = drawn.met - drawn.hits
    if vain:
        text += f"; {plural(vain, 'VMA')} looked at in vain"
    if drawn.passed:
        text += f"; {format_count(drawn.passed)} more in the same tree, passed by: without this index"
    return text


def _tree(drawn: PageFamily) -> list[str]:
    header = f"{'anon_vmas of the family':<{_TREE_WIDTH}}{'VMAs active':>11}{'children':>10}{'references':>12}"
    lines = [header]
    for anon_vma, branch in zip(drawn.anon_vmas, branches(drawn.anon_vmas)):
        mark = "  <- the page" if anon_vma.name == drawn.anchor else ""
        counters = f"{anon_vma.num_active_vmas:>11,}{anon_vma.num_children:>10,}{anon_vma.refcount:>12,}"
        lines.append(f"{branch + anon_vma.name:<{_TREE_WIDTH}}{counters}{mark}"[:WIDTH].rstrip())
    if drawn.others:
        lines.append(f"({plural(drawn.others, 'more anon_vma', 'more anon_vmas')}: in the chain of none of these VMAs)")
    return lines


def branches(anon_vmas: Sequence[AnonVmaOfPage]) -> list[str]:
    """The lines that lead to each anon_vma of a tree, a parent standing before its children."""
    children: dict[str, list[str]] = {}
    for one in anon_vmas:
        children.setdefault(one.parent, []).append(one.name)
    stems: dict[str, str] = {}
    drawn = []
    for one in anon_vmas:
        if not one.parent:
            stems[one.name] = ""
            drawn.append("")
            continue
        last = children[one.parent][-1] == one.name
        stem = stems[one.parent]
        stems[one.name] = stem + ("   " if last else "│  ")
        drawn.append(stem + ("└─ " if last else "├─ "))
    # A line that is as old as the hills leaves no room for itself: only its end is drawn.
    room = _TREE_WIDTH - 8
    return [branch if len(branch) <= room else "..." + branch[len(branch) - room + 3 :] for branch in drawn]


def _vma(vma: FamilyVma, index: int) -> list[str]:
    head = f"{vma.name:<4}{vma.pid} {vma.comm}  {vma.start:x}-{vma.end:x} {vma.perms}"
    lines = [head if len(head) <= WIDTH else head[: WIDTH - 3] + "..."]
    if vma.chain:
        shown = vma.chain if len(vma.chain) <= _NAMED else (*vma.chain[: _NAMED - 1], "...", vma.chain[-1])
        names = " -> ".join(f"[{name}]" if name == vma.active else name for name in shown)
        lines += wrap(f"chain {names}", "    ", "          ")
    sum_ = f"{hex_address(vma.start)} + ({hex_address(index)} - {hex_address(vma.pgoff)}) pages"
    return [*lines, f"    {sum_}", f"      = {hex_address(vma.address)}: {entry_text(vma)}"]


def entry_text(vma: FamilyVma) -> str:
    """What the page table holds at the page's address."""
    if vma.entry == "hit":
        offset = (vma.address - vma.start) >> PAGE_SHIFT
        return f"HIT, page {format_count(offset)} of the VMA"
    if vma.entry == "another page":
        return f"another page (pfn {hex_address(vma.pfn)})"
    return vma.entry
