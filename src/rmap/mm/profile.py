"""Which release is modelled: every rule that changed between releases is a field here.

No code compares version numbers; it asks the profile. Sources: rule 0.3 for 6.18 and 7.0. The switches of 5.1 are
named in ``docs/fidelity.md``; that profile is refused until its rules are all in place.
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
        dofork_of_special: MADV_DOFORK works on special mappings without VM_IO, as the vDSO. 7.0 refuses all of them.
    """

    release: str
    root_is_last: bool = True
    taken_up: Literal["deserted", "degree"] = "deserted"
    unfaulted_vma_takes_in: bool = True
    reuse_from_root: bool = True
    swapin_bypass: bool = True
    dofork_of_special: bool = True


PROFILES = {
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
