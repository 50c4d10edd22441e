"""THE RUNNING KERNEL: the machine under us, read from /proc and seen as a Snapshot.

Sources: Linux's fs/proc/{base,task_mmu,page}.c as documented in Documentation/admin-guide/mm/pagemap.rst (6.18).

Names are bound when first used: a question about one page loads nothing that a picture of the whole machine needs.
"""

from __future__ import annotations

from importlib import import_module

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from rmap.live.ability import Abilities, abilities
    from rmap.live.camera import capture

__all__ = ["Abilities", "abilities", "capture"]

_HOME = {"Abilities": "ability", "abilities": "ability", "capture": "camera"}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
