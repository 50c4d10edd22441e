"""Recording a real program: every event that changes its memory, and pictures in between, as a trace.

``record`` does it. Events are seen by BPF (``recorder.bpf.c``) or perf; the program is stopped at its execs and
checkpoints by ptrace, and read as ``rmap snap`` reads processes.
"""

from __future__ import annotations

from rmap.live.record.run import Recorded, record, why_not
from rmap.live.record.session import Checkpoints

__all__ = ["Checkpoints", "Recorded", "record", "why_not"]
