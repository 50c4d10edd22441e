"""What every design in the registry must pass: conformance, a page in the documents, accounts that go back."""

from __future__ import annotations

import pytest

from rmap import Kernel
from rmap.designs import DESIGNS, design_named, design_names
from rmap.designs.conformance import run_conformance_test
from rmap.snapshot import Snapshot, shipped
from tests.designs.families import family
from tests.support import PAGE, ROOT

DOCS = ROOT / "docs"
ALL = design_names(variants=True)
OTHERS = [name for name in ALL if name not in ("pte_chain", "anon_vma_chain")]


@pytest.mark.parametrize("design", OTHERS)
@pytest.mark.parametrize("block", range(2))
def test_conforms(design: str, block: int) -> None:
    covered = run_conformance_test(design, seeds=range(100 + 4 * block, 104 + 4 * block), steps=70)
    assert covered.pages > 10_000


@pytest.mark.parametrize("design", DESIGNS)
def test_has_a_page_with_its_source_its_layout_and_its_worst_case(design: str) -> None:
    text = (DOCS / "designs" / f"{design}.md").read_text()
    for heading in ("**Source.**", "**Layout.**", "**Worst case", "**Left out", "```"):
        assert heading in text, heading
    assert f"](designs/{design}.md)" in (DOCS / "designs.md").read_text()
    assert f"src/rmap/designs/{design}.py" in text


@pytest.mark.parametrize("design", ALL)
def test_accounts_go_back_to_what_is_paid_always(design: str) -> None:
    k, members, heap = family(design, 6, pages=30)
    for number, member in enumerate(members):
        member.write(heap + number * PAGE, 3 * PAGE)
    grown = sum(k.metadata_bytes().values())
    slabs = k.design.slab_bytes()
    live = k.metadata_bytes()
    assert slabs.keys() <= live.keys()
    assert all(slabs[name] >= live[name] for name in slabs)
    for member in members:
        member.exit()
    empty = Kernel(design, nr_pages=1 << 12, nr_tables=1 << 10, nr_swap=256)
    assert k.metadata_bytes() == empty.metadata_bytes()
    assert design == "virtual_scan" or grown > sum(empty.metadata_bytes().values())
    k.check()


@pytest.mark.parametrize("design", ALL)
def test_answers_in_32_bits_are_smaller_where_the_original_ran_there(design: str) -> None:
    k, _, _ = family(design, 3, pages=40)
    small, large = k.metadata_bytes(32), k.metadata_bytes(64)
    assert not small or (small.keys() == large.keys() and sum(small.values()) < sum(large.values()))


@pytest.mark.parametrize("design", ALL)
def test_docstring_says_what_it_models(design: str) -> None:
    factory = design_named(design)
    assert factory.name == design  # type: ignore[attr-defined]
    assert factory.release and factory.__doc__  # type: ignore[attr-defined]


@pytest.mark.parametrize("design", [name for name in DESIGNS if name != "virtual_scan"])
def test_the_shipped_picture_is_answered_right(design: str) -> None:
    """A real machine's 542,076 entries, every one of them found. (A scan of all of them for every page would last.)"""
    kernel = Kernel.adopt(Snapshot.load(shipped()), design=design)
    from rmap.lab.correctness import correctness

    answer = correctness(kernel)
    assert answer.equal and answer.ptes_total > 500_000
