"""The screens of replay and verify, line by line."""

from __future__ import annotations

from dataclasses import replace

import pytest

from rmap.lab.replay import results as r
from rmap.lab.results import Correctness
from rmap.show.replay import replay
from rmap.show.verify import percent, verify

TRACE = r.TraceSummary(
    "srv.trace", ("python3", "srv.py"), "bpf", "6.18.44", "", "", 12345, 9, 1_500_000_000, True, "", 0
)
ROWS = (
    r.Agreement(r.LAYOUT, 1234, 1234),
    r.Agreement(r.SHARING, 49_987, 50_000, {r.UNSEEN: 12}, "process 7 at 0x1000: mapped by 2 (processes 7, 8)"),
)
POINT = r.Checkpoint(8, "end", 1_400_000_000, 7, 1234, 60_000, ROWS, {r.FAULT_AROUND: 1, r.UNSEEN: 12}, 1, ("A note",))
PLAYED = r.TracePlayed(
    {"syscall": 345, "fault": 12_000},
    {"mmap": 200, "munmap": 145},
    (r.Finding("mremap: said EFAULT, the kernel did it", 2, "process 7: mremap"),),
    (POINT,),
    8,
    1,
)
REPORT = r.ReplayReport(
    TRACE,
    "pte_chain",
    "6.18",
    PLAYED,
    Correctness(60_000, 60_000, 0, 9_000, 0),
    7,
    1234,
    {"page.pte": 2048},
    {"fault": {"calls": 12_000, "faults": 12_000, "ptes_added": 15_000}, "walk": {"calls": 1}},
)


def test_verify() -> None:
    assert verify(REPORT) == [
        "NO          VMA layout 100 % (1,234 of 1,234 VMAs), anonymous sharing 99.97 %",
        "            (49,987 of 50,000 PTEs; 1 wrong), at 1 picture; 2 calls went",
        "            otherwise",
        "not judged  anonymous sharing: 12 of 50,000 PTEs (0.02 %): 12 unseen kernel",
        "            access (GUP)",
        "not shown   by every picture: kinds of PTEs; mapcounts, anonymous; exclusive",
        "            pages; writable PTEs; VMA chains; anon_vmas; page anchors",
        "trace       srv.trace: python3 srv.py, Linux 6.18.44, 12,345 events in 1.50 s, 9",
        "            pictures, 0 lost",
        "",
        "picture 1 of 1 (the end), after 1.40 s: 7 processes, 1,234 VMAs, 60,000 PTEs",
        "  WHAT                          EQUAL",
        "  VMA layout           1,234 of 1,234  VMAs    100 %",
        "  anonymous sharing  49,987 of 50,000  PTEs  99.97 %",
        "  first difference  anonymous sharing: process 7 at 0x1000: mapped by 2",
        "                    (processes 7, 8)",
        "  not judged        anonymous sharing, of 50,000 PTEs: 12 unseen kernel access",
        "                    (GUP)",
        "  put right         1 PTE: fault-around and page cache; 12 PTEs: unseen kernel",
        "                    access (GUP)",
        "  put right         1 VMA",
        "  A note",
        "",
        "otherwise   2 x mremap: said EFAULT, the kernel did it",
        "            first: process 7: mremap",
        "found by    playing every event in the model, and comparing at each picture",
        "            before anything is put right; what differs and may be the work of",
        "            somebody whom no event shows is counted by cause and not judged",
    ]


def test_verify_says_what_it_leaves_out() -> None:
    """Nothing is held against the model, and not all was judged."""
    rows = (
        r.Agreement(r.LAYOUT, 1234, 1234),
        r.Agreement(r.SHARING, 49_988, 50_000, {r.UNSEEN: 10, r.RECLAIM: 2}),
        r.Agreement(r.KINDS_OF_ENTRIES, 90, 100, {r.FAULT_AROUND: 10}),
        r.Agreement(r.ANON_MAPCOUNTS, 0, 0),
    )
    findings = (r.Finding("call not modelled: mbind", 2, "process 7", r.NOT_JUDGED),)
    played = replace(PLAYED, checkpoints=(replace(POINT, agreements=rows),), findings=findings, refused=4, after_last=3)
    assert played.verdict == r.AS_FAR_AS_JUDGED and played.agrees
    lines = verify(replace(REPORT, played=played))
    assert lines[:11] == [
        "equal       as far as judged: VMA layout 100 % (1,234 of 1,234 VMAs), anonymous",
        "            sharing 99.98 % (49,988 of 50,000 PTEs), and what is demanded of 1",
        "            other kind of facts, at 1 picture",
        "not judged  anonymous sharing: 12 of 50,000 PTEs (0.02 %): 10 unseen kernel",
        "            access (GUP); 2 reclaim and swap",
        "not judged  2 events that the model could not play (below)",
        "not shown   by every picture: mapcounts, anonymous; exclusive pages; writable",
        "            PTEs; VMA chains; anon_vmas; page anchors",
        "not shown   what 3 events after the last picture did",
        "left open   kinds of PTEs: 10 of 100 PTEs differ: fault-around and page cache",
        "left open   the answer to 4 calls that the kernel refused: the model was not",
    ]
    assert "not judged  2 x call not modelled: mbind" in lines
    assert "  mapcounts, anonymous            0 of 0  pages  not compared" in lines


ALL = tuple(r.Agreement(what, 10, 10) for what in r.UNITS)


@pytest.mark.parametrize(
    ("change", "verdict"),
    [
        ({}, r.EQUAL),
        ({r.FILE_MAPCOUNTS: r.Agreement(r.FILE_MAPCOUNTS, 5, 10, {r.FAULT_AROUND: 5})}, r.EQUAL),
        ({r.KINDS_OF_ENTRIES: r.Agreement(r.KINDS_OF_ENTRIES, 5, 10, {r.FAULT_AROUND: 5})}, r.EQUAL),
        *[({what: r.Agreement(what, 9, 10)}, r.NO) for what in r.DEMANDED],
        *[({what: r.Agreement(what, 9, 10, {r.UNSEEN: 1})}, r.AS_FAR_AS_JUDGED) for what in r.DEMANDED],
        *[({what: r.Agreement(what, 0, 0)}, r.AS_FAR_AS_JUDGED) for what in r.DEMANDED],
    ],
)
def test_every_row_that_is_demanded_decides(change: dict[str, r.Agreement], verdict: str) -> None:
    rows = tuple(change.get(row.what, row) for row in ALL)
    points = (replace(POINT, agreements=ALL), replace(POINT, agreements=rows))
    if verdict == r.AS_FAR_AS_JUDGED and not any(row.total == 0 for row in change.values()):
        assert replace(PLAYED, checkpoints=points, findings=()).verdict == verdict
    assert replace(PLAYED, checkpoints=(replace(POINT, agreements=rows),), findings=()).verdict == verdict


def test_a_row_that_one_picture_does_not_have_was_not_compared_there() -> None:
    points = (replace(POINT, agreements=ALL), replace(POINT, agreements=ALL[:-1]))
    played = replace(PLAYED, checkpoints=points, findings=())
    assert played.not_compared == (r.ANCHORS,) and played.verdict == r.AS_FAR_AS_JUDGED


def test_replay() -> None:
    assert replay(REPORT) == [
        "sound       at the last picture pte_chain found 60,000 of 60,000 PTEs of 9,000",
        "            pages",
        "trace       srv.trace: python3 srv.py, Linux 6.18.44, 12,345 events in 1.50 s, 9",
        "            pictures, 0 lost",
        "events      345 syscall, 12,000 fault",
        "calls       200 mmap, 145 munmap",
        "machine     7 processes, 1,234 VMAs then; 8 processes, 1 exec in all; metadata",
        "            2.0 KiB",
        "",
        "OPERATION   CALLS  FAULTS  PTES ADDED  REMOVED  OBJECTS MADE  ENTRIES WRITTEN",
        "fault      12,000  12,000      15,000        0             0                0",
        "",
        "put right   12 PTEs: unseen kernel access (GUP); 1 PTE: fault-around and page",
        "            cache; 1 VMA",
        "otherwise   2 x mremap: said EFAULT, the kernel did it",
        "            first: process 7: mremap",
    ]


def test_a_design_that_misses_entries_is_wrong() -> None:
    wrong = replace(REPORT, correctness=Correctness(59_999, 60_000, 0, 9_000, 1))
    assert replay(wrong)[0].startswith("WRONG       at the last picture pte_chain found 59,999 of 60,000 PTEs")


def test_an_unfinished_trace_says_why() -> None:
    trace = replace(TRACE, complete=False, why_incomplete="the recorder was killed")
    assert "incomplete  the recorder was killed" in verify(replace(REPORT, trace=trace))


def test_a_hundred_percent_means_all() -> None:
    assert percent(r.Agreement(r.SHARING, 10, 10)) == "100 %"
    assert percent(r.Agreement(r.SHARING, 999_999, 1_000_000)) == "99.99 %"
    assert percent(r.Agreement(r.SHARING, 0, 0)) == "not compared"
    assert percent(r.Agreement(r.SHARING, 0, 9)) == "0.00 %"
    assert percent(r.Agreement(r.SHARING, 1, 3)) == "33.33 %"
