"""The stage of a story: a small machine, names for its processes and pages, and lines that say what there is.

Everything a story prints comes from here, and everything here is read from the model: page indexes and anchors through
the frames, VMAs as they stand, the design's own words for its state, and each place a walk looks at.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterable

from rmap.kernel import Kernel, Process
from rmap.lab.compare.figures import Meter, follows_entries
from rmap.lab.explain.trace import Looked, trace
from rmap.lab.results import Story, StoryStep
from rmap.mm.costs import OPERATIONS
from rmap.mm.frames import EXCLUSIVE
from rmap.mm.interface import ReverseMapFactory
from rmap.mm.mm_types import Vma
from rmap.mm.page_tables import ptep_of
from rmap.mm.pte import describe
from rmap.units import PAGE_SHIFT

WIDTH = 75
NAME_WIDTH = 8
PAGES = 256
START = 0x7F0000000000
"""Where stories map their memory."""


class StoryStage:
    """A machine to tell a story on.

    Args:
        design: the reverse map: a name, or a factory.
        profile: the kernel release whose rules hold.

    Attributes:
        kernel: the machine.
        by_entry: the design keeps a record of every entry (chains), rather than of VMAs.
        holds: whether everything the story claimed was so.
    """

    def __init__(self, design: str | ReverseMapFactory, profile: str) -> None:
        self.kernel = Kernel(design, profile, nr_pages=PAGES, nr_swap=PAGES, nr_tables=PAGES)
        self.by_entry = follows_entries(self.kernel)
        self.holds = True
        self._names: dict[int, str] = {}
        self._steps: list[tuple[str, list[str]]] = []
        self._meter = Meter(self.kernel.costs)

    # -- telling ------------------------------------------------------------------------------------------------------
    def step(self, title: str) -> None:
        """A new step begins."""
        self._steps.append((title, []))
        self._meter = Meter(self.kernel.costs)

    def say(self, text: str, indent: int = 0) -> None:
        """Add a line to the step; a longer text is broken."""
        self._steps[-1][1].extend(
            textwrap.wrap(text, WIDTH, initial_indent=" " * indent, subsequent_indent=" " * indent)
        )

    def claim(self, true: bool) -> None:
        """What the story says is so, or it does not hold."""
        self.holds = self.holds and true

    def story(self, name: str, title: str, closing: Iterable[str]) -> Story:
        """The story as told, after a last check of every invariant of the machine."""
        self.kernel.check()
        steps = tuple(StoryStep(title, tuple(lines)) for title, lines in self._steps)
        return Story(name, self.kernel.design.name, title, steps, tuple(closing), self.holds)

    # -- the cast -----------------------------------------------------------------------------------------------------
    def spawn(self, name: str) -> Process:
        """A first process."""
        return self._named(self.kernel.spawn(), name)

    def fork(self, parent: Process, name: str) -> Process:
        """A child."""
        return self._named(parent.fork(), name)

    def _named(self, process: Process, name: str) -> Process:
        self._names[process.mm.id] = name
        return process

    def name_of(self, process: Process) -> str:
        """Its name in the story."""
        return self._names[process.mm.id]

    def pfn(self, process: Process, addr: int) -> int:
        """The frame of an address where a page is present."""
        pfn = self.kernel.pfn(process, addr)
        assert pfn is not None, f"no page at {addr:#x}"
        return pfn

    def index(self, pfn: int) -> int:
        """A page's index (meaningful under designs whose index is linear)."""
        return self.kernel.core.frames.anchor1(pfn)[1]

    def mapcount(self, pfn: int) -> int:
        """How many entries map a page, by its count."""
        return int(self.kernel.core.frames.mapcount[pfn])

    def anchor(self, pfn: int) -> int:
        """What a page hangs on: its ``mapping``, tag bits included."""
        return self.kernel.core.frames.anchor1(pfn)[0]

    def vma_of(self, process: Process, addr: int) -> Vma:
        """The VMA of a mapped address."""
        vma = process.vma(addr)
        assert vma is not None, f"nothing is mapped at {addr:#x}"
        return vma

    def offset(self, process: Process, addr: int) -> int:
        """How far behind its VMA's start an address is, in bytes."""
        return addr - self.vma_of(process, addr).start

    # -- what there is ------------------------------------------------------------------------------------------------
    def vma(self, process: Process, addr: int) -> None:
        """Show a VMA: whose, where, its pgoff, and what the design hangs on it."""
        vma = self.vma_of(process, addr)
        name = self.name_of(process)
        self.say(f"{name:<{NAME_WIDTH}}VMA {vma.start:#x}-{vma.end:#x}  pgoff {vma.pgoff:#x}")
        words = self.kernel.design.describe_vma(vma)
        if words:
            self.say(f"anon_vma {words}", NAME_WIDTH)

    def page(self, label: str, process: Process, addr: int) -> None:
        """Show a page, seen from one of its mappings: index and anchor, mapcount, offset in the VMA."""
        pfn = self.pfn(process, addr)
        words = self.kernel.design.describe_page(pfn)
        facts = [self._with_names(words)]
        if self.kernel.design.index_is == "linear":
            facts = [f"index {self.index(pfn):#x}", f"mapping {words}"]
        facts.append(f"mapcount {self.mapcount(pfn)}")
        facts.append(f"offset {self.offset(process, addr):#x}")
        if self.kernel.core.frames.flags[pfn] & EXCLUSIVE:
            facts.append("exclusive")
        self._pack(f"page {label}: ", facts)

    def entry(self, process: Process, addr: int) -> None:
        """Show what a page-table entry holds."""
        held = describe(self.kernel.core.tables.mv[ptep_of(process.mm, addr)])
        self.say(f"{self.name_of(process):<{NAME_WIDTH}}PTE at {addr:#x}: {held}")

    def cost(self) -> None:
        """Show what the step cost the design so far: records written, objects made and freed."""
        counts = {
            what: sum(self._meter.get(operation, counter) for operation in OPERATIONS)
            for what, counter in (
                ("entries written", "entries_written"),
                ("objects made", "objects_made"),
                ("objects freed", "objects_freed"),
            )
        }
        self.say("cost    " + ", ".join(f"{what}: {n}" for what, n in counts.items()))

    def made(self) -> int:
        """Objects the design made in this step."""
        return sum(self._meter.get(operation, "objects_made") for operation in OPERATIONS)

    def written(self) -> int:
        """Entries the design wrote in this step."""
        return sum(self._meter.get(operation, "entries_written") for operation in OPERATIONS)

    def walk(self, pfn: int) -> list[Looked]:
        """Walk a page: show each place looked at, and whether it maps the page."""
        looked = trace(self.kernel, pfn)
        for place in looked:
            self.say(f"{self._names[place.mm_id]:<{NAME_WIDTH}}{place.how} = {place.address:#x}")
            self.say(f"{place.held}: {'hit' if place.hit else 'miss, looked at in vain'}", NAME_WIDTH)
        hits = [(place.mm_id, place.address) for place in looked if place.hit]
        mapcount = self.mapcount(pfn)
        self.say(f"found {len(hits)} of {mapcount}")
        truth = sorted((self.kernel.processes[ref.pid].mm.id, ref.address) for ref in self.kernel.oracle(pfn))
        self.claim(sorted(hits) == truth and len(truth) == mapcount)
        return looked

    def _with_names(self, words: str) -> str:
        # The design speaks of mms by number.
        for mm_id in sorted(self._names, reverse=True):
            words = words.replace(f"in mm {mm_id}", f"in {self._names[mm_id]}")
        return words

    def _pack(self, head: str, facts: list[str]) -> None:
        # Facts side by side, as many as fit in a line, none broken unless it alone is too long.
        indent = " " * len(head)
        line = head + facts[0]
        for fact in facts[1:]:
            if len(line) + 2 + len(fact) > WIDTH:
                self._add(line, indent)
                line = indent + fact
            else:
                line += "  " + fact
        self._add(line, indent)

    def _add(self, line: str, indent: str) -> None:
        whole = len(line) <= WIDTH
        self._steps[-1][1].extend([line] if whole else textwrap.wrap(line, WIDTH, subsequent_indent=indent + " "))


def pages(n: int) -> int:
    """So many pages in bytes."""
    return n << PAGE_SHIFT
