"""Results that are kept, executors that are given, and a comparison that goes on where it stood."""

from __future__ import annotations

import json
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

import rmap
from rmap.cli import main
from rmap.errors import LimitError, SourceError, UsageError
from rmap.lab.compare import compare, workers
from rmap.lab.compare.cache import ResultCache, cache_folder, key_of, source_digest
from rmap.lab.compare.cluster import executor_at
from rmap.lab.compare.compare import compare_snapshot, compare_trace, compare_workload
from rmap.lab.compare.results_json import answer_from_plain, answer_to_plain
from rmap.lab.replay.shipped import shipped_traces
from rmap.snapshot import shipped

SMALL = {"children": 2, "pages": 64}


def test_results_survive_json_exactly() -> None:
    result = compare_workload("fork-server", SMALL, designs=["pte_chain"])
    plain = json.loads(json.dumps(answer_to_plain(result.subject, result.designs[0])))
    subject, design = answer_from_plain(plain)
    assert (asdict(subject), asdict(design)) == (asdict(result.subject), asdict(result.designs[0]))


def test_what_is_known_is_not_run_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = ResultCache(tmp_path)
    first = compare_workload("fork-server", SMALL, designs=["pte_chain", "anonmm"], cache=cache)
    assert len(list(tmp_path.glob("*.json"))) == 2
    said: list[object] = []
    monkeypatch.setattr(compare, "once_per_design", lambda *args, **more: pytest.fail("ran"))
    again = compare_workload("fork-server", SMALL, designs=["anonmm", "pte_chain"], cache=cache, progress=said.append)
    assert [asdict(d) for d in again.designs] == [asdict(d) for d in reversed(first.designs)]
    assert said == [again.subject, *again.designs]  # told as what was run is told


def test_an_interrupted_comparison_goes_on_with_what_is_missing(tmp_path: Path) -> None:
    cache = ResultCache(tmp_path)
    compare_workload("fork-server", SMALL, designs=["pte_chain"], cache=cache)
    ran: list[str] = []

    class Counting(ThreadPoolExecutor):
        def submit(self, fn: Any, /, *args: Any, **more: Any) -> Any:
            ran.append(args[-1])
            return super().submit(fn, *args, **more)

    with Counting(1) as executor:
        compare_workload("fork-server", SMALL, designs=["pte_chain", "objrmap"], cache=cache, executor=executor)
    assert ran == ["objrmap"]


@pytest.mark.parametrize("broken", ["", "{", "{}", '{"subject": 1, "result": 2}'])
def test_a_broken_entry_is_as_good_as_none(tmp_path: Path, broken: str) -> None:
    cache = ResultCache(tmp_path)
    one = compare_workload("fork-server", SMALL, designs=["pte_chain"], cache=cache)
    (entry,) = tmp_path.glob("*.json")
    entry.write_text(broken)
    two = compare_workload("fork-server", SMALL, designs=["pte_chain"], cache=cache)
    assert asdict(one.designs[0]) == asdict(two.designs[0])
    assert entry.read_text() != broken


def test_a_key_is_of_everything_that_decides_a_result(monkeypatch: pytest.MonkeyPatch) -> None:
    keys = {
        key_of("T1", {"scale": 0.1}, "6.18", 1, "pte_chain"), key_of("T2", {"scale": 0.1}, "6.18", 1, "pte_chain"),
        key_of("T1", {"scale": 0.2}, "6.18", 1, "pte_chain"), key_of("T1", {"scale": 0.1}, "7.0", 1, "pte_chain"),
        key_of("T1", {"scale": 0.1}, "6.18", 2, "pte_chain"), key_of("T1", {"scale": 0.1}, "6.18", 1, "anonmm"),
    }  # fmt: skip
    monkeypatch.setattr("rmap.lab.compare.cache.source_digest", lambda: "another source")
    keys.add(key_of("T1", {"scale": 0.1}, "6.18", 1, "pte_chain"))
    assert len(keys) == 7


def test_the_source_in_a_key_is_the_whole_package(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Whatever module changes, in whichever folder, old results are not believed."""
    package = tmp_path / "rmap"
    here = Path(rmap.__file__).parent
    for folder in sorted({path.parent.relative_to(here) for path in here.rglob("*.py")}):
        (package / folder).mkdir(parents=True, exist_ok=True)
        (package / folder / "module.py").write_text("")
    monkeypatch.setattr("rmap.__file__", str(package / "__init__.py"))
    digests = {source_digest.__wrapped__()}
    modules = sorted(package.rglob("*.py"))
    for module in modules:
        module.write_text("changed")
        digests.add(source_digest.__wrapped__())
    assert len(digests) == 1 + len(modules) > 30


def test_a_folder_that_cannot_be_written_is_no_error(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    assert compare_workload("fork-server", SMALL, designs=["pte_chain"], cache=ResultCache(blocked / "x")).equal


def test_the_cache_is_where_xdg_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "rmap" / "results"


@pytest.mark.parametrize("kind", [ThreadPoolExecutor, ProcessPoolExecutor])
def test_any_executor_gives_the_same(kind: Any) -> None:
    here = compare_workload("fork-server", SMALL, designs=["pte_chain", "anon_vma"])
    with kind(2) as executor:
        there = compare_workload("fork-server", SMALL, designs=["pte_chain", "anon_vma"], executor=executor)
    assert asdict(here) == asdict(there)


RECORDED = {
    "here.rmap": (shipped, compare_snapshot),
    "here.trace": (lambda: shipped_traces()["prefork"], compare_trace),
}


@pytest.mark.parametrize("name", RECORDED)
def test_recorded_subjects_run_on_an_executor_that_has_not_their_files(tmp_path: Path, name: str) -> None:
    source, compared = RECORDED[name]
    file = tmp_path / name
    file.write_bytes(source().read_bytes())
    here = compared(file, designs=["pte_chain", "anonmm"])

    class Elsewhere(ProcessPoolExecutor):
        def submit(self, fn: Any, /, *args: Any, **more: Any) -> Any:
            file.unlink(missing_ok=True)
            return super().submit(fn, *args, **more)

    with Elsewhere(2) as executor:
        there = compared(file, designs=["pte_chain", "anonmm"], executor=executor)
    assert asdict(there) == asdict(here)
    assert not file.exists()


@pytest.mark.parametrize("subject", [str(shipped()), "prefork"])
def test_the_command_runs_recorded_subjects_there_too(monkeypatch: pytest.MonkeyPatch, subject: str) -> None:
    monkeypatch.setattr(compare, "once_per_design", lambda *args, **more: pytest.fail("ran here"))
    assert main(["compare", subject, "--designs", "pte_chain", "--executor", "threads:1", "--json"]) == 0


def test_what_a_job_raises_comes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(design: str, say: object) -> Any:
        raise LimitError(f"{design}: too much")

    with ThreadPoolExecutor(1) as executor, pytest.raises(LimitError, match="anonmm: too much"):
        workers.on_executor(fails, ["anonmm", "pte_chain"], executor, lambda event: None)


def test_a_dask_cluster_is_an_executor_too() -> None:
    distributed = pytest.importorskip("distributed")
    with distributed.LocalCluster(n_workers=1, processes=False, dashboard_address=None) as cluster:
        if not cluster.scheduler_address.startswith("tcp://"):
            with distributed.Client(cluster) as client:
                executor = client.get_executor()
                there = compare_workload("fork-server", SMALL, designs=["pte_chain", "anonmm"], executor=executor)
    assert asdict(there) == asdict(compare_workload("fork-server", SMALL, designs=["pte_chain", "anonmm"]))


def test_a_dask_scheduler_is_reached_by_its_address(capsys: pytest.CaptureFixture[str]) -> None:
    distributed = pytest.importorskip("distributed")
    one = {"n_workers": 1, "threads_per_worker": 1, "host": "127.0.0.1", "dashboard_address": None}
    with distributed.LocalCluster(**one) as cluster:
        address = "dask://" + cluster.scheduler_address.removeprefix("tcp://")
        small = ["--children", "2", "--pages", "64", "--fresh"]
        assert main(["compare", "fork-server", *small, "--executor", address]) == 0
    assert "all PTEs of all pages found" in capsys.readouterr().out


@pytest.mark.parametrize("address", ["dask:/x", "slurm://x", "dask://host", "threads:0", "threads:x"])
def test_nonsense_is_no_executor(address: str) -> None:
    with pytest.raises(UsageError, match="dask://HOST:PORT"), executor_at(address):
        pass


def test_nobody_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("distributed")
    with pytest.raises(SourceError, match="no dask scheduler answers"), executor_at("dask://127.0.0.1:1"):
        pass


def test_many_designs_are_rows(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    designs = "pte_chain,pte_chain:cells,objrmap,anon_vma_chain:2.6.34"
    assert main(["compare", "T1", "--scale", "4%", "--designs", designs]) == 0
    text = capsys.readouterr().out
    for heading in ("WHAT IT KEEPS", "WHAT IT DOES, in steps", "A WALK: a page of the file", "predicted"):
        assert heading in text
    assert max(map(len, text.splitlines())) <= 80
    for design in designs.split(","):
        assert text.count(f"\n{design} ") == 3


def test_a_price_list_is_checked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    prices = tmp_path / "prices.json"
    for text in ("{", "[]", '{"machine": "m", "of": {"bogus": {"ns": 1, "how": "", "measured": true}}}'):
        prices.write_text(text)
        assert main(["compare", "fork-server", "--unit-costs", str(prices)]) == 4
    capsys.readouterr()


def test_calibrate_keeps_what_it_measured(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "here.json"
    assert main(["calibrate", "--rounds", "1", "--output", str(out)]) == 0
    text = capsys.readouterr().out
    assert "measured here" in text and "default" in text
    assert json.loads(out.read_text())["of"]["pages_copied"]["measured"] is True
    assert main(["compare", "fork-server", "--children", "2", "--pages", "64", "--unit-costs", str(out), "--json"]) == 0
    predicted = json.loads(capsys.readouterr().out)["predicted_ns"][0]
    assert predicted["anon_vma_chain"]["fork"] > 0 and predicted["pte_chain"]["fault"] > 0
    assert main(["calibrate", "--rounds", "0"]) == 2
