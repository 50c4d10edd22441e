"""Splitting and merging, in pictures: what merges, who survives, and in which order the reverse map hears of it."""

from __future__ import annotations

import errno

import pytest

from rmap.errors import SyscallError
from rmap.mm.merge import (
    Proposal,
    copy_vma,
    set_range,
    split_vma,
    vma_merge_existing_range,
    vma_merge_extend,
    vma_merge_new_range,
    vma_modify_flags,
)
from rmap.mm.mm_types import File, Vma
from rmap.uapi.vm_flags import VM_DONTEXPAND, VM_IO, VM_MIXEDMAP, VM_PFNMAP
from tests.mm.areas import BASE_PAGE, VM_R, VM_RW, World, at
from tests.support import PAGE

NEW = [
    # before (* is the new range), family, child, after (None: does not merge)
    ("aa**", "", "", "aaaa"),
    ("**aa", "", "", "aaaa"),
    ("aa**bb", "", "", "aaaaaa"),
    ("aa.**.bb", "", "", None),
    ("aa.**bb", "", "", "aa.bbbb"),
    ("AA**", "", "", "AAAA"),
    ("**AA", "", "", "AAAA"),
    ("AA**", "", "A", None),  # 3.8: beside an area that came through fork
    ("**AA", "", "A", None),
    ("aa**BB", "", "B", "aaaaBB"),
    ("AA**bb", "", "A", "AAbbbb"),
    ("AA**bb", "", "", "AAAAAA"),
    ("aa**BB", "", "", "AAAAAA"),  # 3.5: the survivor takes the family over
    ("AA**BB", "AB", "", "AAAAAA"),
    ("AA**BB", "", "", "AAAABB"),  # 3.4: the left one wins
]


def proposed(world: World, snapshot: str, flags: int = VM_RW, shift: int = 0) -> bool:
    """Propose the pages marked ``*`` as a new range, its page index off by ``shift``. Whether it merged."""
    first, end = snapshot.index("*"), snapshot.rindex("*") + 1
    proposal = Proposal(at(first), at(end), BASE_PAGE + first + shift, flags, None)
    return vma_merge_new_range(world.core, proposal, *world.mm.neighbours(at(first), at(end))) is not None


@pytest.mark.parametrize(("before", "family", "child", "after"), NEW)
def test_a_new_range(before: str, family: str, child: str, after: str | None) -> None:
    world = World()
    world.draw(before.replace("*", "."), family=family, child=child)
    unchanged = world.snapshot()
    assert proposed(world, before) is (after is not None)
    assert world.snapshot() == (unchanged if after is None else after)
    world.check()


@pytest.mark.parametrize(("flags", "shift"), [(VM_R, 0), (VM_RW, 1), (VM_RW, -1)])
def test_other_flags_or_another_index_do_not_merge(flags: int, shift: int) -> None:
    world = World()
    world.draw("aa..bb")
    assert not proposed(world, "aa**bb", flags, shift)
    assert world.snapshot() == "aa..bb"


@pytest.mark.parametrize("special", [VM_IO, VM_DONTEXPAND, VM_PFNMAP, VM_MIXEDMAP])
def test_special_mappings_never_merge_and_never_grow(special: int) -> None:
    world = World()
    world.draw("aa..bb", a=VM_RW | special, b=VM_RW | special)
    assert not proposed(world, "aa**bb", VM_RW | special)
    area = world.mm.vmas[0]
    assert not vma_merge_extend(world.core, area, PAGE)
    assert vma_merge_existing_range(world.core, area, at(0), at(2), VM_RW | special) is None
    assert world.snapshot() == "aa..bb"


# A changed range: m is read-only, the others are not, and pages [first, end) of it become like them.
CHANGED = [
    # before, family, child, first, end, after (None: does not merge)
    ("aammbb", "", "", 2, 4, "aaaaaa"),
    ("aammbb", "", "", 2, 3, "aaabcc"),
    ("aammbb", "", "", 3, 4, "aabccc"),
    ("aammmmbb", "", "", 3, 5, None),
    ("aamm", "", "", 2, 4, "aaaa"),
    ("mmbb", "", "", 0, 2, "aaaa"),
    ("mm", "", "", 0, 2, None),
    ("aa.mm.bb", "", "", 3, 5, None),
    ("AAmmbb", "", "", 2, 4, "AAAAAA"),
    ("aammBB", "", "", 2, 4, "AAAAAA"),
    ("aaMMbb", "", "", 2, 4, "AAAAAA"),  # 3.3a: the middle brings the family
    ("aaMMbb", "", "M", 2, 4, None),  # ... not if it came through fork
    ("aaMM", "", "", 2, 3, "AAAB"),
    ("MMbb", "", "", 1, 2, "ABBB"),
    ("aaMMBB", "MB", "", 2, 4, "AAAAAA"),
    ("aaMMBB", "", "", 2, 4, "AAAABB"),
    ("AAMMbb", "AM", "", 2, 4, "AAAAAA"),
    ("AAMMbb", "", "", 2, 4, "AABBBB"),  # another family on the left
    ("AAMMBB", "", "", 2, 4, None),
    ("AAmmBB", "", "", 2, 4, "AAAABB"),
    ("AAmmBB", "", "A", 2, 4, "AABBBB"),  # 3.3b: the left one came through fork
]


@pytest.mark.parametrize(("before", "family", "child", "first", "end", "after"), CHANGED)
def test_a_changed_range(before: str, family: str, child: str, first: int, end: int, after: str | None) -> None:
    world = World()
    world.draw(before, read_only="mM", family=family, child=child)
    unchanged = world.snapshot()
    middle = world.mm.find(at(first))
    assert middle is not None
    merged = vma_merge_existing_range(world.core, middle, at(first), at(end), VM_RW)
    if after is None:
        assert merged is None
        assert world.snapshot() == unchanged
    else:
        assert merged is not None
        assert merged.start <= at(first) < at(end) <= merged.end
        assert world.snapshot() == after
    world.check()


def test_a_pair_that_was_split_shares_its_chain_and_merges_though_it_came_through_fork() -> None:
    """Rule 3.10: the case of two equal families asks for no single chain."""
    world = World()
    world.draw("AAAA", child="A")
    split_vma(world.core, world.mm.vmas[0], at(2), new_below=False)
    assert world.snapshot() == "AABB"
    assert vma_merge_existing_range(world.core, world.mm.vmas[1], at(2), at(4), VM_RW) is not None
    assert world.snapshot() == "AAAA"


# -- in which order the reverse map hears of it
ORDER = [
    # before, family, first, end, diary
    ("aamm", "", 2, 4, ["update 0-2", "to 0-4"]),
    ("aaMM", "", 2, 4, ["clone(merge) 0-2 2-4", "update 0-2", "to 0-4", "unlink 2-4 0-4"]),
    ("MMbb", "", 0, 2, ["clone(merge) 2-4 0-2", "update 2-4", "to 0-4", "unlink 0-2 0-4"]),
    ("AAMM", "AM", 2, 3, ["update 0-2", "update 2-4", "to 0-3", "to 3-4"]),
    ("aaMM", "", 2, 3, ["clone(merge) 0-2 2-4", "update 0-2", "update 2-4", "to 0-3", "to 3-4"]),
    ("MMbb", "", 1, 2, ["clone(merge) 2-4 0-2", "update 0-2", "update 2-4", "to 0-1", "to 1-4"]),
    ("aaMMbb", "", 2, 4, ["clone(merge) 0-2 2-4", "update 0-2", "to 0-6", "unlink 2-4 0-6"]),
    ("aaMMBB", "MB", 2, 4,
     ["clone(merge) 0-2 4-6", "update 0-2", "to 0-6", "unlink 2-4 0-6", "unlink 4-6 0-6"]),
]  # fmt: skip


@pytest.mark.parametrize(("before", "family", "first", "end", "diary"), ORDER)
def test_the_order_of_a_merge(before: str, family: str, first: int, end: int, diary: list[str]) -> None:
    world = World()
    world.draw(before, read_only="mM", family=family)
    middle = world.mm.find(at(first))
    assert middle is not None
    assert vma_merge_existing_range(world.core, middle, at(first), at(end), VM_RW) is not None
    assert world.diary.lines == diary


@pytest.mark.parametrize("new_below", [True, False])
def test_a_split(new_below: bool) -> None:
    """Rule 2.11, and who is the new one: the lower part if something above is cut off, the upper one otherwise."""
    world = World()
    world.draw("AAAA")
    old = world.mm.vmas[0]
    new = split_vma(world.core, old, at(1), new_below)
    lower, upper = world.mm.vmas
    assert (new, old) == ((lower, upper) if new_below else (upper, lower))
    assert (lower.pgoff, upper.pgoff) == (BASE_PAGE, BASE_PAGE + 1)
    assert lower.chain == upper.chain
    assert world.diary.lines[0] == f"clone(split) {'0-1' if new_below else '1-4'} 0-4"
    assert world.diary.lines[1:] == ["update 0-4", "to 1-4" if new_below else "to 0-1"]
    world.check()


def test_a_split_of_an_unfaulted_area_makes_no_family() -> None:
    world = World()
    world.draw("aaaa")
    split_vma(world.core, world.mm.vmas[0], at(2), new_below=True)
    assert world.snapshot() == "aabb"
    assert world.diary.lines == ["update 0-4", "to 2-4"]


def test_areas_of_a_file_stay_in_its_index_under_their_range() -> None:
    world = World()
    file = File(world.core.new_mapping("data", 8 * PAGE, shmem=False), "data")
    vma = Vma(world.mm, at(0), at(6), VM_RW, 1, file, file.mapping)
    world.mm.insert(vma)
    world.core.link_file(vma)
    upper = split_vma(world.core, vma, at(4), new_below=False)
    lower = split_vma(world.core, vma, at(2), new_below=True)
    assert file.mapping is not None
    assert {(v.pgoff, v.last) for v in file.mapping.i_mmap} == {(1, 2), (3, 4), (5, 6)}
    world.check()
    assert vma_merge_existing_range(world.core, vma, vma.start, vma.end, VM_RW) is lower
    assert list(file.mapping.i_mmap) == [lower]
    assert upper not in world.mm.vmas
    world.check()


def test_two_opens_of_one_file_do_not_merge() -> None:
    world = World()
    mapping = world.core.new_mapping("data", 8 * PAGE, shmem=False)
    vma = Vma(world.mm, at(0), at(2), VM_RW, 0, File(mapping, "data"), mapping)
    world.mm.insert(vma)
    world.core.link_file(vma)
    for file, merges in ((File(mapping, "data"), False), (vma.file, True)):
        proposal = Proposal(at(2), at(4), 2, VM_RW, file)
        assert (vma_merge_new_range(world.core, proposal, vma, None) is vma) is merges


# -- growing in place (rule 3.7)
GROWN = [
    # before (* is the growth), family, child, after
    ("AA*", "", "", "AAA"),
    ("AA*", "", "A", "AAA"),
    ("aa*bb", "", "", "aaaaa"),
    ("AA*bb", "", "A", "AAAAA"),  # the growth has the area's own family already
    ("aa*BB", "", "", "AAAAA"),
    ("aa*BB", "", "B", "aaaBB"),
    ("AA*BB", "AB", "", "AAAAA"),
    ("AA*BB", "", "", "AAABB"),
]


@pytest.mark.parametrize(("before", "family", "child", "after"), GROWN)
def test_growth_in_place(before: str, family: str, child: str, after: str) -> None:
    world = World()
    world.draw(before.replace("*", "."), family=family, child=child)
    assert vma_merge_extend(world.core, world.mm.vmas[0], PAGE)
    assert world.snapshot() == after
    world.check()


# -- copies for mremap (rules 2.13, 3.6)


def test_a_copy_of_a_faulted_area_keeps_its_index_and_chain() -> None:
    world = World()
    world.draw("AAAA", child="A")
    old = world.mm.vmas[0]
    new, source = copy_vma(world.core, old, at(10), 2 * PAGE, BASE_PAGE + 2)
    assert source is old
    assert (new.pgoff, new.chain) == (BASE_PAGE + 2, old.chain)
    assert world.diary.lines == ["clone(mremap) 10-12 0-4"]
    assert world.snapshot() == "AAAA......BB"


def test_a_copy_of_an_unfaulted_area_is_based_anew() -> None:
    world = World()
    world.draw("aa......bb")
    new, source = copy_vma(world.core, world.mm.vmas[0], at(6), 2 * PAGE, BASE_PAGE)
    assert new.pgoff == BASE_PAGE + 6
    assert source is world.mm.vmas[0]
    assert world.snapshot() == "aa....bbbb"


def test_a_copy_beside_its_source_becomes_one_with_it() -> None:
    world = World()
    world.draw("aa")
    new, source = copy_vma(world.core, world.mm.vmas[0], at(2), 2 * PAGE, BASE_PAGE)
    assert new is source is world.mm.vmas[0]
    assert world.snapshot() == "aaaa"


def test_a_copy_may_swallow_its_source() -> None:
    world = World()
    world.draw("aa..bb")
    old = world.mm.vmas[1]
    new, source = copy_vma(world.core, old, at(2), 2 * PAGE, BASE_PAGE + 4)
    assert new is source is world.mm.vmas[0]
    assert old not in world.mm.vmas
    assert world.snapshot() == "aaaaaa"


@pytest.mark.parametrize(("child", "after"), [("", "AAAA..BB"), ("B", "aaBB..CC")])
def test_a_copy_beside_an_unfaulted_area_brings_its_family(child: str, after: str) -> None:
    """Rule 3.6, and not if it came through fork."""
    world = World()
    world.draw("aa....BB", child=child)
    old = world.mm.vmas[1]
    set_range(world.core, old, old.start, old.end, BASE_PAGE + 2)  # as if moved away from there before
    copy_vma(world.core, old, at(2), 2 * PAGE, BASE_PAGE + 2)
    assert world.snapshot() == after
    world.check()


# -- vma_modify_flags: merge, else cut out


def test_a_range_is_cut_out_and_stays_the_old_object() -> None:
    world = World()
    world.draw("AAAAA")
    old = world.mm.vmas[0]
    assert vma_modify_flags(world.core, old, at(1), at(3), VM_R, "test") is old
    assert world.snapshot() == "ABBCC"
    assert (old.start, old.end) == (at(1), at(3))


@pytest.mark.parametrize(("limit", "after"), [(1, "AAAA"), (2, "ABBB"), (3, "ABBC")])
def test_too_many_areas(limit: int, after: str) -> None:
    """The second cut may be refused when the first is made already: it stays, as in Linux."""
    world = World(max_map_count=limit)
    world.draw("AAAA")
    if limit == 3:
        vma_modify_flags(world.core, world.mm.vmas[0], at(1), at(3), VM_R, "test")
    else:
        with pytest.raises(SyscallError) as caught:
            vma_modify_flags(world.core, world.mm.vmas[0], at(1), at(3), VM_R, "test")
        assert caught.value.errno == errno.ENOMEM
    assert world.snapshot() == after
    world.check()
