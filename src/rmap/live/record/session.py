"""A recording while it runs: the thread that traces the program, takes pictures and empties the recorder.

It is one thread, because the kernel ties tracees to the thread that seized them, and because it makes the order plain:
at a stop the recorder is emptied first, then the picture is taken, so the picture has its place among the events.
When this thread ends, for whatever reason, every recorded process runs on.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from rmap.errors import SourceError
from rmap.live.capture.capture import capture
from rmap.live.record.actors import Actors
from rmap.live.record.assemble import Assembler, LateAssembler
from rmap.live.record.raw import Recorder
from rmap.live.record.tracer import Tracer
from rmap.live.sources.same_mm import kcmp_vm
from rmap.snapshot import Snapshot
from rmap.structs.memory import KernelMemory
from rmap.trace.spool import Spool
from rmap.trace.tables import AT_CHECKPOINT, AT_END, CLONE_VFORK, CLONE_VM

POLL_SECONDS = 0.02
"""How long the ring may fill unread: at 1.5 million records a second, the fastest a processor makes, a tenth of it."""


@dataclass(frozen=True)
class Checkpoints:
    """When pictures of everything are taken, besides at the end.

    Attributes:
        every: seconds from one to the next; 0 for none.
        at: seconds after the start.
        exits: also when a process is about to exit.
    """

    every: float = 0.0
    at: tuple[float, ...] = ()
    exits: bool = False


@dataclass
class Outcome:
    """How a recording ended; what is in it, is in the spool.

    Attributes:
        status: the wait status of the program, None if it had not ended.
        ended: whether nothing of the program is left.
        end_snapshot: whether the picture of the end could be taken.
        no_end: why there is no such picture, if there is none.
        missed: checkpoints that could not be taken, with the reason.
        absent: processes that a picture of all lacks.
        failure: what went wrong in the recorder, if something did.
        unseen_execs: execs that the tracer saw and the recorder did not.
    """

    status: int | None = None
    ended: bool = False
    end_snapshot: bool = False
    no_end: str = "the last process was killed before it could be stopped"
    missed: list[str] = field(default_factory=list)
    absent: set[int] = field(default_factory=set)
    failure: BaseException | None = None
    unseen_execs: int = 0


class Session(threading.Thread):
    """The tracing thread.

    Args:
        root: the child that will be the program, waiting before its exec.
        recorder: sees the events.
        spool: gets them.
        checkpoints: when to take pictures.
        actors: counts what the kernel itself changes.
        memory: for pictures with the kernel's own topology; None without BPF.
        when_done: called at the very end, in this thread.
    """

    def __init__(
        self,
        root: int,
        recorder: Recorder,
        spool: Spool,
        checkpoints: Checkpoints,
        actors: Actors,
        memory: KernelMemory | None,
        when_done: Callable[[], None],
    ) -> None:
        super().__init__(name="rmap-recorder", daemon=True)
        self.outcome = Outcome()
        self.attached = threading.Event()
        self._root = root
        self._recorder = recorder
        self._checkpoints = checkpoints
        self._actors = actors
        self._memory = memory
        self._when_done = when_done
        self._assembler = LateAssembler(spool) if recorder.late else Assembler(spool)
        self._told_to_stop = threading.Event()
        self._tracer: Tracer | None = None
        self._pausing = False
        self._at_end = False  # the last process is about to exit
        self._began = 0.0
        self._due = sorted(checkpoints.at)

    def stop(self) -> None:
        """Ask for an early end: what was recorded is kept, the program runs on."""
        self._told_to_stop.set()

    def run(self) -> None:
        """Trace until nothing is left, or until told to stop."""
        try:
            self._trace()
        except BaseException as error:
            self.outcome.failure = error
        finally:
            self.attached.set()
        try:
            self._assembler.finish(self._recorder.finish())
            self.outcome.unseen_execs = self._assembler.unseen_execs
        except BaseException as error:
            self.outcome.failure = self.outcome.failure or error
        self._when_done()

    def _trace(self) -> None:
        self._tracer = tracer = Tracer(self._root, self)
        self._recorder.follow(self._root)
        self._began = time.monotonic()
        if self._checkpoints.every:
            self._due = [self._checkpoints.every]
        self.attached.set()
        while not tracer.ended and not self._told_to_stop.is_set():
            tracer.wait(POLL_SECONDS)
            self._assembler.add(self._recorder.take())
            self._checkpoint_if_due()
            self.outcome.status = tracer.root_status
        self.outcome.ended = tracer.ended

    def _checkpoint_if_due(self) -> None:
        now = time.monotonic() - self._began
        if not self._due or now < self._due[0] or self._tracer is None or self._tracer.ended:
            return
        self._snapshot()
        if self._checkpoints.every:  # so much time to run, however long the picture took
            self._due = [time.monotonic() - self._began + self._checkpoints.every]
        else:
            self._due = [at for at in self._due if at > now]

    def _snapshot(self) -> None:
        # Whoever comes to its end while everything is being stopped is in the picture that is about to be taken.
        if self._tracer is None or self._pausing:
            return
        missing = self._take_snapshot(self._tracer)
        if missing and self._at_end:
            self.outcome.no_end = missing
        elif missing:
            self.outcome.missed.append(missing)

    def _take_snapshot(self, tracer: Tracer) -> str:
        # Stop everything, empty the recorder, take the picture, go on. Why there is no picture, if there is none.
        self._pausing = True
        try:
            tracer.pause()
        except SourceError as error:
            return str(error)
        finally:
            self._pausing = False
        cause = AT_END if self._at_end else AT_CHECKPOINT
        try:
            self._assembler.add(self._recorder.take_until_now())
            self._note_actors()
            now = time.monotonic_ns()
            pids = tracer.pids()
            snapshot = self._capture(pids)
        finally:
            tracer.go_on()
        if snapshot is None:
            if tracer.ended:
                return ""
            return "no recorded process could be read (/proc shows no memory of one whose first thread has ended)"
        self._assembler.checkpoint(snapshot, cause, now)
        self.outcome.end_snapshot = self.outcome.end_snapshot or cause == AT_END
        self._note_absent(pids, snapshot)
        return ""

    def _note_absent(self, pids: list[int], snapshot: Snapshot) -> None:
        # /proc shows no memory of a process whose first thread has ended while others go on.
        absent = set(pids) - {*snapshot.processes.pid.tolist(), *snapshot.sharers.pid.tolist()}
        self.outcome.absent.update(absent)

    def _note_actors(self) -> None:
        # Between two pictures it does not matter when: nothing but pictures tells what was changed.
        for actor, pages in self._actors.news().items():
            self._assembler.gone_on(actor, pages, time.monotonic_ns())

    def _capture(self, pids: list[int]) -> Snapshot | None:
        snapshot = capture(pids, vm_flags=True, memory=self._memory, bpf=self._memory is not None)
        return snapshot if len(snapshot.processes) else None

    def at_exec(self, pid: int) -> None:
        """Take the picture of one process that has just got a new program."""
        self._assembler.add(self._recorder.take_until_now())
        self._assembler.exec_snapshot(pid, self._capture([pid]))

    def at_fork(self, tid: int, new: int, vfork: bool) -> None:
        """Tell a recorder that cannot see it how the task was made."""
        if self._recorder.late:
            shared = vfork or kcmp_vm(tid, new) == 0  # a vfork child may be at its exec already
            self._recorder.hint(new, (CLONE_VFORK if vfork else 0) | (CLONE_VM if shared else 0), shared)

    def at_exit(self, pid: int, last: bool) -> None:
        """Take the picture of the end, before the last memory goes; or one more, where that was asked for."""
        self._at_end = last
        if last or self._checkpoints.exits:
            self._snapshot()
