"""``rmap check`` where KSM has merged pages: their references are known (I8), their indexes mean nothing (4.13)."""

from __future__ import annotations

import pytest

from rmap.cli import main
from rmap.live.bpf import BpfMemory
from rmap.live.capture.capture import capture
from rmap.live.soundness import check_machine
from rmap.snapshot import kinds as k
from rmap.structs.walk import walk_page
from tests.live.conftest import TWINS
from tests.support.live_family import Family

pytestmark = [pytest.mark.live, pytest.mark.needs("frames", "page_state", "kernel_memory")]


def test_merged_pages_break_nothing(merged: Family, memory: BpfMemory, capsys: pytest.CaptureFixture[str]) -> None:
    found = check_machine(memory)
    assert found.report.violations == []
    lines = {row.invariant: row for row in found.report.checked}
    assert "KSM holds them" in lines["I8"].note
    snapshot = capture(merged.pids, memory=memory)
    pfn = int(snapshot.pfns()[snapshot.per_frame("kind") == k.KSM][0])
    assert len(snapshot.who(pfn).mappings) >= TWINS
    assert walk_page(memory, pfn).kind == "ksm"
    assert main(["who", "--kernel", f"pfn:{pfn:#x}"]) == 1
    assert "stable node" in capsys.readouterr().out
    assert main(["explain", f"pfn:{pfn:#x}"]) == 1
    assert "KSM's stable nodes" in " ".join(capsys.readouterr().err.split())
