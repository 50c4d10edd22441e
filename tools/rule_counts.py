"""How often each numbered rule of docs/rules.md was exercised while some code ran.

The model says where a rule lives: a function's docstring cites it (``rule 2.5``), or a comment above a statement does.
So a rule is exercised when that function is called, or that statement is reached. :class:`RuleCounts` counts both; only
functions that cite rules are traced line by line. What the checks of the model do (every walk against the page tables,
after every call) is not counted: there nothing is compared with a kernel.
"""

from __future__ import annotations

import ast
import re
import sys
import tokenize
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

PACKAGES = ("mm", "designs", "consumers", "kernel")
CHECKS = {("mm/invariants.py", "check"), ("lab/correctness.py", "correctness")}
"""Functions within which nothing is counted."""
NUMBER = r"\d+\.\d+[a-z]?"
CITATION = re.compile(rf"\b[Rr]ules? ((?:{NUMBER})(?:(?:, (?:and )?| and | to ){NUMBER})*)")


def cited(text: str) -> set[str]:
    """The numbers of the rules that a text cites; ``2.4 to 2.6`` cites three."""
    found: set[str] = set()
    for group in CITATION.findall(text):
        found.update(re.findall(NUMBER, group))
        for low, high in re.findall(rf"({NUMBER}) to ({NUMBER})", group):
            part, first = low.split(".")
            last = re.sub(r"[a-z]$", "", high.split(".")[1])
            if part == high.split(".")[0]:
                found.update(f"{part}.{n}" for n in range(int(re.sub(r"[a-z]$", "", first)), int(last) + 1))
    return found


@dataclass
class Probes:
    """Where the rules of one function are cited: those of its docstring, and those of its lines."""

    whole: set[str] = field(default_factory=set)
    lines: dict[int, set[str]] = field(default_factory=dict)


CHECK = Probes()
"""In place of the probes of a function within which nothing is counted."""


def probes_of(path: Path) -> dict[tuple[str, int], Probes]:
    """The probes of a source file, by function: its name and the line of its ``def``."""
    source = path.read_text()
    tree = ast.parse(source)
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    found: dict[tuple[str, int], Probes] = {}
    for function in functions:
        rules = cited(ast.get_docstring(function) or "")
        if rules:
            found.setdefault(_key(function), Probes()).whole |= rules
    for kind in (node for node in ast.walk(tree) if isinstance(node, ast.ClassDef)):
        # What a class is about is exercised whenever one of its kind is made.
        made = next((node for node in kind.body if isinstance(node, ast.FunctionDef) and node.name == "__init__"), None)
        rules = cited((ast.get_docstring(kind) or "").split("\n\n")[0])
        if rules and made is not None:
            found.setdefault(_key(made), Probes()).whole |= rules
    for line, text in _comments(path):
        rules = cited(text)
        inside = [f for f in functions if f.lineno <= line <= (f.end_lineno or f.lineno)]
        if not rules:
            continue
        if inside:
            innermost = max(inside, key=lambda f: f.lineno)
            statement = _statement_at(innermost, line)
            found.setdefault(_key(innermost), Probes()).lines.setdefault(statement, set()).update(rules)
        else:  # a comment above a function stands for its docstring
            below = min((f for f in functions if f.lineno > line), key=lambda f: f.lineno, default=None)
            if below is not None and _only_comments_between(source, line, _key(below)[1]):
                found.setdefault(_key(below), Probes()).whole |= rules
    return found


def _key(function: ast.FunctionDef | ast.AsyncFunctionDef) -> tuple[str, int]:
    first = min([function.lineno, *(decorator.lineno for decorator in function.decorator_list)])
    return function.name, first  # as co_firstlineno has it


def _comments(path: Path) -> Iterator[tuple[int, str]]:
    # Blocks of comments, each as one text, with the line of its last part.
    block: list[str] = []
    last = -1
    with path.open("rb") as stream:
        for token in tokenize.tokenize(stream.readline):
            if token.type != tokenize.COMMENT:
                continue
            alone = not token.line[: token.start[1]].strip()
            if block and (token.start[0] != last + 1 or not alone):
                yield last, " ".join(block)
                block = []
            block.append(token.string.lstrip("# "))
            last = token.start[0]
            if not alone:
                yield last, " ".join(block)
                block = []
    if block:
        yield last, " ".join(block)


def _statement_at(function: ast.FunctionDef | ast.AsyncFunctionDef, line: int) -> int:
    # The line of the first statement at or behind a line: what the comment there is about.
    inner = [node for node in ast.walk(function) if isinstance(node, ast.stmt) and node is not function]
    behind = [node.lineno for node in inner if node.lineno >= line]
    around = [node.lineno for node in inner if node.lineno <= line <= (node.end_lineno or node.lineno)]
    return min(behind) if behind and min(behind) - line <= 2 else max(around, default=function.lineno)


def _only_comments_between(source: str, line: int, stop: int) -> bool:
    return all(text.lstrip().startswith("#") for text in source.splitlines()[line : stop - 1])


class RuleCounts:
    """A context manager that counts. One thread; what runs inside is several times slower.

    Attributes:
        counts: rule -> how often it was exercised.
    """

    def __init__(self, package: Path) -> None:
        self.counts: Counter[str] = Counter()
        self._probes = {
            (str(path), *key): probes
            for folder in PACKAGES
            for path in sorted((package / folder).rglob("*.py"))
            for key, probes in probes_of(path).items()
        }
        self._of_code: dict[CodeType, Probes | None] = {}
        self._checks = {(str(package / path), name) for path, name in CHECKS}
        self._checking: FrameType | None = None

    @property
    def rules(self) -> set[str]:
        """Every rule that some code cites."""
        return {rule for probes in self._probes.values() for rule in probes.whole.union(*probes.lines.values())}

    def __enter__(self) -> RuleCounts:
        sys.settrace(self._called)
        return self

    def __exit__(self, *stopped_by: object) -> None:
        sys.settrace(None)

    def _called(self, frame: FrameType, event: str, argument: Any) -> Any:
        code = frame.f_code
        if self._checking is not None:
            return None
        try:
            probes = self._of_code[code]
        except KeyError:
            probes = self._of_code[code] = self._find(code)
        if probes is None:
            return None
        if probes is CHECK:
            self._checking = frame
            frame.f_trace_lines = False
            return self._until_checked
        self.counts.update(probes.whole)
        return self._line if probes.lines else None

    def _find(self, code: CodeType) -> Probes | None:
        if (code.co_filename, code.co_name) in self._checks:
            return CHECK
        return self._probes.get((code.co_filename, code.co_name, code.co_firstlineno))

    def _until_checked(self, frame: FrameType, event: str, argument: Any) -> Any:
        if event == "return":
            self._checking = None
        return self._until_checked

    def _line(self, frame: FrameType, event: str, argument: Any) -> Any:
        if event == "line":
            rules = self._of_code[frame.f_code].lines.get(frame.f_lineno)  # type: ignore[union-attr]
            if rules:
                self.counts.update(rules)
        return self._line
