"""Exit statuses: the one place that decides what a shell sees."""

from __future__ import annotations

from rmap.errors import (
    InvariantError,
    LimitError,
    NotPermitted,
    SnapshotError,
    SourceError,
    SyscallError,
    TraceError,
    UntrackedPage,
    UsageError,
)

OK = 0
NO = 1
USAGE = 2
NOT_PERMITTED = 3
BAD_INPUT = 4
INTERNAL = 70
INTERRUPTED = 130

MEANINGS: dict[int, str] = {
    OK: "found, or all is well; hidden mappers are named in the answer",
    NO: "the answer is no: not mapped, a design is wrong, a check fails",
    USAGE: "the request makes no sense as it stands",
    NOT_PERMITTED: "not permitted to this user, or not in this kernel",
    BAD_INPUT: "a file or source that cannot be read or written as needed",
    INTERNAL: "rmap itself is wrong: please report it",
    INTERRUPTED: "interrupted",
}

# The first class that matches decides: a subclass stands before its base.
_BY_ERROR: tuple[tuple[type[BaseException], int], ...] = (
    (SyscallError, USAGE),
    (UsageError, USAGE),
    (LimitError, USAGE),
    (UntrackedPage, NO),
    (NotPermitted, NOT_PERMITTED),
    (SourceError, BAD_INPUT),
    (SnapshotError, BAD_INPUT),
    (TraceError, BAD_INPUT),
    (InvariantError, INTERNAL),
    (KeyboardInterrupt, INTERRUPTED),
    (OSError, BAD_INPUT),
)


def of_error(error: BaseException) -> int:
    """The status that tells this error to a shell; ``INTERNAL`` for one that nobody foresaw."""
    return next((status for kind, status in _BY_ERROR if isinstance(error, kind)), INTERNAL)
