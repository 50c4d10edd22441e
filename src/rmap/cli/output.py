"""What a command prints: text or JSON on stdout, talk on stderr. The one module that knows the terminal."""

from __future__ import annotations

import json
import os
import sys
from argparse import Namespace
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, is_dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rmap.lab.results import DesignResult, Progress, Subject

SCHEMA = 1

# What colour picks out. The text says the same without it.
_STYLES = (
    (r"(?m)^[A-Z][A-Z +/]*[A-Z](  +[A-Z+][A-Z+ /]*)+$", "bold"),
    (r"(?m)^(\d\.? .*\?|Picture|Next|page|file|mappings|found by|hidden)(?= |$)", "bold"),
    (r"\ball equal\b|\bcomplete\b|(?<= )yes(?=\s|$)|\bsound\b", "green"),
    (r"\bWRONG\b|\bNO\b|\bhidden\b|\braced\b|\binferred\b|\bapproximate\b", "yellow"),
    (r"\b0x[0-9a-f]+\b", "cyan"),
)


def emit(
    args: Namespace, data: Mapping[str, Any], lines: Callable[[], Iterable[str]], *, rows: str | None = None
) -> None:
    """Print an answer.

    Args:
        args: with ``json`` and ``color`` of ``add_output_options``, and ``jsonl`` of ``add_table_options``.
        data: the facts, for ``--json``; dataclasses and NumPy numbers within are converted.
        lines: makes the text; called only if it is wanted.
        rows: the name in ``data`` of the list that ``--jsonl`` prints, an object a line.
    """
    if rows is not None and args.jsonl:
        for row in data[rows]:
            print(json.dumps({"schema": SCHEMA, **_plain_row(row)}, default=_plain))
        return
    if args.json:
        print(json.dumps({"schema": SCHEMA, **data}, default=_plain))
        return
    text = "\n".join(lines())
    if not _colored(args.color):
        print(text)
        return
    from rich.console import Console
    from rich.text import Text

    colored = Text(text)
    for pattern, style in _STYLES:
        colored.highlight_regex(pattern, style)
    Console(force_terminal=True, soft_wrap=True, highlight=False).print(colored)


def say(line: str) -> None:
    """Talk: one line on stderr."""
    print(line, file=sys.stderr)


@contextmanager
def waiting() -> Iterator[Callable[[str], None]]:
    """Show what is being done now, on a terminal, while it lasts; elsewhere nothing."""
    if not sys.stderr.isatty() or os.environ.get("TERM") == "dumb":
        yield lambda doing: None
        return
    from rich.console import Console

    with Console(stderr=True).status("") as status:
        yield status.update


@contextmanager
def progress(*, results: bool = True) -> Iterator[Progress]:
    """What a comparison may report to.

    Args:
        results: also say what was compared and each design's verdict, in lines that stay.
    """
    from rmap.lab.results import Subject
    from rmap.show.compare import done_line, subject_line

    with waiting() as doing:

        def tell(event: Subject | DesignResult | str) -> None:
            if isinstance(event, str):
                doing(event)
            elif results:
                say(subject_line(event) if isinstance(event, Subject) else done_line(event))

        yield tell


def _colored(choice: str) -> bool:
    if choice != "auto":
        return choice == "always"
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def _plain_row(row: Any) -> dict[str, Any]:
    return asdict(row) if is_dataclass(row) and not isinstance(row, type) else dict(row)


def _plain(value: Any) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    if hasattr(value, "tolist"):  # NumPy's numbers and arrays
        return value.tolist()
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"cannot be told in JSON: {type(value).__name__}")
