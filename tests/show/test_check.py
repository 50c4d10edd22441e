"""``rmap check`` as text: the verdict, the machine, what is broken, the table, what was not checked."""

from __future__ import annotations

from dataclasses import replace

from rmap.live.soundness import MachineCheck
from rmap.show.check import check, runs, watch_line
from rmap.snapshot import Checked
from rmap.snapshot.rules.findings import Report, Violation

FACTS = {
    "release": "6.18.44",
    "processes": 69,
    "vmas": 7_412,
    "anon_vmas": 2_826,
    "anon_pages": 114_718,
    "pages": 120_000,
    "ptes": 200_000,
}
ROWS = [
    *(Checked(f"I{number}", "", 7_412, "VMAs") for number in (1, 2, 3, 4, 5, 10, 11)),
    Checked("I6", "", 2_826, "anon_vmas"),
    Checked("I7", "", 2_826, "anon_vmas"),
    Checked("I8", "", 2_820, "anon_vmas", note="not asked of 6: KSM holds them"),
    Checked("I9", "", 2_826, "anon_vmas"),
    Checked("I12", "", 6_012, "nodes"),
    Checked("I17", "", 0, "entries", "whether an entry is writable is shown by no interface of the kernel"),
    Checked("I18", "", 0, "entries", "another reason"),
    Checked("I19", "", 90_142, "pages"),
    Checked("8.2", "", 200_000, "entries"),
]
SOUND = """\
sound     14 invariants checked, no violation
machine   Linux 6.18.44: 69 processes, 7,412 VMAs, 2,826 anon_vmas, 120,000
          mapped pages (114,718 anonymous), 200,000 PTEs

what                            invariants                 checked  violations
VMA and its chain               I1-I5, I10-I11          7,412 VMAs           0
anon_vma: counters, parents     I6-I7, I9          2,826 anon_vmas           0
                                I8                 2,820 anon_vmas           0
interval trees                  I12                    6,012 nodes           0
walk and page tables agree      I19                   90,142 pages           0
mapcount                        8.2                200,000 entries           0

I8   not asked of 6: KSM holds them
not checked  I17: whether an entry is writable is shown by no interface of the
             kernel
not checked  I18: another reason
found by  reading
"""
ONE = Violation(
    "I6",
    "num_active_vmas is 2; VMAs that point at the anon_vma: 1",
    ("anon_vma ffff888104a3c0d0 (root ffff888104a3c0d0)", "VMA 4711 gunicorn 7f5a176ca000-7f5a1b6ca000"),
    (4711,),
    1,
)
BROKEN = """\
BROKEN    3 violations of I6, I19; 14 invariants checked
machine   Linux 6.18.44: 69 processes, 7,412 VMAs, 2,826 anon_vmas, 120,000
          mapped pages (114,718 anonymous), 200,000 PTEs

I6   num_active_vmas is 2; VMAs that point at the anon_vma: 1
     anon_vma ffff888104a3c0d0 (root ffff888104a3c0d0)
     VMA 4711 gunicorn 7f5a176ca000-7f5a1b6ca000
     read 4 times, the same each time
     ... 1 more (--all)

I19  the page is not met
     read 4 times, the same each time
"""


def test_a_sound_machine() -> None:
    assert "\n".join(check(ROWS, [], FACTS, origin="reading")) + "\n" == SOUND


def test_what_could_not_be_judged_is_not_sound() -> None:
    text = "\n".join(check(ROWS, [], FACTS, origin="reading", not_judged=2)) + "\n"
    assert text == SOUND.replace(
        "sound     14 invariants checked, no violation",
        "unsettled 14 invariants checked, no violation; 2 differences not judged",
    )
    assert check(ROWS, [], FACTS, origin="reading", moving=True)[0].startswith("unsettled ")
    rows = [row._replace(violations=int(row.invariant == "I6")) for row in ROWS]
    first = " ".join(line.strip() for line in check(rows, [ONE], FACTS, origin="", not_judged=1)[:2])
    assert first.startswith("BROKEN    1 violation of I6; 14 invariants checked; 1 difference not judged")


def test_a_violation_names_its_objects_before_the_table() -> None:
    rows = [row._replace(violations={"I6": 2, "I19": 1}.get(row.invariant, 0)) for row in ROWS]
    violations = [ONE, replace(ONE, where=2), Violation("I19", "the page is not met", (), (), 3)]
    text = "\n".join(check(rows, violations, FACTS, origin="reading", readings=3, limit=1)) + "\n"
    assert text.startswith(BROKEN)
    assert "\nanon_vma: counters, parents     I6-I7, I9          2,826 anon_vmas           2\n" in text
    assert "--all" not in "\n".join(check(rows, violations, FACTS, origin="reading", limit=None))


def test_no_line_is_too_long() -> None:
    long = replace(ONE, objects=("  chain  " + ", ".join(["anon_vma ffff888104a3c0d0 (root ffff888104a3c0d0)"] * 5),))
    rows = [row._replace(violations=1) for row in ROWS if row.invariant == "I6"]
    assert max(map(len, check(rows, [long], FACTS, origin="reading"))) <= 80


def test_a_round_of_watching_is_one_line() -> None:
    found = MachineCheck(Report([], []), 3_000, [], 1, {}, 0.414)
    line = watch_line(12, "10:00:05", FACTS, [], found)
    assert line == "  12  10:00:05  ok  7,412 VMAs, 120,000 pages, 3,000 races, 0.41 s"
    found = replace(found, unsettled=[ONE], untold=1, races=1)
    assert "  unsettled  7,412 VMAs" in watch_line(1, "10:00:05", FACTS, [], found)
    line = watch_line(1, "10:00:05", FACTS, ["I6", "I6"], found)
    assert line.endswith("2 violations of I6  7,412 VMAs, 120,000 pages, 1 race, 2 not judged, 0.41 s")


def test_numbers_in_a_row() -> None:
    assert runs(["I1", "I2", "I3", "I7", "8.2"]) == "I1-I3, I7, 8.2"
    assert runs(["8.2", "I9"]) == "8.2, I9"
