"""A reverse map that only keeps a diary and insists on the order of calls, and areas drawn as strings.

In a picture every character is a page: ``"aa.BB"`` is an unfaulted area of two pages, a hole, and a faulted area of two
pages. Pictures that are drawn from a machine name the areas a, b, c, ... in address order.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby, pairwise

from rmap.mm.core import Core
from rmap.mm.interface import CloneWhy, DesignCore, How, ReverseMap
from rmap.mm.mm_types import Mm, Vma
from rmap.mm.profile import Profile, profile_named
from rmap.uapi.vm_flags import VM_ACCOUNT, VM_MAYEXEC, VM_MAYREAD, VM_MAYWRITE, VM_READ, VM_SHARED, VM_WRITE
from tests.support import PAGE

BASE = 0x100000000000
BASE_PAGE = BASE // PAGE
VM_MAY = VM_MAYREAD | VM_MAYWRITE | VM_MAYEXEC
VM_R = VM_READ | VM_MAY
VM_RW = VM_READ | VM_WRITE | VM_MAY | VM_ACCOUNT


def at(page: int) -> int:
    """The address of a page of the pictures."""
    return BASE + page * PAGE


class ListIndex:
    """An i_mmap that remembers under which interval each VMA was entered."""

    def __init__(self) -> None:
        self.entries: list[tuple[Vma, int, int]] = []

    def insert(self, vma: Vma) -> None:
        assert vma not in list(self)
        self.entries.append((vma, vma.pgoff, vma.last))

    def insert_after(self, vma: Vma, sibling: Vma) -> None:
        self.insert(vma)

    def remove(self, vma: Vma) -> None:
        self.entries.remove((vma, vma.pgoff, vma.last))

    def stab(self, first: int, last: int) -> Iterator[Vma]:
        return (vma for vma, low, high in self.entries if low <= last and first <= high)

    def __iter__(self) -> Iterator[Vma]:
        return (vma for vma, _, _ in self.entries)

    def __len__(self) -> int:
        return len(self.entries)


class Diary(ReverseMap):
    """Keeps the families of areas as anon_vma does (rules 2.1 to 2.8, 3.3, 3.4), in a tuple of numbers per area, writes
    down every call about areas, and fails where the order of calls is wrong."""

    name = "diary"

    def __init__(self, core: DesignCore, profile: Profile) -> None:
        super().__init__(core, profile)
        self.lines: list[str] = []
        self.known: dict[int, tuple[int, int, int]] = {}
        self.brackets: list[Vma] = []
        self.families = 0

    def write(self, what: str, *vmas: Vma | None) -> None:
        spans = ["-" if v is None else f"{v.start // PAGE - BASE_PAGE}-{v.end // PAGE - BASE_PAGE}" for v in vmas]
        self.lines.append(" ".join([what, *spans]))

    def new_family(self) -> int:
        self.families += 1
        return self.families

    def remember(self, vma: Vma) -> None:
        self.known[id(vma)] = (vma.start, vma.end, vma.pgoff)

    def unchanged(self, vma: Vma) -> None:
        """Nobody moved the area's range outside a bracket."""
        assert self.known[id(vma)] == (vma.start, vma.end, vma.pgoff)

    # -- hooks

    def anon_vma_prepare(self, vma: Vma) -> None:
        assert not vma.faulted
        assert not vma.flags & VM_SHARED
        vma.chain = (self.new_family(),)
        self.remember(vma)

    def vma_fork(self, child: Vma, parent: Vma) -> None:
        self.unchanged(parent)
        child.chain = (self.new_family(), *parent.chain)
        self.remember(child)

    def vma_clone(self, new: Vma, old: Vma, why: CloneWhy) -> None:
        self.unchanged(old)
        assert not self.brackets
        assert not new.faulted
        new.chain = old.chain
        self.remember(new)
        self.write(f"clone({why})", new, old)

    def pre_update(self, vma: Vma) -> None:
        # Two neighbours that shift their boundary are changed in one go.
        assert vma not in self.brackets
        assert len(self.brackets) < 2
        self.brackets.append(vma)
        if vma.faulted:
            self.unchanged(vma)
        self.write("update", vma)

    def post_update(self, vma: Vma) -> None:
        self.brackets.remove(vma)
        self.remember(vma)
        self.write("to", vma)

    def vma_unlink(self, vma: Vma, heir: Vma | None) -> None:
        self.unchanged(vma)
        assert vma not in vma.mm.vmas or heir is None
        assert heir is None or (heir.start <= vma.start and vma.end <= heir.end)
        vma.chain = None
        self.write("unlink", vma, heir)

    def is_mergeable_anon_vma(self, target: Vma, source: Vma | None) -> bool:
        of_target = target.chain if target.faulted else None
        of_source = source.chain if source is not None and source.faulted else None
        if of_target is None and of_source is not None:
            return len(of_source) == 1
        if of_target is not None and of_source is None:
            return len(of_target) == 1
        return of_target == of_source

    def are_anon_vmas_compatible(self, prev: Vma, next: Vma) -> bool:
        return not prev.faulted or not next.faulted or prev.chain == next.chain

    def set_anon1(self, vma: Vma, addr: int, ptep: int, pfn: int, how: How) -> None:
        pass

    def i_mmap(self) -> ListIndex:
        return ListIndex()


class World:
    """A machine with one process, under a :class:`Diary`.

    Attributes:
        core, mm, diary: its parts.
    """

    def __init__(self, max_map_count: int = 65530) -> None:
        self.core = Core(Diary, profile_named("6.18"), nr_pages=4096, nr_tables=256, nr_swap=64)
        self.core.max_map_count = max_map_count
        self.mm: Mm = self.core.new_mm(None)
        assert isinstance(self.core.rmap, Diary)
        self.diary = self.core.rmap

    def draw(self, snapshot: str, read_only: str = "", family: str = "", child: str = "", **more: int) -> None:
        """Make the areas of a picture.

        Args:
            read_only: the letters of areas without write permission.
            family: the letters of faulted areas that are of one family; the others have one each.
            child: the letters of faulted areas that came through fork.
            more: the flags of single letters.
        """
        common = self.diary.new_family()
        page = 0
        for letter, run in groupby(snapshot):
            pages = len(list(run))
            if letter != ".":
                flags = more.get(letter, VM_R if letter in read_only else VM_RW)
                vma = Vma(self.mm, at(page), at(page + pages), flags, BASE_PAGE + page)
                self.mm.insert(vma)
                if letter.isupper():
                    vma.faulted = True
                    vma.chain = (common if letter in family else self.diary.new_family(),)
                    if letter in child:
                        vma.chain = (self.diary.new_family(), *vma.chain)
                    self.diary.remember(vma)
            page += pages

    def snapshot(self, mm: Mm | None = None) -> str:
        """The areas from :func:`at` (0) on, named in order; faulted ones in capitals."""
        drawn = ""
        vmas = [vma for vma in (mm or self.mm).vmas if vma.start >= BASE]
        for number, vma in enumerate(vmas):
            letter = "abcdefghijklmnopqrstuvwxyz"[number]
            drawn = drawn.ljust(vma.start // PAGE - BASE_PAGE, ".")
            drawn += (letter.upper() if vma.faulted else letter) * vma.pages
        return drawn

    def check(self) -> None:
        """Order of the areas, the accounts, and what the diary knows of their ranges."""
        vmas = self.mm.vmas
        assert [vma.start for vma in vmas] == self.mm.starts
        assert all(a.end <= b.start for a, b in pairwise(vmas))
        assert not self.diary.brackets
        for vma in vmas:
            assert vma.start < vma.end
            assert vma.faulted == (vma.chain is not None)
            if vma.faulted:
                self.diary.unchanged(vma)
        for mapping in self.core.mappings:
            for vma, first, last in mapping.i_mmap.entries:  # type: ignore[attr-defined]
                assert (vma.pgoff, vma.last) == (first, last)
                assert vma in vma.mm.vmas
