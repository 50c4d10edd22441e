"""Could two neighbouring VMAs become one, but for their permissions (``anon_vma_compatible``; rule 2.3)?

Whoever finds such a neighbour takes its anon_vma, so that the two may merge when their permissions are alike one day.
"""

from __future__ import annotations

from rmap.mm.mm_types import Vma
from rmap.uapi.vm_flags import VM_ACCESS, VM_IGNORE_MERGE


def mergeable_but_for_permissions(prev: Vma, next: Vma) -> bool:
    """Whether they touch, map the same open file or none, and their page indexes go on."""
    return (
        prev.end == next.start
        and prev.file is next.file
        and not (prev.flags ^ next.flags) & ~(VM_ACCESS | VM_IGNORE_MERGE)
        and prev.last + 1 == next.pgoff
    )
