"""Slabs: what small objects really occupy (``mm/slab.c`` of old kernels, ``mm/slub.c`` of new ones).

A kernel object lives in a slab, a few whole pages cut into places of one size. A slab stays as long as one object in it
lives, so a design that makes and frees many objects holds more memory than its objects have. A new object takes the
place that was freed last, else the first place of a new slab.
"""

from __future__ import annotations

from rmap.units import PAGE_SIZE

SLAB_HEADER_2_6_0 = 24
BUFCTL_2_6_0 = 4


def objects_per_slab_2_6_0(size: int) -> int:
    """How many objects of ``size`` bytes a one-page slab of 2.6.0 holds on 32-bit: each has an index of 4 bytes in the
    slab's header (``mm/slab.c``, ``cache_estimate``). 113 of 32 bytes: 3,411,018 chain blocks take 118 MiB (J5)."""
    return (PAGE_SIZE - SLAB_HEADER_2_6_0) // (size + BUFCTL_2_6_0)


class SlabCache:
    """The slabs of one kind of object (``struct kmem_cache``).

    Args:
        size: bytes of an object, as they stride.
        per_slab: objects in a slab; None for as many as fit into one page (SLUB without metadata).
        slab_bytes: bytes of a slab.

    Attributes:
        live: objects.

    Invariants: every place is living or in the stack of free ones, once.
    """

    __slots__ = ("_ends", "_free", "_used", "live", "per_slab", "size", "slab_bytes", "slabs")

    def __init__(self, size: int, per_slab: int | None = None, slab_bytes: int = PAGE_SIZE) -> None:
        self.size = size
        self.per_slab = per_slab or slab_bytes // size
        self.slab_bytes = slab_bytes
        self.live = 0
        self.slabs = 0
        self._free: list[int] = []
        self._ends = 0
        self._used: list[int] = []

    def alloc(self) -> int:
        """A place for a new object (``kmem_cache_alloc``)."""
        self.live += 1
        if self._free:
            place = self._free.pop()
        else:
            place = self._ends
            self._ends += 1
            if place % self.per_slab == 0:
                self._used.append(0)
        slab = place // self.per_slab
        if not self._used[slab]:
            self.slabs += 1
        self._used[slab] += 1
        return place

    def free(self, place: int) -> None:
        """An object is gone (``kmem_cache_free``); its slab too, if it was the last in it."""
        self.live -= 1
        slab = place // self.per_slab
        self._used[slab] -= 1
        if not self._used[slab]:
            self.slabs -= 1
        self._free.append(place)

    @property
    def bytes(self) -> int:
        """Bytes of all slabs with a living object."""
        return self.slabs * self.slab_bytes
