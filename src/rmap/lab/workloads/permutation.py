"""remap-permutation: one shared area whose pages lie in random order, and forks of it.

Under a design whose release had nonlinear areas that is one VMA. Chains do not care; where objects are asked for
addresses it is what they cannot answer. Under all other designs each run of pages becomes an area of its own.
"""

from __future__ import annotations

import numpy as np

from rmap.kernel import Kernel
from rmap.lab.workloads.base import Sample, Size, Steps, tables_for
from rmap.lab.workloads.published import Dimension, published
from rmap.units import PAGE_SIZE


def permutation(kernel: Kernel, *, processes: int, pages: int, seed: int) -> Steps:
    """One area of ``pages`` pages, remapped page by page, then forked until ``processes`` have it."""
    rng = np.random.default_rng(seed)
    file = kernel.open("/dev/shm/permuted", pages * PAGE_SIZE)
    file.read_in()
    first = kernel.spawn()
    base = first.mmap(pages * PAGE_SIZE, flags="shared", file=file)
    yield f"{pages:,} pages are put in random order"
    for at, page in enumerate(rng.permutation(pages).tolist()):
        first.remap_file_pages(base + at * PAGE_SIZE, PAGE_SIZE, page)
    family = [first]
    for number in range(2, processes + 1):
        yield f"process {number:,} of {processes:,}"
        child = first.fork()
        child.read(base, pages * PAGE_SIZE)
        family.append(child)
    return (Sample("a page of the file", tuple((process, base, pages) for process in family)),)


def size(processes: int, pages: int) -> Size:
    """What it needs."""
    return Size(pages + 256, processes * pages, processes * tables_for(pages), processes * (pages + 1))


WORKLOADS = (
    published(
        "remap-permutation",
        "One shared area with its pages in random order, in several processes.",
        "the use that Ingo Molnar made remap_file_pages for, 2002; 128 Ki pages",
        (Dimension("processes", 8, "processes", scales=False), Dimension("pages", 131_072, "pages of the area")),
        permutation,
        size,
        shows=("fault", "fork"),
        scale=0.004,
        theme="files in windows",
    ),
)
