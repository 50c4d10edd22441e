"""One recorded program under one design: play it, hold every walk against the page tables, gather what it cost.

What is measured at one moment (memory, walks, whether the design is right) is measured at the picture with the most
entries: at the end of most programs little is left. Costs are of the whole.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

import numpy as np

from rmap.columns import I64
from rmap.kernel import Kernel
from rmap.lab.compare.figures import figures_of, memory_of
from rmap.lab.compare.sampling import SAMPLE_PAGES, walk_figures
from rmap.lab.compare.workers import Answer, Say
from rmap.lab.replay.player import TracePlayer
from rmap.lab.replay.results import Checkpoint, TracePlayed
from rmap.lab.replay.run import MachineState, look
from rmap.lab.results import DesignResult, Figure, Subject
from rmap.mm.frames import ANON
from rmap.trace import Trace

SHOWS = ("fault", "fork", "COW", "exit", "unmap", "mprotect")
SAMPLES = ((True, "an anonymous page"), (False, "a page of a file"))


@dataclass
class _Seen:
    moment: MachineState
    figures: list[Figure]


def run_trace(source: str | Trace, name: str, summary: str, profile: str, seed: int, design: str, say: Say) -> Answer:
    """Play a trace and measure.

    Args:
        source: a file or folder, or the trace.
        name, summary: of the subject; without a summary, the recorded command is one.
        seed: of the pages drawn for walks.
        say: told each step.
    """
    say("reading the trace")
    trace = source if isinstance(source, Trace) else Trace.load(source)
    chosen = _fullest(trace)
    seen: list[_Seen] = []

    def watch(kernel: Kernel, checkpoint: Checkpoint) -> None:
        if checkpoint.number == chosen:
            say("comparing every walk with the page tables")
            seen.append(_look(kernel, seed))
            say("playing on")

    player = TracePlayer(trace, design, profile, watch=watch)
    say(f"playing {len(trace.events):,} events")
    played = player.play()
    at = seen[0] if seen else _look(player.kernel, seed)
    costs = player.kernel.costs.as_dict()
    answer = at.moment.correctness
    subject = Subject(
        kind="trace",
        name=name,
        summary=summary or f"recorded: {' '.join(trace.about['command'])}",
        processes=at.moment.processes,
        vmas=at.moment.vmas,
        pages=answer.pages,
        ptes=answer.ptes_total,
        seed=seed,
    )
    result = DesignResult(
        design=design,
        correctness=answer,
        memory=memory_of(at.moment.structures),
        bytes_per_page=sum(at.moment.structures.values()) / max(1, answer.pages),
        figures=(*figures_of(costs, SHOWS), *at.figures),
        vmas=at.moment.vmas,
        costs=costs,
        structures=at.moment.structures,
        notes=_notes(played),
    )
    return subject, result


def _fullest(trace: Trace) -> int:
    # The number of the picture of all processes that has the most entries, -1 if there is none.
    sizes = {i: moment.snapshot.nr_ptes for i, moment in enumerate(trace.moments) if moment.pid < 0}
    return max(sizes, key=lambda i: (sizes[i], -i), default=-1)


def _look(kernel: Kernel, seed: int) -> _Seen:
    moment = look(kernel)
    rng = np.random.default_rng(seed)
    figures: list[Figure] = []
    for anonymous, label in SAMPLES:
        pages = _draw(kernel, anonymous, rng)
        if len(pages):
            figures += walk_figures(kernel, pages, label)
    return _Seen(moment, figures)


def _draw(kernel: Kernel, anonymous: bool, rng: np.random.Generator) -> I64:
    frames = kernel.core.frames
    entries: I64 = np.flatnonzero(frames.mapcount)
    kind = (frames.flags[entries] & ANON) != 0
    pages = entries[kind if anonymous else ~kind]
    return np.sort(rng.choice(pages, min(SAMPLE_PAGES, len(pages)), replace=False)) if len(pages) else pages


def _notes(played: TracePlayed) -> tuple[str, ...]:
    return tuple(f"{finding.count:,} x {finding.what} (first: {finding.first})" for finding in played.findings)


def name_of(path: str | os.PathLike[str]) -> str:
    """What a trace is called: the last part of its path."""
    return os.path.basename(os.fspath(path).rstrip("/"))
