"""Slabs: what small objects really occupy (``mm/slab.c`` of old kernels, ``mm/slub.c`` of new ones).

A kernel object lives in a slab, a page cut into places of one size. A slab stays as long as one object in it lives, so
a design that makes and frees many objects holds more memory than its objects have. A new object takes the place that
was freed last, else the next one that was never used.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from rmap.columns import I64
from rmap.units import PAGE_SIZE

SLAB_HEADER_2_6_0 = 24
BUFCTL_2_6_0 = 4


def objects_per_slab_2_6_0(size: int) -> int:
    """How many objects of ``size`` bytes a slab of one page holds in 2.6.0: the header has an index of 4 bytes for each
    (``mm/slab.c``, ``cache_estimate``). 113 of 32 bytes, so that 3,411,018 chain blocks take 118 MiB (J5)."""
    return (PAGE_SIZE - SLAB_HEADER_2_6_0) // (size + BUFCTL_2_6_0)


def slab_bytes(places: Iterable[int], per_slab: int) -> int:
    """Bytes of the slabs, of a page each, in which objects at these places live."""
    return PAGE_SIZE * len({place // per_slab for place in places})


def slab_bytes_of(places: I64, per_slab: int) -> int:
    """The same for a column of places, int64."""
    return PAGE_SIZE * len(np.unique(places // per_slab))


class Places:
    """The places of one kind of object (``struct kmem_cache``): numbers; the one that was freed last goes first."""

    __slots__ = ("_free", "_unused")

    def __init__(self) -> None:
        self._free: list[int] = []
        self._unused = 0

    def take(self) -> int:
        """A place for a new object (``kmem_cache_alloc``)."""
        if self._free:
            return self._free.pop()
        self._unused += 1
        return self._unused - 1

    def give(self, place: int) -> None:
        """An object is gone (``kmem_cache_free``)."""
        self._free.append(place)
