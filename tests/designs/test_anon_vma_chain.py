"""The rules of anon_vmas and their chains (rules 2.1 to 2.12, 3.3, 3.4, 4.2 to 4.7, 5.2)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from rmap.designs.anon_vma_chain import AnonVmaChainDesign
from rmap.errors import InvariantError
from rmap.mm.costs import LOCKS_ANON_VMA, OBJECTS_FREED, OBJECTS_MADE
from rmap.mm.mm_types import File, Vma
from rmap.uapi.vm_flags import VM_DONTCOPY, VM_EXEC, VM_READ, VM_WRITE

MakeWorld = Callable[..., Any]
RW_FLAGS = VM_READ | VM_WRITE


@pytest.fixture
def world(make_world: MakeWorld) -> Any:
    return make_world("anon_vma_chain")


def design(world: Any) -> AnonVmaChainDesign:
    rmap = world.core.rmap
    assert isinstance(rmap, AnonVmaChainDesign)
    return rmap


def chain(vma: Vma) -> list[str]:
    return [link.anon_vma.name for link in vma.chain]


def counts(vma: Vma) -> tuple[int, int, int]:
    """Of the active anon_vma: children, active VMAs, references."""
    anon_vma = vma.anon
    return anon_vma.num_children, anon_vma.num_active_vmas, anon_vma.refcount


# -- prepare --------------------------------------------------------------------------------------------------------
def test_the_first_fault_makes_a_root(world: Any) -> None:
    vma = world.map(world.spawn(), 0, 4)
    assert vma.anon is None and vma.chain is None
    world.touch(vma)
    assert chain(vma) == ["A0"]
    assert vma.anon.root is vma.anon.parent is vma.anon
    assert counts(vma) == (1, 1, 1)
    world.check()


def neighbours(world: Any, **right: Any) -> tuple[Vma, Vma]:
    """Two touching VMAs, the left one faulted."""
    mm = world.spawn()
    left = world.map(mm, 0, 4)
    other = world.map(mm, 4, 4, **right)
    world.touch(left)
    return left, other


@pytest.mark.parametrize("flags", [RW_FLAGS, RW_FLAGS | VM_EXEC, VM_READ])
def test_neighbours_that_differ_in_permissions_share_an_anon_vma(world: Any, flags: int) -> None:
    mm = world.spawn()
    left = world.map(mm, 0, 4, RW_FLAGS)
    right = world.map(mm, 4, 4, flags)
    world.touch(left)
    world.touch(right)
    assert right.anon is left.anon
    assert counts(left) == (1, 2, 1)
    world.check()


@pytest.mark.parametrize(
    "right",
    [
        {"flags": RW_FLAGS | VM_DONTCOPY},
        {"pgoff": 7},
        {"file": File(None, "/dev/zero")},
    ],
    ids=["flags", "page offset", "file"],
)
def test_neighbours_that_could_never_merge_do_not_share(world: Any, right: dict[str, Any]) -> None:
    mm = world.spawn()
    left = world.map(mm, 0, 4, RW_FLAGS)
    flags = right.pop("flags", RW_FLAGS)
    other = world.map(mm, 4, 4, flags, **right)
    world.touch(left)
    world.touch(other)
    assert other.anon is not left.anon
    world.check()


def test_a_gap_between_vmas_separates_them(world: Any) -> None:
    mm = world.spawn()
    left, right = world.map(mm, 0, 4), world.map(mm, 5, 4)
    world.touch(left)
    world.touch(right)
    assert right.anon is not left.anon


def test_the_next_vma_is_asked_before_the_previous_one(world: Any) -> None:
    mm = world.spawn()
    low, middle, high = (world.map(mm, page, 1) for page in (0, 1, 2))
    world.touch(low)
    world.touch(high)
    world.touch(middle)
    assert middle.anon is high.anon is not low.anon


def test_a_vma_that_came_through_fork_lends_nothing(world: Any) -> None:
    mm = world.spawn()
    left = world.map(mm, 0, 4)
    world.touch(left)
    child = world.fork(mm)
    (inherited,) = child.vmas
    fresh = world.map(child, 4, 4)
    world.touch(fresh)
    assert chain(inherited) == ["A1", "A0"]
    assert chain(fresh) == ["A2"]
    # The parent's chain is single, so it still lends.
    beside = world.map(mm, 4, 4)
    world.touch(beside)
    assert beside.anon is left.anon
    world.check()


# -- fork -----------------------------------------------------------------------------------------------------------
def test_rule_2_7_fork_exit_and_reuse(world: Any) -> None:
    p = world.spawn()
    world.touch(world.map(p, 0, 4), 0, 2)
    (vp,) = p.vmas
    c = world.fork(p)
    (vc,) = c.vmas
    assert counts(vp) == (2, 1, 2)
    assert chain(vc) == ["A1", "A0"] and counts(vc) == (0, 1, 1)
    g = world.fork(c)
    (vg,) = g.vmas
    assert counts(vc)[0] == 1 and counts(vp)[2] == 3
    assert chain(vg) == ["A2", "A1", "A0"]
    a1 = vc.anon
    world.exit(c)
    assert (a1.num_children, a1.num_active_vmas, a1.refcount) == (1, 0, 1)
    (page,) = world.touch(vg, 3, 1)
    made = world.core.costs["fork"]["objects_made"]
    (vh,) = world.fork(g).vmas
    assert chain(vh) == ["A2", "A1", "A0"]
    assert vh.anon is a1 and a1.num_active_vmas == 1
    assert world.core.costs["fork"]["objects_made"] - made == 3  # three links, no anon_vma
    world.check()
    # H maps the page of G, which hangs on A2: neither H's active A1 nor above it. That is why nobody asks for I18.
    assert vh in [where for where, _ in world.core.rmap.candidates1(page)]
    assert world.core.rmap.describe_page(page) == "anon_vma A2"
    assert a1 is vg.anon.parent


@pytest.mark.parametrize(("profile", "reused"), [("6.18", "A1"), ("7.0", "A2")])
def test_rule_2_5a_which_of_three_old_anon_vmas_is_taken_up(make_world: MakeWorld, profile: str, reused: str) -> None:
    world = make_world("anon_vma_chain", profile)
    line = [world.spawn()]
    world.touch(world.map(line[0], 0, 2))
    for _ in range(4):
        line.append(world.fork(line[-1]))
    for dead in line[1:4]:
        world.exit(dead)
    (vl,) = line[4].vmas
    (vm,) = world.fork(line[4]).vmas
    assert vm.anon.name == reused
    assert sorted(chain(vm)) == ["A0", "A1", "A2", "A3", "A4"]
    assert sorted(chain(vl)) == ["A0", "A1", "A2", "A3", "A4"]
    if profile == "6.18":
        assert chain(vm) == ["A4", "A3", "A2", "A1", "A0"]
    world.check()


def test_7_0_reverses_a_chain_at_every_clone(make_world: MakeWorld) -> None:
    world = make_world("anon_vma_chain", "7.0")
    mm = world.spawn()
    world.touch(world.map(mm, 0, 4))
    child = world.fork(mm)
    grandchild = world.fork(child)
    (vma,) = grandchild.vmas
    assert chain(child.vmas[0]) == ["A1", "A0"]
    assert chain(vma) == ["A2", "A0", "A1"]
    upper = world.split(vma, 2)
    assert chain(upper) == ["A1", "A0", "A2"]
    world.check()


def test_fork_and_exit_in_a_line_use_two_anon_vmas_forever(world: Any) -> None:
    mm = world.spawn()
    world.touch(world.map(mm, 0, 2))
    for _ in range(8):
        child = world.fork(mm)
        world.exit(mm)
        mm = child
        world.check()
    assert len(design(world).anon_vmas) <= 3
    world.exit(mm)
    assert not design(world).anon_vmas


# -- unlink ---------------------------------------------------------------------------------------------------------
def test_the_last_vma_frees_a_family_root_last(world: Any) -> None:
    mm = world.spawn()
    world.touch(world.map(mm, 0, 2))
    child = world.fork(mm)
    root = mm.vmas[0].anon
    world.exit(mm)
    assert root.id in design(world).anon_vmas and root.num_active_vmas == 0
    world.check()
    world.exit(child)
    assert not design(world).anon_vmas
    assert world.core.costs["exit"]["objects_freed"] == 5
    assert design(world).metadata_bytes()["anon_vma_chain"] == 0


def test_every_lock_and_object_of_a_life_is_counted(world: Any) -> None:
    mm = world.spawn()
    costs = world.core.costs
    setup = costs.current
    vma = world.map(mm, 0, 4)
    world.touch(vma)
    assert (setup[LOCKS_ANON_VMA], setup[OBJECTS_MADE]) == (1, 2)
    world.split(vma, 2)
    assert (setup[LOCKS_ANON_VMA], setup[OBJECTS_MADE]) == (3, 3)
    child = world.fork(mm)
    assert (costs["fork"]["locks_anon_vma"], costs["fork"]["objects_made"]) == (4, 6)
    world.exit(child)
    assert (costs["exit"]["locks_anon_vma"], costs["exit"]["objects_freed"]) == (2, 6)
    assert setup[OBJECTS_FREED] == 0


# -- split and resize -----------------------------------------------------------------------------------------------
def test_a_split_pair_has_one_anon_vma_and_equal_chains(world: Any) -> None:
    mm = world.spawn()
    world.touch(world.map(mm, 0, 8))
    child = world.fork(mm)
    (low,) = child.vmas
    high = world.split(low, 3)
    assert low.anon is high.anon and chain(low) == chain(high) == ["A1", "A0"]
    assert low.anon.num_active_vmas == 2
    assert [(link.start, link.last) for link in high.chain] == [(high.pgoff, high.last)] * 2
    world.check()
    # A hole in the child only: the survivor's pages are found at another offset (rule 2.12).
    world.unmap(low)
    world.check()


def test_a_vma_resized_outside_the_bracket_is_noticed(world: Any) -> None:
    mm = world.spawn()
    vma = world.map(mm, 0, 8)
    world.touch(vma)
    vma.end -= 4096
    assert broken(world) == "I12"


# -- merge rules ----------------------------------------------------------------------------------------------------
def test_rule_3_3_and_3_4(world: Any) -> None:
    rmap = world.core.rmap
    mm = world.spawn()
    vmas = [world.map(mm, 10 * i, 2) for i in range(4)]
    plain, plain_too, single, other = vmas
    world.touch(single)
    world.touch(other)
    child = world.fork(mm)
    forked = child.vmas[2]
    bare = child.vmas[0]
    mergeable = rmap.is_mergeable_anon_vma
    assert mergeable(plain, None) and mergeable(plain, plain_too)  # c: both without
    assert mergeable(plain, single)  # a
    assert not mergeable(bare, forked)  # a: more than one link
    assert mergeable(single, None) and mergeable(single, plain)  # b
    assert not mergeable(forked, None) and not mergeable(forked, bare)  # b: more than one link
    assert mergeable(single, single) and mergeable(forked, forked)  # c: equal
    assert not mergeable(single, other) and not mergeable(single, forked)  # c: different
    compatible = rmap.are_anon_vmas_compatible
    assert compatible(plain, single) and compatible(single, plain) and compatible(single, single)
    assert compatible(forked, bare)
    assert not compatible(single, other)


# -- pages ----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("scalar", [False, True])
def test_where_a_page_hangs(world: Any, scalar: bool) -> None:
    mm = world.spawn()
    world.touch(world.map(mm, 0, 4))
    child = world.fork(mm)
    (vma,) = child.vmas
    frames, rmap = world.core.frames, world.core.rmap

    def anchor(how: str) -> tuple[int, int]:
        if scalar:
            (pfn,) = frames.alloc(1).tolist()
            rmap.set_anon1(vma, vma.start + 4096, 600, pfn, how)
        else:
            (pfn,) = world.touch(vma, 1, 1, how)
        return frames.anchor1(pfn)

    active, root = vma.anon.handle, vma.anon.root.handle
    assert anchor("new") == (active, vma.pgoff + 1)
    assert anchor("shared") == (root, vma.pgoff + 1)
    assert anchor("move") == (active, vma.pgoff + 1)
    assert anchor("adopt") == (active, vma.pgoff + 1)
    assert anchor("reuse") == (active, 0)  # the anchor moves, the index stays


def test_a_page_of_a_large_folio_is_anchored_through_its_head(world: Any) -> None:
    mm = world.spawn()
    vma = world.map(mm, 0, 8)
    frames = world.core.frames
    frames.take(np.arange(64, 68))
    frames.make_folio(64, 2)
    world.core.prepare(vma)
    world.core.rmap.set_anon1(vma, vma.start + 5 * 4096, 600, 65, "new")
    assert frames.anchor1(65) == (vma.anon.handle, vma.pgoff + 5)
    assert frames.anchor1(67) == (vma.anon.handle, vma.pgoff + 7)
    assert frames.index[64] == vma.pgoff + 4


def test_a_page_is_looked_for_below_its_own_anon_vma_only(world: Any) -> None:
    parent = world.spawn()
    world.touch(world.map(parent, 0, 4))
    children = [world.fork(parent) for _ in range(20)]
    (vma,) = children[7].vmas
    private = world.touch(world.map(children[7], 50, 1))
    walk = world.core.rmap.candidates1
    assert [where for where, _ in walk(private[0])] == [children[7].vmas[1]]
    inherited = world.core.tables.ptes[parent.rows[parent.vmas[0].start >> 21] * 512] >> 12
    assert len(list(walk(int(inherited)))) == 21
    assert next(walk(int(inherited)))[0] is parent.vmas[0]
    assert vma in [where for where, _ in walk(int(inherited))]


def test_two_pages_with_one_anchor_and_index_are_told_apart(world: Any) -> None:
    # Rule 2.14: after MREMAP_DONTUNMAP of a part, one mm has the same interval of one anon_vma twice.
    mm = world.spawn()
    old = world.map(mm, 0, 8)
    world.touch(old)
    moved = world.map(mm, 100, 8, pgoff=old.pgoff)
    world.core.rmap.vma_clone(moved, old, "mremap")
    moved.faulted = True
    world.touch(moved)
    assert moved.anon is old.anon
    world.check()


# -- accounts -------------------------------------------------------------------------------------------------------
def test_bytes_of_a_fork_server(make_world: MakeWorld) -> None:
    world = make_world("anon_vma_chain", nr_pages=1 << 12)
    parent = world.spawn()
    world.touch(world.map(parent, 0, 64))
    for _ in range(100):
        world.fork(parent)
    assert design(world).metadata_bytes() == {
        "page.mapcount": 64 * 4,
        "vma.anon_vma": 101 * 24,
        "vma.shared": 0,
        "anon_vma": 101 * 104,
        "anon_vma_chain": 201 * 64,
    }
    assert design(world).metadata_bytes(32) == {}


def test_topology_and_words(world: Any) -> None:
    mm = world.spawn()
    world.touch(world.map(mm, 0, 2))
    (pfn,) = world.touch(world.map(mm, 10, 1))
    child = world.fork(mm)
    columns = {name: column.tolist() for name, column in design(world).topology().items()}
    assert columns["id"] == [0, 1, 2, 3]
    assert columns["root"] == columns["parent"] == [0, 1, 0, 1]
    assert columns["num_children"] == [2, 2, 0, 0]
    assert columns["refcount"] == [2, 2, 1, 1]
    assert columns["num_active_vmas"] == [1, 1, 1, 1]
    assert columns["vma_anon_vma"] == [0, 1, 2, 3]
    assert columns["chain_anon_vma"] == [0, 1, 2, 0, 3, 1]
    assert columns["chain_mm"] == [1, 1, 2, 2, 2, 2]
    assert columns["chain_start"][2] == child.vmas[0].start
    rmap = world.core.rmap
    assert rmap.describe_vma(child.vmas[0]) == "A2, chain [A2 A0]"
    assert rmap.describe_page(pfn) == "anon_vma A1"
    assert rmap.describe_vma(world.map(mm, 30, 1)) == "none"


# -- what validate notices ------------------------------------------------------------------------------------------
def broken(world: Any) -> str:
    """The number of the invariant that does not hold."""
    with pytest.raises(InvariantError) as error:
        world.core.rmap.validate()
    return error.value.id


def family(world: Any) -> tuple[Vma, Vma]:
    mm = world.spawn()
    world.touch(world.map(mm, 0, 4))
    child = world.fork(mm)
    own = world.map(child, 50, 2)
    world.touch(own)
    return mm.vmas[0], child.vmas[0]


def lose_a_link(parent: Vma, child: Vma) -> None:
    link = child.chain.pop(0)
    link.anon_vma.tree.remove(link)


def lose_the_root(parent: Vma, child: Vma) -> None:
    link = child.chain.pop()
    link.anon_vma.tree.remove(link)


def reverse(parent: Vma, child: Vma) -> None:
    child.chain.reverse()


def double(parent: Vma, child: Vma) -> None:
    child.chain.insert(0, child.chain[0])


def activate_a_stranger(parent: Vma, child: Vma) -> None:
    child.anon = child.mm.vmas[1].anon


def forget_the_anon_vma(parent: Vma, child: Vma) -> None:
    child.anon = None


def out_of_the_tree(parent: Vma, child: Vma) -> None:
    child.anon.tree.remove(child.chain[0])


@pytest.mark.parametrize(
    ("number", "break_it"),
    [
        ("I1", forget_the_anon_vma),
        ("I2", activate_a_stranger),
        ("I3", lose_a_link),
        ("I4", lose_the_root),
        ("I4", reverse),
        ("I5", double),
        ("I12", out_of_the_tree),
    ],
)
def test_validate_notices_a_broken_chain(world: Any, number: str, break_it: Callable[[Vma, Vma], None]) -> None:
    parent, child = family(world)
    world.core.rmap.validate()
    break_it(parent, child)
    assert broken(world) == number


def test_validate_notices_a_missing_ancestor(world: Any) -> None:
    _, child = family(world)
    grandchild = world.fork(child.mm).vmas[0]
    world.check()
    middle = grandchild.chain.pop(1)
    middle.anon_vma.tree.remove(middle)
    assert broken(world) == "I10"


def test_validate_notices_halves_whose_chains_differ(world: Any) -> None:
    _, child = family(world)
    line = world.fork(world.fork(child.mm)).vmas[0]
    upper = world.split(line, 2)
    world.check()
    upper.chain[1], upper.chain[2] = upper.chain[2], upper.chain[1]
    assert broken(world) == "I11"


@pytest.mark.parametrize(("number", "field"), [("I6", "num_active_vmas"), ("I7", "num_children"), ("I8", "refcount")])
def test_validate_notices_a_wrong_counter(world: Any, number: str, field: str) -> None:
    parent, _ = family(world)
    setattr(parent.anon, field, getattr(parent.anon, field) + 1)
    assert broken(world) == number


def test_validate_notices_a_wrong_parent(world: Any) -> None:
    _, child = family(world)
    child.anon.parent = child.anon
    assert broken(world) == "I9"


def test_validate_notices_pages_on_the_wrong_anchor(world: Any) -> None:
    _, child = family(world)
    own = child.mm.vmas[1]
    frames = world.core.frames
    (page,) = world.touch(child, 0, 1)
    frames.mapping[page] = child.anon.root.handle  # a new page on the root: found by every walk, and too wide
    assert broken(world) == "I16"
    frames.mapping[page] = own.anon.handle
    assert broken(world) == "I13"
    frames.mapping[page] = child.anon.handle
    frames.index[page] += 1
    assert broken(world) == "I14"


def test_an_anon_vma_with_two_children_is_not_taken_up_again(world: Any) -> None:
    # The root counts itself, so a root with one child left is no candidate, however few VMAs it has (rule 2.5).
    mm = world.spawn()
    world.touch(world.map(mm, 0, 2))
    child = world.fork(mm)
    world.exit(mm)
    (vma,) = child.vmas
    root = vma.anon.root
    assert (root.num_active_vmas, root.num_children) == (0, 2)
    grandchild = world.fork(child)
    assert chain(grandchild.vmas[0]) == ["A2", "A1", "A0"]
    assert grandchild.vmas[0].anon.name == "A2"


@pytest.mark.parametrize("profile", ["6.18", "7.0"])
def test_a_topology_can_be_taken_over(make_world: MakeWorld, profile: str) -> None:
    world = make_world("anon_vma_chain", profile)
    line = [world.spawn()]
    world.touch(world.map(line[0], 0, 4))
    for _ in range(4):
        line.append(world.fork(line[-1]))
    world.exit(line[1])
    line.append(world.fork(line[-1]))
    world.split(line[-1].vmas[0], 1)
    there = {name: column.tolist() for name, column in design(world).topology().items()}

    other = make_world("anon_vma_chain", profile)
    row = {anon_vma: i for i, anon_vma in enumerate(there["id"])}
    places = list(zip(there["vma_mm"], there["vma_start"]))
    mms = {mm: other.spawn() for mm in dict.fromkeys(there["vma_mm"])}
    vmas = []
    for mm, start in places:
        old = world.core.mm_by_id(mm).find(start)
        assert old is not None
        vmas.append(other.map(mms[mm], (start - 0x10000000) // 4096, old.pages))
    columns = {name: [row[a] for a in there[name]] for name in ("root", "parent")}
    columns |= {name: there[name] for name in ("num_children", "num_active_vmas")}
    columns["active"] = [row[a] for a in there["vma_anon_vma"]]
    columns["chain_vma"] = [places.index(place) for place in zip(there["chain_mm"], there["chain_start"])]
    columns["chain_anon_vma"] = [row[a] for a in there["chain_anon_vma"]]
    handles = design(other).adopt_topology({name: np.array(column) for name, column in columns.items()}, vmas)
    for vma in vmas:
        vma.faulted = True
    other.core.rmap.validate()
    again = {name: column.tolist() for name, column in design(other).topology().items()}
    assert again["chain_anon_vma"] == columns["chain_anon_vma"]
    assert again["refcount"] == there["refcount"]
    assert again["num_children"] == there["num_children"]
    assert handles.tolist() == [anon_vma.handle for anon_vma in design(other).anon_vmas.values()]
