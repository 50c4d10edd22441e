"""THE RUNNING KERNEL: the machine under us, read from /proc and seen as a Snapshot.

Sources: Linux's fs/proc/{base,task_mmu,page}.c as documented in Documentation/admin-guide/mm/pagemap.rst (6.18).
"""

from __future__ import annotations

from rmap.lazy import bind_when_used

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rmap.live.abilities import Abilities, abilities
    from rmap.live.capture import capture

__all__ = ["Abilities", "abilities", "capture"]

bind_when_used(
    __name__,
    {"Abilities": "rmap.live.abilities", "abilities": "rmap.live.abilities", "capture": "rmap.live.capture"},
)
