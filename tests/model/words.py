"""The words of the named tests: places, layouts, chains, anchors. Anon_vmas are A0, A1, ... in order of birth."""

from __future__ import annotations

from typing import NamedTuple

from rmap import Kernel, Process
from rmap.mm.mm_types import Vma

PAGE = 4096
BASE = 0x100000000000


def at(page: int) -> int:
    """The address of a page of the story."""
    return BASE + page * PAGE


def mapped(process: Process, first: int, end: int, prot: str = "rw", flags: str = "private", **how: object) -> int:
    """Map the pages ``first`` to ``end``, exclusive, at exactly that place."""
    return process.mmap((end - first) * PAGE, prot, flags, addr=at(first), **how)  # type: ignore[arg-type]


def written(process: Process, first: int, end: int, prot: str = "rw", flags: str = "private", **how: object) -> int:
    """Map pages and write all of them."""
    address = mapped(process, first, end, prot, flags, **how)
    process.write(address, (end - first) * PAGE)
    return address


def write(process: Process, first: int, end: int | None = None) -> None:
    """Write the pages ``first`` to ``end``, or the one."""
    process.write(at(first), ((end or first + 1) - first) * PAGE)


def read(process: Process, first: int, end: int | None = None) -> None:
    """Read the pages ``first`` to ``end``, or the one."""
    process.read(at(first), ((end or first + 1) - first) * PAGE)


def layout(process: Process) -> str:
    """The areas as text, in pages of the story: ``"0-2 rw-p, 2-3 r--p"``."""
    return ", ".join(
        f"{(area.start - BASE) // PAGE}-{(area.end - BASE) // PAGE} {area.prot}" for area in process.maps()
    )  # fmt: skip


def area(process: Process, page: int) -> Vma:
    """The VMA of a page."""
    vma = process.vma(at(page))
    assert vma is not None, f"page {page} is not mapped: {layout(process)}"
    return vma


def chain(process: Process, page: int) -> str:
    """The chain of a page's VMA, newest first, with the active anon_vma in brackets: ``"[A1] A0"``; ``"none"``."""
    vma = area(process, page)
    return (
        " ".join(
            f"[{link.anon_vma.name}]" if link.anon_vma is vma.anon else link.anon_vma.name for link in vma.chain or ()
        )
        or "none"
    )


class Counters(NamedTuple):
    """The counters of an anon_vma."""

    num_children: int
    num_active_vmas: int
    refcount: int


def counters(kernel: Kernel, name: str) -> Counters | None:
    """The counters of a living anon_vma by its name, None if it is dead."""
    for anon_vma in kernel.design.anon_vmas.values():  # type: ignore[attr-defined]
        if anon_vma.name == name:
            return Counters(anon_vma.num_children, anon_vma.num_active_vmas, anon_vma.refcount)
    return None


def living(kernel: Kernel) -> list[str]:
    """The names of the living anon_vmas, in order of birth."""
    return [anon_vma.name for _, anon_vma in sorted(kernel.design.anon_vmas.items())]  # type: ignore[attr-defined]


def anchor(kernel: Kernel, process: Process, page: int) -> tuple[str, int]:
    """Where the page at this place hangs: name of the anon_vma, page index."""
    pfn = kernel.pfn(process, at(page))
    assert pfn is not None, f"page {page} is not present"
    mapping, index = kernel.core.frames.anchor1(pfn)
    assert mapping & 3 == 1, f"page {page} is not anonymous"
    return f"A{mapping >> 2}", index


def mapcount(kernel: Kernel, process: Process, page: int) -> int:
    """How often the page at this place is mapped."""
    pfn = kernel.pfn(process, at(page))
    return 0 if pfn is None else int(kernel.core.frames.mapcount[pfn])


def looked_at(kernel: Kernel, process: Process, page: int) -> tuple[int, int]:
    """Walk the page at this place: how many entries were looked at, and how many of them in vain."""
    pfn = kernel.pfn(process, at(page))
    assert pfn
    before = kernel.costs["walk"]
    assert kernel.walk(pfn) == kernel.oracle(pfn)
    after = kernel.costs["walk"]
    return (
        after["ptes_checked"] - before["ptes_checked"],
        after["ptes_in_vain"] - before["ptes_in_vain"],
    )
