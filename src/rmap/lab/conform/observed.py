"""What can be seen of a group of processes, in a form in which two machines can be compared.

Frame numbers, swap slots, inode numbers and the addresses of anon_vmas differ between any two machines. What must
agree is which of them are the same. So everything that has a number of its own is named in the order in which a
reader meets it, process by process, area by area, page by page: ``page 0`` is the one behind the first present entry
of the first process. Two machines in the same state are observed to be equal.

An observer (:mod:`.observe_kernel`, :mod:`.observe_model`) hands over what it saw with the machine's own numbers;
:func:`observed_of` gives the names.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from rmap.uapi.vm_flags import (
    VM_ACCESS,
    VM_ACCOUNT,
    VM_DONTCOPY,
    VM_DONTDUMP,
    VM_DONTEXPAND,
    VM_GROWSDOWN,
    VM_HUGEPAGE,
    VM_IO,
    VM_LOCKED_MASK,
    VM_MAYEXEC,
    VM_MAYREAD,
    VM_MAYSHARE,
    VM_MAYWRITE,
    VM_MERGEABLE,
    VM_MIXEDMAP,
    VM_NOHUGEPAGE,
    VM_NORESERVE,
    VM_PFNMAP,
    VM_RAND_READ,
    VM_SEQ_READ,
    VM_SHARED,
    VM_WIPEONFORK,
)

NOT_SEEN = -1
"""In place of a name: there is none, or this observer cannot see it."""

NO_ENTRY, ZERO_PAGE, PAGE, SWAP_SLOT = 0, 1, 2, 3
"""What an entry is: its low two bits."""
KIND = 3
MARK = 4
"""The bit above: a page may be written through the entry, a swap slot has the mark of an exclusive page (rule 4.12)."""
NUMBER_SHIFT = 3
"""The bits above that are a number, or a name."""

FLAGS = (
    VM_ACCESS | VM_SHARED | VM_MAYREAD | VM_MAYWRITE | VM_MAYEXEC | VM_MAYSHARE | VM_GROWSDOWN | VM_PFNMAP | VM_IO
    | VM_LOCKED_MASK | VM_SEQ_READ | VM_RAND_READ | VM_DONTCOPY | VM_DONTEXPAND | VM_ACCOUNT | VM_NORESERVE
    | VM_WIPEONFORK | VM_DONTDUMP | VM_MIXEDMAP | VM_HUGEPAGE | VM_NOHUGEPAGE | VM_MERGEABLE
)  # fmt: skip
"""The flags of an area that the model has. Others (soft-dirty) are not compared."""

Area = tuple[int, int, int, int, int, int, int, tuple[int, ...]]
"""start, end, flags, pgoff, open file, address_space, active anon_vma, chain (its anon_vmas in order)."""

AnonVmaFacts = tuple[int, int, int, int, int]
"""root, parent, refcount, num_children, num_active_vmas."""

TreeNode = tuple[int, int]
"""An area, and how deep its node stands in the tree; the root's depth is 0."""

Trees = Callable[[bool, int], Sequence[TreeNode]]

PageFacts = tuple[int, bool, bool, bool, int, int]
"""mapcount, PG_anon_exclusive, whether it is anonymous, and then in the swap cache, its anon_vma or address_space, its
index there."""


@dataclass(slots=True)
class SeenMm:
    """One address space with the machine's own numbers.

    Attributes:
        areas: in address order.
        entries: one for every page of every area: ``number << 3 | mark | kind``.
        vmas: the machine's own number for each area.
    """

    areas: list[Area]
    entries: list[int]
    vmas: list[int]


@dataclass(slots=True)
class Observed:
    """All processes at one moment, by names.

    Attributes:
        processes: the address space each lives in; processes in the order they were made.
        areas: by address space.
        entries: by address space, one for every page of its areas: ``name << 3 | mark | kind``.
        pages, anon_vmas: what is known of each, in the order of their names.
        trees: of each anon_vma, and then of each address_space: the areas in its interval tree, in the tree's order,
            which is that of a walk, and how deep each stands in it. By their numbers, counted over all address spaces.
        files: what a reader calls each address_space; not compared.
    """

    processes: list[int]
    areas: list[list[Area]]
    entries: list[list[int]]
    pages: list[PageFacts]
    anon_vmas: list[AnonVmaFacts]
    trees: list[list[TreeNode]]
    files: list[str] = field(compare=False)


def observed_of(
    processes: Sequence[int],
    mms: Mapping[int, SeenMm],
    anon_vmas: Mapping[int, AnonVmaFacts],
    page_facts: Callable[[list[int]], Sequence[PageFacts]],
    trees: Trees,
    file_name: Callable[[int], str],
) -> Observed:
    """Name everything that was seen.

    Args:
        processes: the mm of each process, by the number that ``mms`` has for it.
        mms: what was seen of each.
        anon_vmas: what is known of each, by the machine's own number for it; empty if they cannot be seen.
        page_facts: what is known of pages, given by their frame numbers.
        trees: the areas in the tree of an anon_vma (True) or of an address_space, by the machine's own numbers.
        file_name: what a reader calls the address_space of this number.
    """
    mm_names = _Names()
    living_in = [mm_names.of(mm) for mm in processes]
    opens, mappings, families = _Names(), _Names(), _Names()
    areas = []
    for mm in mm_names.numbers:
        named = []
        for start, end, flags, pgoff, file, mapping, anon_vma, chain in mms[mm].areas:
            links = tuple(map(families.of, chain))
            anon = families.of(anon_vma) if anon_vma != NOT_SEEN else NOT_SEEN
            open_file = opens.of(file) if file != NOT_SEEN else NOT_SEEN
            named.append((start, end, flags, pgoff, open_file, _name(mappings, mapping), anon, links))
        areas.append(named)
    entries, frames = _name_entries([mms[mm].entries for mm in mm_names.numbers])
    name_of_anon_vma, name_of_file = families.names.get, mappings.names.get
    pages = [
        (count, exclusive, is_anon, cached, (name_of_anon_vma if is_anon else name_of_file)(owner, NOT_SEEN), index)
        for count, exclusive, is_anon, cached, owner, index in page_facts(frames)
    ]
    families_seen: list[AnonVmaFacts] = []
    for number in families.numbers:
        root, parent, refcount, children, active = anon_vmas[number]
        named_kin = name_of_anon_vma(root, NOT_SEEN), name_of_anon_vma(parent, NOT_SEEN)
        families_seen.append((*named_kin, refcount, children, active))
    vma_names = {vma: name for name, vma in enumerate([vma for mm in mm_names.numbers for vma in mms[mm].vmas])}
    wanted = [(True, number) for number in families.numbers] + [(False, number) for number in mappings.numbers]
    named_trees = [[(vma_names.get(vma, NOT_SEEN), depth) for vma, depth in trees(*which)] for which in wanted]
    files = list(map(file_name, mappings.numbers))
    return Observed(living_in, areas, entries, pages, families_seen, named_trees, files)


class _Names:
    # Numbers of a machine, named 0, 1, 2, ... in the order in which they are met.
    __slots__ = ("names", "numbers")

    def __init__(self) -> None:
        self.names: dict[int, int] = {}
        self.numbers: list[int] = []

    def of(self, number: int) -> int:
        name = self.names.setdefault(number, len(self.numbers))
        if name == len(self.numbers):
            self.numbers.append(number)
        return name


def _name(names: _Names, number: int) -> int:
    return names.of(number) if number != NOT_SEEN else NOT_SEEN


def _name_entries(seen: list[list[int]]) -> tuple[list[list[int]], list[int]]:
    # The entries with names, and the frames in the order of theirs.
    names: dict[int, int] = {NO_ENTRY: NO_ENTRY, ZERO_PAGE: ZERO_PAGE}
    frames: list[int] = []
    slots = 0
    for entries in seen:
        for entry in entries:
            if entry in names:
                continue
            bare = entry & ~MARK
            if bare not in names and entry & KIND == PAGE:
                names[bare] = len(frames) << NUMBER_SHIFT | PAGE
                frames.append(entry >> NUMBER_SHIFT)
            elif bare not in names:
                names[bare] = slots << NUMBER_SHIFT | SWAP_SLOT
                slots += 1
            names[entry] = names[bare] | entry & MARK
    return [[names[entry] for entry in entries] for entries in seen], frames
