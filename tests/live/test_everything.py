"""Every command: while processes fork and exit all the time, without privileges, and of a picture."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from rmap.cli.registry import COMMANDS
from rmap.snapshot import Snapshot, shipped
from rmap.snapshot.questions.usage import usage
from tests.support import PAGE
from tests.support.command import rmap
from tests.support.load import Load, load
from tests.support.needs import need_all

pytestmark = pytest.mark.live


@pytest.fixture(scope="module")
def churn() -> Iterator[Load]:
    need_all("frames", "page_state")
    with load(workers=10, pages=600, vmas=500, busy=6) as busy:
        yield busy


def of(churn: Load, tmp_path: Path) -> list[list[str]]:
    """Every live command, as it might be called."""
    server, address = str(churn.server), f"{churn.server}:{churn.heap + 270 * PAGE:#x}"
    libc = next(line.split()[-1] for line in Path(f"/proc/{server}/maps").read_text().splitlines() if "libc.so" in line)
    snapshot = str(tmp_path / "now.rmap")
    return [
        ["who", address], ["who", f"{libc}@0x28000"], ["who", libc], ["who", server],
        ["ps"], ["ps", "--quick"], ["ps", "--format", "prometheus"],
        ["share", server, "--tree"], ["group", "--by", "tree"], ["group", "--by", "exe"], ["group", "--by", "cgroup"],
        ["freed", server, "--tree"], ["watch", "--tree", server, "--count", "2", "--every", "100ms"],
        ["file", libc], ["files"], ["badframe", "pfn:0x1000", "0x20000000"],
        ["evict", "--dry-run", f"{libc}@0"], ["snap", "-o", snapshot], ["diff", snapshot], ["check"], ["doctor"],
    ]  # fmt: skip


def test_every_live_command_is_tried(churn: Load, tmp_path: Path) -> None:
    lab = {"demo", "compare", "workloads", "history", "worst", "calibrate", "replay", "verify", "explain"}
    tried = {words[0] for words in of(churn, tmp_path)}
    assert set(COMMANDS) - lab - tried == {"record", "conform", "completion", "sql"}


def test_while_processes_fork_and_exit(churn: Load, tmp_path: Path) -> None:
    for words in of(churn, tmp_path):
        done = rmap(*words)
        assert done.returncode in (0, 1), (words, done.returncode, done.stderr)
        assert "Traceback" not in done.stderr, (words, done.stderr)
        assert done.stdout or done.stderr, words
        if "prometheus" not in words and words[0] not in ("snap", "diff"):  # a path is not broken
            assert max(map(len, done.stdout.splitlines()), default=0) <= 80, (words, done.stdout)


def test_every_answer_is_an_object(churn: Load, tmp_path: Path) -> None:
    for words in of(churn, tmp_path):
        if "prometheus" in words or words[0] in ("snap", "diff", "check", "doctor"):
            continue
        done = rmap(*words, "--json")
        assert done.returncode in (0, 1), (words, done.stderr)
        if done.stdout:
            assert json.loads(done.stdout)["schema"] == 1, words


@pytest.fixture(scope="module")
def everybodys(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """An environment in which a stranger can run rmap: sources and packages where everybody may read them."""
    if os.geteuid():
        pytest.skip("needs root, to become another user")
    import numpy
    import rich

    import rmap as package

    folder = Path("/var/tmp") / f"rmap-test-{os.getpid()}"
    shutil.rmtree(folder, ignore_errors=True)
    try:
        for module in (package, numpy, rich):
            source = Path(module.__file__).parent
            shutil.copytree(source, folder / source.name, ignore=shutil.ignore_patterns("tests", "__pycache__"))
        for name in ("numpy.libs", "markdown_it", "mdurl", "pygments"):
            source = Path(numpy.__file__).parents[1] / name
            if source.is_dir():
                shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        yield {"PYTHONPATH": str(folder), "PATH": "/usr/bin:/bin", "PYTHONDONTWRITEBYTECODE": "1"}
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def an_interpreter() -> str:
    """A Python of this version that everybody may run; the tests' own may lie in root's home."""
    own = os.path.realpath(sys.executable)
    command = ["setpriv", "--reuid", "65534", "--clear-groups", own, "-c", "0"]
    tried = subprocess.run(command, check=False, capture_output=True)
    if tried.returncode == 0:
        return own
    pytest.skip("needs a Python that another user may run")


NEED_FRAMES = ("who", "share", "group", "freed", "watch", "badframe", "evict", "snap", "diff")


@pytest.mark.parametrize("drop", ["user", "capability"])
def test_without_privileges_each_says_what_is_missing(
    drop: str, churn: Load, tmp_path: Path, everybodys: dict[str, str]
) -> None:
    if shutil.which("setpriv") is None:
        pytest.skip("needs setpriv (util-linux)")
    if drop == "user":
        prefix: tuple[str, ...] = ("setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups")
        python = an_interpreter()
    else:
        prefix = ("setpriv", "--bounding-set", "-sys_admin", "--inh-caps", "-sys_admin")
        python = sys.executable
    for words in of(churn, tmp_path):
        if words[0] == "diff":
            words = ["diff", everybodys["PYTHONPATH"] + "/rmap/pictures/web.rmap"]
        done = subprocess.run(
            [*prefix, python, "-m", "rmap", *words], capture_output=True, text=True, check=False, env=everybodys,
            cwd="/", timeout=120,
        )  # fmt: skip
        assert "Traceback" not in done.stderr, (words, done.stderr)
        if words[0] in NEED_FRAMES:
            assert done.returncode == 3, (words, done.returncode, done.stdout, done.stderr)
            text = " ".join(done.stderr.split())
            assert "needed" in text or "run" in text, (words, text)
            assert "works" in text, (words, text)
        else:
            assert done.returncode in (0, 1, 3), (words, done.returncode, done.stderr)


@pytest.mark.parametrize(
    "words",
    [["ps"], ["ps", "--sort", "uss", "--top", "3"], ["group", "--by", "exe"], ["group", "--by", "user"],
     ["group", "--by", "tree", "--all"], ["files"], ["freed", "17078", "--tree"], ["share", "17078", "17087"],
     ["share", "17078"], ["who", "17078"], ["badframe", "pfn:0x11074f"], ["check"]],
)  # fmt: skip
def test_a_picture_answers_the_same_questions_to_anybody(words: list[str]) -> None:
    for form in ([], ["--json"]):
        done = rmap(*words, "-i", str(shipped()), *form)
        assert done.returncode in (0, 1), done.stderr
        assert done.stderr == ""
        assert form or max(map(len, done.stdout.splitlines())) <= 80, done.stdout


def test_rows_are_objects_line_by_line() -> None:
    snapshot = Snapshot.load(shipped())
    done = rmap("ps", "-i", str(shipped()), "--jsonl")
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert [row["pss"] for row in rows] == sorted(usage(snapshot).pss.tolist(), reverse=True)
    done = rmap("group", "--by", "user", "-i", str(shipped()), "--jsonl")
    for row in map(json.loads, done.stdout.splitlines()):
        assert row["only_here"] <= row["sum_pss"] <= row["each_once"] <= row["sum_rss"]


@pytest.mark.needs("frames", "page_state")
@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["ps", "--sort", "shares", "--quick"], 2, "--sort shares needs every page-table entry"),
        (["ps", "--quick", "-i", "x"], 2, "--quick asks the running kernel"),
        (["ps", "--top", "0"], 2, "not a number of rows"),
        (["ps", "--cgroup", "/no/such"], 2, "no process"),
        (["group", "--by", "colour"], 2, "invalid choice"),
        (["freed"], 2, "name processes"),
        (["freed", "1", "--cgroup", "/x"], 2, "name processes"),
        (["share", "99999999"], 2, "process 99999999 is not in the picture"),
        (["file", "/no/such"], 4, "No such file"),
        (["file", "/"], 2, "is a directory"),
        (["diff", "/no/such.rmap"], 4, "/no/such.rmap"),
        (["snap"], 2, "where is it to be written"),
        (["badframe", "nonsense"], 2, "not a frame"),
        (["evict", "swap:0:1"], 2, "slot of swap"),
        (["watch", "--tree", "99999999"], 1, "there is no process"),
    ],
)
def test_wrong_requests_are_told_in_a_line(words: list[str], code: int, says: str) -> None:
    done = rmap(*words)
    assert (done.returncode, done.stdout) == (code, ""), done.stderr
    assert says in " ".join(done.stderr.split())


@pytest.mark.needs("frames", "page_state")
def test_a_log_without_bad_frames_is_no_error() -> None:
    done = rmap("badframe", stdin="all is well\n")
    assert (done.returncode, done.stdout) == (0, "")
    assert "no line of this log names a bad frame" in done.stderr
