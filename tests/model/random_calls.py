"""Long random sequences of calls, checked after every one: ``python tests/model/random_calls.py --seeds 100``.

Quicker than the state machine of ``test_state_machine.py``, and less clever: it does not search for the failing
example that is easiest to read, but cuts down the one it found.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from collections.abc import Sequence
from pathlib import Path

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from rmap.designs import design_names
from tests.model.canonical import canonical, explain_difference
from tests.model.player import Call, Player, shortened

PROTECTIONS = ("rw", "rw", "rw", "rw", "rw", "rwx", "r", "", "x")
ADVICE = (
    "dontneed", "dontneed", "free", "cold", "pageout", "dontfork", "dofork", "wipeonfork", "keeponfork", "remove",
    "populate_read", "populate_write", "willneed", "sequential", "random", "normal", "dontdump", "dodump",
)  # fmt: skip
FILES = (None, None, None, "lib", "lib", "lib again", "memfd", "read-only", "/dev/zero")
WINDOW = 24
WEIGHTS = {
    "mmap": 8, "write": 4, "write_mapped": 5, "write_areas": 14, "read": 6, "munmap": 3, "mprotect": 6, "mremap": 8,
    "madvise": 9, "mlock": 2, "munlock": 2, "brk": 2, "touch_heap": 2, "fork": 8, "clone_vm": 1, "spawn": 1, "exit": 2,
    "special": 1, "truncate": 1, "punch": 1, "read_in": 1, "reclaim": 4, "unmap": 2, "referenced": 1, "mkclean": 1,
}  # fmt: skip
"""Verbs, and how often each is chosen."""
NEEDED = ("mmap", "write_areas", "fork")
"""Verbs without which little happens."""


class Swarm:
    """Random calls with a random taste: each sequence leaves some verbs out and likes others, so that states come about
    which an even mixture would hardly ever reach. Most calls go where something is mapped; random places are holes.

    Args:
        rng: what decides.
    """

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._verbs = list(WEIGHTS)
        tastes = {verb: (1, 2) if verb in NEEDED else (0, 0.5, 1, 1, 2, 4) for verb in WEIGHTS}
        self._weights = [weight * rng.choice(tastes[verb]) for verb, weight in WEIGHTS.items()]
        self._advice = rng.sample(ADVICE, 5)
        self._files = rng.sample(FILES, 3)

    def call(self, player: Player) -> Call:
        """The next call for a machine in this state."""
        rng = self._rng
        who = rng.randrange(3)
        low, high = player.base, player.at(WINDOW)
        areas = [
            ((vma.start - low) // player.unit, max(1, (vma.end - vma.start) // player.unit))
            for vma in player.process(who).mm.vmas
            if low <= vma.start < high
        ]
        if len(areas) < rng.randrange(3):
            return self._mmap(who, rng.randrange(WINDOW - 2), 2)
        first, count = self._place(areas)
        (verb,) = rng.choices(self._verbs, self._weights)
        make = getattr(self, f"_{verb}", None)
        call: Call = make(who, first, count) if make is not None else (verb, who, first, count)
        return call

    def _place(self, areas: list[tuple[int, int]]) -> tuple[int, int]:
        # First page and number of pages: all of an area, a part of one, or anything.
        rng = self._rng
        if areas and rng.random() < 0.85:
            first, count = rng.choice(areas)
            if rng.random() < 0.5:
                into = rng.randrange(count)
                first, count = first + into, rng.randint(1, count - into)
            return first, count
        first = rng.randrange(WINDOW)
        return first, min(rng.choice((1, 1, 2, 3, 5, 9, 12, WINDOW)), WINDOW - first)

    def _mmap(self, who: int, first: int, count: int) -> Call:
        rng = self._rng
        flags = rng.choice(("private", "private", "private", "shared"))
        how = rng.choice(("", "", "", "noreplace", "noreplace", "populate", "locked", "noreserve", "growsdown"))
        count = min(count + rng.randrange(6), WINDOW - first)
        file = rng.choice(self._files)
        return ("mmap", who, first, count, rng.choice(PROTECTIONS), flags, file, rng.randrange(14), how)

    def _write_areas(self, who: int, first: int, count: int) -> Call:
        return self._rng.choice((("write_areas", who, 0, WINDOW), ("write_areas", who, first, count)))

    def _special(self, who: int, first: int, count: int) -> Call:
        return ("special", who, first, count, self._rng.choice(("vdso", "vdso", "pfnmap")))

    def _mprotect(self, who: int, first: int, count: int) -> Call:
        return ("mprotect", who, first, count, self._rng.choice(PROTECTIONS))

    def _mremap(self, who: int, first: int, count: int) -> Call:
        rng = self._rng
        new = rng.choice((count, count, count, count + rng.randrange(4), max(1, count - 1), 0))
        target = rng.choice((None, rng.randrange(WINDOW), rng.randrange(WINDOW)))
        return ("mremap", who, first, rng.choice((count, count, count, 0)), new, target, rng.random() < 0.25)

    def _madvise(self, who: int, first: int, count: int) -> Call:
        return ("madvise", who, first, count, self._rng.choice(self._advice))

    def _mlock(self, who: int, first: int, count: int) -> Call:
        return ("mlock", who, first, count, self._rng.random() < 0.3)

    def _brk(self, who: int, first: int, count: int) -> Call:
        return ("brk", who, self._rng.randrange(6))

    def _touch_heap(self, who: int, first: int, count: int) -> Call:
        return ("touch_heap", who)

    def _fork(self, who: int, first: int, count: int) -> Call:
        return ("fork", who)

    def _clone_vm(self, who: int, first: int, count: int) -> Call:
        return ("clone_vm", who)

    def _spawn(self, who: int, first: int, count: int) -> Call:
        return ("spawn",)

    def _exit(self, who: int, first: int, count: int) -> Call:
        return ("exit", who)

    def _truncate(self, who: int, first: int, count: int) -> Call:
        return ("truncate", self._rng.choice(("lib", "memfd")), self._rng.choice((self._rng.randrange(21), 20)))

    def _punch(self, who: int, first: int, count: int) -> Call:
        return ("punch", self._rng.choice(("lib", "memfd")), self._rng.randrange(10), self._rng.randrange(1, 8))

    def _read_in(self, who: int, first: int, count: int) -> Call:
        return ("read_in", self._rng.choice(("lib", "memfd")))


def random_calls(seed: int, count: int, design: str = "anon_vma_chain", **options: object) -> list[Call]:
    """A sequence of random calls; ``design`` only decides where areas are while it is thought up."""
    rng = random.Random(seed)
    player = Player(design, **options)  # type: ignore[arg-type]
    swarm = Swarm(rng)
    calls = []
    for _ in range(count):
        calls.append(swarm.call(player))
        try:
            player.play(calls[-1])
        except Exception:
            break  # whoever plays the sequence will find out why
    return calls


def failure(calls: Sequence[Call], design: str, **options: object) -> str:
    """Play calls and check after each; the first thing that is wrong, in words, or ``""``."""
    player = Player(design, **options)  # type: ignore[arg-type]
    for call in calls:
        try:
            player.play(call)
            player.kernel.check()
        except Exception as error:
            return f"{type(error).__name__}: {error}"
    return ""


def twins_differ(calls: Sequence[Call], design: str, **options: object) -> str:
    """Play calls with scalar twins and without; how state or costs differ after some call, or ``""``."""
    one = Player(design, scalar_twins=True, **options)  # type: ignore[arg-type]
    two = Player(design, scalar_twins=False, **options)  # type: ignore[arg-type]
    for call in calls:
        refusals = one.play(call), two.play(call)
        if refusals[0] != refusals[1]:
            return f"{call}: refused with {refusals[0]!r}, without twins with {refusals[1]!r}"
        states = canonical(one.kernel), canonical(two.kernel)
        if states[0] != states[1]:
            return f"{call}: {explain_difference(*states)}"
        costs = one.kernel.costs.as_dict(), two.kernel.costs.as_dict()
        if costs[0] != costs[1]:
            rows = {op: (costs[0].get(op), costs[1].get(op)) for op in {**costs[0], **costs[1]}}
            return f"{call}: costs { ({op: pair for op, pair in rows.items() if pair[0] != pair[1]}) }"
    return ""


def designs_differ(calls: Sequence[Call], designs: tuple[str, str], **options: object) -> tuple[str, int]:
    """Play calls under two designs, for as long as areas are alike: a design may veto a merge.

    Sequences that lock memory do not belong here: when a walk meets the locked area decides what it has unmapped by
    then.

    Returns:
        how anything but the designs' own structures differs after some call, or ``""``; how many calls were compared.
    """
    one, two = (Player(design, **options) for design in designs)  # type: ignore[arg-type]
    for n, call in enumerate(calls):
        refusals = one.play(call), two.play(call)
        layouts = [[(vma.start, vma.end) for process in p.alive for vma in process.mm.vmas] for p in (one, two)]
        if layouts[0] != layouts[1]:
            return "", n
        states = canonical(one.kernel, design=False), canonical(two.kernel, design=False)
        if states[0] != states[1] or refusals[0] != refusals[1]:
            return f"{call}: {refusals}; {explain_difference(*states)}", n
    return "", len(calls)


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--design", choices=design_names(variants=True), action="append")
    parser.add_argument("--profile", default="6.18")
    parser.add_argument("--seeds", type=int, default=20, help="sequences (default 20)")
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--calls", type=int, default=300, help="calls of a sequence (default 300)")
    parser.add_argument("--tight", action="store_true", help="so little memory that faults evict")
    parser.add_argument("--wide", action="store_true", help="ranges 64 times as long")
    parser.add_argument("--few-areas", action="store_true", help="a process may have eight areas only")
    parser.add_argument("--twins", action="store_true", help="compare with the machine without scalar twins")
    args = parser.parse_args()
    memory: dict[str, int] = {"nr_pages": 56, "nr_swap": 40} if args.tight else {}
    if args.wide:
        memory |= {"nr_pages": 1 << 14, "nr_swap": 1 << 14, "scale": 64}
    if args.few_areas:
        memory["max_map_count"] = 8
    judge = twins_differ if args.twins else failure
    began = time.monotonic()
    for seed in range(args.first_seed, args.first_seed + args.seeds):
        for design in args.design or design_names():
            options = {"profile": args.profile, **memory}
            calls = random_calls(seed, args.calls, design, **options)
            wrong = judge(calls, design, **options)
            if wrong:
                kind = wrong.split(":")[0]
                short = shortened(calls, lambda part: judge(part, design, **options).startswith(kind))  # noqa: B023
                print(f"seed {seed}, {design} {options}: {wrong}", file=sys.stderr)
                print("cut down to:", *(f"    {call!r}," for call in short), sep="\n", file=sys.stderr)
                print(judge(short, design, **options), file=sys.stderr)
                return 1
    print(f"{args.seeds} sequences of {args.calls} calls: nothing wrong; {time.monotonic() - began:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
