"""The bounds the project has set itself, and whether a measurement keeps them."""

from __future__ import annotations

from dataclasses import dataclass

# At most so many times what the running kernel needs: (design, layout, operation) -> factor.
QUARTER = ("fork", "child_exit", "munmap", "dontneed", "mprotect_ro", "mprotect_rw")
RATIOS: dict[tuple[str, str, str], float] = {}
for _layout, _factor in (("contiguous", 0.25), ("shuffled", 0.5)):
    RATIOS |= {("anon_vma_chain", _layout, operation): _factor for operation in QUARTER}
    RATIOS |= {("anon_vma_chain", _layout, operation): 0.02 for operation in ("touch", "cow")}
    RATIOS |= {("anon_vma_chain", _layout, "mremap_pages"): 0.5}
    RATIOS |= {("anon_vma_chain", _layout, operation): 1.0 for operation in ("fault", "cow_fault")}
    RATIOS |= {("pte_chain", _layout, operation): 1.25 for operation in ("fault", "cow_fault")}
    RATIOS |= {(design, _layout, "fork_vmas"): 5.0 for design in ("anon_vma_chain", "pte_chain")}
for _layout, _factor in (("contiguous", 1.0), ("shuffled", 1.2)):
    RATIOS |= {("pte_chain", _layout, operation): _factor for operation in ("fork", "child_exit")}

# At most so much, whatever the kernel needs.
WHOLE_TABLES_NS = 100_000.0  # mremap of whole page tables: all pages together
WALK_NS = {"anon_vma_chain": 10.0, "pte_chain": 40.0}  # per page and mapper, streamed
FRAMES_MIB = 64.0  # the columns of 1 Mi frames
PTE_BYTES = 9.0
HELP_MS = 60.0
LOAD_S = 2.0


@dataclass(frozen=True)
class Row:
    """One measurement.

    Attributes:
        name: the operation.
        design: the reverse map, or "" where it does not matter.
        layout: of page tables and frames, or "".
        unit: of ``value``, ``kernel`` and, if ``absolute``, ``bound``.
        value: the model's median.
        kernel: the running kernel's median, if it has such an operation.
        bound: what ``value`` (``absolute``) or ``value / kernel`` may be at most; None if nothing was promised.
    """

    name: str
    design: str
    layout: str
    unit: str
    value: float
    kernel: float | None = None
    bound: float | None = None
    absolute: bool = False

    @property
    def ratio(self) -> float | None:
        return self.value / self.kernel if self.kernel else None

    @property
    def ok(self) -> bool | None:
        """Whether the bound is kept; None where there is none, or nothing to compare with."""
        measured = self.value if self.absolute else self.ratio
        return None if self.bound is None or measured is None else measured <= self.bound
