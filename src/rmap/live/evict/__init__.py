"""Taking pages out of every address space, and looking afterwards whether they went."""

from __future__ import annotations

from rmap.live.evict.run import evict
from rmap.live.evict.targets import AnonTarget, FileTarget, Nothing, Target, target_of

__all__ = ["AnonTarget", "FileTarget", "Nothing", "Target", "evict", "target_of"]
