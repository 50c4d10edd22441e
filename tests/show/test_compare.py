"""The comparison table and the first screen, from numbers that a reader can check by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest

from rmap.lab.results import (
    Comparison,
    Correctness,
    DesignResult,
    EvictionFigures,
    Figure,
    FirstScreen,
    Structure,
    Subject,
)
from rmap.show.compare import comparison, cost_table, done_line, figure_cells, subject_line
from rmap.show.demo import first_screen

RIGHT = Correctness(ptes_found=412_806, ptes_total=412_806, ptes_invented=0, pages=104_233, pages_wrong=0)

CHAINS = DesignResult(
    design="pte_chain",
    correctness=RIGHT,
    memory=(Structure("in each struct page", 833_864), Structure("chain blocks", 71_208 * 64, 71_208, 64)),
    bytes_per_page=51.7,
    figures=(
        Figure("fault", "written per page", 1, "pointer"),
        Figure("fork", "entries written per PTE", 1.0),
        Figure("walk", "PTEs looked at per page", 3.96),
        Figure("walk", "of them really mapping it", 3.96, part_of_above=True),
    ),
    vmas=3_914,
    eviction=EvictionFigures(pages=10_423, ptes_cleared=41_309, ptes_left=0),
)

OBJECTS = DesignResult(
    design="anon_vma_chain",
    correctness=RIGHT,
    memory=(Structure("in each struct page", 416_932), Structure("VMA fields, anon_vmas, links", 481_280)),
    bytes_per_page=8.6,
    figures=(
        Figure("fault", "written per page", 1, "mapping"),
        Figure("fork", "entries written per PTE", 0.0),
        Figure("fork", "objects made per VMA", 2.41),
        Figure("walk", "PTEs looked at per page", 5.12),
        Figure("walk", "of them really mapping it", 3.96, part_of_above=True),
    ),
    vmas=3_915,
    eviction=EvictionFigures(pages=10_423, ptes_cleared=41_309, ptes_left=0),
)

SUBJECT = Subject("picture", "web.rmap", "shipped: a web server, Linux 6.18", 38, 3_914, 104_233, 412_806)
BOTH = Comparison(SUBJECT, "6.18", (CHAINS, OBJECTS), ("pte_chain pays at every fork.",))

TABLE = """\
                                         pte_chain    anon_vma_chain
memory   in each struct page               814 KiB           407 KiB
         chain blocks: 71,208 x 64 B     4,450 KiB                 -
         VMA fields, anon_vmas, links            -           470 KiB
         bytes per mapped page                51.7               8.6
fault    written per page                1 pointer         1 mapping
fork     entries written per PTE              1.00                 0
         objects made per VMA                    -              2.41
walk     PTEs looked at per page              3.96              5.12
           of them really mapping it          3.96              3.96
"""


def test_a_row_per_cost_and_a_column_per_design() -> None:
    assert "\n".join(cost_table(BOTH.designs)) + "\n" == TABLE


def test_designs_that_do_not_fit_go_into_a_second_table_with_all_rows() -> None:
    six = [replace(OBJECTS, design=f"a_rather_long_design_{i}") for i in range(6)]
    lines = cost_table(six)
    assert max(len(line) for line in lines) <= 80
    for result in six:
        assert sum(result.design in line for line in lines) == 1
    assert sum(line.startswith("memory") for line in lines) == lines.count("") + 1 > 1


def test_one_design_alone_gets_its_table() -> None:
    assert "anon_vma_chain" in cost_table([OBJECTS])[0]


@pytest.mark.parametrize(
    ("values", "cells"),
    [
        ([1.0, 0.0], ["1.00", "0"]),
        ([51.74, 8.6], ["51.7", "8.6"]),
        ([9507.3, 3.0], ["9,507", "3"]),
        ([65_536, 0], ["65,536", "0"]),
        ([0.0, None], ["0", "-"]),
    ],
)
def test_averages_of_a_row_share_their_decimals(values: list[int | float | None], cells: list[str]) -> None:
    assert figure_cells(values, "") == cells


def test_the_comparison_ends_with_vmas_verdict_and_remarks() -> None:
    lines = comparison(BOTH)
    assert " ".join(lines[-5].split()) == "VMAs at the end 3,914 3,915"
    assert " ".join(lines[-4].split()) == "all PTEs of all pages found yes yes"
    assert lines[-3:] == [
        "",
        "pte_chain pays at every fork.",
        "Counts, not times: the same on every machine. Sizes: 64-bit, 64-byte lines.",
    ]


def test_a_wrong_design_is_named_with_what_it_missed_and_invented() -> None:
    wrong = replace(CHAINS, correctness=Correctness(412_800, 412_806, 2, 104_233, 7))
    result = replace(BOTH, designs=(wrong, OBJECTS))
    assert not result.equal
    text = "\n".join(comparison(result))
    assert "NO" in text
    assert "pte_chain: missed 6 of 412,806 PTEs and named 2 that do not map the page" in text
    assert "on 7 of 104,233 pages" in " ".join(text.split())
    assert done_line(wrong).startswith("pte_chain      WRONG: missed 6")
    assert "WRONG: missed 6" in "\n".join(first_screen(FirstScreen(result), program="rmap", root=False))


def test_what_is_inferred_is_said() -> None:
    subject = replace(SUBJECT, inferred=("fork families, from shared frames",))
    result = replace(BOTH, subject=subject)
    assert "Inferred: fork families, from shared frames" in comparison(result)
    screen = first_screen(FirstScreen(result), program="rmap", root=False)
    assert "Inferred  fork families, from shared frames" in screen


def test_an_eviction_that_leaves_an_entry_is_no_success() -> None:
    left = replace(CHAINS, eviction=EvictionFigures(10_423, 41_308, 1))
    assert not replace(BOTH, designs=(left,)).equal


def test_subject_line_names_the_seed_of_a_workload_only() -> None:
    workload = Subject("workload", "fork-line", "", 1, 1, 720_836, 6_619_136, seed=7)
    assert subject_line(workload) == "fork-line: 1 process, 1 VMA, 720,836 mapped pages, 6,619,136 PTEs, seed 7"
    assert "seed" not in subject_line(SUBJECT)


SCREEN = """\
rmap: from a page back to every page-table entry (PTE) that maps it

Picture   web.rmap, shipped: a web server, Linux 6.18
          38 processes, 3,914 VMAs, 104,233 mapped pages, 412,806 PTEs

1. Is each reverse map right?   (oracle: every page table read by brute force)
   pte_chain        412,806 of 412,806 PTEs found, 104,233 pages: all equal
   anon_vma_chain   412,806 of 412,806 PTEs found, 104,233 pages: all equal

2. What does it cost?                       pte_chain    anon_vma_chain
   memory   in each struct page               814 KiB           407 KiB
            chain blocks: 71,208 x 64 B     4,450 KiB                 -
            VMA fields, anon_vmas, links            -           470 KiB
            bytes per mapped page                51.7               8.6
   fault    written per page                1 pointer         1 mapping
   fork     entries written per PTE              1.00                 0
            objects made per VMA                    -              2.41
   walk     PTEs looked at per page              3.96              5.12
              of them really mapping it          3.96              3.96

   pte_chain pays at every fork.

3. Evict a tenth of the pages through each walk: 10,423 pages
   pte_chain        41,309 PTEs cleared, 0 left
   anon_vma_chain   41,309 PTEs cleared, 0 left

Next   .venv/bin/rmap explain offset         one page, two offsets: step by step
       .venv/bin/rmap compare fork-server    the same table for a workload
       sudo .venv/bin/rmap snap -o here.rmap; .venv/bin/rmap compare here.rmap
"""


def test_the_first_screen() -> None:
    lines = first_screen(FirstScreen(BOTH), program=".venv/bin/rmap", root=False)
    assert "\n".join(lines) + "\n" == SCREEN
    assert max(map(len, lines)) <= 80


def test_root_is_offered_the_running_machine() -> None:
    lines = first_screen(FirstScreen(BOTH), program="rmap", root=True)
    assert " ".join(lines[-1].split()) == "rmap demo --here the same for this machine, now"
