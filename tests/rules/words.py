"""The words in which stories are told: places, layouts, who shares what, chains, anchors.

A ``machine`` is a model kernel (``rmap.Kernel``, ``rmap.lab.conform.Model``), or a model beside real processes
(``Pair``); a ``process`` is one of its processes. The stories do not know which. What is said of anon_vmas, counters
and anchors is said of the model's; a pair has compared those with the running kernel's after every step. Anon_vmas are
A0, A1, ... in order of birth.
"""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest

from rmap import Kernel, Process
from rmap.lab.conform import at, pages
from rmap.lab.conform.pair import MARKS, SHARED_MEMORY
from rmap.lab.conform.scenario import BASE
from rmap.mm.frames import EXCLUSIVE
from rmap.mm.mm_types import Vma
from rmap.mm.page_tables import ptep_of
from tests.support import PAGE

__all__ = [
    *("PAGE", "Counters", "anchor", "area", "at", "chain", "chain_at", "counters", "entry", "exclusive", "kernel_of"),
    *("layout", "living", "looked_at", "mapcount", "mapped", "model_of", "pages", "present", "read", "reclaim"),
    *("refused", "shared", "write", "written"),
]


# -- what a story does


def mapped(process: Any, first: int, end: int, prot: str = "rw", flags: str = "private", **how: Any) -> int:
    """Map the pages ``first`` to ``end``, exclusive, at exactly that place. Returns the address."""
    address: int = process.mmap(pages(end - first), prot, flags, addr=at(first), noreplace=True, **how)
    return address


def written(process: Any, first: int, end: int, prot: str = "rw", flags: str = "private", **how: Any) -> int:
    """Map pages and write all of them. Returns the address."""
    address = mapped(process, first, end, prot, flags, **how)
    process.write(address, pages(end - first))
    return address


def write(process: Any, first: int, end: int | None = None) -> None:
    """Write the pages ``first`` to ``end``, exclusive, or the one."""
    process.write(at(first), pages((end or first + 1) - first))


def read(process: Any, first: int, end: int | None = None) -> None:
    """Read the pages ``first`` to ``end``, exclusive, or the one."""
    process.read(at(first), pages((end or first + 1) - first))


@contextlib.contextmanager
def refused(error: int) -> Iterator[None]:
    """The call inside must fail with this errno."""
    with pytest.raises(OSError) as caught:
        yield
    got = caught.value.errno or 0
    assert got == error, f"expected {errno.errorcode[error]}, got {errno.errorcode.get(got, got)}: {caught.value}"


# -- what can be seen from outside


def layout(process: Any) -> str:
    """The areas of a process as text, in pages of the story: ``"10-12 rw-p, 12-13 r--p lib+3"``.

    Flags of smaps follow, except those of memory accounting.
    """
    words = []
    for row in model_of(process).maps():
        text = f"{(row.start - BASE) // PAGE}-{(row.end - BASE) // PAGE} {row.prot}"
        if row.file:
            text += f" {SHARED_MEMORY if row.file.endswith('(deleted)') else row.file}+{row.pgoff}"
        marks = {word for word, bit in MARKS.items() if row.flags & bit} - {"ac", "nr"}
        words.append(" ".join([text, *sorted(marks)]))
    return ", ".join(words)


def shared(machine: Any, *places: tuple[Any, int]) -> bool:
    """Whether exactly these ``(process, page)`` places map one page: no other place, and not the zero page."""
    kernel = kernel_of(machine)
    frames = {machine.pfn(process, at(page)) for process, page in places}
    frame = frames.pop()
    if frames or frame is None or frame == kernel.zero_pfn:
        return False
    return bool(kernel.core.frames.mapcount[frame] == len(places))


def present(machine: Any, process: Any, first: int, end: int) -> str:
    """Which pages are in memory: ``"x"`` for each that is, ``"0"`` for the zero page, ``"."`` where there is none."""

    def letter(page: int) -> str:
        frame = machine.pfn(process, at(page))
        return "." if frame is None else "0" if frame == kernel_of(machine).zero_pfn else "x"

    return "".join(map(letter, range(first, end)))


def mapcount(machine: Any, process: Any, page: int) -> int:
    """How often the page at this place is mapped."""
    pfn = machine.pfn(process, at(page))
    return 0 if pfn is None else int(kernel_of(machine).core.frames.mapcount[pfn])


# -- what only the model's own structures tell


def model_of(process: Any) -> Process:
    """The model's side of a process."""
    model: Process = getattr(process, "model", process)
    return model


def kernel_of(machine: Any) -> Kernel:
    """The model kernel of a machine."""
    if isinstance(machine, Kernel):
        return machine
    kernel: Kernel = getattr(machine, "model", machine).kernel
    return kernel


def area(process: Any, page: int) -> Vma:
    """The VMA of a page."""
    vma = model_of(process).vma(at(page))
    assert vma is not None, f"page {page} is not mapped: {layout(process)}"
    return vma


def chain(process: Any, page: int) -> str:
    """The chain of a page's VMA, newest first, with the active anon_vma in brackets: ``"[A1] A0"``; ``"none"``."""
    return chain_at(process, at(page))


def chain_at(process: Any, address: int) -> str:
    """The chain of the VMA at an address."""
    vma = model_of(process).vma(address)
    assert vma is not None, f"{address:#x} is not mapped: {layout(process)}"
    names = (f"[{link.anon_vma.name}]" if link.anon_vma is vma.anon else link.anon_vma.name for link in vma.chain or ())
    return " ".join(names) or "none"


class Counters(NamedTuple):
    """The counters of an anon_vma."""

    num_children: int
    num_active_vmas: int
    refcount: int


def counters(machine: Any, name: str) -> Counters | None:
    """The counters of a living anon_vma by its name, None if it is dead."""
    for anon_vma in kernel_of(machine).design.anon_vmas.values():  # type: ignore[attr-defined]
        if anon_vma.name == name:
            return Counters(anon_vma.num_children, anon_vma.num_active_vmas, anon_vma.refcount)
    return None


def living(machine: Any) -> list[str]:
    """The names of the living anon_vmas, in order of birth."""
    anon_vmas = kernel_of(machine).design.anon_vmas  # type: ignore[attr-defined]
    return [anon_vma.name for _, anon_vma in sorted(anon_vmas.items())]


def anchor(machine: Any, process: Any, page: int) -> tuple[str, int]:
    """Where the page at this place hangs: name of the anon_vma, page index."""
    pfn = machine.pfn(process, at(page))
    assert pfn is not None, f"page {page} is not present"
    mapping, index = kernel_of(machine).core.frames.anchor1(pfn)
    assert mapping & 3 == 1, f"page {page} is not anonymous"
    return f"A{mapping >> 2}", index


def exclusive(machine: Any, process: Any, page: int) -> bool:
    """Whether the page at this place is exclusive."""
    return bool(kernel_of(machine).core.frames.flags[machine.pfn(process, at(page)) or 0] & EXCLUSIVE)


def entry(process: Any, page: int) -> int:
    """The page-table entry of this place."""
    model = model_of(process)
    return int(model._core.tables.ptes[ptep_of(model.mm, at(page))])


def reclaim(kernel: Kernel, process: Process, page: int) -> int:
    """Evict the page at this place; how many pages went. Only the model can be told to."""
    return kernel.reclaim([kernel.pfn(process, at(page)) or 0])


def looked_at(machine: Any, process: Any, page: int) -> tuple[int, int]:
    """Walk the page at this place: how many entries were looked at, and how many of them in vain."""
    kernel = kernel_of(machine)
    pfn = machine.pfn(process, at(page))
    assert pfn
    before = kernel.costs["walk"]
    assert kernel.walk(pfn) == kernel.oracle(pfn)
    after = kernel.costs["walk"]
    return after["ptes_checked"] - before["ptes_checked"], after["ptes_in_vain"] - before["ptes_in_vain"]
