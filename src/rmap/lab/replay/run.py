"""A trace from a file, played under one design: what ``rmap replay`` and ``rmap verify`` ask for."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass

from rmap.kernel import Kernel
from rmap.lab.correctness import correctness
from rmap.lab.replay.player import TracePlayer
from rmap.lab.replay.results import Checkpoint, ReplayReport, TraceSummary
from rmap.lab.results import Correctness
from rmap.trace import Trace

Say = Callable[[str], None]


@dataclass
class MachineState:
    """The machine when it was looked at: right? how large?"""

    correctness: Correctness
    processes: int
    vmas: int
    structures: dict[str, int]

    @classmethod
    def of(cls, kernel: Kernel) -> MachineState:
        """Look now. Every walk is held against the page tables."""
        mms = kernel.core.mms.values()
        return cls(correctness(kernel), len(mms), sum(len(mm.vmas) for mm in mms), kernel.metadata_bytes())


def replay(
    source: str | os.PathLike[str] | Trace,
    *,
    design: str = "anon_vma_chain",
    profile: str = "6.18",
    say: Say = lambda doing: None,
) -> ReplayReport:
    """Play a trace, holding the model against every picture in it.

    Args:
        source: a file, the folder of an unfinished recording, or a trace in memory.
        say: told what goes on.

    Raises:
        TraceError: the file is no trace.
        UsageError: no such design or profile.
        LimitError: it needs more memory than a machine of the model is given.
        InvariantError: the machine that came out of it contradicts itself: our bug.
    """
    say("reading the trace")
    trace = source if isinstance(source, Trace) else Trace.load(source)
    last = len(trace.moments) - 1
    moments: list[MachineState] = []

    def watch(kernel: Kernel, checkpoint: Checkpoint) -> None:
        say(f"picture {checkpoint.number + 1} of {last + 1}")
        if checkpoint.number == last:
            moments.append(look(kernel))

    player = TracePlayer(trace, design, profile, watch=watch)
    say(f"playing {len(trace.events):,} events")
    played = player.play()
    moment = moments[0] if moments else look(player.kernel)
    return ReplayReport(
        trace=summary_of(trace, source),
        design=design,
        profile=profile,
        played=played,
        correctness=moment.correctness,
        processes=moment.processes,
        vmas=moment.vmas,
        structures=moment.structures,
        costs=player.kernel.costs.as_dict(),
    )


def look(kernel: Kernel) -> MachineState:
    """The machine now, after its own invariants were checked."""
    kernel.check()
    return MachineState.of(kernel)


def summary_of(trace: Trace, source: str | os.PathLike[str] | Trace) -> TraceSummary:
    """Which trace this is."""
    about, time = trace.about, trace.events.time
    return TraceSummary(
        name="trace" if isinstance(source, Trace) else os.path.basename(os.fspath(source).rstrip("/")),
        command=tuple(about["command"]),
        recorder=about["recorder"],
        release=about["release"],
        host=about["host"],
        time=about["time"],
        events=len(trace.events),
        pictures=len(trace.moments),
        span_ns=int(time[-1] - time[0]) if len(time) else 0,
        complete=about["complete"],
        why_incomplete=about["why_incomplete"],
        lost=about["lost"],
    )
