"""Recording a program: start it, follow it to its end, pack what was seen into a trace.

What is recorded goes to the folder ``NAME.trace.part`` at once, and becomes ``NAME.trace`` at the end. If this
process is told to stop, or fails, the trace says that it is incomplete and why; if it is killed, the folder stays, and
can be read as it is.
"""

from __future__ import annotations

import fcntl
import os
import platform
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rmap.errors import NotPermitted, TraceError, UsageError
from rmap.live.bpf import memory_or_none
from rmap.live.doctor.abilities import missing_frames
from rmap.live.record.actors import Actors
from rmap.live.record.by_bpf import RING_BYTES, BpfRecorder
from rmap.live.record.by_perf import PerfRecorder
from rmap.live.record.launch import Launched, launch
from rmap.live.record.raw import Recorder
from rmap.live.record.session import Checkpoints, Outcome, Session
from rmap.live.sources.ptrace import wait_for_thread_end
from rmap.snapshot import SnapshotBuilder
from rmap.snapshot.storage import refuse_target
from rmap.structs.memory import KernelMemory
from rmap.trace import Trace
from rmap.trace.spool import Spool, part_of
from rmap.trace.tables import InodeTable

RECORDERS = ("auto", "bpf", "perf")
_STOPPERS = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP}
_DONE = signal.SIGRTMIN
_OURS = {_DONE, signal.SIGCHLD}
_SMALL_RING = 1 << 16
_FROM_TERMINAL = 0x80  # SI_KERNEL

Tell = Callable[[str], None]


@dataclass(frozen=True)
class Recorded:
    """What came of a recording.

    Attributes:
        path: of the trace.
        trace: what it holds.
        recorder: who saw the events: ``"bpf"`` or ``"perf"``.
        seconds: from the start to the end of the recording.
        exit_status: of the program; negative: the signal that ended it; None: it runs on.
        interrupted: the signal that ended the recording early, or None.
        notes: what should be known besides, a sentence each.
    """

    path: Path
    trace: Trace
    recorder: str
    seconds: float
    exit_status: int | None
    interrupted: str | None
    notes: list[str]


def record(
    command: list[str],
    target: Path,
    *,
    checkpoints: Checkpoints | None = None,
    recorder: str = "auto",
    ring_bytes: int = RING_BYTES,
    force: bool = False,
    tell: Tell = lambda line: None,
) -> Recorded:
    """Run a program and record what happens to its memory, and to that of its descendants.

    Args:
        command: the program and its arguments. Its input and output are this process's.
        target: the trace to write.
        checkpoints: when to take pictures, besides at every exec and at the end.
        recorder: ``"bpf"``, ``"perf"``, or ``"auto"``: BPF where it is possible.
        ring_bytes: room for events not yet read.
        force: replace ``target`` if it exists.
        tell: called with what a user should know while it runs.

    Raises:
        UsageError: the target exists, no such program, a bad size.
        NotPermitted: this user may not record.
        TraceError: the recording could not be packed; it stays in its folder.
    """
    refuse_target(target, force=force)
    if missing := missing_frames():
        raise NotPermitted(
            "a recording needs pictures of memory, and page frames are hidden from this user",
            needed=missing,
            works="rmap compare, rmap explain, rmap replay of a trace that another user recorded",
        )
    keep_leftover(target, tell)
    with ExitStack() as stack:
        seen_by = _recorder(recorder, ring_bytes, part_of(target), tell)
        stack.callback(seen_by.close)
        memory = _kernel_memory(stack)
        actors = Actors()
        stack.callback(actors.close)
        launched = launch(command)
        stack.callback(launched.give_up)
        spool = Spool(part_of(target), _about(command, seen_by.name))
        stack.callback(spool.close)
        stack.enter_context(locked(spool.folder))
        session, interrupted, seconds = _run(
            launched, seen_by, spool, checkpoints or Checkpoints(), actors, memory, tell
        )
        refused = launched.error or (None if launched.started else session.outcome.failure)
        if refused is not None:
            spool.remove()
            raise refused
        spool.about["actors"] = actors.why_not is None
        notes = _finish_about(spool.about, session.outcome, seen_by, interrupted)
        trace = pack(spool.folder, target, spool.about, force=force)
        spool.remove()
    return Recorded(target, trace, seen_by.name, seconds, spool.about["exit_status"], interrupted, notes)


def why_not() -> str | None:
    """What is missing to record programs by BPF, in words; None if nothing is. Changes nothing."""
    if missing := missing_frames():
        return missing
    try:
        BpfRecorder(_SMALL_RING).close()
    except NotPermitted as error:
        return error.needed
    return None


def _recorder(choice: str, ring_bytes: int, part: Path, tell: Tell) -> Recorder:
    if choice not in RECORDERS:
        raise UsageError(f"no recorder {choice!r}: {', '.join(RECORDERS)}")
    if ring_bytes < 4096 or ring_bytes & (ring_bytes - 1):
        raise UsageError(f"the ring must have a power of two of bytes, at least 4,096; not {ring_bytes:,}")
    if choice != "perf":
        try:
            return BpfRecorder(ring_bytes)
        except NotPermitted as error:
            if choice == "bpf":
                raise
            refused = error
        tell(f"rmap: no recording by BPF ({refused.needed}); perf is tried, which is slower and knows less of files")
        try:
            return PerfRecorder(part / "perf.data")
        except NotPermitted as error:
            raise NotPermitted(
                "programs cannot be recorded here: neither BPF nor perf is permitted",
                needed=f"{refused.needed}; or {error.needed}",
                works="rmap compare, rmap explain, rmap replay of a trace that another user recorded",
            ) from None
    return PerfRecorder(part / "perf.data")


def _kernel_memory(stack: ExitStack) -> KernelMemory | None:
    memory = memory_or_none()
    return None if memory is None else stack.enter_context(memory)


def _about(command: list[str], recorder: str) -> dict[str, Any]:
    return {
        "tool": SnapshotBuilder("kernel").about["tool"],
        "host": os.uname().nodename,
        "release": os.uname().release,
        "machine": platform.machine(),
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "command": list(command),
        "recorder": recorder,
        "lost": 0,
        "exit_status": None,
    }


def _run(
    launched: Launched,
    seen_by: Recorder,
    spool: Spool,
    checkpoints: Checkpoints,
    actors: Actors,
    memory: KernelMemory | None,
    tell: Tell,
) -> tuple[Session, str | None, float]:
    here = threading.get_ident()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {*_STOPPERS, _DONE, signal.SIGCHLD})
    session = Session(
        launched.pid, seen_by, spool, checkpoints, actors, memory, lambda: signal.pthread_kill(here, _DONE)
    )
    began = time.monotonic()
    try:
        session.start()
        session.attached.wait()
        if session.outcome.failure is None:
            launched.go()
        interrupted = _wait(session, launched, tell)
        session.join()
        wait_for_thread_end(session.native_id)
    finally:
        while (left := signal.sigtimedwait(_OURS, 0)) is not None and left.si_signo in _OURS:
            pass  # not to be delivered when unblocked
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    return session, interrupted, time.monotonic() - began


def _wait(session: Session, launched: Launched, tell: Tell) -> str | None:
    # The name of the signal that ended the recording, None if it ended by itself.
    asked = False
    while session.is_alive():
        info = signal.sigtimedwait({*_STOPPERS, _DONE}, 0.5)
        if info is None or info.si_signo not in _STOPPERS:  # of a wait that a stop broke off, Python tells no signal
            continue
        name = signal.Signals(info.si_signo).name
        if info.si_signo == signal.SIGINT and info.si_code == _FROM_TERMINAL and not asked:
            # The terminal has sent it to the program as well: it may be just how the program is to be ended.
            asked = True
            tell("rmap: the program was interrupted, too; recording until it ends (once more: stop recording now)")
            continue
        session.stop()
        session.join()
        return name
    return None


def _finish_about(about: dict[str, Any], outcome: Outcome, seen_by: Recorder, interrupted: str | None) -> list[str]:
    reasons, notes = [], []
    about["lost"] = seen_by.lost()
    if outcome.failure is not None:
        reasons.append(f"the recorder failed: {outcome.failure}")
    if interrupted:
        reasons.append(f"the recording was stopped by {interrupted}")
    if about["lost"]:
        reasons.append(f"{about['lost']:,} events were lost: the ring buffer was full (--ring-size)")
    if unseen := seen_by.unseen():
        reasons.append(unseen)
    if outcome.unseen_execs:
        reasons.append(f"{outcome.unseen_execs:,} execs were seen by the tracer alone (another pid namespace?)")
    if outcome.ended and not outcome.end_snapshot:
        reasons.append(f"there is no picture of the end: {outcome.no_end}")
    about["complete"], about["why_incomplete"] = not reasons, "; ".join(reasons)
    if outcome.status is not None:
        about["exit_status"] = os.waitstatus_to_exitcode(outcome.status)
    for reason in outcome.missed:
        notes.append(f"a checkpoint could not be taken: {reason}")
    if outcome.absent:
        named = ", ".join(map(str, sorted(outcome.absent)))
        notes.append(f"pictures lack processes whose first thread had ended before the others: {named}")
    about["missed_checkpoints"] = len(outcome.missed)
    return notes


def pack(folder: Path, target: Path, about: dict[str, Any], *, force: bool = False) -> Trace:
    """Make the folder of a recording into a trace, and read it back whole from the folder first.

    Args:
        folder: of the recording; it stays.
        target: the trace.
        about: in place of what the folder says of itself; empty: as the folder says.
        force: replace ``target`` if it exists.

    Raises:
        TraceError: the recording contradicts itself.
    """
    recording = Trace.load(folder)
    about = {**recording.about, **about}
    trace = Trace(about, recording.events, recording.opens, _named_files(recording), recording.moments)
    trace.save(target, force=force)
    return trace


def _named_files(trace: Trace) -> InodeTable:
    # A file whose descriptor was closed at once has only its last name: pictures know its path.
    paths: dict[tuple[int, int], str] = {}
    for moment in trace.moments:
        seen = moment.snapshot.files
        paths.update(zip(zip(seen.dev.tolist(), seen.inode.tolist()), seen.path))
    keys = zip(trace.files.dev.tolist(), trace.files.inode.tolist())
    names = [name if name.startswith("/") else paths.get(key, name) for key, name in zip(keys, trace.files.path)]
    return replace(trace.files, path=names)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold a recording's folder: who finds it unlocked knows that its recorder is gone."""
    with (folder / "about.json").open("rb") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield


def keep_leftover(target: Path, tell: Tell) -> Path | None:
    """Make a trace of an earlier recording of this name that did not come to its end, under a name of its own.

    Args:
        target: the trace that recording was to become.
        tell: called with what was done.

    Returns:
        the trace made of it; None if there was none.

    Raises:
        UsageError: that recording still runs.
    """
    folder = part_of(target)
    if not folder.exists():
        return None
    with ExitStack() as stack:
        try:
            stack.enter_context(locked(folder))
        except BlockingIOError:
            raise UsageError(f"{target} is being recorded right now, by another rmap") from None
        except OSError as error:
            raise UsageError(f"{folder} is in the way, and is no recording: {error.strerror}") from None
        kept = next(path for path in _names(target) if not path.exists())
        try:
            trace = pack(folder, kept, {})
        except TraceError as error:
            raise UsageError(f"{folder} is in the way, and is no recording that can be kept: {error}") from None
    shutil.rmtree(folder)
    tell(
        f"rmap: an earlier recording of {target.name} did not come to its end; "
        f"its {len(trace.events):,} events are kept in {kept}"
    )
    return kept


def _names(target: Path) -> Iterator[Path]:
    number = 1
    while True:
        yield target.with_name(f"{target.stem}.unfinished-{number}{target.suffix}")
        number += 1
