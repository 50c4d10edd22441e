"""What a hostile hand does to the command line: places that are no files, closed streams, slips of the pen."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from rmap.cli import main
from rmap.errors import UsageError
from rmap.snapshot import parse_key
from rmap.snapshot.storage import refuse_target, write_whole


def test_a_device_is_never_replaced(tmp_path: Path) -> None:
    """As root, --force would have made an ordinary file of /dev/null."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(UsageError, match="is not a file"):
        write_whole(pipe, lambda stream: None, force=True)
    assert stat.S_ISFIFO(pipe.stat().st_mode)


def test_places_are_refused_before_the_work(tmp_path: Path) -> None:
    (tmp_path / "there").write_text("mine")
    with pytest.raises(UsageError, match=r"there exists already \(replace it: --force\)"):
        refuse_target(tmp_path / "there")
    refuse_target(tmp_path / "there", force=True)
    with pytest.raises(UsageError, match="is not a file"):
        refuse_target(tmp_path, force=True)
    with pytest.raises(UsageError, match="no directory"):
        refuse_target(tmp_path / "nowhere" / "x")
    for words in (["snap", "-o", str(tmp_path), "--force"], ["record", "-o", str(tmp_path), "--force", "--", "true"]):
        assert main(words) == 2


@pytest.mark.parametrize("words", [["--help"], ["workloads"], ["workloads", "--json"], ["nonsense"]])
@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-"])
def test_closed_streams_are_no_bug(words: list[str], closed: str) -> None:
    done = subprocess.run(
        ["sh", "-c", f'exec "$@" {closed}', "sh", sys.executable, "-m", "rmap", *words],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == (2 if words == ["nonsense"] else 0)
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("slip", ["5341:zz", "5341:", "5341:0", "self:0x10"])
def test_a_slip_in_an_address_is_said_at_once(slip: str) -> None:
    with pytest.raises(UsageError, match="not an address"):
        parse_key(slip)


def test_a_file_of_such_a_name_can_be_named() -> None:
    assert parse_key("file:5341:zz").path == "5341:zz"


def test_a_pipe_is_no_trace(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It was opened, and waited for a writer for ever."""
    os.mkfifo(tmp_path / "pipe.trace")
    for verb in ("verify", "replay"):
        assert main([verb, str(tmp_path / "pipe.trace")]) == 4
    assert "a device or a pipe" in capsys.readouterr().err


def test_an_unfinished_trace_is_pointed_at(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "x.trace.part").mkdir()
    assert main(["verify", str(tmp_path / "x.trace")]) == 2
    assert "x.trace.part" in capsys.readouterr().err.replace("\n", "").replace(" ", "")


def test_comparing_a_trace_with_losses_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from rmap.lab.replay.shipped import shipped_traces
    from rmap.trace import Trace

    trace = Trace.load(shipped_traces()["shell-pipeline"])
    about = {**trace.about, "complete": False, "why_incomplete": "7 events were lost", "lost": 7}
    Trace(about, trace.events, trace.opens, trace.files, trace.moments).save(tmp_path / "lossy.trace")
    assert main(["compare", str(tmp_path / "lossy.trace"), "--designs", "pte_chain"]) == 0
    assert "INCOMPLETE: 7 events were lost" in capsys.readouterr().out
