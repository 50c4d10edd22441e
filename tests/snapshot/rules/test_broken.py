"""Deliberately broken pictures, one per invariant: each is caught, under its own number and no other."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from rmap.errors import InvariantError
from rmap.snapshot import Snapshot, SnapshotBuilder
from rmap.snapshot import flags as f
from rmap.snapshot import kinds as k
from rmap.snapshot.rules.anon_vmas import inspect_topology, topology_of
from rmap.snapshot.rules.check import Report, inspect
from rmap.uapi.kpageflags import KPF_ANON
from tests.support import PAGE
from tests.support.snapshot_worlds import EXCLUSIVE, HEAP, RW, changed, column, parent_and_child

INDEX = HEAP >> 12


def one_value(table: str, name: str, row: int | slice, value: Any) -> Callable[[], Snapshot]:
    """The sound picture with one value changed. Rows as in test_requirements."""

    def broken() -> Snapshot:
        snapshot = parent_and_child().build()
        return Snapshot(changed(snapshot, table, name, row, value), snapshot.about)

    return broken


def kernels(table: str = "", name: str = "", row: int = 0, value: Any = 0) -> Snapshot:
    """The sound picture as the kernel shows it: with bit 56 set where a page is mapped once. One value may change."""
    snapshot = parent_and_child().build()
    bits = [f.PTE_PRESENT | (f.PTE_EXCLUSIVE if k in (0, 3, 6) else 0) for k in range(8)]
    bits[2] = f.PTE_SWAP
    tables = changed(snapshot, "ptes", "flags", slice(0, 8), bits)
    seen = Snapshot(tables, {**snapshot.about, "source": "kernel", "pte_write": False})
    return Snapshot(changed(seen, table, name, row, value), seen.about) if table else seen


class Family:
    """A picture of VMAs without pages, one per process, made link by link."""

    def __init__(self, **about: Any) -> None:
        self.builder = SnapshotBuilder("model", **{"topology": "model", "release": "6.18", **about})
        self.nr = 0

    def anon_vma(self, children: int = 0, active: int = 0, refs: int = 1, **above: int) -> int:
        """Add an anon_vma; a root counts itself among its children."""
        return self.builder.add_anon_vma(refcount=refs, num_children=children, num_active_vmas=active, **above)

    def vma(self, active: int, *chain: int) -> None:
        """Add a process with one VMA."""
        self.nr += 1
        process = self.builder.add_process(self.nr, comm=f"p{self.nr}")
        vma = self.builder.add_vma(process, HEAP, HEAP + PAGE, RW, pgoff=INDEX, anon_vma=active)
        self.builder.add_chain(vma, chain)


def a_chain_without_an_active_anon_vma() -> Snapshot:
    family = Family()
    a0 = family.anon_vma(children=1, active=1)
    family.vma(a0, a0)
    family.vma(-1, a0)
    return family.builder.build()


def two_families_in_one_chain() -> Snapshot:
    family = Family()
    a0, b0 = family.anon_vma(children=1, active=1), family.anon_vma(children=1)
    family.vma(a0, b0, a0)
    return family.builder.build()


def active_outside_the_chain() -> Snapshot:
    family = Family()
    a0 = family.anon_vma(children=2, active=1, refs=3)
    a1 = family.anon_vma(children=1, active=1, root=a0, parent=a0)
    a2 = family.anon_vma(active=1, root=a0, parent=a1)
    family.vma(a0, a0)
    family.vma(a1, a2, a1, a0)  # as a fork leaves it that took up a1 again (rule 2.7)
    family.vma(a2, a0)
    return family.builder.build()


def parent_and_child_family() -> tuple[Family, int, int]:
    family = Family()
    a0 = family.anon_vma(children=2, active=1, refs=2)
    a1 = family.anon_vma(active=1, root=a0, parent=a0)
    family.vma(a0, a0)
    return family, a0, a1


def root_first() -> Snapshot:
    family, a0, a1 = parent_and_child_family()
    family.vma(a1, a0, a1)
    return family.builder.build()


def linked_twice() -> Snapshot:
    family, a0, a1 = parent_and_child_family()
    family.vma(a1, a1, a0, a0)
    return family.builder.build()


def its_own_parent_but_no_root() -> Snapshot:
    family = Family()
    a0 = family.anon_vma(children=1, active=1, refs=2)
    a1 = family.anon_vma(children=1, active=1, root=a0, parent=1)
    family.vma(a0, a0)
    family.vma(a1, a1, a0)
    return family.builder.build()


def a_generation_left_out() -> Snapshot:
    family = Family()
    a0 = family.anon_vma(children=2, active=1, refs=3)
    a1 = family.anon_vma(children=1, active=1, root=a0, parent=a0)
    a2 = family.anon_vma(active=1, root=a0, parent=a1)
    family.vma(a0, a0)
    family.vma(a1, a1, a0)
    family.vma(a2, a2, a0)
    return family.builder.build()


def same_active_other_chain() -> Snapshot:
    family = Family()
    a0 = family.anon_vma(children=2, active=2, refs=2)
    a1 = family.anon_vma(root=a0, parent=a0)
    family.vma(a0, a0)
    family.vma(a0, a1, a0)
    return family.builder.build()


def exclusive_and_mapped_twice() -> Snapshot:
    """One frame at the same index of two VMAs of the same anon_vma."""
    builder = SnapshotBuilder("model", topology="model", release="6.18", anon_exclusive=True)
    process = builder.add_process(1)
    a0 = builder.add_anon_vma(num_children=1, num_active_vmas=2)
    for start in (HEAP, HEAP + 8 * PAGE):
        vma = builder.add_vma(process, start, start + PAGE, RW, pgoff=INDEX, anon_vma=a0)
        builder.add_chain(vma, [a0])
        builder.add_ptes(vma, column(start), column(0x1000), f.PTE_PRESENT)
    facts: dict[str, Any] = {"kind": k.ANON, "mapping": f.MAPPING_ANON, "index": INDEX, "anon_vma": a0}
    builder.set_frames(column(0x1000), mapcount=2, flags=EXCLUSIVE, **facts)
    return builder.build()


BROKEN: dict[str, Callable[[], Snapshot]] = {
    "I1": a_chain_without_an_active_anon_vma,
    "I2": two_families_in_one_chain,
    "I3": active_outside_the_chain,
    "I4": root_first,
    "I5": linked_twice,
    "I6": one_value("anon_vmas", "num_active_vmas", 0, 2),
    "I7": one_value("anon_vmas", "num_children", 0, 1),
    "I8": one_value("anon_vmas", "refcount", 0, 1),
    "I9": its_own_parent_but_no_root,
    "I10": a_generation_left_out,
    "I11": same_active_other_chain,
    "I13": one_value("frames", "anon_vma", 1, 1),
    "I14": one_value("frames", "index", 1, INDEX + 2),
    "I15": exclusive_and_mapped_twice,
    "I16": one_value("frames", "anon_vma", 3, 0),
    "I17": one_value("frames", "flags", 3, KPF_ANON),
    "I19": one_value("frames", "mapcount", 5, 1),
    "I20": one_value("frames", "mapcount", 5, 3),
    "I21": one_value("frames", "index", slice(4, 7), [1, 2, 4]),
    "8.2": lambda: kernels("ptes", "flags", 0, f.PTE_PRESENT),
}


def broken_numbers(report: Report) -> set[str]:
    return {violation.invariant for violation in report.violations}


@pytest.mark.parametrize("number", BROKEN)
def test_a_broken_invariant_is_caught_by_its_number_and_no_other(number: str) -> None:
    snapshot = BROKEN[number]()
    report = inspect(snapshot)
    assert broken_numbers(report) == {number}
    lines = {line.invariant: line for line in report.checked}
    assert lines[number].violations >= 1 and lines[number].checked >= 1 and not lines[number].reason
    assert not any(line.violations for line in report.checked if line.invariant != number)
    with pytest.raises(InvariantError) as caught:
        snapshot.check()
    assert caught.value.id == number


@pytest.mark.parametrize("number", BROKEN)
def test_a_violation_names_its_objects_and_whom_to_read_again(number: str) -> None:
    for violation in inspect(BROKEN[number]()).violations:
        assert violation.message and violation.objects and violation.pids
        assert violation.identity == (number, violation.where)


def test_the_pictures_that_were_broken_are_sound_otherwise() -> None:
    for sound in (parent_and_child().build(), kernels()):
        assert inspect(sound).violations == []


def test_every_violation_is_collected() -> None:
    snapshot = parent_and_child().build()
    tables = changed(snapshot, "anon_vmas", "num_active_vmas", slice(0, 2), [5, 6])
    worse = Snapshot(tables, snapshot.about)
    worse = Snapshot(changed(worse, "frames", "index", 1, INDEX + 2), snapshot.about)
    report = inspect(worse)
    assert [violation.invariant for violation in report.violations] == ["I6", "I6", "I14", "I14"]
    counts = {line.invariant: line.violations for line in report.checked}
    assert (counts["I6"], counts["I14"], counts["I13"]) == (2, 2, 0)


def test_where_processes_are_missing_a_counter_may_be_above_what_was_counted_and_not_below() -> None:
    counters = ("num_active_vmas", "num_children", "refcount")
    for number, name in zip(("I6", "I7", "I8"), counters):
        for change, wrong in ((3, False), (-1, True)):
            snapshot = parent_and_child(ended=1).build()
            value = int(getattr(snapshot.anon_vmas, name)[0]) + change
            report = inspect(Snapshot(changed(snapshot, "anon_vmas", name, 0, value), snapshot.about))
            line = next(line for line in report.checked if line.invariant == number)
            assert (broken_numbers(report) == {number}) is wrong
            if not wrong:
                assert (line.checked, line.note[:15]) == (1, "not asked of 1:")


def test_a_family_with_pages_of_ksm_may_have_more_references() -> None:
    snapshot = parent_and_child().build()
    more = Snapshot(changed(snapshot, "anon_vmas", "refcount", 0, 3), snapshot.about)
    assert broken_numbers(inspect(more)) == {"I8"}
    kinds = changed(more, "frames", "kind", 1, k.KSM)
    merged = Snapshot(kinds, snapshot.about)
    assert "I8" not in broken_numbers(inspect(merged))
    line = next(line for line in inspect(merged).checked if line.invariant == "I8")
    assert (line.checked, line.note) == (1, "not asked of 1: KSM holds them")


def test_references_beyond_what_ksm_holds_are_a_violation() -> None:
    snapshot = parent_and_child().build()
    topology = topology_of(Snapshot(changed(snapshot, "anon_vmas", "refcount", 0, 4), snapshot.about))
    everywhere = np.ones(2, np.bool_)
    for items, wrong in ((1, 1), (2, 0)):
        found = inspect_topology(replace(topology, ksm=everywhere, ksm_items=items))
        assert sum(len(one.violations) for one in found) == wrong
