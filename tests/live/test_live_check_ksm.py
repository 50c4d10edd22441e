"""``rmap check`` where KSM has merged pages: their references are known (I8), their indexes mean nothing (4.13)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from live_family import Family, family

from needs import need
from rmap.cli import main
from rmap.live.bpf import KernelMemory, why_not
from rmap.live.capture.capture import capture
from rmap.live.doctor.abilities import abilities
from rmap.live.kernel_walk import walk_page
from rmap.live.soundness import check_machine
from rmap.snapshot import kinds as k
from waiting import until

pytestmark = pytest.mark.live
KSM = Path("/sys/kernel/mm/ksm")
PAGES = 32

SCRIPT = f"""
twins = mm({PAGES})
twins[:] = b"z" * len(twins)
twins.madvise(12)  # MADV_MERGEABLE
other = mm({PAGES})
touch(other, *range({PAGES}))
fork(lambda: touch(twins, 0))
ready(address(twins))
"""


@pytest.fixture
def merged(machine_lock: None) -> Iterator[Family]:
    """A family whose pages KSM has merged; KSM is as it was afterwards."""
    need(abilities().missing("frames", "page_state") or why_not())
    need(None if KSM.is_dir() else "KSM (CONFIG_KSM)")
    before = {name: (KSM / name).read_text() for name in ("run", "sleep_millisecs", "pages_to_scan")}
    with family(SCRIPT) as tree:
        try:
            (KSM / "sleep_millisecs").write_text("5")
            (KSM / "pages_to_scan").write_text("2000")
            (KSM / "run").write_text("1")
            until(lambda: _merged_pages() >= PAGES - 1, 60, "KSM did not merge")
            (KSM / "run").write_text("0")
            yield tree
        finally:
            if before["run"].strip() != "1":
                (KSM / "run").write_text("2")  # what was merged is taken apart again
            for name, value in before.items():
                (KSM / name).write_text(value)


def _merged_pages() -> int:
    return sum(int((KSM / name).read_text()) for name in ("pages_shared", "pages_sharing"))


def test_merged_pages_break_nothing(merged: Family, capsys: pytest.CaptureFixture[str]) -> None:
    with KernelMemory() as memory:
        found = check_machine(memory)
        assert found.report.violations == []
        lines = {row.invariant: row for row in found.report.checked}
        assert "KSM holds them" in lines["I8"].note
        picture = capture(merged.pids, memory=memory)
        pfn = int(picture.pfns()[picture.per_frame("kind") == k.KSM][0])
        assert len(picture.who(pfn).mappings) >= PAGES
        assert walk_page(memory, pfn).kind == "ksm"
    assert main(["who", "--kernel", f"pfn:{pfn:#x}"]) == 1
    assert "stable node" in capsys.readouterr().out
    assert main(["explain", f"pfn:{pfn:#x}"]) == 1
    assert "KSM's stable nodes" in " ".join(capsys.readouterr().err.split())
