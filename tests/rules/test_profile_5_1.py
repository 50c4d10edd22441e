"""Linux 5.1: what its rules do otherwise than those of 6.18, one named test each (docs/rules.md, "Linux 5.1")."""

from __future__ import annotations

import errno
from typing import Any

import pytest

from rmap import Kernel, Process
from rmap.designs.conformance import run_conformance_test
from rmap.errors import InvariantError, SyscallError
from rmap.mm.frames import EXCLUSIVE
from rmap.snapshot import Snapshot, shipped
from tests.rules.words import PAGE, chain_at
from tests.support.small import small_kernel


def anon(process: Process, address: int) -> Any:
    """The anon_vma of the area at an address."""
    vma = process.vma(address)
    assert vma is not None
    return vma.anon


@pytest.mark.parametrize("design", ["anon_vma_chain", "pte_chain", "anon_vma", "cow_context", "anon_vma_chain:2.6.34"])
def test_designs_conform_under_5_1(design: str) -> None:
    covered = run_conformance_test(design, profile="5.1", seeds=range(4), steps=60)
    assert covered.pages > 10_000


@pytest.mark.parametrize(("profile", "shared"), [("5.1", True), ("6.18", False)])
def test_2_5_and_2_7_two_living_children_may_share_one_anon_vma(profile: str, shared: bool) -> None:
    """The story of rule 2.7: H forks I, J and K; in 5.1 I and J get the same deserted anon_vma."""
    k = small_kernel(profile=profile)
    p = k.spawn()
    at = p.mmap(PAGE)
    p.write(at)
    c = p.fork()
    g = c.fork()
    c.exit()
    h = g.fork()
    g.exit()
    i, j, kid = h.fork(), h.fork(), h.fork()
    assert chain_at(h, at) == "A2 [A1] A0"
    assert anon(i, at).name == "A2"
    assert (anon(j, at) is anon(i, at)) is shared
    assert anon(kid, at) is not anon(i, at)
    k.check()


@pytest.mark.parametrize(
    ("neighbour_faulted", "changed_faulted", "in_5_1", "in_6_18"),
    [(False, False, 1, 1), (True, False, 1, 1), (False, True, 2, 1), (True, True, 1, 1)],
)
def test_3_3_is_asymmetric(neighbour_faulted: bool, changed_faulted: bool, in_5_1: int, in_6_18: int) -> None:
    """[neighbour RW][changed RO] becomes RW: the two merge unless only the changed one has an anon_vma."""
    for profile, areas in (("5.1", in_5_1), ("6.18", in_6_18)):
        k = small_kernel(profile=profile)
        p = k.spawn()
        at = p.mmap(2 * PAGE)
        # Each is faulted while the other is not compatible, or both together.
        p.madvise(at + PAGE, PAGE, "dontfork")
        if neighbour_faulted and changed_faulted:
            p.madvise(at + PAGE, PAGE, "dofork")
            p.write(at, 2 * PAGE)
        else:
            if neighbour_faulted:
                p.write(at)
            if changed_faulted:
                p.write(at + PAGE)
            p.madvise(at + PAGE, PAGE, "dofork") if not changed_faulted else None
        if changed_faulted and not neighbour_faulted:
            p.madvise(at + PAGE, PAGE, "dofork")
        p.mprotect(at + PAGE, PAGE, "r")
        p.mprotect(at + PAGE, PAGE, "rw")
        assert len(p.maps()) == areas, profile
        k.check()


@pytest.mark.parametrize(("profile", "areas"), [("5.1", 2), ("6.18", 1)])
def test_2_16_growth_in_place_never_merges(profile: str, areas: int) -> None:
    k = small_kernel(profile=profile)
    p = k.spawn()
    at = p.mmap(3 * PAGE)
    p.munmap(at + PAGE, PAGE)
    p.mremap(at, PAGE, 2 * PAGE)
    assert len(p.maps()) == areas
    k.check()


@pytest.mark.parametrize("advice", ["cold", "pageout", "populate_read", "populate_write", "dontneed_locked"])
def test_section_8_advice_that_did_not_exist_is_refused(advice: str) -> None:
    p = small_kernel(profile="5.1").spawn()
    at = p.mmap(PAGE)
    with pytest.raises(SyscallError) as refusal:
        p.madvise(at, PAGE, advice)
    assert refusal.value.errno == errno.EINVAL


def test_2_14_there_is_no_dontunmap_and_rule_2_15_no_move_of_several_areas() -> None:
    p = small_kernel(profile="5.1").spawn()
    at = p.mmap(2 * PAGE)
    before = p.maps()
    with pytest.raises(SyscallError) as refusal:
        p.mremap(at, PAGE, PAGE, dontunmap=True)
    assert refusal.value.errno == errno.EINVAL
    p.mprotect(at, PAGE, "r")
    with pytest.raises(SyscallError) as refusal:
        p.mremap(at, 2 * PAGE, 2 * PAGE, addr=at - 16 * PAGE)
    assert refusal.value.errno == errno.EFAULT
    assert before and len(p.maps()) == 2


@pytest.mark.parametrize(("profile", "prepared"), [("5.1", True), ("6.18", False)])
def test_2_20_a_wiped_area_is_prepared_in_the_child(profile: str, prepared: bool) -> None:
    k = small_kernel(profile=profile)
    p = k.spawn()
    at = p.mmap(PAGE)
    p.write(at)
    p.madvise(at, PAGE, "wipeonfork")
    child = p.fork()
    vma = child.vma(at)
    assert vma is not None and vma.faulted is prepared
    k.check()


def test_2_20_it_looks_for_a_neighbour_among_its_parents() -> None:
    """Two wiped areas that touch, one of them faulted: the child's copy of the other takes the parent's anon_vma."""
    k = small_kernel(profile="5.1")
    p = k.spawn()
    at = p.mmap(2 * PAGE)
    p.madvise(at, 2 * PAGE, "wipeonfork")
    p.mprotect(at + PAGE, PAGE, "rwx")
    p.write(at)
    child = p.fork()
    assert anon(child, at + PAGE) is anon(p, at)
    k.check()


@pytest.mark.parametrize(("profile", "on_root"), [("5.1", True), ("6.18", False)])
def test_4_3_what_a_read_swaps_in_hangs_on_the_root(profile: str, on_root: bool) -> None:
    k = small_kernel(profile=profile)
    p = k.spawn()
    at = p.mmap(PAGE)
    p.write(at)
    child = p.fork()
    child.write(at)  # a page of its own, on its own anon_vma
    pfn = k.pfn(child, at)
    assert pfn is not None
    k.reclaim([pfn])
    child.read(at)
    pfn = k.pfn(child, at)
    assert pfn is not None
    handle = k.core.frames.anchor1(pfn)[0]
    assert (handle == anon(child, at).root.handle) is on_root
    assert (handle == anon(child, at).handle) is not on_root
    child.write(at)  # rule 4.7: the only user takes it, and the anchor moves
    assert k.core.frames.anchor1(pfn)[0] == anon(child, at).handle
    k.check()


@pytest.mark.parametrize(("profile", "writable"), [("5.1", False), ("6.18", True)])
def test_4_7a_mprotect_does_not_give_write_permission_back(profile: str, writable: bool) -> None:
    k = small_kernel(profile=profile)
    p = k.spawn()
    at = p.mmap(PAGE)
    p.write(at)
    p.mprotect(at, PAGE, "r")
    p.mprotect(at, PAGE, "rw")
    before = k.costs["fault"]["faults"]
    p.write(at)
    assert (k.costs["fault"]["faults"] == before) is writable
    k.check()


def twelve_steps(profile: str) -> tuple[Kernel, Process, int]:
    """The counterexample to I11 of docs/rules.md: two pieces of one area end up on one anon_vma by two ways."""
    k = small_kernel(profile=profile)
    p0 = k.spawn()
    at = p0.mmap(2 * PAGE)
    p0.write(at, 2 * PAGE)
    p1 = p0.fork()
    p0.exit()
    p2 = p1.fork()
    p3 = p2.fork()
    p1.exit()
    p2.exit()
    p3.mprotect(at + PAGE, PAGE, "r")
    p4 = p3.fork()
    p5 = p4.fork()
    p5.mprotect(at + PAGE, PAGE, "rwx")
    p5.write(at, 2 * PAGE)
    p3.exit()
    p6 = p5.fork()
    return k, p6, at


def test_i11_is_no_invariant_of_5_1() -> None:
    k, p6, at = twelve_steps("5.1")
    assert anon(p6, at) is anon(p6, at + PAGE)
    assert chain_at(p6, at) == "A4 [A3] A2 A1 A0"
    assert chain_at(p6, at + PAGE) == "A5 [A3] A2 A1 A0"
    k.check()


def test_i11_holds_in_6_18_after_the_same_steps() -> None:
    k, p6, at = twelve_steps("6.18")
    assert anon(p6, at) is not anon(p6, at + PAGE)
    k.check()


def test_what_follows_in_5_1_pages_are_lost_when_the_pieces_merge() -> None:
    """The kernel's own bug, reproduced: the chain of the piece that goes is dropped, and with it the way to pages."""
    k, p6, at = twelve_steps("5.1")
    p6.mprotect(at, 2 * PAGE, "rw")
    assert len(p6.maps()) == 1
    with pytest.raises(InvariantError) as lost:
        k.check()
    assert lost.value.id == "I19"


@pytest.mark.parametrize(("profile", "references"), [("5.1", 1), ("6.18", 0)])
def test_5_8_a_touch_at_random_counts(profile: str, references: int) -> None:
    k = Kernel(profile=profile, nr_pages=64)
    p = k.spawn()
    heap = p.mmap(4096)
    p.write(heap, 4096)
    p.madvise(heap, 4096, "random")
    pfn = k.pfn(p, heap)
    assert pfn is not None
    assert k.folio_referenced(pfn).tolist() == [references]


def test_a_loaded_picture_has_no_exclusive_marks_in_5_1() -> None:
    k = Kernel.adopt(Snapshot.load(shipped()), profile="5.1")
    assert not (k.core.frames.flags & EXCLUSIVE).any()
    k.check()
