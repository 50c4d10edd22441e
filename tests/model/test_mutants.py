"""Every bug put back on purpose is noticed, and nothing is noticed without one."""

from __future__ import annotations

import pytest

from tests.model.detection import noticed
from tests.model.mutants import BOTH, MUTANTS, Mutant

REQUIRED = (
    "split without tree update",
    "a link not cloned at fork",
    "root instead of active anon_vma",
    "mapcount missed on COW",
    "index recomputed on mremap",
    "reuse with num_children >= 2",
    "walk stopped one short",
    "chain collapse losing an entry",
    "zap missing private COW on truncate",
    "merge despite two links",
    "off by one in vma_address",
    "page-table row freed in use",
)


@pytest.mark.parametrize("design", BOTH)
def test_the_model_as_it_is_gives_no_cause_for_complaint(design: str) -> None:
    assert noticed(design) == {}


@pytest.mark.parametrize(
    ("mutant", "design"),
    [
        pytest.param(mutant, design, id=f"{mutant.name}-{design}".replace(" ", "-"))
        for mutant in MUTANTS
        for design in mutant.designs
    ],
)
def test_a_bug_is_noticed(mutant: Mutant, design: str) -> None:
    with mutant.breaks():
        assert noticed(design)
        # Some bugs leave walk and page tables in agreement: comparing these two alone is not enough.
        assert bool(noticed(design, only_oracle=True)) is not mutant.oracle_is_blind


def test_the_list_is_complete() -> None:
    assert [mutant.name for mutant in MUTANTS][: len(REQUIRED)] == list(REQUIRED)
