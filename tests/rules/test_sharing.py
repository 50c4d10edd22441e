"""Who shares which page: rules 2.5a, 2.7 and 4.x."""

from __future__ import annotations

from typing import Any

from tests.rules.words import at, layout, mapped, pages, present, shared, written


def test_of_a_line_of_forks_the_survivors_share_what_the_dead_wrote(machine: Any) -> None:
    """Rule 2.5a: P, C, G, K, L in a line, each writing a page; C, G and K die; L forks M."""
    line = [machine.spawn()]
    written(line[0], 0, 6)
    for generation in range(1, 5):
        line.append(line[-1].fork())
        line[-1].write(at(generation), pages(1))
    p, c, g, k, last = line
    for dead in (c, g, k):
        dead.exit()
    m = last.fork()
    m.write(at(5), pages(1))

    assert shared(machine, (p, 0), (last, 0), (m, 0))
    for page in (1, 2, 3, 4):  # what C, G, K and L wrote
        assert shared(machine, (last, page), (m, page))
        assert shared(machine, (p, page))
    assert shared(machine, (p, 5), (last, 5))
    assert shared(machine, (m, 5))


def test_a_grandchild_outlives_its_parent_and_forks_on(machine: Any) -> None:
    """Rule 2.7: C exits between P and G; G forks H."""
    p = machine.spawn()
    written(p, 0, 3)
    c = p.fork()
    c.write(at(1), pages(1))
    g = c.fork()
    c.exit()
    h = g.fork()
    h.write(at(2), pages(1))

    assert shared(machine, (p, 0), (g, 0), (h, 0))
    assert shared(machine, (g, 1), (h, 1))  # C's copy
    assert shared(machine, (p, 2), (g, 2))
    assert shared(machine, (h, 2))
    assert layout(p) == layout(g) == layout(h) == "0-3 rw-p"


def test_a_daemon_chain_hands_its_pages_down(machine: Any) -> None:
    """Rule 2.7: fork, then the parent exits, five generations on; every page is still shared with the first."""
    first = machine.spawn()
    written(first, 0, 7)
    last = first.fork()
    for generation in range(5):
        child = last.fork()
        last.exit()
        last = child
        last.write(at(generation), pages(1))
    assert all(shared(machine, (first, page)) and shared(machine, (last, page)) for page in range(5))
    assert shared(machine, (first, 5), (last, 5))
    assert shared(machine, (first, 6), (last, 6))


def test_the_last_owner_of_a_page_writes_in_place(machine: Any) -> None:
    """Rules 4.7 and 4.8: nothing happens when the sibling goes; the next write takes the page over, no copy."""
    p = machine.spawn()
    written(p, 0, 1)
    frame = machine.pfn(p, at(0))
    c = p.fork()
    p.exit()
    assert machine.pfn(c, at(0)) == frame
    c.write(at(0), pages(1))
    assert machine.pfn(c, at(0)) == frame
    assert machine.mapcount(frame) == 1


def test_a_write_to_a_shared_page_copies_it(machine: Any) -> None:
    """Rule 4.7, from the side of the parent: the child keeps the old page."""
    p = machine.spawn()
    written(p, 0, 2)
    frame = machine.pfn(p, at(0))
    c = p.fork()
    p.write(at(0), pages(1))
    assert machine.pfn(c, at(0)) == frame
    assert shared(machine, (c, 0))
    assert shared(machine, (p, 0))
    assert shared(machine, (p, 1), (c, 1))


def test_the_zero_page_is_mapped_and_not_counted(machine: Any) -> None:
    """Rules 1.4, 4.1 and part 7: a read fault of anonymous memory maps the zero page."""
    p = machine.spawn()
    mapped(p, 0, 3)
    p.read(at(0), pages(2))
    assert present(machine, p, 0, 3) == "00."
    assert machine.mapcount(machine.pfn(p, at(0))) == 0
    c = p.fork()
    c.write(at(0), pages(1))
    assert present(machine, c, 0, 1) == "x"
    assert shared(machine, (c, 0))
