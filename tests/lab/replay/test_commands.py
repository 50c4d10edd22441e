"""``rmap replay``, ``rmap verify`` and ``rmap compare`` of recorded programs: answers, refusals, exit status."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from rmap.cli import main
from rmap.lab.replay.shipped import SUMMARIES
from rmap.snapshot import shipped
from rmap.trace import Trace
from rmap.trace.spool import Spool
from rmap.units import PAGE_SIZE
from tests.lab.replay.recorded_model import RecordedModel

ONE_DESIGN = {"compare": ["--designs", "pte_chain"]}
"""One design needs no process of its own."""


def small_machine() -> RecordedModel:
    """A parent and a child that copies a page."""
    machine = RecordedModel(command=["./a.out", "-x"])
    parent = machine.first()
    area = machine.mmap(parent, 8)
    machine.write(parent, area, 4)
    child = machine.fork(parent, 101)
    machine.write(child, area)
    machine.checkpoint()
    return machine


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """That machine, equal to the model."""
    machine = small_machine()
    machine.checkpoint(end=True)
    machine.build().save(tmp_path / "small.trace")
    return tmp_path / "small.trace"


@pytest.fixture
def unequal(tmp_path: Path) -> Path:
    """A machine in which an area came unseen."""
    machine = small_machine()
    machine.kernel.processes[100].mmap(PAGE_SIZE, stack=True)
    machine.checkpoint(end=True)
    machine.build().save(tmp_path / "unequal.trace")
    return tmp_path / "unequal.trace"


def test_verify_says_equal(small: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", str(small)]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert out.startswith("equal       VMA layout 100 % (4 of 4 VMAs), anonymous sharing 100 % (16 of 16\n")
    assert "small.trace: ./a.out -x, Linux 6.18, 11 events" in out.replace("\n            ", " ")
    assert "picture 2 of 2 (the end), after" in out
    assert max(map(len, out.splitlines())) <= 80


def test_verify_says_where_it_is_not(unequal: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", str(unequal)]) == 1
    out = capsys.readouterr().out
    assert out.startswith("NO          VMA layout 80.00 % (4 of 5 VMAs; 1 wrong)")
    assert "first difference  VMA layout: process 100 at" in out
    assert "the model has no VMA that begins here" in out.replace("\n                    ", " ")
    assert "put right         1 VMA" in out
    assert max(map(len, out.splitlines())) <= 80


def test_verify_as_json(unequal: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", str(unequal), "--json"]) == 1
    told = json.loads(capsys.readouterr().out)
    assert told["schema"] == 1
    answer = told["verify"]
    assert answer["equal"] is False and answer["verdict"] == "NO"
    assert answer["film"]["command"] == ["./a.out", "-x"]
    rows = answer["played"]["checkpoints"][-1]["agreements"]
    assert [row["what"] for row in rows][:2] == ["VMA layout", "anonymous sharing"]
    assert (rows[0]["equal"], rows[0]["total"]) == (2, 3)


def test_verify_says_how_much_was_not_judged(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    machine = small_machine()
    machine.kernel.processes[101].write(machine.kernel.processes[100].mm.vmas[0].start + PAGE_SIZE)
    machine.checkpoint(end=True)
    machine.build().save(tmp_path / "odd.trace")
    assert main(["verify", str(tmp_path / "odd.trace")]) == 0
    out = capsys.readouterr().out
    assert out.startswith("equal       as far as judged: VMA layout 100 % (4 of 4 VMAs), anonymous sharing")
    text = " ".join(out.split())
    assert "anonymous sharing 87.50 % (14 of 16 PTEs)" in text
    assert "not judged anonymous sharing: 2 of 16 PTEs (12.50 %): 2 unseen kernel access (GUP)" in text
    assert main(["verify", str(tmp_path / "odd.trace"), "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)["verify"]
    assert answer["equal"] is False and answer["verdict"] == "equal as far as judged"


def test_verify_says_no_to_one_answer_that_differs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    machine = small_machine()
    machine.made.syscall(100, 10, 0x1000, PAGE_SIZE, 1)
    machine.checkpoint(end=True)
    machine.build().save(tmp_path / "odd.trace")
    assert main(["verify", str(tmp_path / "odd.trace")]) == 1
    text = " ".join(capsys.readouterr().out.split())
    assert text.startswith("NO VMA layout 100 % (4 of 4 VMAs)") and "; 1 call went otherwise" in text
    assert "otherwise 1 x mprotect: said ENOMEM, the kernel did it" in text


@pytest.mark.parametrize("design", ["anon_vma_chain", "pte_chain"])
def test_replay_under_each_design(design: str, small: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["replay", str(small), "--design", design]) == 0
    out = capsys.readouterr().out
    assert out.startswith(f"sound       at the last picture {design} found 8 of 8 PTEs of 5 pages\n")
    assert "\nput right   nothing\n" in out
    assert max(map(len, out.splitlines())) <= 80


def test_replay_as_json(small: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["replay", str(small), "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)["replay"]
    assert answer["played"]["events"]["fork"] == 1
    assert answer["costs"]["fork"]["calls"] == 1 and answer["costs"]["fault"]["calls"] == 5
    assert answer["correctness"]["ptes_found"] == answer["correctness"]["ptes_total"] == 8


def test_a_shipped_trace_by_its_name(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", "shell-pipeline"]) == 0
    assert capsys.readouterr().out.startswith("equal       VMA layout 100 %")
    assert main(["workloads"]) == 0
    listed = capsys.readouterr().out
    assert all(f"\n{name:<20} Recorded: " in listed for name in SUMMARIES)
    assert main(["workloads", "--json"]) == 0
    assert [row["name"] for row in json.loads(capsys.readouterr().out)["traces"]] == list(SUMMARIES)


def test_compare_plays_a_trace_under_every_design(small: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", str(small), "--json"]) == 0
    (comparison,) = json.loads(capsys.readouterr().out)["comparisons"]
    assert comparison["subject"]["kind"] == "trace"
    assert comparison["subject"]["summary"] == "recorded: ./a.out -x"
    assert {design["design"] for design in comparison["designs"]} == {"pte_chain", "anon_vma_chain"}
    for design in comparison["designs"]:
        assert design["correctness"]["ptes_found"] == design["correctness"]["ptes_total"] == 8
        assert design["costs"]["fork"]["calls"] == 1


def test_compare_knows_shipped_traces(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", "shell-pipeline", "--designs", "anon_vma_chain"]) == 0
    out, err = capsys.readouterr()
    assert "all PTEs of all pages found" in out and "Memory and walks: at the picture with the most entries" in out
    assert err.startswith("shell-pipeline: ")


def test_compare_says_what_went_otherwise(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    machine = small_machine()
    machine.made.syscall(100, 10, 0x1000, PAGE_SIZE, 1)
    machine.build().save(tmp_path / "odd.trace")
    assert main(["compare", str(tmp_path / "odd.trace")]) == 0
    out = capsys.readouterr().out
    for design in ("pte_chain", "anon_vma_chain"):
        assert f"{design}: 1 x mprotect: said ENOMEM, the kernel did it (first:" in out.replace("\n", " ")


def test_an_unfinished_recording_is_played_and_said_to_be_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trace = small_machine().build()
    spool = Spool(tmp_path / "cut.trace.part", trace.about)
    for moment, cause in zip(trace.moments, (0, 1)):
        spool.add_snapshot(moment.snapshot, cause, moment.pid)
    columns = [getattr(trace.events, name) for name in trace.events.columns()]
    spool.add_events(np.stack(columns, axis=1))
    spool.close()
    assert main(["verify", str(spool.folder)]) == 0
    out = capsys.readouterr().out
    assert "\nincomplete  the recorder was killed before it could finish the trace\n" in out
    assert main(["replay", str(spool.folder)]) == 0
    assert "\nincomplete  the recorder was killed" in capsys.readouterr().out
    assert main(["compare", str(spool.folder), "--designs", "pte_chain"]) == 0


def test_a_trace_without_pictures_proves_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    machine = RecordedModel()
    process = machine.first()
    machine.write(process, machine.mmap(process, 4), 4)
    machine.build().save(tmp_path / "bare.trace")
    assert main(["verify", str(tmp_path / "bare.trace")]) == 1
    assert capsys.readouterr().out.startswith("NO          there is no picture to hold the model against\n")
    assert main(["replay", str(tmp_path / "bare.trace")]) == 0
    out = capsys.readouterr().out
    assert "put right   nothing: the trace has no picture but those of exec" in out
    assert out.startswith("sound       at the end anon_vma_chain found 4 of 4 PTEs of 4 pages\n")


@pytest.mark.parametrize("command", ["replay", "verify", "compare"])
def test_what_is_no_trace_is_refused(command: str, small: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole = small.read_bytes()
    for name, data in (("cut", whole[: len(whole) // 2]), ("text", b"no trace\n"), ("empty", b"")):
        broken = small.with_name(f"{name}.trace")
        broken.write_bytes(data)
        assert main([command, str(broken), *ONE_DESIGN.get(command, [])]) == 4
        out, err = capsys.readouterr()
        assert out == "" and err.startswith("rmap: ") and "Traceback" not in err and name in err
    foreign = small.with_name("foreign.trace")
    foreign.write_bytes(shipped().read_bytes())
    assert main([command, str(foreign), *ONE_DESIGN.get(command, [])]) == 4
    assert "not a recorded program" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["replay", "verify", "compare"])
def test_a_name_that_nothing_has(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([command, "nothing-of-the-kind"]) == 2
    err = capsys.readouterr().err
    assert "prefork" in err and "Traceback" not in err


@pytest.mark.parametrize("option", ["--design", "--profile"])
def test_a_design_or_profile_that_there_is_not(option: str, small: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["replay", str(small), option, "none"]) == 2
    assert "unknown" in capsys.readouterr().err


def test_a_trace_in_memory_needs_no_name() -> None:
    from rmap.lab.replay.run import replay

    trace: Trace = small_machine().build()
    assert replay(trace).trace.name == "trace"
