"""Random calls against a page-level oracle: what each page is mapped with, kept in a dict and changed page by page.

The oracle knows nothing of areas: only the flags, the file and the page index of every page. Whether an area is
faulted, which decides two rules (2.13, and the accounting of mprotect), it asks the machine before each call.
"""

from __future__ import annotations

import errno
from dataclasses import dataclass, replace
from random import Random

import pytest

from rmap.errors import SyscallError
from rmap.mm.fault import touch
from rmap.mm.madvise import FLAG_ADVICE, madvise
from rmap.mm.mlock import mlock, munlock
from rmap.mm.mm_types import File
from rmap.mm.mmap import mmap, munmap
from rmap.mm.mprotect import mprotect
from rmap.mm.mremap import mremap
from rmap.uapi.vm_flags import (
    VM_ACCESS,
    VM_ACCOUNT,
    VM_LOCKED,
    VM_LOCKED_MASK,
    VM_MAYSHARE,
    VM_READ,
    VM_SHARED,
    VM_WRITE,
)
from tests.mm.areas import BASE_PAGE, VM_MAY, World, at
from tests.support import PAGE

PAGES = 16
PROTS = (0, VM_READ, VM_READ | VM_WRITE, VM_READ | VM_WRITE, VM_ACCESS)
ADVICE = ("dontfork", "dofork", "sequential", "normal", "hugepage", "nohugepage")


@dataclass(frozen=True)
class Page:
    """What a page is mapped with."""

    flags: int
    file: File | None
    index: int


class Oracle:
    """The pages of one process, and what each call makes of them."""

    def __init__(self) -> None:
        self.pages: dict[int, Page] = {}

    def run(self, first: int, count: int) -> list[int]:
        """The pages up to the first hole."""
        found = []
        for page in range(first, first + count):
            if page not in self.pages:
                break
            found.append(page)
        return found

    def mmap(self, first: int, count: int, prot: int, shared: bool, file: File | None, offset: int) -> None:
        flags = prot | VM_MAY | (VM_SHARED | VM_MAYSHARE if shared else 0)
        if flags & (VM_WRITE | VM_SHARED) == VM_WRITE:
            flags |= VM_ACCOUNT
        for i in range(count):
            index = i if shared and file is None else BASE_PAGE + first + i if file is None else offset + i
            self.pages[first + i] = Page(flags, file, index)

    def munmap(self, first: int, count: int) -> None:
        for page in range(first, first + count):
            self.pages.pop(page, None)

    def mprotect(self, first: int, count: int, prot: int, faulted: set[int]) -> None:
        for page in self.run(first, count):
            old = self.pages[page]
            flags = old.flags & ~VM_ACCESS | prot
            anonymous = old.file is None and not flags & VM_SHARED
            if prot & VM_WRITE and not old.flags & (VM_ACCOUNT | VM_WRITE | VM_SHARED):
                flags |= VM_ACCOUNT
            elif not prot & VM_WRITE and anonymous and page not in faulted and flags != old.flags:
                flags &= ~VM_ACCOUNT
            self.pages[page] = replace(old, flags=flags)

    def set_flags(self, first: int, count: int, clear: int, set_: int, to_a_hole: bool) -> None:
        """mlock stops at a hole, madvise passes over it."""
        for page in self.run(first, count) if to_a_hole else range(first, first + count):
            if page in self.pages:
                old = self.pages[page]
                self.pages[page] = replace(old, flags=old.flags & ~clear | set_)

    def move(self, first: int, old: int, new: int, to: int, faulted: bool) -> None:
        source = [self.pages[page] for page in range(first, first + old)]
        self.munmap(to, new)
        self.munmap(first, old)
        anonymous = source[0].file is None and not source[0].flags & VM_SHARED
        index = BASE_PAGE + to if anonymous and not faulted else source[0].index
        for i in range(new):
            self.pages[to + i] = replace(source[0], index=index + i)

    def locked(self) -> int:
        return sum(1 for page in self.pages.values() if page.flags & VM_LOCKED)


class Run:
    """A machine and an oracle in step."""

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)
        self.world = World()
        self.core, self.mm = self.world.core, self.world.mm
        self.oracle = Oracle()
        mapping = self.core.new_mapping("data", 4 * PAGES * PAGE, shmem=False)
        self.files = [File(mapping, "data"), File(mapping, "data")]

    def step(self) -> str:
        call = self.random.choice(
            ("mmap", "mmap", "mmap", "munmap", "mprotect", "mprotect", "mremap", "madvise", "mlock", "munlock", "write")
        )
        first = self.random.randrange(PAGES)
        count = self.random.randint(1, min(6, PAGES - first))
        getattr(self, f"_{call}")(first, count)
        return f"{call} {first} {count}"

    def agree(self) -> None:
        """Every page is mapped as the oracle says; the machine's own books are right too."""
        mapped = {}
        for vma in self.mm.vmas:
            for page in range(vma.pages):
                # Shared anonymous memory has a file in the machine and none in the oracle.
                file = vma.file if vma.file in self.files else None
                mapped[vma.start // PAGE - BASE_PAGE + page] = Page(vma.flags, file, vma.pgoff + page)
        assert mapped == self.oracle.pages
        assert self.mm.locked_vm == self.oracle.locked()
        self.world.check()

    def faulted(self) -> set[int]:
        return {
            page
            for vma in self.mm.vmas
            if vma.faulted
            for page in range(vma.start // PAGE - BASE_PAGE, vma.end // PAGE - BASE_PAGE)
        }

    def _mmap(self, first: int, count: int) -> None:
        prot, shared = self.random.choice(PROTS), self.random.random() < 0.2
        file = self.random.choice(self.files) if self.random.random() < 0.4 else None
        offset = first if self.random.random() < 0.7 else self.random.randrange(PAGES)
        mmap(
            self.core, self.mm, count * PAGE, addr=at(first), fixed=True, prot=prot, shared=shared, file=file,
            offset=offset * PAGE,
        )  # fmt: skip
        self.oracle.mmap(first, count, prot, shared, file, offset)

    def _munmap(self, first: int, count: int) -> None:
        munmap(self.core, self.mm, at(first), count * PAGE)
        self.oracle.munmap(first, count)

    def _mprotect(self, first: int, count: int) -> None:
        prot, faulted = self.random.choice(PROTS), self.faulted()
        self._refused_at_a_hole(first, count, lambda: mprotect(self.core, self.mm, at(first), count * PAGE, prot))
        self.oracle.mprotect(first, count, prot, faulted)

    def _madvise(self, first: int, count: int) -> None:
        advice = self.random.choice(ADVICE)
        self._refused_at_a_hole(first, count, lambda: madvise(self.core, self.mm, at(first), count * PAGE, advice))
        self.oracle.set_flags(first, count, *FLAG_ADVICE[advice], to_a_hole=False)

    def _mlock(self, first: int, count: int) -> None:
        def call() -> None:
            mlock(self.core, self.mm, at(first), count * PAGE, onfault=True)

        self._refused_at_a_hole(first, count, call)
        self.oracle.set_flags(first, count, 0, VM_LOCKED_MASK, to_a_hole=True)

    def _munlock(self, first: int, count: int) -> None:
        self._refused_at_a_hole(first, count, lambda: munlock(self.core, self.mm, at(first), count * PAGE))
        self.oracle.set_flags(first, count, VM_LOCKED_MASK, 0, to_a_hole=True)

    def _refused_at_a_hole(self, first: int, count: int, call: object) -> None:
        if len(self.oracle.run(first, count)) == count:
            call()  # type: ignore[operator]
            return
        with pytest.raises(SyscallError) as caught:
            call()  # type: ignore[operator]
        assert caught.value.errno == errno.ENOMEM

    def _mremap(self, first: int, count: int) -> None:
        vma = self.mm.find(at(first))
        to, new = self.random.randrange(PAGES), self.random.randint(1, 6)
        if vma is None or at(first + count) > vma.end or (first < to + new and to < first + count):
            return
        faulted = vma.faulted
        found = mremap(self.core, self.mm, at(first), count * PAGE, new * PAGE, new_addr=at(to))
        assert found == at(to)
        self.oracle.move(first, count, new, to, faulted)

    def _write(self, first: int, count: int) -> None:
        vma = self.mm.find(at(first))
        if vma is not None and vma.flags & VM_WRITE and vma.mapping is None:
            touch(self.core, self.mm, at(first), min(count * PAGE, vma.end - at(first)), True)


@pytest.mark.parametrize("seed", range(40))
def test_every_page_is_what_the_oracle_says(seed: int) -> None:
    run = Run(seed)
    story = []
    for _ in range(60):
        story.append(run.step())
        try:
            run.agree()
        except AssertionError as error:
            raise AssertionError(f"seed {seed}, after {story}") from error
    _nothing_is_left(run)


def _nothing_is_left(run: Run) -> None:
    # With nothing mapped no page table is in use, and no frame of anonymous memory.
    free = run.core.frames.nr_pages - 1
    munmap(run.core, run.mm, at(0), 4 * PAGES * PAGE)
    assert not run.mm.vmas
    assert run.core.tables.live == 0
    assert run.core.frames.free_top == free
