"""A few stories that between them notice every bug of ``mutants.py``.

Each is played step by step. After each step all is checked that can be: invariants, the walk of every page against
the page tables, and what the story expects of anchors, visits, layouts and contents.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from rmap import Kernel, Process, RmapError
from rmap.mm.oracle import transpose
from tests.rules.words import PAGE, anchor, at, chain, layout, looked_at, mapcount, mapped, read, write, written


class Noticed(AssertionError):
    """Something is not as it must be."""


class Judge:
    """Looks at a machine.

    Args:
        design: of the machine.
        only_oracle: look at nothing but whether the walk agrees with the page tables.
    """

    def __init__(self, design: str, *, only_oracle: bool = False) -> None:
        self.k = Kernel(design, nr_pages=1024, nr_swap=256, nr_tables=64)
        self.anon_vma = design == "anon_vma_chain"
        self._only_oracle = only_oracle

    def look(self) -> None:
        """Check what can be checked of any state."""
        if not self._only_oracle:
            self.k.check()
        wanted = {pfn: self.k.oracle(pfn) for pfn in set(transpose(self.k.core.tables)[0].tolist())}
        found: dict[int, list[Any]] = {pfn: [] for pfn in wanted}
        columns = self.k.walk_many(np.array(list(wanted), np.int64))
        for pfn, pid, address in zip(*(column.tolist() for column in columns)):
            found[pfn].append((pid, address))
        for pfn, places in wanted.items():
            if self.k.walk(pfn) != places or sorted(found[pfn]) != places:
                raise Noticed(f"frame {pfn:#x} is mapped by {places}; walks found {self.k.walk(pfn)}, {found[pfn]}")

    def expect(self, what: str, found: Any, wanted: Any) -> None:
        """Compare something with what the story says."""
        if not self._only_oracle and found != wanted:
            raise Noticed(f"{what}: {found}, expected {wanted}")

    def expect_anchor(self, process: Process, page: int, wanted: str) -> None:
        """Expect a page on this anon_vma, and its walk to look at one entry only (the page is mapped once)."""
        if self.anon_vma:
            self.expect(f"the anchor of page {page}", anchor(self.k, process, page)[0], wanted)
        self.expect(f"entries looked at for page {page}, and in vain", looked_at(self.k, process, page), (1, 0))


def generations(judge: Judge) -> None:
    """Forks, writes, an ancestor with two children that must not be taken up again, a last user."""
    p = judge.k.spawn()
    written(p, 0, 3)
    c = p.fork()
    judge.look()
    write(c, 0)
    judge.expect_anchor(c, 0, "A1")
    g, sibling = c.fork(), c.fork()
    write(g, 1)
    judge.look()
    judge.expect_anchor(g, 1, "A2")
    c.exit()
    h = g.fork()
    write(h, 2)
    judge.look()
    if judge.anon_vma:
        judge.expect("the chain of H", chain(h, 0), "[A4] A2 A1 A0")
    judge.expect_anchor(h, 2, "A4")
    for process in (sibling, g, p):
        process.exit()
        judge.look()
    write(h, 0, 3)
    judge.look()
    for page in range(3):
        judge.expect_anchor(h, page, "A4")


def copies(judge: Judge) -> None:
    """Copy on write of single pages and of many; parent and child have contents of their own afterwards."""
    p = judge.k.spawn()
    written(p, 0, 40)
    c = p.fork()
    write(c, 0)
    write(c, 10, 30)
    write(p, 39)
    judge.look()
    for page in range(40):
        separate = page == 0 or 10 <= page < 30 or page == 39
        judge.expect(f"page {page} apart", judge.k.pfn(p, at(page)) != judge.k.pfn(c, at(page)), separate)
        judge.expect(f"mapcount of {page}", mapcount(judge.k, p, page), 1 if separate else 2)


def splits_and_moves(judge: Judge) -> None:
    """One side unmaps, splits and moves; pages are found at each side's own offsets."""
    p = judge.k.spawn()
    written(p, 0, 24)
    c = p.fork()
    c.munmap(at(0), 2 * PAGE)
    judge.look()
    c.mprotect(at(6), 4 * PAGE, "r")
    judge.look()
    c.mremap(at(12), 3 * PAGE, 3 * PAGE, at(40))
    judge.look()
    p.mremap(at(20), 4 * PAGE, 4 * PAGE, at(50))
    write(p, 50, 52)
    judge.look()
    c.mprotect(at(6), 4 * PAGE, "rw")
    judge.expect("the child", layout(c), "2-12 rw-p, 15-24 rw-p, 40-43 rw-p")
    judge.look()


def a_file_is_cut(judge: Judge) -> None:
    """Truncation takes private copies along, a hole does not; both find every window."""
    lib = judge.k.open("lib", 32 * PAGE)
    p, q = judge.k.spawn(), judge.k.spawn()
    mapped(p, 0, 32, file=lib)
    read(p, 0, 32)
    write(p, 4, 24)
    mapped(q, 0, 4, "rw", "shared", file=lib, offset=3 * PAGE)
    write(q, 0, 4)
    c = p.fork()
    judge.look()
    lib.punch_hole(2 * PAGE, 4 * PAGE)
    judge.look()
    for process in (p, c):
        left = [n for n in (2, 3, 4, 5) if judge.k.pfn(process, at(n)) is not None]
        judge.expect("after the hole", left, [4, 5])
    lib.truncate(5 * PAGE)
    judge.look()
    for process in (p, c):
        judge.expect("beyond the end", [n for n in range(5, 32) if judge.k.pfn(process, at(n)) is not None], [])
        judge.expect("before the end", judge.k.pfn(process, at(4)) is not None, True)


def areas_merge(judge: Judge) -> None:
    """What came through fork stays apart from what is new; what is split merges back."""
    p = judge.k.spawn()
    written(p, 0, 1)
    c = p.fork()
    mapped(c, 1, 2)
    mapped(p, 1, 2)
    judge.look()
    judge.expect("the parent", layout(p), "0-2 rw-p")
    judge.expect("the child", layout(c), "0-1 rw-p, 1-2 rw-p" if judge.anon_vma else "0-2 rw-p")
    c.mprotect(at(0), PAGE, "r")
    c.mprotect(at(0), PAGE, "rw")
    judge.expect("the child", layout(c), "0-1 rw-p, 1-2 rw-p" if judge.anon_vma else "0-2 rw-p")
    judge.look()


def eviction(judge: Judge) -> None:
    """Evicting a page clears every entry; the walk before it tidies up and loses nothing."""
    p = judge.k.spawn()
    written(p, 0, 12)
    family = [p, p.fork()]
    judge.k.folio_referenced(np.flatnonzero(judge.k.core.frames.mapcount))
    judge.look()
    family += [p.fork(), family[1].fork()]
    family[3].mremap(at(0), 12 * PAGE, 12 * PAGE, at(30))
    judge.look()
    pages = [judge.k.pfn(p, at(page)) or 0 for page in range(12)]
    judge.expect("evicted", judge.k.reclaim(pages), 12)
    judge.look()
    read(family[3], 30, 42)
    read(p, 0, 6)
    judge.look()


def neighbours_share_a_page_table(judge: Judge) -> None:
    """Unmapping an area does not touch the page table that its neighbour is in."""
    p = judge.k.spawn()
    mapped(p, 0, 4)
    written(p, 6, 8)
    p.munmap(at(0), 4 * PAGE)
    judge.look()
    judge.expect("the neighbour", judge.k.pfn(p, at(7)) is not None, True)


STORIES: tuple[Callable[[Judge], None], ...] = (
    generations,
    copies,
    splits_and_moves,
    a_file_is_cut,
    areas_merge,
    eviction,
    neighbours_share_a_page_table,
)


def noticed(design: str, *, only_oracle: bool = False) -> dict[str, str]:
    """Play every story; what each notices, by its name. Nothing noticed: an empty dict."""
    complaints = {}
    for story in STORIES:
        try:
            with _quiet():
                story(Judge(design, only_oracle=only_oracle))
        except (AssertionError, RmapError) as complaint:
            complaints[story.__name__] = f"{type(complaint).__name__}: {complaint}"
    return complaints


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    # A broken machine may index beyond its columns before anybody notices: noticed, all the same.
    try:
        yield
    except (IndexError, KeyError, AttributeError, OSError) as error:
        raise Noticed(f"{type(error).__name__}: {error}") from error
