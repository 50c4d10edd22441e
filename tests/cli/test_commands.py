"""Each command, run as a user would: what stands on stdout, what on stderr, which status."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from rmap.cli import main
from rmap.snapshot import Snapshot, Who, shipped
from rmap.snapshot.kinds import ANON, FILE
from rmap.snapshot.questions.usage import usage

SMALL = ["--children", "2", "--pages", "64"]


@pytest.fixture(scope="module")
def snapshot() -> Snapshot:
    return Snapshot.load(shipped())


@pytest.fixture(scope="module")
def shared(snapshot: Snapshot) -> Who:
    """The file page with the most mappings."""
    found = np.where(snapshot.per_frame("kind") == FILE, snapshot.reverse.found, 0)
    return snapshot.who(int(snapshot.pfns()[found.argmax()]))


@pytest.fixture(scope="module")
def shared_address(shared: Who) -> str:
    """A KEY of that page, as one of its processes sees it."""
    first = shared.mappings[0]
    return f"{first.pid}:{first.address:#x}"


def test_who_of_a_recorded_picture(shared: Who, shared_address: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["who", "-i", str(shipped()), shared_address]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    lines = out.splitlines()
    assert lines[0].startswith(f"page      pfn {shared.pfn:#x}, ")
    assert f"\nmappings  found {shared.found} of {shared.mapcount}: " in out
    assert len(re.findall(r"^ +\d+  \w", out, re.MULTILINE)) == 20
    assert f"... {shared.found - 20} more (--all)" in out
    assert "\nfound by  the page tables recorded in" in out


def test_who_all_shows_every_mapping(shared: Who, shared_address: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["who", "-i", str(shipped()), shared_address, "--all"]) == 0
    out = capsys.readouterr().out
    assert len(re.findall(r"^ +\d+  \w", out, re.MULTILINE)) == shared.found
    assert "more (--all)" not in out


def test_who_of_a_process_and_of_a_file_sum_up(snapshot: Snapshot, capsys: pytest.CaptureFixture[str]) -> None:
    pid = int(snapshot.processes.pid[3])
    assert main(["who", "-i", str(shipped()), str(pid), "--json"]) == 0
    areas = json.loads(capsys.readouterr().out)["areas"]
    assert len(areas) == (snapshot.vmas.process == 3).sum()
    assert sum(area["rss"] for area in areas) == usage(snapshot).rss[3]
    path = next(p for p in snapshot.files.path if "libc.so" in p)
    assert main(["who", "-i", str(shipped()), path, "--json"]) == 0
    (view,) = json.loads(capsys.readouterr().out)["files"]
    file = snapshot.files.path.index(path)
    assert view["mapped"] == ((snapshot.per_frame("file") == file) & (snapshot.reverse.found > 0)).sum()
    for words in ([str(pid)], [path]):
        assert main(["who", "-i", str(shipped()), *words]) == 0
        assert max(map(len, capsys.readouterr().out.splitlines())) <= 80


def test_who_json_is_the_answer_of_the_library(
    snapshot: Snapshot, shared_address: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["who", "-i", str(shipped()), shared_address, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told == snapshot.who(told["pfn"]).to_json()
    assert told["schema"] == 1


def test_who_finds_a_file_by_a_link_to_it(
    snapshot: Snapshot, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = next(p for p in snapshot.files.path if p.startswith("/") and "libc.so" in p)
    monkeypatch.setattr("os.path.realpath", lambda asked: path if asked == "/a/link" else asked)
    main(["who", "-i", str(shipped()), f"{path}@0x1000", "--json"])
    direct = capsys.readouterr().out
    assert main(["who", "-i", str(shipped()), "/a/link@0x1000", "--json"]) == 0
    assert capsys.readouterr().out == direct


@pytest.mark.parametrize(
    ("key", "expected", "says"),
    [
        ("999999:0x1000", 1, "process 999999 is not in the picture"),
        ("/no/such/file", 1, "nobody maps a file /no/such/file"),
        ("/no/such/file@0", 1, "no recorded process maps a file /no/such/file"),
        ("999999", 1, "process 999999 is not in the picture"),
        ("pfn:many", 2, "not a number"),
    ],
)
def test_who_says_why_there_is_no_answer(
    key: str, expected: int, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["who", "-i", str(shipped()), key]) == expected
    out, err = capsys.readouterr()
    assert out == ""
    assert says in err


def test_a_frame_that_nobody_maps_is_an_answer_of_no(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["who", "-i", str(shipped()), "pfn:0x7fffffffff"]) == 1
    assert "mappings  none" in capsys.readouterr().out


def test_check_of_a_recorded_picture(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "-i", str(shipped())]) == 0
    out = capsys.readouterr().out
    assert out.startswith("sound     ")
    assert re.search(r"^walk and page tables agree +I19 +[\d,]+ pages +0$", out, re.MULTILINE)
    assert "\nnot checked  I1-I11: " in out


def test_check_json_lists_what_was_checked_and_what_was_not(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "-i", str(shipped()), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    rows = {row["invariant"]: row for row in told["checked"]}
    assert told["schema"] == 1
    assert told["violations"] == []
    assert rows["I19"]["checked"] > 100_000
    assert rows["I1"]["reason"]


def test_check_of_a_broken_picture_names_the_violation(
    snapshot: Snapshot, shared: Who, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A mapcount below the entries found is a violation of the machine: status 1, not an internal error."""
    assert shared.pfn is not None
    frames = snapshot.frames.take(snapshot.frames.pfn >= 0)
    frames.mapcount[snapshot.frame_run(shared.pfn)] = 1
    broken = Snapshot({**snapshot.tables, "frames": frames}, snapshot.about)
    broken.save(tmp_path / "broken.rmap")
    assert main(["check", "-i", str(tmp_path / "broken.rmap")]) == 1
    out, err = capsys.readouterr()
    assert out.startswith("BROKEN    ")
    assert re.search(r"^I19  the page's mapcount is 1, but [\d,]+ entries map it$", out, re.MULTILINE)
    assert "more (--all)" in out  # of 8.2, every entry of the page shows it
    assert err == ""
    assert main(["check", "-i", str(tmp_path / "broken.rmap"), "--json"]) == 1
    told = json.loads(capsys.readouterr().out)["violations"]
    assert {violation["invariant"] for violation in told} == {"I19", "8.2"}
    assert all(violation["objects"] and violation["pids"] for violation in told)


@pytest.mark.parametrize("option", [["--watch"], ["--freeze", "1"]])
def test_a_recorded_picture_is_neither_watched_nor_frozen(
    option: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["check", "-i", str(shipped()), *option]) == 2
    assert "for the running machine" in capsys.readouterr().err


def test_a_file_that_is_no_picture_is_bad_input(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "x.rmap").write_text("not a picture")
    for command in (["check", "-i"], ["compare"], ["demo"]):
        assert main([*command, str(tmp_path / "x.rmap")]) == 4
        assert "x.rmap" in capsys.readouterr().err


def test_compare_a_workload(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", "fork-server", *SMALL]) == 0
    out, err = capsys.readouterr()
    assert "pte_chain    anon_vma_chain" in out.splitlines()[0]
    assert re.search(r"^all PTEs of all pages found +yes +yes$", out, re.MULTILINE)
    lines = err.splitlines()
    assert lines[0].startswith("fork-server: 3 processes, ")
    assert lines[0].endswith(", seed 1")
    assert lines[1] == "pte_chain      done, every walk equal to the page tables"
    assert lines[2] == "anon_vma_chain done, every walk equal to the page tables"


def test_compare_gives_parameters_to_the_workload(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--rewrite", "50%", "--designs", "pte_chain", "--seed", "7", "--json"]
    assert main(["compare", "fork-server", *SMALL, *arguments]) == 0
    (told,) = json.loads(capsys.readouterr().out)["comparisons"]
    parameters = told["subject"]["parameters"]
    assert (parameters["children"], parameters["pages"], parameters["rewrite"]) == (2, 64, 0.5)
    assert told["subject"]["seed"] == 7
    assert [design["design"] for design in told["designs"]] == ["pte_chain"]


def test_compare_says_the_same_twice(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["compare", "fork-server", *SMALL, "--designs", "anon_vma_chain", "--json"]
    main(arguments)
    first = capsys.readouterr().out
    main(arguments)
    assert capsys.readouterr().out == first


def test_compare_several_subjects_titles_each_table(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", "fork-server", "fork-line", *SMALL, "--depth", "2", "--designs", "pte_chain"]) == 0
    out = capsys.readouterr().out
    assert re.findall(r"^(fork-[a-z]+): ", out, re.MULTILINE) == ["fork-server", "fork-line"]


def test_compare_help_of_a_workload_shows_its_options(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", "fork-server", "--help"]) == 0
    out = capsys.readouterr().out
    assert "--children COUNT" in out
    assert "--rewrite SHARE" in out


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["fork-sever"], "neither a workload (fork-server, "),
        (["fork-server", "--rewrite", "200%"], "a share lies between 0 and 100%"),
        (["fork-server", "--children", "many"], "not a count: 'many'"),
        (["fork-server", "--designs", "rmap2"], "unknown design 'rmap2'"),
        (["fork-server", "--children", "99999999"], "--children goes from"),
        (["--children", "2"], "unrecognized arguments: --children"),
    ],
)
def test_compare_refuses_what_makes_no_sense(
    arguments: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["compare", *arguments]) == 2
    assert says in capsys.readouterr().err


def test_workloads_lists_them(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["workloads"]) == 0
    assert capsys.readouterr().out.startswith("fork-server")
    assert main(["workloads", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert {"fork-server", "fork-line", "zygote", "file-windows", "shell-storm", "split-storm"} <= {
        workload["name"] for workload in told["workloads"]
    }


def test_explain_tells_a_story(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", "offset"]) == 0
    out = capsys.readouterr().out
    assert out.splitlines()[2].startswith("1  ")
    assert main(["explain", "offset", "--design", "pte_chain", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)["story"]
    assert (told["name"], told["design"]) == ("offset", "pte_chain")
    assert told["steps"]


def test_explain_lists_the_stories_and_refuses_others(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain"]) == 0
    names = [line.split()[0] for line in capsys.readouterr().out.splitlines() if not line.startswith(" ")]
    assert {"offset", "fault", "fork", "cow", "evict", "mremap"} <= set(names)
    assert main(["explain", "nonsense"]) == 2
    assert "no story 'nonsense'" in capsys.readouterr().err


def test_doctor_names_the_kernel(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor"]) == 0
    assert capsys.readouterr().out.startswith("Linux ")
    assert main(["doctor", "--json"]) == 0
    assert "frames" in json.loads(capsys.readouterr().out)["abilities"]


def test_demo_needs_one_picture_not_two(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo", "--here", str(shipped())]) == 2
    assert "not both" in capsys.readouterr().err


def test_snap_does_not_replace_a_file_unasked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = tmp_path / "here.rmap"
    target.write_text("precious")
    assert main(["snap", "-o", str(target)]) == 2
    assert "--force" in capsys.readouterr().err
    assert target.read_text() == "precious"


@pytest.mark.live
@pytest.mark.needs("frames", "page_state")
def test_snap_of_one_process_then_who(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = tmp_path / "one.rmap"
    with subprocess.Popen(["sleep", "60"]) as sleeper:
        try:
            asked = ["snap", "-o", str(target), "--pid", str(sleeper.pid)]
            assert main(asked) == 0
            assert re.search(r"one\.rmap: 1 process, [\d,]+ VMAs, ", capsys.readouterr().out)
            assert main([*asked, "--force", "--json"]) == 0
            assert json.loads(capsys.readouterr().out)["processes"] == 1
            taken = Snapshot.load(target)
            assert taken.processes.pid.tolist() == [sleeper.pid]
            key = f"{sleeper.pid}:{int(taken.ptes.address[0]):#x}"
            assert main(["who", "-i", str(target), key]) == 0
            recorded = capsys.readouterr().out.splitlines()[0]
            assert main(["who", key]) == 0
            assert capsys.readouterr().out.splitlines()[0] == recorded
        finally:
            sleeper.kill()


@pytest.mark.live
@pytest.mark.needs("frames", "page_state")
def test_snap_of_no_process_writes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["snap", "-o", str(tmp_path / "none.rmap"), "--pid", "4194304"]) == 1
    assert "none of these processes" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.live
@pytest.mark.needs("frames", "page_state")
def test_demo_of_this_machine(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo", "--here", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)["comparison"]
    assert told["subject"]["name"] == "here.rmap"
    for design in told["designs"]:
        assert design["correctness"]["ptes_found"] == told["subject"]["ptes"] > 0
        assert design["eviction"]["ptes_left"] == 0


def test_a_reader_that_stops_early_is_no_error() -> None:
    rmap = f"{shlex.quote(sys.executable)} -m rmap"
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", f"{rmap} who -i {shlex.quote(str(shipped()))} pfn:1 | true"],
        capture_output=True,
        check=False,
    )
    assert done.stderr == b""


@pytest.mark.parametrize(
    ("arguments", "expected", "says"),
    [
        (["4711"], 2, "name one as 4711:0xADDRESS"),
        (["-i", "SHIPPED", "pfn:0x7fffffffff"], 2, "0x7fffffffff is not in the picture"),
        (["-i", "SHIPPED", "999999:0x1000"], 1, "process 999999 is not in the picture"),
        (["-i", "SHIPPED", "offset"], 2, "not for the story 'offset'"),
        (["1:0x1000", "--live"], 2, "--live and --design are for stories"),
        (["--svg", "x.svg"], 2, "which page?"),
        (["-i", "SHIPPED", "1:0x1000", "--svg", "/no/such/folder/x.svg"], 2, "there is no directory /no/such/folder"),
    ],
)
def test_explain_of_a_page_says_what_is_wrong(
    arguments: list[str], expected: int, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [str(shipped()) if word == "SHIPPED" else word for word in arguments]
    assert main(["explain", *words]) == expected
    out, err = capsys.readouterr()
    assert out == ""
    assert says in " ".join(err.split())


def test_explain_draws_a_page_of_a_recorded_picture(
    shared: Who, shared_address: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Pages of files can be drawn without BPF; anonymous ones need the kernel's anon_vmas."""
    target = tmp_path / "page.svg"
    asked = ["explain", "-i", str(shipped()), shared_address, "--svg", str(target)]
    assert main(asked) == 0
    out, err = capsys.readouterr()
    assert out.startswith(f"page      pfn {shared.pfn:#x}: page cache")
    assert f"found     {shared.found:,} entries of " in out
    assert err == f"{target}: drawn\n"
    assert target.read_text().startswith("<svg ")
    assert main(asked) == 2
    assert "--force" in capsys.readouterr().err
    assert main([*asked, "--force", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["family"]["hits"] == shared.found


def test_explain_of_an_anonymous_page_needs_its_anon_vma(
    snapshot: Snapshot, capsys: pytest.CaptureFixture[str]
) -> None:
    pfn = int(snapshot.pfns()[(snapshot.per_frame("kind") == ANON) & (snapshot.reverse.found > 0)][0])
    assert main(["explain", "-i", str(shipped()), f"pfn:{pfn:#x}"]) == 2
    assert "taken from /proc alone" in " ".join(capsys.readouterr().err.split())


@pytest.mark.live
@pytest.mark.needs("frames", "page_state", "kernel_memory")
def test_explain_draws_a_page_of_this_machine(capsys: pytest.CaptureFixture[str]) -> None:
    with subprocess.Popen(["sleep", "60"]) as sleeper:
        try:
            heap = next(line for line in Path(f"/proc/{sleeper.pid}/maps").read_text().split("\n") if "[stack]" in line)
            end = int(heap.split()[0].partition("-")[2], 16)
            assert main(["explain", f"{sleeper.pid}:{end - 4096:#x}"]) == 0
            out = capsys.readouterr().out
            assert re.search(r"^A0 +1 +1 +1  <- the page$", out, re.MULTILINE)
            assert f"V1  {sleeper.pid} sleep  " in out and "chain [A0]" in out and ": HIT, page" in out
        finally:
            sleeper.kill()


@pytest.mark.live
@pytest.mark.needs("frames", "page_state")
@pytest.mark.parametrize("command", [["who"], ["who", "--kernel"], ["explain"]])
def test_a_process_that_has_no_memory_is_named_before_the_machine_is_read(
    command: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    for pid, says in ((4194303, "no process 4194303"), (2, "a thread of the kernel"), (os.getpid(), "rmap itself")):
        assert main([*command, f"{pid}:0x1000"]) == 1
        out, err = capsys.readouterr()
        assert out == ""
        assert says in " ".join(err.split())
