"""The small machines of the tests."""

from __future__ import annotations

from rmap import Kernel

"""A page of the model, and of every machine that the tests ask. Said here once; not taken from rmap."""


def small_kernel(design: str = "anon_vma_chain", profile: str = "6.18", nr_pages: int = 4096) -> Kernel:
    """A model kernel of so many pages, with 256 slots of swap and 256 page tables."""
    return Kernel(design, profile, nr_pages, nr_swap=256, nr_tables=256)
