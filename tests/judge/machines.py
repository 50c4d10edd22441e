"""The machines a story can be told to: the model, or the model and real processes in step.

Both have the methods of ``rmap.Kernel`` and ``rmap.Process`` that the stories use. The real side alone is
:class:`judge.puppets.Stage`.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Sequence
from typing import Any

from judge.picture import MARKS, SHARED_MEMORY, Area, Entry, Picture, differences, picture
from judge.puppets import Puppet, Stage
from rmap import Kernel, SyscallError
from rmap.mm.fault import file_end
from rmap.mm.page_tables import ptep_of
from rmap.mm.pte import PFN_SHIFT, PRESENT, SWAP

PAGE = 4096


class Diverged(AssertionError):
    """The model and the kernel do not agree."""


class Model:
    """A model kernel, with a look at it in the form in which machines are compared."""

    def __init__(self, design: str = "anon_vma_chain", nr_pages: int = 1 << 14) -> None:
        self.kernel = Kernel(design=design, nr_pages=nr_pages, nr_tables=1 << 12)
        self._names: set[str] = set()

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

    def areas_of(self, process: Any) -> list[Area]:
        return [self._area(row) for row in process.maps()]

    def look(self) -> Picture:
        """Every live process, in the order they were made."""
        return picture([self._see(process) for process in self.kernel.processes.values()], self.mapcount)

    def close(self) -> None:
        self.kernel.check()

    def _area(self, row: Any) -> Area:
        marks = frozenset(mark for mark, bit in MARKS.items() if row.flags & bit)
        if row.file is None:
            return Area(row.start, row.end, row.prot, marks=marks)
        name = row.file if row.file in self._names else SHARED_MEMORY
        return Area(row.start, row.end, row.prot, row.pgoff * PAGE, name, marks)

    def _see(self, process: Any) -> tuple[list[Area], list[Entry]]:
        areas = self.areas_of(process)
        return areas, [self._entry(process, addr) for a in areas for addr in range(a.start, a.end, PAGE)]

    def _entry(self, process: Any, addr: int) -> Entry:
        raw = self.kernel.core.tables.mv[ptep_of(process.mm, addr)]
        number = raw >> PFN_SHIFT
        if raw & PRESENT:
            return ("zero", 0) if self.is_zero_page(number) else ("page", number)
        return ("swap", number) if raw & SWAP else None


def outcome(call: Callable[[], Any]) -> tuple[Any, int]:
    """What a call answers: its result and 0, or None and the errno."""
    try:
        return call(), 0
    except OSError as refusal:
        return None, refusal.errno or 0


class Pair:
    """A model and a stage in step: every call goes to both, and both are compared after it.

    What is compared: the result or the errno; every area of every process with its flags; which entries are present,
    swapped, zero page or none; which of them share a page; how often each page is mapped. The model's own
    invariants are checked too.
    """

    def __init__(self) -> None:
        self.model = Model()
        self.stage = Stage()
        self.processes: list[Both] = []

    def spawn(self) -> Both:
        return self._admit(self.model.spawn(), self.stage.spawn())

    def open(self, name: str, size: int, **how: bool) -> BothFiles:
        return BothFiles(self, self.model.open(name, size, **how), self.stage.open(name, size, **how))

    def pfn(self, process: Both, addr: int) -> int | None:
        """The model's frame number. That the kernel's pages are shared alike has been compared already."""
        return self.model.pfn(process.model, addr)

    def mapcount(self, pfn: int) -> int:
        return self.model.mapcount(pfn)

    def is_zero_page(self, pfn: int) -> bool:
        return self.model.is_zero_page(pfn)

    def areas_of(self, process: Both) -> list[Area]:
        return self.model.areas_of(process.model)

    def close(self) -> None:
        self.stage.close()
        self.model.close()

    def compare(self, what: str) -> None:
        """Look at both.

        Raises:
            Diverged: they differ. What was done last is ``what``.
        """
        found = differences(self.stage.look(), self.model.look())
        if found:
            raise Diverged(f"after {what}:\n" + "\n".join(found))
        self.model.kernel.check()

    def step(self, what: str, model: Callable[[], Any], real: Callable[[], Any]) -> Any:
        """One call on both: compare the answers, then the machines. Returns the answer, or raises the errno."""
        answer, error = outcome(model)
        real_answer, real_error = outcome(real)
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

    def number(self, process: Both) -> int:
        """Which process of the story this is, for messages."""
        return process.number

    def _admit(self, model: Any, real: Puppet) -> Both:
        both = Both(self, model, real, len(self.processes))
        self.processes.append(both)
        return both


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
            what = f"process {self.number}: {spell(name, args, how)}"
            if name == "mlock" or args[2:] == ("populate_read",):
                self._check_end(what, args[0], args[1])
            return self._pair.step(
                what,
                lambda: getattr(self.model, name)(*args, **_side(how, "model")),
                lambda: getattr(self.real, name)(*args, **_side(how, "real")),
            )

        return call

    def read(self, addr: int, length: int) -> None:
        self._touch("read", addr, length)

    def write(self, addr: int, length: int) -> None:
        self._touch("write", addr, length)

    def maps(self) -> list[Area]:
        return self._pair.areas_of(self)

    def _touch(self, name: str, addr: int, length: int) -> None:
        # The model refuses a range as a whole; a program gets as far as the first page it may not touch.
        def on_model() -> None:
            try:
                getattr(self.model, name)(addr, length)
            except SyscallError:
                for page in range(addr & -PAGE, addr + length, PAGE):
                    getattr(self.model, name)(page, 1)

        what = f"process {self.number}: {spell(name, (addr, length), {})}"
        if name == "read":
            self._check_end(what, addr, length)
        self._pair.step(what, on_model, lambda: getattr(self.real, name)(addr, length))

    def _check_end(self, what: str, addr: int, length: int) -> None:
        # A read fault behind the end of a file maps what is cached around it, and only then ends in SIGBUS. The model
        # changes nothing when it refuses (docs/fidelity.md), so this is the one call that neither of them is told.
        for vma in self.model.mm.overlapping(addr & -PAGE, addr + length):
            if file_end(vma) < min(addr + length, vma.end):
                raise SyscallError(errno.EFAULT, what, "behind the end of a file: not tried")


def _side(how: dict[str, Any], side: str) -> dict[str, Any]:
    return {key: getattr(value, side) if isinstance(value, BothFiles) else value for key, value in how.items()}


def spell(name: str, args: Sequence[Any], how: dict[str, Any]) -> str:
    """A call as a reader would write it, addresses and lengths in hex."""

    def text(value: Any) -> str:
        return f"{value:#x}" if isinstance(value, int) and not isinstance(value, bool) else repr(value)

    return f"{name}({', '.join([*map(text, args), *(f'{key}={text(value)}' for key, value in how.items())])})"
