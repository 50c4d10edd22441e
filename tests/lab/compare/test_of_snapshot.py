"""Comparing on a picture: what the script does, counted, on a family small enough to be counted by hand."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import pytest

from rmap import Kernel, Snapshot
from rmap.errors import SnapshotError, UsageError
from rmap.lab.compare.compare import compare_snapshot
from rmap.lab.compare.demo import run
from rmap.lab.compare.of_snapshot import REGION_PAGES, SHIPPED
from rmap.lab.results import Comparison, DesignResult
from rmap.snapshot import shipped

HEAP, LIBRARY, CHILDREN = 400, 100, 9
PROCESSES = CHILDREN + 1


@pytest.fixture(scope="module")
def snapshot() -> Snapshot:
    """A parent with a heap and a library, and children that rewrote a few pages."""
    kernel = Kernel(nr_pages=1 << 13)
    library = kernel.open("/lib/libc.so", LIBRARY * 4096)
    library.read_in()
    parent = kernel.spawn()
    heap = parent.mmap(HEAP * 4096)
    parent.write(heap, HEAP * 4096)
    text = parent.mmap(LIBRARY * 4096, "rx", file=library)
    parent.read(text, LIBRARY * 4096)
    for number in range(CHILDREN):
        child = parent.fork()
        child.write(heap + number * 4 * 4096, 4 * 4096)
        child.read(text, LIBRARY * 4096)
    return kernel.snapshot()


@pytest.fixture(scope="module")
def compared(snapshot: Snapshot) -> Comparison:
    return compare_snapshot(snapshot)


def figures(result: DesignResult) -> dict[tuple[str, str], float]:
    return {(f.operation, f.label): f.value for f in result.figures}


def test_the_picture_is_loaded_whole(compared: Comparison) -> None:
    subject = compared.subject
    assert (subject.kind, subject.processes, subject.vmas) == ("picture", PROCESSES, 2 * PROCESSES)
    assert subject.pages == HEAP + LIBRARY + 4 * CHILDREN
    assert subject.ptes == PROCESSES * (HEAP + LIBRARY)
    assert compared.equal
    for result in compared.designs:
        assert result.correctness.pages == subject.pages
        assert result.correctness.ptes_found == subject.ptes


def test_forks_cost_what_they_must(compared: Comparison) -> None:
    """Each process forks once: every anonymous entry is copied; files' are not (rule 4.4)."""
    for result in compared.designs:
        assert result.costs["fork"]["ptes_added"] == PROCESSES * HEAP
        assert result.costs["fork"]["vmas_forked"] == PROCESSES
        assert result.costs["exit"]["ptes_removed"] == PROCESSES * HEAP
    chains, links = map(figures, compared.designs)
    assert chains["fork", "entries written per PTE"] == 1
    assert chains["fork", "objects made per VMA"] == links["fork", "objects made per PTE"] == 0
    # A child's own pages get their first block; the others, with ten entries, have room.
    assert chains["fork", "objects made per PTE"] == 4 * CHILDREN / (PROCESSES * HEAP)
    # Two objects for the parent's child (its anon_vma and two links: three), four for each child's.
    assert links["fork", "objects made per VMA"] == (3 + 4 * CHILDREN) / PROCESSES


def test_a_new_region_costs_a_word_per_page(compared: Comparison) -> None:
    chains, links = compared.designs
    written = {r.design: next(f for f in r.figures if f.label == "written per page") for r in compared.designs}
    assert (written["pte_chain"].value, written["pte_chain"].unit) == (1, "pointer")
    assert (written["anon_vma_chain"].value, written["anon_vma_chain"].unit) == (1, "mapping")
    assert figures(chains)["fault", "objects made per page"] == figures(links)["fault", "objects made per page"] == 0
    assert figures(chains)["fault", "objects made per new VMA"] == 0
    assert figures(links)["fault", "objects made per new VMA"] == 2
    # One process in ten, and the region is gone again.
    for result in compared.designs:
        assert result.costs["munmap"]["ptes_removed"] == REGION_PAGES * (PROCESSES // 10)
        assert result.vmas == 2 * PROCESSES


def test_a_tenth_goes_and_comes_back(compared: Comparison) -> None:
    first, second = (result.eviction for result in compared.designs)
    assert first is not None and first == second
    assert first.pages == compared.subject.pages // 10
    assert first.pages < first.ptes_cleared == first.ptes_faulted_back
    assert first.ptes_left == first.pages_barred == 0


def test_walks_of_chains_look_at_nothing_in_vain(compared: Comparison) -> None:
    chains, links = map(figures, compared.designs)
    mean = compared.subject.ptes / compared.subject.pages
    assert chains["walk", "PTEs looked at per page"] == chains["walk", "of them really mapping it"] == mean
    assert links["walk", "PTEs looked at per page"] > links["walk", "of them really mapping it"] == mean
    assert "pays at every fork" in compared.remarks[0] and "nothing in vain" in compared.remarks[0]
    assert "pays per VMA" in compared.remarks[1] and "in vain per page" in compared.remarks[1]


def test_a_seed_reproduces_it_from_a_file(snapshot: Snapshot, compared: Comparison, tmp_path: Path) -> None:
    path = tmp_path / "family.rmap"
    snapshot.save(path)
    again = compare_snapshot(path, designs=["anon_vma_chain"])
    assert asdict(again.designs[0]) == asdict(compared.designs[1])
    assert again.subject.name == "family.rmap" and again.subject.summary.startswith("recorded")
    other = compare_snapshot(path, designs=["anon_vma_chain"], seed=2)
    assert other.equal and other.designs[0].eviction != again.designs[0].eviction


def test_what_is_no_picture_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "not.rmap"
    path.write_text("words")
    with pytest.raises(SnapshotError):
        compare_snapshot(path, designs=["pte_chain"])
    with pytest.raises(SnapshotError, match="there is no file"):
        compare_snapshot(tmp_path / "none.rmap")
    with pytest.raises(UsageError):
        compare_snapshot(path, profile="3.0")


def test_the_first_screen_of_the_shipped_picture() -> None:
    result = run(shipped()).comparison
    assert result.equal
    assert result.subject.summary == f"{SHIPPED}, Linux 6.18"
    assert result.subject.processes >= 30 and result.subject.pages >= 100_000
    evictions = {result.eviction for result in result.designs}
    assert len(evictions) == 1
    (eviction,) = evictions
    assert eviction is not None and eviction.pages == result.subject.pages // 10 and eviction.ptes_left == 0
