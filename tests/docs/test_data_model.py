"""docs/data-model.md names every table, column, flag and requirement, and no others."""

from __future__ import annotations

import re

from rmap.snapshot import flags as f
from rmap.snapshot.tables import TABLES
from rmap.snapshot.validate import _ABOUT_OPTIONAL, _ABOUT_TYPES
from tests.support import ROOT

TEXT = (ROOT / "docs/data-model.md").read_text()


def section(name: str) -> dict[str, str]:
    """The rows of the first table below a heading: name to type."""
    body = TEXT.partition(f"### {name}\n")[2].partition("\n### ")[0] + "\n\n"
    rows: dict[str, str] = {}
    table = re.search(r"\| (?:column|key) \|.*?\n\n", body, re.DOTALL)
    assert table, name
    for line in table[0].splitlines()[2:]:
        if line:
            names, kind = line.strip("| ").split(" | ")[:2]
            rows.update(dict.fromkeys(names.split(", "), kind))
    return rows


def test_every_column_is_documented_with_its_type() -> None:
    for table in TABLES:
        expected = {
            name: column.dtype + (", id or -1" if column.none else ", id" if column.table else "")
            for name, column in table.columns().items()
        }
        assert section(table.name) == expected


def test_every_key_of_about_is_documented() -> None:
    names = {str: "text", int: "int", bool: "bool"}
    keys = {**_ABOUT_TYPES, **_ABOUT_OPTIONAL}
    assert section("about") == {"format": "int", **{key: names[kind] for key, kind in keys.items()}}


def test_every_delta_column_is_named() -> None:
    named = set(re.findall(r"`(\w+\.\w+)`", TEXT.partition("- The columns ")[2].partition("lie there as")[0]))
    assert named == {
        f"{table.name}.{name}" for table in TABLES for name, column in table.columns().items() if column.delta
    }


def test_every_flag_has_its_documented_value() -> None:
    rows = re.findall(r"^\| (\w+) \| (0x\d+) \|", TEXT, re.MULTILINE)
    assert {name: int(value, 16) for name, value in rows} == {
        name.removeprefix("PTE_").lower(): value
        for name, value in vars(f).items()
        if name.startswith("PTE_") and name != "PTE_KINDS"
    }
    kept = re.search(r"bits of /proc/kpageflags: (.*?) \|", TEXT)
    assert kept
    assert sum(1 << int(number) for number in re.findall(r"\b(\d+)\b", kept[1])) == f.KPF_KEPT


def test_every_requirement_has_a_broken_specimen() -> None:
    stated = set(re.findall(r"^\| (D\d+) \|", TEXT, re.MULTILINE))
    assert stated == {f"D{number}" for number in range(1, 13)}
    folder = ROOT / "tests" / "snapshot"
    tests = "".join((folder / f"test_{name}.py").read_text() for name in ("requirements", "storage"))
    assert stated <= set(re.findall(r"\bD\d+", tests))
