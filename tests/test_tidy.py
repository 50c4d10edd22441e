"""The house rules that no linter knows: sizes, words that do not belong here, where a dependency may be imported."""

from __future__ import annotations

import ast
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MODULE_LINES_MAX = 600
FUNCTION_LINES_MAX = 70

PYTHON = sorted(path for folder in ("src", "tests", "benchmarks", "tools") for path in (ROOT / folder).rglob("*.py"))
TEXTS = (".py", ".c", ".h", ".md", ".toml", ".txt", ".sh", ".yml", ".yaml", "")
SLEEP = re.compile(r"\bsleep\((\d+(?:\.\d+)?)")
SLEEP_MAX_S = 0.05
SLEEPS = {
    "tests/live/record/test_faults.py": {
        "0.05": "what the recorded program does until it is interrupted",
        "0.3": "the recorded program takes its time to end, as a server does",
        "0.35": "the recorder is killed at moments that nobody chose",
    },
    "tests/live/record/test_programs.py": {
        "0.1": "the recorded program has its threads work so long",
        "1": "a recorded program, longer than the time of its checkpoint",
        "2": "a recorded program, which waits in vfork and after it while checkpoints are taken",
    },
    "tests/live/sources/test_ptrace.py": {
        "0.1": "that nothing happens shows only in time",
        "60": "programs that hold still until they are killed",
        "99": "a program that holds still until it is killed",
    },
    "tests/live/test_freed.py": {"0.05": "how much the machine moves in this time is what is asked"},
    "tests/support/broken.py": {
        "0.5": "a job that takes longer than another",
        "60": "jobs that are ended from outside",
    },
}
"""Every sleep of the tests that is no wait for something, and why it is there: by file and argument, in seconds."""
KEPT_HIDDEN = {".ci"}
BUILT = {"build", "dist"}
# Written in two halves, so that this file passes its own test.
BANNED = ("/wor" + "k/", "../sha" + "red", "TO" + "DO", "FIX" + "ME")


def named(path: Path) -> str:
    return str(path.relative_to(ROOT))


def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(), filename=str(path))


def own_files() -> Iterator[Path]:
    """Every text file of the repository; what tools leave behind lies in folders that are not entered."""
    for folder, folders, names in os.walk(ROOT):
        folders[:] = sorted(f for f in folders if f in KEPT_HIDDEN or (not f.startswith((".", "_")) and f not in BUILT))
        yield from (Path(folder) / name for name in sorted(names) if Path(name).suffix in TEXTS)


@pytest.mark.parametrize("path", PYTHON, ids=named)
def test_a_module_is_one_idea(path: Path) -> None:
    """Short modules and short functions, each module with a docstring."""
    assert path.read_text().count("\n") <= MODULE_LINES_MAX
    module = tree(path)
    assert ast.get_docstring(module) or not module.body, "a module says what it is"
    for node in ast.walk(module):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = (node.end_lineno or node.lineno) - node.lineno + 1
            assert lines <= FUNCTION_LINES_MAX, f"{node.name} has {lines} lines"


def test_the_repository_speaks_of_the_project_alone() -> None:
    found = [
        f"{named(path)}: {word}"
        for path in own_files()
        for word in BANNED
        if word in path.read_text(encoding="utf-8", errors="replace")
    ]
    assert found == []


def test_no_test_waits_by_the_clock() -> None:
    """A test waits for what it needs to see (``waiting.until``). Programs that tests run are looked at too."""
    found: dict[str, set[str]] = {}
    for path in (ROOT / "tests").rglob("*.py"):
        for seconds in SLEEP.findall(path.read_text()):
            if float(seconds) >= SLEEP_MAX_S:
                found.setdefault(named(path), set()).add(seconds)
    assert found == {path: set(reasons) for path, reasons in SLEEPS.items()}


def test_every_folder_of_tests_says_what_it_is_about() -> None:
    """Every folder of Python files is a package with a docstring: files of one name may then stand in two of them."""
    folders = {path.parent for path in PYTHON if path.is_relative_to(ROOT / "tests")}
    for folder in folders:
        about = folder / "__init__.py"
        assert about.exists() and ast.get_docstring(tree(about)), (
            f"{named(folder)}/__init__.py says what is tested there"
        )


def test_the_size_of_a_page_is_said_once() -> None:
    """Programs that run alone, and say it themselves, are named here."""
    alone = {"tests/support/load.py", "tests/support/live_family.py", "tests/lab/replay/rules_program.py"}
    said = {
        named(path)
        for path in (ROOT / "tests").rglob("*.py")
        if re.search(r"^PAGE(_SIZE)? = (4096|1 << 12|mmap\.)", path.read_text(), re.MULTILINE)
    }
    assert said == {"tests/support/__init__.py", *alone}


def imports(module: ast.Module) -> Iterator[tuple[str, bool]]:
    """Each top-level package that a module imports, and whether at once (not inside a function)."""
    inside = {
        child
        for node in ast.walk(module)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        for child in ast.walk(node)
    }
    for node in ast.walk(module):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names = [node.module or ""]
        else:
            continue
        yield from ((name.split(".")[0], node not in inside) for name in names)


def test_every_dependency_but_numpy_is_imported_in_one_module_at_call_time() -> None:
    users: dict[str, set[str]] = {}
    at_once = []
    for path in (ROOT / "src").rglob("*.py"):
        for package, now in imports(tree(path)):
            if package in sys.stdlib_module_names or package in ("rmap", "numpy"):
                continue
            users.setdefault(package, set()).add(named(path))
            if now:
                at_once.append(f"{named(path)}: {package}")
    assert {package: paths for package, paths in users.items() if len(paths) > 1} == {}
    assert at_once == []
    assert "rich" in users, "a declared dependency is used"


def test_the_model_uses_no_statement_that_optimization_removes_for_its_checks() -> None:
    """``python -O`` drops ``assert``: a check that users rely on raises InvariantError instead."""
    checks = [ROOT / "src/rmap/snapshot/validate.py", *(ROOT / "src/rmap/designs").glob("*.py")]
    found = [
        f"{named(path)}:{node.lineno}"
        for path in checks
        for function in ast.walk(tree(path))
        if isinstance(function, ast.FunctionDef) and function.name.startswith(("validate", "check"))
        for node in ast.walk(function)
        if isinstance(node, ast.Assert)
    ]
    assert found == []
