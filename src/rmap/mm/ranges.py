"""Ranges of addresses, and the areas in them: what the system calls that change areas have in common."""

from __future__ import annotations

import errno
from collections.abc import Callable

from rmap.errors import SyscallError
from rmap.mm.mm_types import Mm, Vma


def find_vma(mm: Mm, addr: int) -> Vma | None:
    """The first area that ends behind an address, containing it or not (``find_vma``)."""
    return mm.find(addr) or mm.neighbours(addr, addr)[1]


def change_range(mm: Mm, start: int, end: int, call: str, change: Callable[[Vma, int, int], Vma]) -> None:
    """Change area after area of ``[start, end)``, up to the first hole or refusal; what is changed then stays changed.

    Args:
        change: changes the part ``[low, high)`` of an area; returns the area that covers it then. One that has
            swallowed its successor is not visited twice.

    Raises:
        SyscallError: ENOMEM at a hole; whatever ``change`` raises.
    """
    at = start
    while at < end:
        vma = mm.find(at)
        if vma is None:
            raise SyscallError(errno.ENOMEM, call, f"{at:#x} is not mapped in process {mm.id}")
        at = change(vma, at, min(vma.end, end)).end
