"""The report: one page, everything in it, every workload named; a browser finds nothing to complain about."""

from __future__ import annotations

import re
import shutil
import subprocess
from html import escape
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import pytest

from rmap.cli import main
from rmap.lab.compare.report import run_report
from rmap.lab.compare.unit_costs import DEFAULTS
from rmap.show.chart import Line, line_chart
from rmap.show.report import report_page
from tests.support.needs import need

WORKLOADS = ["T1", "aim7", "mremap-after-fork", "worst-anon-vma-chain"]
DESIGNS = ["pte_chain", "objrmap", "anonmm", "anon_vma", "anon_vma_chain"]
WIDTHS = (1280, 390)
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("report") / "report.html"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(path.parent / "cache"))
        assert main(["compare", *WORKLOADS, "--designs", ",".join(DESIGNS), "--report", str(path)]) == 0
    return path


class Outline(HTMLParser):
    """What a page refers to, and whether its tags are closed."""

    def __init__(self) -> None:
        super().__init__()
        self.refers: list[str] = []
        self.tags: list[str] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.refers += [value or "" for name, value in attrs if name in ("src", "href", "action", "data")]
        if tag not in ("meta", "link", "br", "polyline", "circle", "line"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag in self.open:
            while self.open.pop() != tag:
                pass


def test_everything_is_in_the_page(page: Path) -> None:
    text = page.read_text()
    outline = Outline()
    outline.feed(text)
    assert outline.open in ([], ["html"]) and "script" not in outline.tags
    assert all(target.startswith(("#", "data:")) for target in outline.refers)
    assert "url(" not in text and "@import" not in text and "http://" not in text and "https://" not in text


def test_it_says_what_it_shows(page: Path) -> None:
    text = page.read_text()
    for name in (*WORKLOADS, *DESIGNS):
        assert f">{name}<" in text or f" {name}<" in text, name
    assert text.count("<svg ") >= 4 * len(WORKLOADS) - 1
    assert "a prediction, not a measurement" in text and "every one was found" in text
    assert "rmap compare T1 aim7 mremap-after-fork worst-anon-vma-chain --report report.html" in text


def test_wrong_answers_are_told() -> None:
    (run,) = run_report(["worst-anonmm"], designs=["pte_chain", "anonmm"])
    from dataclasses import replace

    wrong = replace(run.comparisons[0].designs[0].correctness, pages_wrong=1, ptes_found=0)
    broken = replace(run.comparisons[0], designs=(replace(run.comparisons[0].designs[0], correctness=wrong),))
    page = report_page([replace(run, comparisons=(broken,))], DEFAULTS, command="rmap compare")
    assert "NOT ALL WERE RIGHT" in page and "<td>NO</td>" in page


def test_a_chart_has_every_line_and_names_apart() -> None:
    lines = [Line(f"design {n}", n, (1.0, 10.0, 100.0 if n % 2 else 100.5)) for n in range(11)]
    svg = line_chart(["a", "b", "c"], lines, "title")
    assert svg.count("<polyline") == 11
    heights = sorted(float(y) for y in re.findall(r'class="t\d name" x="[\d.]+" y="([\d.]+)"', svg))
    assert len(heights) == 11 and all(b - a >= 12.9 for a, b in pairwise(heights))
    assert line_chart(["a"], [Line("none", 0, (None,))], "t").count("<polyline") == 0


def test_a_report_needs_a_folder_and_workloads(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", "T1", "--report", str(tmp_path / "no" / "x.html")]) == 2
    assert main(["compare", "here.rmap", "--report", str(tmp_path / "x.html")]) == 2
    assert "workloads" in capsys.readouterr().err


@pytest.mark.live
@pytest.mark.parametrize("width", WIDTHS)
def test_a_browser_finds_nothing_to_complain_about(page: Path, tmp_path: Path, width: int) -> None:
    need(None if CHROMIUM else "chromium, a browser to look with")
    assert CHROMIUM is not None
    # In a frame of that width: a browser's window has a least one.
    measured = tmp_path / "measured.html"
    sizes = "f.contentWindow.innerWidth,d.documentElement.scrollWidth,d.body.innerText.length"
    measured.write_text(
        f'<!doctype html><title>-</title><iframe id=f style="width:{width}px;height:900px;border:0" '
        f'onload="const d=f.contentDocument;document.title=[{sizes}]" srcdoc="{escape(page.read_text())}"></iframe>'
    )
    done = subprocess.run(
        [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", "--hide-scrollbars",
         "--host-resolver-rules=MAP * ~NOTFOUND", f"--user-data-dir={tmp_path / 'profile'}",
         "--window-size=1400,1000", "--dump-dom", measured.as_uri()],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    title = re.search(r"<title>(\d+),(\d+),(\d+)</title>", done.stdout)
    assert title, done.stderr[-2000:]
    seen, scrolled, letters = map(int, title.groups())
    assert seen == width, f"the browser made the window {seen} wide"
    assert scrolled <= width and letters > 1000
    assert "CONSOLE" not in done.stderr and "net::ERR" not in done.stderr
