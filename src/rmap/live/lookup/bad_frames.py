"""What the running machine has in some frames, and who maps them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from rmap.live.capture.capture import capture
from rmap.live.lookup.look_up import NoPage, look_up
from rmap.live.sources.kpage_columns import KpageFile, kinds, read_page_state
from rmap.snapshot.keys import Key
from rmap.snapshot.kinds import KERNEL, KINDS
from rmap.snapshot.questions.answer import Who
from rmap.snapshot.questions.badframe import Verdict, verdict
from rmap.snapshot.snapshot import Snapshot
from rmap.uapi.kpageflags import KPF_LRU, KPF_NOPAGE

_ONE_BY_ONE = 3  # more frames are looked up in a picture of everything


@dataclass(frozen=True)
class BadFrame:
    """One frame: what is in it, whom it hits, what can be done."""

    pfn: int
    verdict: Verdict
    who: Who


def bad_frames(pfns: Sequence[int], *, say: Callable[[str], None] = lambda doing: None) -> list[BadFrame]:
    """Look at some frames.

    Raises:
        NotPermitted: this user may not.
    """
    snapshot = capture(bpf=False) if len(pfns) > _ONE_BY_ONE else None
    return [_look(pfn, snapshot, say) for pfn in pfns]


def _look(pfn: int, snapshot: Snapshot | None, say: Callable[[str], None]) -> BadFrame:
    raw = _raw_flags(pfn)
    state = read_page_state(np.array([pfn]), np.array([1]))
    order = int(state.order[np.searchsorted(state.pfn, pfn)])
    kind = int(kinds(np.array([raw]))[0])
    if snapshot is not None and snapshot.frame_run(pfn) >= 0:
        who = snapshot.who(pfn)
    elif snapshot is None:
        answer = look_up(Key("pfn", pfn=pfn), say=say)
        assert not isinstance(answer, NoPage)
        who = answer
    else:
        who = Who(pfn, KINDS[kind].name, 0, 0, "unmapped", [])
    if kind in KINDS.cached and not raw & KPF_LRU and not who.found:
        kind = KERNEL  # without the LRU's flag and without mappers: of nobody but the kernel
    return BadFrame(pfn, verdict(kind, raw, order, bool(who.mapcount)), who)


def _raw_flags(pfn: int) -> int:
    file = KpageFile("kpageflags")
    try:
        return int(file.read(np.array([pfn]), np.array([1]), KPF_NOPAGE)[0])
    finally:
        file.close()


def recorded_frames(snapshot: Snapshot, pfns: Sequence[int]) -> list[BadFrame]:
    """The same of a picture, which knows mapped frames only."""
    answer = []
    for pfn in pfns:
        run = snapshot.frame_run(pfn)
        who = snapshot.who(pfn)
        if run < 0:
            nothing = Verdict("not in the picture", "unknown: nobody who was recorded maps it")
            answer.append(BadFrame(pfn, nothing, who))
            continue
        frames = snapshot.frames
        judged = verdict(int(frames.kind[run]), int(frames.flags[run]), int(frames.order[run]), bool(who.mapcount))
        answer.append(BadFrame(pfn, judged, who))
    return answer
