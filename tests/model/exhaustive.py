"""Every sequence of calls up to a length, in the smallest world: ``python tests/model/exhaustive.py``.

A breadth-first search over states. From every state that is new, up to renaming, every letter of the alphabet is tried.
After every call all invariants hold, a refused call has changed nothing, and the machine without scalar twins is in the
same state at the same costs. Machines are not copied: a sequence is played again from the start, which takes less
time than a copy.
"""

from __future__ import annotations

import argparse
import multiprocessing
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from rmap import InvariantError
from rmap.designs import DEFAULT_DESIGNS, design_names
from tests.model.canonical import State, canonical, digest, explain_difference
from tests.model.world import ALPHABET, BY_NAME, OPENINGS, World

DESIGNS = tuple(design_names())
DEEPEST = {design: 4 if design in DEFAULT_DESIGNS else 3 for design in DESIGNS}
"""How far the whole search goes; the tests go to 3."""
Sequence = tuple[str, ...]
BEHIND_THE_END = "SIGBUS"
"""What a refusal says if an access went behind the end of a file: what lies before has been mapped by then (4.10)."""


class Found(AssertionError):
    """A sequence of calls after which something is not as it must be."""

    def __init__(self, design: str, sequence: Sequence, what: str) -> None:
        super().__init__(f"{design}: after [{'; '.join(sequence)}]: {what}")
        self.where = (design, sequence, what)

    def __reduce__(self) -> tuple[type[Found], tuple[str, Sequence, str]]:
        return (Found, self.where)


@dataclass
class Count:
    """What a search did.

    Attributes:
        calls: calls tried, one per new state and letter that applies.
        refused: of them, refused.
        states: states that differ by more than names.
    """

    calls: int = 0
    refused: int = 0
    states: int = 0


@dataclass(frozen=True)
class Task:
    """States to go on from.

    Attributes:
        design, profile: of the machine.
        twins: play everything on a machine without scalar twins too.
        states: sequences that lead to them.
    """

    design: str
    profile: str
    twins: bool
    states: tuple[Sequence, ...] = ()

    def worlds(self, sequence: Sequence) -> list[World]:
        """New worlds, with scalar twins and perhaps without, after a sequence of calls that was checked before."""
        worlds = [World(self.design, profile=self.profile, scalar_twins=how) for how in (True, False)[: 1 + self.twins]]
        for world in worlds:
            for name in sequence:
                world.play(BY_NAME[name])
        return worlds


_checked: dict[tuple[str, str], set[bytes]] = {}
"""The states on which this process has called ``check``, by design and profile: what it says follows from the state."""


def explore(task: Task) -> tuple[int, int, list[tuple[bytes, Sequence]]]:
    """Play every letter from each of the states.

    Returns:
        calls made, calls refused, and the digest of every state reached, with the sequence that led there.

    Raises:
        Found: something is wrong.
    """
    calls = refused = 0
    reached = []
    for sequence in task.states:
        worlds = task.worlds(sequence)
        before = canonical(worlds[0].kernel)
        idle: Sequence = ()
        for letter in ALPHABET:
            if not letter.applies(worlds[0]):
                continue
            calls += 1
            there = (*sequence, *idle, letter.name)
            refusal, state, name = _step(task, worlds, letter.name, there)
            if refusal:
                refused += 1
                if not (letter.partial or BEHIND_THE_END in refusal) and state != before:
                    raise Found(task.design, there, f"refused ({refusal}), but {explain_difference(before, state)}")
            if state == before:
                # The worlds are as they were: they serve for the next letter too.
                idle = (*idle, letter.name)
                continue
            reached.append((name, (*sequence, letter.name)))
            worlds, idle = task.worlds(sequence), ()
    return calls, refused, reached


def _step(task: Task, worlds: list[World], letter: str, there: Sequence) -> tuple[str, State, bytes]:
    # One call on all worlds, and every check: what it was refused with, the state, its digest.
    try:
        refusals = [world.play(BY_NAME[letter]) for world in worlds]
        states = [canonical(world.kernel) for world in worlds]
        name = digest(states[0])
        checked = _checked.setdefault((task.design, task.profile), set())
        if name not in checked:
            worlds[0].kernel.check()
            checked.add(name)
    except Exception as error:
        raise Found(task.design, there, f"{type(error).__name__}: {error}") from error
    if refusals[0] != refusals[-1]:
        raise Found(task.design, there, f"refused with {refusals[0]!r}, without scalar twins with {refusals[-1]!r}")
    if states[0] != states[-1]:
        raise Found(task.design, there, f"without scalar twins: {explain_difference(states[0], states[-1])}")
    costs = [world.kernel.costs.as_dict() for world in (worlds[0], worlds[-1])] if task.twins else [{}, {}]
    if costs[0] != costs[1]:
        differ = {op: (costs[0].get(op), costs[1].get(op)) for op in {**costs[0], **costs[1]}}
        differ = {op: pair for op, pair in differ.items() if pair[0] != pair[1]}
        raise Found(task.design, there, f"the costs differ, with and without scalar twins: {differ}")
    return refusals[0], states[0], name


def _opening(task: Task, names: Sequence) -> bytes:
    # The calls of an opening are checked like all others.
    worlds = task.worlds(())
    name = digest(canonical(worlds[0].kernel))
    for i, letter in enumerate(names):
        refusal, _, name = _step(task, worlds, letter, names[: i + 1])
        if refusal:
            raise Found(task.design, names[: i + 1], f"an opening was refused: {refusal}")
    return name


def search(
    design: str,
    depth: int,
    *,
    profile: str = "6.18",
    openings: Iterable[str] = OPENINGS,
    twins: bool = True,
    jobs: int = 1,
) -> Iterator[Count]:
    """Search to a depth; after each step of depth, what was counted so far.

    Args:
        depth: calls from an empty machine; after the other openings, which are two to five calls long, one less.
        openings: names of ``OPENINGS``.
        twins: compare with the machine without scalar twins too.
        jobs: processes that share the work.

    Raises:
        Found: a sequence after which something is wrong, with the sequence.
    """
    count = Count()
    seen: set[bytes] = set()
    frontier = _begin(Task(design, profile, twins), [name for name in openings if name == "empty"], seen)
    with multiprocessing.Pool(jobs) if jobs > 1 else _NoPool() as pool:
        for level in range(depth):
            if level == 1 or depth == 1:
                frontier += _begin(Task(design, profile, twins), [name for name in openings if name != "empty"], seen)
            size = max(1, min(64, len(frontier) // (4 * jobs)))
            parts = [tuple(frontier[i : i + size]) for i in range(0, len(frontier), size)]
            frontier = []
            for calls, refused, reached in pool.imap(explore, [Task(design, profile, twins, part) for part in parts]):
                count.calls += calls
                count.refused += refused
                for state, sequence in reached:
                    if state not in seen:
                        seen.add(state)
                        frontier.append(sequence)
            count.states = len(seen)
            yield count


def _begin(task: Task, openings: list[str], seen: set[bytes]) -> list[Sequence]:
    # The openings that lead to new states.
    begun = []
    for name in openings:
        state = _opening(task, OPENINGS[name])
        if state not in seen:
            seen.add(state)
            begun.append(OPENINGS[name])
    return begun


class _NoPool:
    # The interface of a pool, in this process.
    imap = staticmethod(map)

    def __enter__(self) -> _NoPool:
        return self

    def __exit__(self, *exc: object) -> None:
        return None


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--depth", type=int, help="calls from an empty machine (default 4 for two designs, else 3)")
    parser.add_argument("--design", action="append", choices=design_names(variants=True), help="default: all")
    parser.add_argument("--profile", default="6.18", help="the rules of which release (default 6.18)")
    parser.add_argument("--opening", action="append", choices=list(OPENINGS), help="default: all")
    parser.add_argument("--no-twins", action="store_true", help="leave out the machine without scalar twins")
    parser.add_argument("--jobs", type=int, default=2, help="processes (default 2)")
    args = parser.parse_args()
    print(f"{len(ALPHABET)} letters, {len(args.opening or OPENINGS)} openings, profile {args.profile}")
    for design in args.design or DESIGNS:
        began = time.monotonic()
        options = {"profile": args.profile, "openings": args.opening or OPENINGS, "twins": not args.no_twins}
        try:
            deepest = args.depth or DEEPEST.get(design, 3)
            for depth, count in enumerate(search(design, deepest, jobs=args.jobs, **options), 1):
                print(
                    f"{design}, depth {depth}: {count.calls:,} calls tried, {count.refused:,} refused;"
                    f" {count.states:,} different states; {time.monotonic() - began:.0f} s",
                    flush=True,
                )
        except (Found, InvariantError) as wrong:
            print(f"WRONG: {wrong}", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
