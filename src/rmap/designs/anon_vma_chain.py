"""anon_vma and anon_vma_chain: today's reverse map, Linux 6.18 and 7.0, and as it came in 2.6.34 (``mm/rmap.c``).

How it works stands in :mod:`rmap.designs.parts.chained_anon_vmas`. Here is what the releases have of their own: what
an anon_vma keeps its links in, and what things weigh.

Sources: 5beb49305251 (the design, 2.6.34), 646d87b48 (a clone keeps the order of the chain, before 2.6.34 was out),
bf181b9f9d8d (interval trees, 3.7), 7a3ef208e662 (anon_vmas are taken up again, 4.0); ``mm/rmap.c`` of 6.18 and 7.0.
"""

from __future__ import annotations

from typing import ClassVar

from rmap.designs.parts.chained_anon_vmas import ChainedAnonVmas, Sizes
from rmap.designs.parts.link_list import LinkList
from rmap.designs.parts.slab import objects_per_slab_2_6_0
from rmap.mm.costs import LOCKS_ANON_VMA
from rmap.mm.interface import CloneWhy, DesignCore
from rmap.mm.mm_types import Vma
from rmap.mm.profile import Profile


class AnonVmaChainDesign(ChainedAnonVmas):
    """The reverse map of today's kernel. Sizes as ``/sys/kernel/slab`` of a running 6.18 shows them.

    Invariants: I1 to I14, I16 (``docs/rules.md``).
    """

    name = "anon_vma_chain"
    release = "6.18"
    sizes: ClassVar[dict[int, Sizes]] = {64: Sizes(24, 32, 104, 64, (39, 64))}

    def __init__(self, core: DesignCore, profile: Profile) -> None:
        super().__init__(core, profile)
        self.release = profile.release


class AnonVmaChain2634(ChainedAnonVmas):
    """As it came: lists in the place of trees, every anon_vma under a lock of its own, and none is ever taken up again.

    An anon_vma goes with its last VMA, its root too; nothing holds it. Where the page is shared, the oldest of the
    chain stands for the root, which is the same one. Sizes on 32-bit and 64-bit from the fields; slabs as 2.6 packs
    them.

    Invariants: those of the design but I8, for there are no references yet.
    """

    name = "anon_vma_chain:2.6.34"
    release = "2.6.34"
    index_type = LinkList
    takes_up = False
    sizes: ClassVar[dict[int, Sizes]] = {
        64: Sizes(24, 32, 24, 48, (objects_per_slab_2_6_0(24), objects_per_slab_2_6_0(48))),
        32: Sizes(12, 16, 12, 24, (objects_per_slab_2_6_0(12), objects_per_slab_2_6_0(24))),
    }

    def vma_fork(self, child: Vma, parent: Vma) -> None:
        """A lock for every anon_vma that the child is linked to."""
        super().vma_fork(child, parent)
        self._costs.current[LOCKS_ANON_VMA] += len(child.chain) - 2

    def vma_clone(self, new: Vma, old: Vma, why: CloneWhy) -> None:
        """Likewise."""
        super().vma_clone(new, old, why)
        if old.anon is not None:
            self._costs.current[LOCKS_ANON_VMA] += len(new.chain) - 1

    def vma_unlink(self, vma: Vma, heir: Vma | None) -> None:
        """Likewise."""
        if vma.anon is not None:
            self._costs.current[LOCKS_ANON_VMA] += len(vma.chain) - 1
        super().vma_unlink(vma, heir)

    def pre_update(self, vma: Vma) -> None:
        """Nothing: a list has no order to keep."""

    def post_update(self, vma: Vma) -> None:
        """The links keep the VMA's range only for the checks: a walk of 2.6.34 asks the VMA itself."""
        for link in vma.chain or ():
            link.start, link.last = vma.pgoff, vma.last
