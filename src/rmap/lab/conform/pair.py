"""The machines a story can be told to: the model, or the model and real processes in step.

Both have the methods of ``rmap.Kernel`` and ``rmap.Process`` that stories use. The real side alone is
:class:`.puppets.Puppets`.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from rmap.errors import SourceError, SyscallError
from rmap.kernel import Kernel
from rmap.kernel.process import MapsRow
from rmap.lab.conform.differences import differences
from rmap.lab.conform.observe_kernel import KernelObserver
from rmap.lab.conform.observe_model import ModelObserver
from rmap.lab.conform.observed import KIND, NO_ENTRY, SWAP_SLOT, Observed
from rmap.lab.conform.puppets import Puppet, Puppets
from rmap.live.sources.procfs import vm_flags_of
from rmap.structs.memory import KernelMemory

PAGE = 4096
NR_PAGES, NR_TABLES, NR_SWAP = 1 << 12, 1 << 11, 1 << 12
"""The size of the model, if nothing is said: small, since all of it is checked after every step."""
LOOKS = 3
SHARED_MEMORY = "shared memory"
"""What a file is called that no story opened: a shared anonymous mapping has one."""


class Diverged(AssertionError):
    """The model and the kernel do not agree."""


@dataclass
class Compared:
    """How much has been compared, and how often.

    Attributes:
        looks: how often both machines were looked at.
        vmas, ptes, swapped, pages, anon_vmas, links, trees: how many of each, summed over all looks; ``swapped`` are
            those of the PTEs that name a swap slot.
        settled: looks that differed at first, and not when taken again: somebody else held a reference for a moment.
    """

    looks: int = 0
    vmas: int = 0
    ptes: int = 0
    swapped: int = 0
    pages: int = 0
    anon_vmas: int = 0
    links: int = 0
    trees: int = 0
    settled: int = 0

    def count(self, observed: Observed) -> None:
        """One more look, at this."""
        self.looks += 1
        self.pages += len(observed.pages)
        self.anon_vmas += len(observed.anon_vmas)
        self.trees += len([tree for tree in observed.trees if tree])
        for areas, entries in zip(observed.areas, observed.entries):
            self.vmas += len(areas)
            self.links += sum([len(area[7]) for area in areas])
            self.ptes += len(entries) - entries.count(NO_ENTRY)
            self.swapped += len([entry for entry in entries if entry & KIND == SWAP_SLOT])


class Model:
    """A model kernel to which a story can be told, and that can be looked at.

    Args:
        design: the reverse map.
        profile: the rules of which release.
        nr_pages: its memory.
        whole: look at what only the kernel's own structures tell, too.
        marks: look at what only page tables tell, too.
    """

    def __init__(
        self,
        design: str = "anon_vma_chain",
        *,
        profile: str = "6.18",
        nr_pages: int = NR_PAGES,
        whole: bool = True,
        marks: bool = True,
    ) -> None:
        self.kernel = Kernel(design, profile, nr_pages, nr_swap=NR_SWAP, nr_tables=NR_TABLES)
        self._names: set[str] = set()
        self._observer = ModelObserver(self.kernel, self._called, whole, marks)

    @property
    def has_anon_vmas(self) -> bool:
        """Whether the design has the objects that the running kernel has."""
        return hasattr(self.kernel.design, "anon_vmas")

    def spawn(self) -> Any:
        return self.kernel.spawn()

    def open(self, name: str, size: int, *, shmem: bool = False, writable: bool = True) -> Any:
        """A file, all of it in the page cache."""
        self._names.add(name)
        file = self.kernel.open(name, size, shmem=shmem, writable=writable)
        if size:
            file.read_in()
        return file

    def pfn(self, process: Any, addr: int) -> int | None:
        return self.kernel.pfn(process, addr)

    def mapcount(self, pfn: int) -> int:
        return int(self.kernel.core.frames.mapcount[pfn])

    def is_zero_page(self, pfn: int) -> bool:
        return pfn == self.kernel.zero_pfn

    def areas_of(self, process: Any) -> list[AreaInWords]:
        """The areas of a process, as a story wants them."""
        return [self._in_words(row) for row in process.maps()]

    def observe(self) -> Observed:
        """Every live process, in the order they were made."""
        return self._observer.observe()

    def close(self) -> None:
        self.kernel.check()

    def _called(self, file: str) -> str:
        return file if file in self._names else SHARED_MEMORY

    def _in_words(self, row: MapsRow) -> AreaInWords:
        marks = frozenset(word for word, bit in MARKS.items() if row.flags & bit)
        if row.file is None:
            return AreaInWords(row.start, row.end, row.prot, marks=marks)
        return AreaInWords(row.start, row.end, row.prot, row.pgoff * PAGE, self._called(row.file), marks)


MARKS = {code: vm_flags_of([code]) for code in ("gd", "lo", "sr", "rr", "dc", "lf", "ac", "nr", "wf")}
"""VmFlags of smaps that stories speak of, with their bits."""


@dataclass(frozen=True)
class AreaInWords:
    """One line of /proc/PID/maps, with those of smaps' VmFlags that are in :data:`MARKS`."""

    start: int
    end: int
    perms: str = ""
    offset: int = 0
    file: str = ""
    marks: frozenset[str] = frozenset()


class Pair:
    """A model and puppets in step: every call goes to both, and both are compared after it. A context manager.

    What is compared: the result or the errno; every area of every process, with its flags, page index and open file;
    which entries are present, swapped, zero page or none, which of them share a page, which may be written, which
    swapped ones are exclusive; of each page how often it is mapped, whether it is exclusive, its anon_vma or file and
    its index there; of each anon_vma its family, counters, place in every chain, and tree of areas in its order; of
    each file the same tree. The model's own invariants are checked too. Without BPF: what /proc shows.

    Args:
        design, profile, nr_pages: of the model.
        puppets: the real processes; a group of its own if None.
        memory: reads the running kernel's structures; None: compare what /proc shows.
        compared: counts what is compared.
    """

    def __init__(
        self,
        design: str = "anon_vma_chain",
        *,
        profile: str = "6.18",
        nr_pages: int = NR_PAGES,
        puppets: Puppets | None = None,
        memory: KernelMemory | None = None,
        compared: Compared | None = None,
    ) -> None:
        marks = memory is not None and memory.why_no_ptes is None
        self.model = Model(design, profile=profile, nr_pages=nr_pages, whole=memory is not None, marks=marks)
        self._owns_puppets = puppets is None
        self.puppets = Puppets() if puppets is None else puppets
        self._observer = KernelObserver(self.puppets, memory, self.model.has_anon_vmas)
        self.processes: list[Both] = []
        self.compared = Compared() if compared is None else compared
        self.refused = False

    def spawn(self) -> Both:
        both = self._admit(self.model.spawn(), self.puppets.spawn())
        self.compare("spawn")
        return both

    def open(self, name: str, size: int, **how: bool) -> BothFiles:
        return BothFiles(self, self.model.open(name, size, **how), self.puppets.open(name, size, **how))

    def pfn(self, process: Both, addr: int) -> int | None:
        """The model's frame number. That the kernel's pages are shared alike has been compared already."""
        return self.model.pfn(process.model, addr)

    def mapcount(self, pfn: int) -> int:
        return self.model.mapcount(pfn)

    def is_zero_page(self, pfn: int) -> bool:
        return self.model.is_zero_page(pfn)

    def areas_of(self, process: Both) -> list[AreaInWords]:
        return self.model.areas_of(process.model)

    def close(self) -> None:
        """The processes go; a group that was given stays, and is as new."""
        self._observer.close()
        if self._owns_puppets:
            self.puppets.close()
        else:
            self.puppets.clear()

    def __enter__(self) -> Pair:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def compare(self, what: str) -> None:
        """Look at both.

        Raises:
            Diverged: they differ. What was done last is ``what``.
            PuppetDied: they differ because a puppet is gone.
            InvariantError: the model is broken.
            SourceError: the kernel could not be looked at, so nothing was compared.
        """
        model = self.model.observe()
        kernel = self._observe_kernel()
        # A kernel thread may hold a reference for a moment: only what stays is a difference.
        for _ in range(LOOKS - 1):
            if kernel == model:
                break
            kernel = self._observe_kernel()
            self.compared.settled += kernel == model
        if kernel != model:
            self.puppets.must_be_alive()
            raise Diverged(f"after {what}:\n" + "\n".join(differences(kernel, model)))
        self.compared.count(model)
        self.model.kernel.check()

    def _observe_kernel(self) -> Observed:
        # A refusal here is no answer of a call: it must not be taken for one.
        try:
            self.puppets.drain()
            return self._observer.observe()
        except OSError as error:
            raise SourceError(f"the puppets cannot be looked at: {error}") from error

    def step(self, what: str, model: Callable[[], Any], real: Callable[[], Any]) -> Any:
        """One call on both: compare the answers, then the machines. Returns the answer, or raises the errno."""
        answer, error = outcome(model)
        real_answer, real_error = outcome(real)
        self.refused = bool(real_error)
        if error != real_error:
            raise Diverged(f"{what}: {_say(real_answer, real_error)} in the kernel, {_say(answer, error)} in the model")
        if isinstance(real_answer, Puppet):
            answer = self._admit(answer, real_answer)
        elif not error and answer is not None and answer != real_answer:
            raise Diverged(f"{what}: {real_answer:#x} in the kernel, {answer:#x} in the model")
        self.compare(what)
        if error:
            raise SyscallError(error, what)
        return answer

    def _admit(self, model: Any, real: Puppet) -> Both:
        both = Both(self, model, real, len(self.processes))
        self.processes.append(both)
        return both


def outcome(call: Callable[[], Any]) -> tuple[Any, int]:
    """What a call answers: its result and 0, or None and the errno."""
    try:
        return call(), 0
    except OSError as refusal:
        return None, refusal.errno or 0


def _say(answer: Any, error: int) -> str:
    return errno.errorcode.get(error, str(error)) if error else "accepted" if answer is None else f"{answer}"


class BothFiles:
    """One file in both machines."""

    def __init__(self, pair: Pair, model: Any, real: Any) -> None:
        self._pair = pair
        self.model = model
        self.real = real

    def truncate(self, size: int) -> None:
        self._pair.step(f"truncate({size:#x})", lambda: self.model.truncate(size), lambda: self.real.truncate(size))

    def punch_hole(self, offset: int, length: int) -> None:
        self._pair.step(
            f"punch_hole({offset:#x}, {length:#x})",
            lambda: self.model.punch_hole(offset, length),
            lambda: self.real.punch_hole(offset, length),
        )


class Both:
    """One process in both machines. Every call of ``rmap.Process`` is made in both."""

    CALLS = frozenset(
        {
            "mmap",
            "munmap",
            "mprotect",
            "mremap",
            "madvise",
            "mlock",
            "munlock",
            "mlockall",
            "munlockall",
            "brk",
            "fork",
            "clone_vm",
            "vfork",
            "exit",
        }
    )

    def __init__(self, pair: Pair, model: Any, real: Puppet, number: int) -> None:
        self._pair = pair
        self.model = model
        self.real = real
        self.number = number

    def __getattr__(self, name: str) -> Callable[..., Any]:
        if name not in self.CALLS:
            raise AttributeError(name)

        def call(*args: Any, **how: Any) -> Any:
            return self._pair.step(
                self._says(name, args, how),
                lambda: getattr(self.model, name)(*args, **_side(how, "model")),
                lambda: getattr(self.real, name)(*args, **_side(how, "real")),
            )

        return call

    def read(self, addr: int, length: int) -> None:
        self._touch("read", addr, length)

    def write(self, addr: int, length: int) -> None:
        self._touch("write", addr, length)

    def maps(self) -> list[AreaInWords]:
        return self._pair.areas_of(self)

    def _touch(self, name: str, addr: int, length: int) -> None:
        def on_model() -> None:
            # The model refuses a range as a whole; a program gets as far as the first page it may not touch.
            try:
                getattr(self.model, name)(addr, length)
            except SyscallError:
                for page in range(addr & -PAGE, addr + length, PAGE):
                    getattr(self.model, name)(page, 1)

        what = self._says(name, (addr, length), {})
        self._pair.step(what, on_model, lambda: getattr(self.real, name)(addr, length))

    def _says(self, name: str, args: Sequence[Any], how: dict[str, Any]) -> str:
        return f"process {self.number}: {spell(name, args, how)}"


def _side(how: dict[str, Any], side: str) -> dict[str, Any]:
    return {key: getattr(value, side) if isinstance(value, BothFiles) else value for key, value in how.items()}


def spell(name: str, args: Sequence[Any], how: dict[str, Any]) -> str:
    """A call as a reader would write it, addresses and lengths in hex."""

    def text(value: Any) -> str:
        if isinstance(value, BothFiles):
            return str(value.real.name)
        return f"{value:#x}" if isinstance(value, int) and not isinstance(value, bool) else repr(value)

    return f"{name}({', '.join([*map(text, args), *(f'{key}={text(value)}' for key, value in how.items())])})"
