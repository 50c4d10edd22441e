"""The screen of a differential run: its exact text."""

from __future__ import annotations

from dataclasses import replace

from rmap.lab.conform import ConformRun, Divergence, Incident
from rmap.lab.conform.pair import Compared
from rmap.show.conform import conformance

RUN = ConformRun(
    design="anon_vma_chain",
    profile="6.18",
    release="6.18.44",
    seed=17,
    next_seed=57,
    processes=8,
    swap=True,
    bpf=None,
    steps=2_400,
    scenarios=40,
    swapping=19,
    calls={"write": 1_300, "mmap": 1_000, "madvise pageout": 100},
    refused={"write": 7, "mmap": 200},
    compared=Compared(
        2_400, vmas=70_000, ptes=60_000, swapped=321, pages=9_000, anon_vmas=5_000, links=12_345, trees=77
    ),
    seconds=6.0,
)
SCRIPT = '#!/usr/bin/env python3\n"""Shows it."""\n\nwith in_step() as machine:\n    p0 = machine.spawn()\n'


def test_all_equal() -> None:
    assert conformance(RUN) == [
        "2,400 steps in 40 scenarios: all equal.",
        "",
        "kernel      Linux 6.18.44",
        "model       design anon_vma_chain, rules of 6.18",
        "seeds       from 17; 19 with swap",
        "compared    the kernel's own structures, by BPF, after 2,400 steps",
        "            VMAs 70,000, PTEs 60,000, pages 9,000",
        "            swap entries 321",
        "            anon_vmas 5,000, links 12,345",
        "            interval trees 77",
        "time        6.0 s, 400 steps a second",
        "",
        "CALL              MADE  REFUSED",
        "write            1,300        7",
        "mmap             1,000      200",
        "madvise pageout    100        0",
    ]


def test_steps_that_nobody_saw_are_not_called_equal() -> None:
    lines = conformance(replace(RUN, compared=replace(RUN.compared, looks=2_390)))
    assert lines[0] == "2,400 steps in 40 scenarios: NOT all compared: 10 steps went unseen."


def test_without_bpf_it_says_what_is_not_compared() -> None:
    compared = replace(RUN.compared, anon_vmas=0, links=0, trees=0, settled=1)
    lines = conformance(replace(RUN, bpf="CAP_BPF", compared=compared))
    assert lines[5:9] == [
        "compared    what /proc shows (no BPF: CAP_BPF), after 2,400 steps",
        "            VMAs 70,000, PTEs 60,000, pages 9,000",
        "            swap entries 321",
        "            1 look taken again, and equal then",
    ]


def test_an_interrupted_run_says_that_it_is_a_part() -> None:
    assert conformance(replace(RUN, complete=False))[:2] == [
        "2,400 steps in 40 scenarios: all equal so far; interrupted, so this is a part of",
        "what was asked for.",
    ]


def test_what_says_nothing_about_the_model_is_told_all_the_same() -> None:
    lines = conformance(
        replace(
            RUN,
            not_seen_again=[Incident(18, "Diverged: after a:\nmm 0, areas: x")],
            lost=[Incident(seed, f"puppet {seed} is gone") for seed in range(20, 27)],
            undone=["swap to /dev/zram0 turned off, left behind by process 7"],
        )
    )
    assert lines[:2] == [
        "2,400 steps in 40 scenarios: all equal, but for 1 difference not seen again and",
        "7 scenarios cut short, of which nothing is known.",
    ]
    assert "undone      swap to /dev/zram0 turned off, left behind by process 7" in lines
    assert lines[-13:] == [
        "madvise pageout    100        0",
        "",
        "Differed once and not again when repeated; it depends on more than the calls:",
        "  seed 18: Diverged: after a:",
        "    mm 0, areas: x",
        "",
        "Lost a puppet to something else than its calls; nothing was concluded:",
        *(f"  seed {seed}: puppet {seed} is gone" for seed in range(20, 25)),
        "  ... 2 more (--json)",
    ]


def test_a_difference_comes_first_and_its_script_last() -> None:
    found = Divergence(56, 83, ("p0 = machine.spawn()", "p0.munmap(at(1), pages(1))"), "Diverged: x", SCRIPT)
    lines = conformance(replace(RUN, divergence=found))
    assert lines[:2] == [
        "The model is WRONG, or the kernel is: after 2,400 steps in 40 scenarios, the",
        "scenario of seed 56 diverges; 2 calls of its 83 show it.",
    ]
    assert "\n".join(lines).endswith("\n\n" + SCRIPT.rstrip())


def test_a_difference_may_be_one_of_designs_or_of_releases() -> None:
    found = Divergence(56, 83, ("p0 = machine.spawn()",), "Diverged: x", SCRIPT)
    lines = conformance(replace(RUN, divergence=found, design="pte_chain", release="7.0.1"))
    text = " ".join(lines)
    assert "pte_chain forbids none, so a difference in areas that are merged is one of the designs." in text
    assert "The model follows the rules of 6.18, the kernel is 7.0.1:" in text
