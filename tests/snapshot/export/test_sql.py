"""A picture asked in SQL: the answers are those of the tables; nothing else can be reached; every type is told."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rmap.cli import main
from rmap.snapshot import Snapshot, shipped

PICTURE = str(shipped())


@pytest.fixture(scope="module")
def snapshot() -> Snapshot:
    return Snapshot.load(shipped())


def rows(query: str, capsys: pytest.CaptureFixture[str]) -> list[dict[str, object]]:
    assert main(["sql", PICTURE, query, "--jsonl"]) == 0
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_answers_are_those_of_the_tables(snapshot: Snapshot, capsys: pytest.CaptureFixture[str]) -> None:
    (row,) = rows("select count(*) as n, sum(pages) as pages from mappings", capsys)
    assert row["pages"] == snapshot.nr_ptes
    pid = int(snapshot.processes.pid[0])
    (row,) = rows(f"select count(*) as n from vmas v join processes p on p.id = v.process where p.pid = {pid}", capsys)
    assert row["n"] == (snapshot.vmas.process == 0).sum()
    (row,) = rows("select release, source from about", capsys)
    assert row["release"] == snapshot.about["release"]
    found = rows("select frame_kind(kind) as kind, sum(count)::int as n from frames group by 1", capsys)
    kinds = {str(row["kind"]): row["n"] for row in found}
    assert sum(int(str(n)) for n in kinds.values()) == len(snapshot.pfns()) and "anon" in kinds


def test_tables_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sql", PICTURE]) == 0
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines())) <= 80
    assert all(f"\n{name}  (" in "\n" + out for name in ("processes", "vmas", "ptes", "frames", "mappings", "about"))
    assert main(["sql", PICTURE, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    for query in told["examples"]:
        assert main(["sql", PICTURE, query]) == 0
        assert max(map(len, capsys.readouterr().out.splitlines())) <= 80


@pytest.mark.parametrize(
    "query",
    ["", ";", "selec 1", "select nope", "select 1; select 2", "delete from processes", "drop table ptes",
     "select * from read_csv('/etc/passwd')", "copy processes to '/tmp/x'", "attach '/tmp/x.db'",
     "set enable_external_access = true", "select 1/0 from nowhere", "install httpfs"],
)  # fmt: skip
def test_what_is_no_question_is_refused(query: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sql", PICTURE, query]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("rmap: ") and "Traceback" not in err


def test_every_type_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    query = (
        "select 1.5 as d, 1e308 * 10 as inf, null as n, true as b, date '2026-01-02' as day, interval 2 day as i, "
        "[1, 2] as l, {'a': 1} as s, 'x' as same, 'y' as same, '\\xAA'::blob as raw"
    )
    (row,) = rows(query, capsys)
    assert (row["d"], row["inf"], row["n"], row["b"], row["day"]) == (1.5, None, None, True, "2026-01-02")
    assert (row["l"], row["s"], row["same"], row["same_2"]) == ([1, 2], {"a": 1}, "x", "y")
    for form in ("--json", "--csv"):
        assert main(["sql", PICTURE, query, form]) == 0
    assert main(["sql", PICTURE, query]) == 0
    capsys.readouterr()
    assert main(["sql", PICTURE, query, "--json", "--csv"]) == 2


def test_long_and_wide_answers_fit(capsys: pytest.CaptureFixture[str]) -> None:
    for query in ("select * from mappings", "select * from processes", "from frames"):
        assert main(["sql", PICTURE, query, "--top", "3"]) == 0
        lines = capsys.readouterr().out.splitlines()
        assert max(map(len, lines)) <= 80 and lines[-1].endswith("(--all)")


def test_without_duckdb_the_extra_is_named(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("rmap.snapshot.export.arrow.find_spec", lambda name: None)
    assert main(["sql", PICTURE, "select 1"]) == 3
    assert "pip install 'linux-rmap[data]'" in " ".join(capsys.readouterr().err.split())


def test_parquet_holds_the_same_tables(snapshot: Snapshot, tmp_path: Path) -> None:
    import duckdb

    from rmap.errors import UsageError
    from rmap.snapshot.export.arrow import write_parquet

    files = write_parquet(snapshot, tmp_path / "out")
    assert {file.stem for file in files} == {*snapshot.tables, "about"}
    (n,) = duckdb.sql(f"select sum(count) from '{tmp_path}/out/ptes.parquet' where flags & 1 != 0").fetchall()[0]
    assert n == snapshot.nr_ptes
    with pytest.raises(UsageError, match="not empty"):
        write_parquet(snapshot, tmp_path / "out")
    write_parquet(snapshot, tmp_path / "out", force=True)
