"""Starting the program: a child that waits for permission before its exec, so that a tracer can seize it first."""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from typing import NoReturn

from rmap.errors import UsageError


class Launched:
    """A child that has not become the program yet.

    Args:
        pid: its process id.
        permission: write end of the pipe it waits at.
        complaint: read end of the pipe it complains to if there is no such program; closed by a successful exec.
        name: the program.
    """

    def __init__(self, pid: int, permission: int, complaint: int, name: str) -> None:
        self.pid = pid
        self.error: UsageError | None = None
        self._permission = permission
        self._complaint = complaint
        self._name = name

    @property
    def started(self) -> bool:
        """Whether it was let go."""
        return self._permission < 0

    def go(self) -> None:
        """Let it become the program; afterwards ``error`` says why it could not, if so."""
        os.write(self._permission, b"g")
        os.close(self._permission)
        self._permission = -1
        number = os.read(self._complaint, 16)
        if number:
            reason = os.strerror(int(number))
            self.error = UsageError(f"{self._name}: {reason}: nothing was recorded")

    def give_up(self) -> None:
        """Close the pipes: a child that still waits ends without becoming the program."""
        for end in (self._permission, self._complaint):
            if end >= 0:
                os.close(end)
        if self._permission >= 0:
            with suppress(ChildProcessError):
                os.waitpid(self.pid, 0)
        self._permission = self._complaint = -1


def launch(command: list[str]) -> Launched:
    """Make the child.

    Args:
        command: the program, looked up in PATH, and its arguments.
    """
    permission_read, permission = os.pipe()
    complaint, complaint_write = os.pipe()
    pid = os.fork()
    if not pid:
        os.close(permission)
        os.close(complaint)
        _become(command, permission_read, complaint_write)
    os.close(permission_read)
    os.close(complaint_write)
    return Launched(pid, permission, complaint, command[0])


def _become(command: list[str], permission: int, complaint: int) -> NoReturn:
    # In the child. Nothing of rmap may run on here, whatever happens.
    try:
        if os.read(permission, 1):
            signal.pthread_sigmask(signal.SIG_SETMASK, ())
            for number in (signal.SIGPIPE, signal.SIGXFSZ):  # which Python ignores, and exec would keep ignored
                signal.signal(number, signal.SIG_DFL)
            os.execvp(command[0], command)
    except OSError as error:
        with suppress(OSError):
            os.write(complaint, str(error.errno).encode())
    finally:
        os._exit(127)
