"""Kinds of frames: one row per kind, and everything that is asked of a kind anywhere.

A kind is a code in ``frames.kind``. What is true of all its frames stands in its row: how it is told, what its
``folio->mapping`` says, whether a reverse map leads back from it, whether it counts as memory, what a memory error in
it comes to, and every word that a reader sees. Nothing else in rmap lists kinds: it asks :data:`KINDS`. So whoever
adds a kind adds a row here. No NumPy: one page is looked up without it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

from rmap.snapshot.flags import KPF_KEPT, MAPPING_ANON, MAPPING_FILE, MAPPING_KSM, MAPPING_UNKNOWN
from rmap.uapi.kpageflags import (
    KPF_ANON,
    KPF_DIRTY,
    KPF_HUGE,
    KPF_KSM,
    KPF_NOPAGE,
    KPF_PGTABLE,
    KPF_RESERVED,
    KPF_SLAB,
    KPF_SWAPBACKED,
    KPF_SWAPCACHE,
    KPF_ZERO_PAGE,
)

# frames.kind.
ANON = 0
FILE = 1
SHMEM = 2
KSM = 3
HUGETLB = 4
ZERO = 5
KERNEL = 6
DEVICE = 7

_SIGBUS = "unmaps it; every process that maps it gets SIGBUS, at once or when touching it"


class Fate(NamedTuple):
    """What ``memory_failure`` could do about a bad frame, while its flags are so.

    Attributes:
        what: the kind of page, in words.
        does: what the kernel could do, in words.
        kills: whether everybody who maps it gets SIGBUS.
        loses: whether data is lost.
        with_bits, without_bits: KPF bits: this is the fate of a frame that has all of the first and none of the second.
    """

    what: str
    does: str
    kills: bool = False
    loses: bool = False
    with_bits: int = 0
    without_bits: int = 0


class FrameKind(NamedTuple):
    """One kind of frames.

    Attributes:
        number: its code in ``frames.kind``, and in files: never changed, never used again.
        name: its name in JSON and SQL.
        bits: KPF bits, any of which tells it. The first kind of :data:`KINDS` that is told counts; 0: what no other is.
        mapping: the tag of ``folio->mapping`` as a picture has it (rule 1.1).
        tracked: whether a reverse map leads back from it (rules 1.4, 4.1, 4.17).
        walked: whether rmap can go that way itself: by the anon_vma or the file that a picture shows.
        modelled: whether the model kernel has such pages; those that it has not are left out when a picture is loaded.
        counted: whether it is memory of those who map it, as the kernel counts in smaps. What no reverse map tracks
            counts only where the kernel keeps a mapcount of it.
        backing: where its content goes when the page is reclaimed: ``"file"``, ``"swap"``, or ``""``: it never is.
        of_file: whether it may be a page of a file.
        fates: what a memory error comes to: the first whose bits fit.
        words: what it is, for a reader.
        folio: what a large folio of it is called, if not as others are.
        uncounted: why the kernel's count and what is found differ, if that is as it must be.
        why_untracked: why the model kernel keeps no reverse map of it.
        no_walk: what a walk from it would go by, that no picture holds.
        left_out: what its pages are called where they are left out by the model.
        replayed: the name of its entries in a replay, ``rmap.kernel.entries.KINDS``.
        never_reclaimed: why, if so.
        unmapped: what is said of a frame of it that nobody maps.
    """

    number: int
    name: str
    bits: int
    mapping: int
    tracked: bool
    walked: bool
    modelled: bool
    counted: bool
    backing: str
    of_file: bool
    fates: tuple[Fate, ...]
    words: str
    folio: str = ""
    uncounted: str = ""
    why_untracked: str = ""
    no_walk: str = ""
    left_out: str = ""
    replayed: str = "other"
    never_reclaimed: str = ""
    unmapped: str = "is in no address space"

    def fate(self, flags: int) -> Fate:
        """What a memory error comes to in a frame with these KPF bits."""
        return next(
            fate
            for fate in self.fates
            if flags & fate.with_bits == fate.with_bits and not flags & fate.without_bits
        )


class FrameKinds:
    """All kinds.

    Args:
        rows: in the order in which they are told apart; the last is told by no bit.

    Iterating, and indexing, go by number: 0, 1, 2, ...
    """

    def __init__(self, rows: tuple[FrameKind, ...]) -> None:
        self._rows = rows

    def __iter__(self) -> Iterator[FrameKind]:
        return iter(sorted(self._rows, key=lambda kind: kind.number))

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, number: int) -> FrameKind:
        return next(kind for kind in self._rows if kind.number == number)

    def kind_of(self, flags: int) -> int:
        """The kind of a frame, as far as its KPF bits alone tell."""
        return next((number for bits, number in self.tests if flags & bits), self.rest)

    def named(self, name: str) -> FrameKind | None:
        """The row of that name."""
        return next((kind for kind in self if kind.name == name), None)

    @property
    def names(self) -> tuple[str, ...]:
        """The name of each number."""
        return tuple(kind.name for kind in self)

    @property
    def tests(self) -> tuple[tuple[int, int], ...]:
        """``(bits, number)``: a frame is of the first of these any bit of which is set, else of :attr:`rest`."""
        return tuple((kind.bits, kind.number) for kind in self._rows[:-1])

    @property
    def rest(self) -> int:
        """The kind of a frame that no bit tells."""
        return self._rows[-1].number

    @property
    def kept_bits(self) -> int:
        """The KPF bits that a picture keeps: all that tell kinds are among them."""
        kept = KPF_KEPT
        for bits, _ in self.tests:
            kept |= bits
        return kept

    @property
    def untracked(self) -> tuple[int, ...]:
        """Those that no reverse map leads back from."""
        return self._numbers(lambda kind: not kind.tracked)

    @property
    def walked(self) -> tuple[int, ...]:
        """Those from which rmap can walk itself."""
        return self._numbers(lambda kind: kind.walked)

    @property
    def loaded(self) -> tuple[int, ...]:
        """Those whose frames the model kernel loads from a picture."""
        return self._numbers(lambda kind: kind.tracked and kind.modelled)

    @property
    def counted(self) -> tuple[int, ...]:
        """Those that are memory of those who map them."""
        return self._numbers(lambda kind: kind.counted)

    @property
    def on_anon_vmas(self) -> tuple[int, ...]:
        """Those that hang on an anon_vma."""
        return self._numbers(lambda kind: kind.mapping == MAPPING_ANON)

    @property
    def anonymous(self) -> tuple[int, ...]:
        """Those of no file: on an anon_vma, or merged by KSM."""
        return self._numbers(lambda kind: kind.mapping in (MAPPING_ANON, MAPPING_KSM))

    @property
    def cached(self) -> tuple[int, ...]:
        """Those of the page cache, shared memory included."""
        return self._numbers(lambda kind: kind.mapping == MAPPING_FILE)

    @property
    def disk_cache(self) -> tuple[int, ...]:
        """Those of the page cache that can be read again from their file: such a page is clean or dirty."""
        return self._numbers(lambda kind: kind.mapping == MAPPING_FILE and kind.backing == "file")

    @property
    def shared_memory(self) -> tuple[int, ...]:
        """Those of the page cache that are nowhere else, but for swap."""
        return self._numbers(lambda kind: kind.mapping == MAPPING_FILE and kind.backing != "file")

    @property
    def swappable(self) -> tuple[int, ...]:
        """Those that go to swap when they are reclaimed."""
        return self._numbers(lambda kind: kind.backing == "swap")

    def _numbers(self, test: Callable[[FrameKind], bool]) -> tuple[int, ...]:
        return tuple(kind.number for kind in self if test(kind))

    @contextmanager
    def extended(self, kind: FrameKind) -> Iterator[None]:
        """Have one more kind, told before all others, until the block ends: to try it out, in this process only.

        Args:
            kind: its number is the next one.
        """
        before = self._rows
        self._rows = (kind, *before)
        try:
            yield
        finally:
            self._rows = before


KINDS = FrameKinds((
    FrameKind(
        number=DEVICE,
        name="device",
        bits=KPF_NOPAGE,
        mapping=MAPPING_UNKNOWN,
        tracked=False,
        walked=False,
        modelled=True,
        counted=False,
        backing="",
        of_file=False,
        fates=(Fate("no memory of the kernel's (a device, or nothing)", "nothing: it has no struct page"),),
        words="device memory",
        uncounted="memory of a device: it has no struct page, and no reverse map",
        replayed="kernel page",
        never_reclaimed="memory of a device (PFNMAP): there is nothing to reclaim",
        unmapped="is no memory of the kernel's",
    ),
    FrameKind(
        number=ZERO,
        name="zero",
        bits=KPF_ZERO_PAGE,
        mapping=MAPPING_UNKNOWN,
        tracked=False,
        walked=False,
        modelled=True,
        counted=False,
        backing="",
        of_file=False,
        fates=(Fate("the zero page", "nothing: it is the kernel's own, and everybody's", False, True),),
        words="the zero page",
        uncounted="the zero page: every process may map it, and the kernel does not count its mappings",
        why_untracked="the zero page is mapped by reads of untouched memory; nothing can be gained by finding those"
        " entries, so they are marked special and not counted",
        replayed="zero page",
        never_reclaimed="the zero page: one page for everybody, it is never reclaimed",
        unmapped="is the zero page",
    ),
    FrameKind(
        number=KSM,
        name="ksm",
        bits=KPF_KSM,
        mapping=MAPPING_KSM,
        tracked=True,
        walked=False,
        modelled=False,
        counted=True,
        backing="swap",
        of_file=False,
        fates=(Fate("anonymous, merged by KSM", _SIGBUS, True, True),),
        words="merged by KSM",
        no_walk="KSM's stable nodes",
        left_out="KSM pages",
    ),
    FrameKind(
        number=HUGETLB,
        name="hugetlb",
        bits=KPF_HUGE,
        mapping=MAPPING_UNKNOWN,
        tracked=True,
        walked=False,
        modelled=False,
        counted=False,
        backing="",
        of_file=True,
        fates=(Fate("a huge page (hugetlb)", "takes the whole huge page away from everybody", True, True),),
        words="hugetlb",
        folio="huge page",
        no_walk="huge pages of hugetlb",
        left_out="hugetlb pages",
        never_reclaimed="a huge page (hugetlb): the kernel never reclaims these",
    ),
    FrameKind(
        number=ANON,
        name="anon",
        bits=KPF_ANON,
        mapping=MAPPING_ANON,
        tracked=True,
        walked=True,
        modelled=True,
        counted=True,
        backing="swap",
        of_file=False,
        fates=(
            Fate(
                "anonymous, also in swap",
                "drops it: it is read again from swap",
                with_bits=KPF_SWAPCACHE,
                without_bits=KPF_DIRTY,
            ),
            Fate("anonymous", _SIGBUS, True, True),
        ),
        words="anonymous",
        replayed="anonymous",
    ),
    FrameKind(
        number=KERNEL,
        name="kernel",
        bits=KPF_RESERVED | KPF_SLAB | KPF_PGTABLE,
        mapping=MAPPING_UNKNOWN,
        tracked=False,
        walked=False,
        modelled=True,
        counted=True,
        backing="",
        of_file=False,
        fates=(Fate("the kernel's own", "nothing: if it is used, the machine stops or goes wrong", False, True),),
        words="the kernel's own",
        uncounted="a page of the kernel itself, shown to processes: no reverse map leads back from it",
        why_untracked="the page belongs to the kernel, which maps it into processes itself and never evicts or moves"
        " it",
        replayed="kernel page",
        never_reclaimed="the kernel's own page: it belongs to no address space that could lose it",
        unmapped="is the kernel's own",
    ),
    FrameKind(
        number=SHMEM,
        name="shmem",
        bits=KPF_SWAPBACKED,
        mapping=MAPPING_FILE,
        tracked=True,
        walked=True,
        modelled=True,
        counted=True,
        backing="swap",
        of_file=True,
        fates=(Fate("shared memory", "unmaps it; mappers get SIGBUS, readers of the file EIO", True, True),),
        words="shared memory",
        replayed="shared memory",
    ),
    FrameKind(
        number=FILE,
        name="file",
        bits=0,
        mapping=MAPPING_FILE,
        tracked=True,
        walked=True,
        modelled=True,
        counted=True,
        backing="file",
        of_file=True,
        fates=(
            Fate(
                "page cache, dirty",
                "drops it; mappers get SIGBUS, the file's next fsync EIO",
                True,
                True,
                with_bits=KPF_DIRTY,
            ),
            Fate("page cache, clean", "drops it: it is read again from the file; nobody is hit"),
        ),
        words="page cache",
        replayed="file",
    ),
))  # fmt: skip
"""Every kind of frame, in the order in which the flags of a frame tell them apart."""
