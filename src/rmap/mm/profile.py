"""Which release is modelled: every rule that changed between releases is a field here.

No code compares version numbers; it asks the profile. Sources: rule 0.3 for 6.18 and 7.0; for 5.1 the source of 5.1.15,
rule by rule in ``docs/rules.md``. Nobody has run a live 5.1 against it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from rmap.errors import UsageError


@dataclass(frozen=True, slots=True)
class Profile:
    """The rules of one release.

    Attributes:
        release: Linux's version.
        root_is_last: a clone keeps the order of the source's chain, so that the root stays last (rule 2.4,
            invariant I4). 7.0 reverses the chain at each clone.
        taken_up: which anon_vmas a fork may take up again (rule 2.5): ``deserted`` ones; in 5.1 those of a low
            ``degree``, VMAs and children counted together.
        unfaulted_vma_takes_in: a VMA without anonymous pages may grow over a neighbour that has some (rule 3.3). Until
            2025 only the other way round.
        reuse_from_root: a fork looks for an anon_vma to reuse from the root to the newest (rule 2.5a);
            7.0 looks at the source's chain from head to tail.
        swapin_bypass: a slot that one entry names is read into a page of its own that never enters the swap cache,
            and is exclusive (rule 4.12, synchronous device). 7.0 reads everything through the swap cache, and only
            the entry's marker says exclusive.
        anon_exclusive: pages and swap entries say that they belong to one process alone (rules 1.6, 1.7), and a write
            asks that. 5.1 counts mappings and swap users anew at each write (4.7), hangs whatever a read swaps in on
            the root (4.3), and does not give write permission back with mprotect (4.7a).
        growth_merges: mremap that grows in place takes in the next area, if it fits (rules 2.16, 3.7).
        moves_many: mremap moves a range of several areas (rule 2.15, since 6.17).
        dontunmap: MREMAP_DONTUNMAP exists (rule 2.14, since 5.7).
        wipeonfork_prepares: the child's area of a MADV_WIPEONFORK one is prepared at fork, and looks for a neighbour
            among the parent's (rule 2.20).
        random_reads_count: a touch through a MADV_RANDOM area is a reference, as one through any other (rule 5.8);
            later it is passed over, like one through a MADV_SEQUENTIAL area.
        stack_is_nohugepage: MAP_STACK means VM_NOHUGEPAGE (rule 3.1, since 6.7).
        unknown_advice: madvise does not know these yet (EINVAL).
        dofork_of_special: MADV_DOFORK works on special mappings without VM_IO, as the vDSO. 7.0 refuses all of them.
    """

    release: str
    root_is_last: bool = True
    taken_up: Literal["deserted", "degree"] = "deserted"
    unfaulted_vma_takes_in: bool = True
    reuse_from_root: bool = True
    swapin_bypass: bool = True
    dofork_of_special: bool = True
    anon_exclusive: bool = True
    growth_merges: bool = True
    moves_many: bool = True
    dontunmap: bool = True
    wipeonfork_prepares: bool = False
    random_reads_count: bool = False
    stack_is_nohugepage: bool = True
    unknown_advice: frozenset[str] = frozenset()


NOT_IN_5_1 = frozenset(
    ("cold", "pageout", "populate_read", "populate_write", "dontneed_locked", "collapse", "guard_install")
) | {"guard_remove"}

PROFILES = {
    "5.1": Profile(
        "5.1",
        taken_up="degree",
        unfaulted_vma_takes_in=False,
        anon_exclusive=False,
        growth_merges=False,
        moves_many=False,
        dontunmap=False,
        wipeonfork_prepares=True,
        random_reads_count=True,
        stack_is_nohugepage=False,
        unknown_advice=NOT_IN_5_1,
    ),
    "6.18": Profile("6.18"),
    "7.0": Profile("7.0", root_is_last=False, reuse_from_root=False, swapin_bypass=False, dofork_of_special=False),
}


def profile_named(name: str) -> Profile:
    """The profile of a release.

    Raises:
        UsageError: no such profile.
    """
    try:
        return PROFILES[name]
    except KeyError:
        raise UsageError(f"unknown profile {name!r}: have {', '.join(PROFILES)}") from None
