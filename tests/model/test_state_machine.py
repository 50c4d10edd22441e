"""A state machine over the whole public surface: files, shared memory, three processes, swap; checked after each step.

Hypothesis thinks up the calls, and makes a failing sequence as short and plain as it can.
"""

from __future__ import annotations

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from rmap.designs import DEFAULT_DESIGNS, design_names
from tests.model.player import Player
from tests.model.random_calls import ADVICE

WINDOW = 24
WHO = st.integers(0, 2)
FIRST = st.integers(0, WINDOW - 1)
COUNT = st.sampled_from((1, 2, 3, 9, 12))
PROTECTION = st.sampled_from(("rw", "r", "", "rwx"))
FILE = st.sampled_from((None, "lib", "lib again", "memfd", "read-only", "/dev/zero"))


class Machine(RuleBasedStateMachine):
    """One machine; every rule is one kind of call."""

    design = ""

    def __init__(self) -> None:
        super().__init__()
        self.player = Player(self.design)

    @initialize(shared=st.booleans())
    def begin(self, shared: bool) -> None:
        self.player.play(("mmap", 0, 2, 16, "rw", "shared" if shared else "private", None, 0, ""))
        self.player.play(("write", 0, 2, 16))

    @invariant()
    def everything_holds(self) -> None:
        self.player.kernel.check()

    # -- address spaces -----------------------------------------------------------------------------------------------
    @rule(
        who=WHO,
        first=FIRST,
        count=COUNT,
        prot=PROTECTION,
        flags=st.sampled_from(("private", "shared")),
        file=FILE,
        offset=st.integers(0, 12),
        how=st.sampled_from(("", "noreplace", "populate", "growsdown", "locked")),
    )
    def mmap(
        self, who: int, first: int, count: int, prot: str, flags: str, file: str | None, offset: int, how: str
    ) -> None:
        self.player.play(("mmap", who, first, count, prot, flags, file, offset, how))

    @rule(who=WHO, length=st.integers(1, 600))
    def mmap_anywhere(self, who: int, length: int) -> None:
        process = self.player.process(who)
        address = process.mmap(length * 4096)
        process.write(address, 4096)
        process.munmap(address, length * 4096)

    @rule(who=WHO, first=FIRST, count=COUNT)
    def munmap(self, who: int, first: int, count: int) -> None:
        self.player.play(("munmap", who, first, count))

    @rule(who=WHO, first=FIRST, count=COUNT, prot=PROTECTION)
    def mprotect(self, who: int, first: int, count: int, prot: str) -> None:
        self.player.play(("mprotect", who, first, count, prot))

    @rule(
        who=WHO,
        first=FIRST,
        old=st.sampled_from((0, 1, 2, 5)),
        new=st.sampled_from((1, 2, 5, 8)),
        to=st.none() | FIRST,
        dontunmap=st.booleans(),
    )
    def mremap(self, who: int, first: int, old: int, new: int, to: int | None, dontunmap: bool) -> None:
        self.player.play(("mremap", who, first, old, old if dontunmap and old else new, to, dontunmap))

    @rule(who=WHO, first=FIRST, count=COUNT, advice=st.sampled_from(ADVICE))
    def madvise(self, who: int, first: int, count: int, advice: str) -> None:
        self.player.play(("madvise", who, first, count, advice))

    @rule(who=WHO, first=FIRST, count=COUNT, onfault=st.booleans())
    def mlock(self, who: int, first: int, count: int, onfault: bool) -> None:
        self.player.play(("mlock", who, first, count, onfault))

    @rule(who=WHO, first=FIRST, count=COUNT)
    def munlock(self, who: int, first: int, count: int) -> None:
        self.player.play(("munlock", who, first, count))

    @rule(who=WHO, pages=st.integers(0, 5))
    def brk(self, who: int, pages: int) -> None:
        self.player.play(("brk", who, pages))
        self.player.play(("touch_heap", who))

    # -- touching -----------------------------------------------------------------------------------------------------
    @rule(who=WHO, first=FIRST, count=COUNT, verb=st.sampled_from(("write", "read", "write_mapped", "write_areas")))
    def touch(self, who: int, first: int, count: int, verb: str) -> None:
        self.player.play((verb, who, first, count))

    # -- processes ----------------------------------------------------------------------------------------------------
    @precondition(lambda self: len(self.player.alive) < 3)
    @rule(who=WHO, how=st.sampled_from(("fork", "fork", "clone_vm", "spawn")))
    def another_process(self, who: int, how: str) -> None:
        self.player.play((how,) if how == "spawn" else (how, who))

    @precondition(lambda self: len(self.player.alive) > 1)
    @rule(who=WHO)
    def exit(self, who: int) -> None:
        self.player.play(("exit", who))

    # -- files and memory pressure ------------------------------------------------------------------------------------
    @rule(file=st.sampled_from(("lib", "memfd")), pages=st.integers(0, 20))
    def truncate(self, file: str, pages: int) -> None:
        self.player.play(("truncate", file, pages))

    @rule(file=st.sampled_from(("lib", "memfd")), first=st.integers(0, 10), count=st.integers(1, 8))
    def punch_hole(self, file: str, first: int, count: int) -> None:
        self.player.play(("punch", file, first, count))

    @rule(who=WHO, first=FIRST, count=COUNT, verb=st.sampled_from(("reclaim", "unmap", "referenced", "mkclean")))
    def pressure(self, who: int, first: int, count: int, verb: str) -> None:
        self.player.play((verb, who, first, count))

    # -- looking ------------------------------------------------------------------------------------------------------
    @rule(who=WHO, first=FIRST)
    def walk_and_oracle_agree(self, who: int, first: int) -> None:
        kernel = self.player.kernel
        for pfn in self.player.frames_of(who, first, WINDOW - first).tolist():
            assert kernel.walk(pfn) == kernel.oracle(pfn) == kernel.who(pfn).mappings

    def teardown(self) -> None:
        # Whatever happened, nothing is left when everybody is gone.
        for process in self.player.alive:
            process.exit()
        self.player.kernel.check()
        kernel = self.player.kernel
        cached = sum(mapping.nr_cached for mapping in kernel.core.mappings)
        assert kernel.core.frames.free_top == kernel.core.frames.nr_pages - 1 - cached
        empty = Player(self.design)
        for process in empty.alive:
            process.exit()
        assert kernel.metadata_bytes() == empty.kernel.metadata_bytes()  # some designs pay for empty memory too
        assert kernel.core.tables.live == 0


MODERATE = settings(
    max_examples=30,
    stateful_step_count=30,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


LIGHT = settings(MODERATE, max_examples=12)


def _case(design: str) -> type:
    # The test case of one design, under a name of its own.
    machine = type(f"{design}_machine", (Machine,), {"design": design})
    case: type = machine.TestCase
    case.settings = MODERATE if design in DEFAULT_DESIGNS else LIGHT
    return case


for _design in design_names(variants=True):
    _name = "Test" + "".join(part.capitalize() for part in _design.replace(":", "_").replace(".", "_").split("_"))
    globals()[_name] = _case(_design)
