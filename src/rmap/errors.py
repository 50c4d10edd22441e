"""Every error rmap raises on purpose.

Four kinds, told apart by whose fault it is:

* the modelled kernel refused a call: :class:`SyscallError`;
* the question has no answer: :class:`UntrackedPage`;
* the world is not as needed (a file, a privilege, a size): :class:`SnapshotError`, :class:`TraceError`,
  :class:`SourceError`, :class:`NotPermitted`, :class:`LimitError`, :class:`UsageError`;
* rmap itself is wrong: :class:`InvariantError`.
"""

from __future__ import annotations

import os


class RmapError(Exception):
    """Base of every error that is not an ``OSError``."""


class SyscallError(OSError):
    """A modelled system call that Linux would refuse. Nothing was changed.

    Usual causes: a range that is not mapped (ENOMEM, EFAULT), a protection that forbids the access
    (EACCES), an unaligned or empty range (EINVAL), a call the model does not have (ENOSYS).

    Args:
        errno: Linux's error number.
        call: the system call, as Linux names it.
        detail: what exactly was refused, for a reader.
    """

    def __init__(self, errno: int, call: str, detail: str = "") -> None:
        self.call = call
        self.detail = detail
        text = f"{call}: {os.strerror(errno)}"
        super().__init__(errno, f"{text} ({detail})" if detail else text)

    def __reduce__(self) -> tuple[type[SyscallError], tuple[int, str, str]]:
        return (SyscallError, (self.errno or 0, self.call, self.detail))


class UntrackedPage(RmapError):
    """The page is mapped, or may be, in a way that no reverse map tracks.

    Attributes:
        kind: the name of a kind of frames (``"zero"``, ``"kernel"``, ``"ksm"``, ...), or ``"free"``.
        reason: one sentence: why the kernel keeps no reverse map for such a page.
    """

    def __init__(self, kind: str, reason: str) -> None:
        self.kind = kind
        self.reason = reason
        super().__init__(kind, reason)

    def __str__(self) -> str:
        return f"no reverse map tracks this page ({self.kind}): {self.reason}"


class InvariantError(RmapError):
    """Broken internal state: a bug in rmap or in a reverse-map design, never the user's.

    Attributes:
        id: the number of the invariant, as in ``docs/rules.md`` (``"I13"``), or a name for an
            internal one (``"walk"``).
    """

    def __init__(self, id: str, message: str) -> None:
        self.id = id
        super().__init__(id, message)

    def __str__(self) -> str:
        return f"{self.args[0]}: {self.args[1]}"


class SnapshotError(RmapError):
    """A picture of memory that cannot be used: truncated, foreign, contradictory or too new."""


class TraceError(RmapError):
    """A recorded program that cannot be used: truncated, foreign, contradictory, too new, or with such a picture."""


class SourceError(RmapError):
    """Something on the running machine that cannot be read as expected."""


class NotPermitted(SourceError):
    """The kernel refuses this to this user, or does not have it.

    Attributes:
        needed: what is missing (a capability, a kernel option).
        run: the command that would work, or ``""``.
        works: what works now, or ``""``.
    """

    def __init__(self, message: str, needed: str = "", run: str = "", works: str = "") -> None:
        self.needed = needed
        self.run = run
        self.works = works
        super().__init__(message)


class LimitError(RmapError):
    """A stated limit was reached (frames, page tables, processes): ask for more, or for less."""


class UsageError(RmapError):
    """A request that makes no sense as it stands: an unknown name, a bad size, an impossible option."""
