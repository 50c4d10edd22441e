"""rmap: from a page back to every page-table entry that maps it.

The public names; everything else may change. They are bound when first used, so that ``import rmap`` and
``rmap --help`` load neither NumPy nor the model:

    >>> from rmap import Kernel
    >>> k = Kernel(design="anon_vma_chain")
    >>> p = k.spawn()
    >>> a = p.mmap(8192)
    >>> p.write(a, 8192)
    >>> c = p.fork()
    >>> len(k.walk(k.pfn(p, a)))
    2
"""

from __future__ import annotations

from rmap.errors import (
    InvariantError,
    LimitError,
    NotPermitted,
    RmapError,
    SnapshotError,
    SourceError,
    SyscallError,
    TraceError,
    UntrackedPage,
    UsageError,
)
from rmap.lazy import bind_when_used

TYPE_CHECKING = False  # typing's own constant: importing typing would be a fifth of the start-up
if TYPE_CHECKING:
    from rmap.designs import DESIGNS
    from rmap.kernel import Kernel, Process, PteRef
    from rmap.live.capture.capture import capture
    from rmap.snapshot import Snapshot

__version__ = "0.1.0"

__all__ = [
    "DESIGNS",
    "InvariantError",
    "Kernel",
    "LimitError",
    "NotPermitted",
    "Process",
    "PteRef",
    "RmapError",
    "Snapshot",
    "SnapshotError",
    "SourceError",
    "SyscallError",
    "TraceError",
    "UntrackedPage",
    "UsageError",
    "__version__",
    "capture",
]

bind_when_used(
    __name__,
    {
        "DESIGNS": "rmap.designs",
        "Kernel": "rmap.kernel",
        "Process": "rmap.kernel",
        "PteRef": "rmap.kernel",
        "Snapshot": "rmap.snapshot",
        "capture": "rmap.live.capture.capture",
    },
)


def __dir__() -> list[str]:
    return sorted(__all__)
