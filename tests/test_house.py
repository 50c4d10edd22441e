"""The house as docs/architecture.md draws it: no circles, no hidden imports, each number of the kernel said once, one
name for one thing. What import-linter holds (the layers) stands in pyproject.toml."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import grimp
import pytest

SRC = Path(__file__).parents[1] / "src" / "rmap"
MODULES = sorted(SRC.rglob("*.py"))
UAPI = re.compile(r"(VM|KPF|PM|MAP|PROT|MADV|MCL|MREMAP|FALLOC_FL|SHM|PAGE_IS)_[A-Z_]+|PAGEMAP_SCAN|NR")
"""What the names of the kernel's numbers look like."""
OWN = {"KPF_ANON_EXCLUSIVE", "KPF_KEPT", "VM_ALL"}
"""Names of that form that a picture adds."""


def named(path: Path) -> str:
    return str(path.relative_to(SRC))


def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(), filename=str(path))


def circles(imports: dict[str, set[str]]) -> list[list[str]]:
    """The strongly connected parts of more than one module, by repeatedly dropping what nobody or nothing ties."""
    left = {name: set(others) for name, others in imports.items()}
    while True:
        imported = {other for others in left.values() for other in others}
        loose = {name for name, others in left.items() if not others & left.keys() or name not in imported}
        if not loose:
            return [sorted(left)] if left else []
        left = {name: others - loose for name, others in left.items() if name not in loose}


def test_no_files_import_each_other_in_a_circle() -> None:
    """Imports inside functions count; those under TYPE_CHECKING do not."""
    graph = grimp.build_graph("rmap", exclude_type_checking_imports=True)
    imports = {module: set(graph.find_modules_directly_imported_by(module)) for module in graph.modules}
    assert len(imports) > 300
    assert circles(imports) == []


def test_a_circle_would_be_found() -> None:
    assert circles({"a": {"b"}, "b": {"c"}, "c": set()}) == []
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": {"a"}}) == [["b", "c"]]


def test_modules_are_imported_by_name_in_one_place() -> None:
    """What stands in a name, no contract of imports sees."""
    assert [named(path) for path in MODULES if re.search(r"import_module|__import__", path.read_text())] == ["lazy.py"]


def test_no_module_finds_anything_by_counting_the_folders_above_it() -> None:
    """What is moved would look elsewhere: the package's own folder is that of ``rmap.__file__``."""
    counting = re.compile(r"(?<!rmap\.)__file__\)[^\n]*\.parents?\b")
    lines = ((named(path), line) for path in MODULES for line in path.read_text().split("\n"))
    assert [f"{name}: {line.strip()}" for name, line in lines if counting.search(line)] == []


def test_names_that_are_bound_late_lead_into_their_own_package() -> None:
    homes = {
        (named(path), home)
        for path in MODULES
        for call in ast.walk(tree(path))
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == "bind_when_used"
        for home in ast.literal_eval(call.args[1]).values()
    }
    assert len(homes) > 5
    for path, home in homes:
        package = ".".join(["rmap", *Path(path).parent.parts])
        assert home.startswith(f"{package}."), f"{path} binds a name of {home}"


def test_no_two_classes_have_one_name() -> None:
    homes: dict[str, list[str]] = defaultdict(list)
    for path in MODULES:
        for node in tree(path).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                homes[node.name].append(named(path))
    assert {name: paths for name, paths in homes.items() if len(paths) > 1} == {}


def assigned(module: ast.Module) -> Iterator[str]:
    """Names that a module gives numbers at its top: values in which no other name stands."""
    for node in module.body:
        if not isinstance(node, ast.Assign | ast.AnnAssign) or node.value is None:
            continue
        if any(isinstance(part, ast.Name) and part.id != "range" for part in ast.walk(node.value)):
            continue
        for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
            for name in ast.walk(target):
                if isinstance(name, ast.Name):
                    yield name.id


def test_the_numbers_of_the_kernel_stand_in_uapi_alone() -> None:
    elsewhere = [
        f"{named(path)}: {name}"
        for path in MODULES
        if path.parent.name != "uapi"
        for name in assigned(tree(path))
        if UAPI.fullmatch(name.removeprefix("_")) and name not in OWN
    ]
    assert elsewhere == []


def test_each_number_of_the_kernel_stands_once() -> None:
    homes: dict[str, list[str]] = defaultdict(list)
    for path in (SRC / "uapi").glob("*.py"):
        for name in assigned(tree(path)):
            homes[name].append(path.name)
    assert len(homes) > 100
    assert {name: paths for name, paths in homes.items() if len(paths) > 1} == {}


def is_class(node: ast.AST) -> bool:
    return isinstance(node, ast.ClassDef)


@pytest.mark.parametrize("path", MODULES, ids=named)
def test_comments_of_private_functions_stand_inside(path: Path) -> None:
    lines = path.read_text().split("\n")
    module = tree(path)
    for node in (child for scope in (module, *filter(is_class, ast.walk(module))) for child in scope.body):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) and not ast.get_docstring(node):
            first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
            above = lines[first - 2].strip()
            is_comment = above.startswith("#") and not re.match(r"# ?(--|==)", above)
            assert not is_comment, f"line {first}: {node.name}"
