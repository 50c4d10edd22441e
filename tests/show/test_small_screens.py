"""Stories, checks, refusals, workloads, the doctor: the smaller renderers."""

from __future__ import annotations

from dataclasses import fields

from rmap.lab.results import Story, StoryStep
from rmap.lab.workloads import WORKLOADS, Parameter
from rmap.live.doctor.abilities import Abilities
from rmap.show.capture_notes import capture_notes
from rmap.show.doctor import WORDS, doctor
from rmap.show.refusal import refusal
from rmap.show.story import stories, story
from rmap.show.text import columns, plural, whole_size, wrap
from rmap.show.workloads import default_of, option_of, workloads

TOLD = Story(
    name="offset",
    design="anon_vma_chain",
    title="Is a page at the same offset in every VMA? No.",
    steps=(StoryStep("parent: mmap 2 pages", ("VMA 0x1000-0x3000",)), StoryStep("fork", ())),
    closing=("What never changes is the index.",),
)


def test_a_story() -> None:
    assert story(TOLD) == [
        "Is a page at the same offset in every VMA? No.",
        "",
        "1  parent: mmap 2 pages",
        "     VMA 0x1000-0x3000",
        "2  fork",
        "",
        "What never changes is the index.",
    ]


def test_a_story_that_went_otherwise_says_so() -> None:
    went = Story("offset", "", "t", (), (), holds=False, live=True)
    assert story(went)[-1] == "NOT so this time: the running kernel does otherwise."


def test_the_list_of_stories() -> None:
    assert stories({"cow": "What does COW do?", "offset": "One offset?"}) == [
        "cow     What does COW do?",
        "offset  One offset?",
    ]


def test_a_refusal_says_what_is_needed_and_what_works() -> None:
    lines = refusal("maps are refused\nreally", needed="CAP_SYS_ADMIN", run="sudo /x/rmap who 1", works="rmap compare")
    assert lines == [
        "rmap: maps are refused",
        "      really",
        "  needed    CAP_SYS_ADMIN",
        "  run       sudo /x/rmap who 1",
        "  works     rmap compare",
    ]


def test_a_command_to_copy_is_never_broken() -> None:
    command = "sudo " + "/long" * 30 + "/rmap who 1:0x1000"
    assert f"  run       {command}" in refusal("no", run=command)


def test_workloads_show_each_option_with_its_default() -> None:
    lines = workloads(WORKLOADS.values())
    text = "\n".join(lines)
    for workload in WORKLOADS.values():
        assert f"\n{workload.name} " in "\n" + text
        for parameter in workload.parameters:
            assert f"  {option_of(parameter)} {default_of(parameter)} " in text
    assert max(map(len, lines)) <= 80


def test_a_share_is_shown_as_it_is_typed() -> None:
    share = Parameter("rewrite", 0.125, "share", "rewritten")
    assert (option_of(share), default_of(share)) == ("--rewrite", "12.5%")
    assert default_of(Parameter("pages", 65_536, "count", "pages")) == "65536"


def test_the_doctor_has_words_for_every_ability() -> None:
    assert set(WORDS) == {*(field.name for field in fields(Abilities)), "recording"}


def test_the_doctor_says_what_is_missing_and_what_for() -> None:
    lines = doctor({"frames": "CAP_SYS_ADMIN", "scan": None}, release="6.18")
    assert lines[0] == "Linux 6.18: 1 ability missing"
    assert lines[2].startswith("NO   page frame numbers")
    assert lines[3] == "     missing: CAP_SYS_ADMIN"
    assert lines[5].startswith("yes  ")
    assert doctor({"scan": None}, release="6.18")[0] == "Linux 6.18: all abilities are there"


def test_capture_notes_count_what_was_not_seen() -> None:
    assert capture_notes({"ended": 0, "refused": 0, "raced": 0}) == []
    assert capture_notes({"ended": 3, "refused": 1, "raced": 0}) == [
        "rmap: 3 processes ended while being read; 1 refused (`rmap doctor`)"
    ]


def test_text_shapes() -> None:
    assert columns(("A", "BB"), [("1", "x"), ("22", "y")], "><") == [" A  BB", " 1  x", "22  y"]
    assert (plural(1, "page"), plural(2_304, "page")) == ("1 page", "2,304 pages")
    assert (whole_size(4096), whole_size(65536), whole_size(2 << 20)) == ("4 KiB", "64 KiB", "2 MiB")
    assert wrap("", "page  ") == ["page"]
