"""An argument parser whose help teaches, and whose errors are rmap's own."""

from __future__ import annotations

import re
from argparse import Action, ArgumentParser, RawDescriptionHelpFormatter
from collections.abc import Sequence
from typing import TYPE_CHECKING, NoReturn

from rmap.errors import UsageError

if TYPE_CHECKING:
    from rmap.cli.registry import Command

HELP_WIDTH = 80


class _Formatter(RawDescriptionHelpFormatter):
    def __init__(self, prog: str) -> None:
        # One width everywhere: docs/cli.md must not depend on the terminal it was made in.
        super().__init__(prog, width=HELP_WIDTH, max_help_position=24)

    def _format_action_invocation(self, action: Action) -> str:
        # `-o, --output FILE` under every Python: before 3.13 argparse names FILE twice.
        if not action.option_strings or action.nargs == 0:
            return super()._format_action_invocation(action)
        value = self._format_args(action, self._get_default_metavar_for_optional(action))
        return f"{', '.join(action.option_strings)} {value}"


class _Parser(ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message} (`{self.prog} --help`)")


def parser_of(verb: str, command: Command, words: list[str]) -> ArgumentParser:
    """The parser of one command: its docstring is the help text.

    Args:
        verb: the command's name.
        command: its module.
        words: what the user typed behind it, as options may depend on it.
    """
    parser = _Parser(
        prog=f"rmap {verb}",
        description=help_text(command),
        formatter_class=_Formatter,
        allow_abbrev=False,
    )
    command.configure(parser, words)
    return parser


def help_text(command: Command) -> str:
    """The docstring of a command module as help: without its reStructuredText quotes."""
    return re.sub(r"``([^`]*)``", r"`\1`", (command.__doc__ or "").strip())


def add_output_options(parser: ArgumentParser) -> None:
    """``--json`` and ``--color``, the same for every command that prints data."""
    parser.add_argument("--json", action="store_true", help="one JSON object, with its schema number")
    parser.add_argument(
        "--color",
        choices=("auto", "always", "never"),
        default="auto",
        help="auto: on a terminal, unless NO_COLOR is set (colour never carries a fact)",
    )


def add_table_options(parser: ArgumentParser, columns: Sequence[str], *, sort: str, top: int | None = 20) -> None:
    """``--sort COLUMN``, ``--top N``, ``--all`` and ``--jsonl`` of a command that prints a table.

    Args:
        columns: what may be sorted by, as the user types it.
        sort: by what, if not told.
        top: rows shown if not told, None for all.
    """
    order = f"order of the rows: {', '.join(columns)} (default: {sort})"
    parser.add_argument("--sort", choices=columns, metavar="COLUMN", default=sort, help=order)
    parser.add_argument("--top", type=row_limit, metavar="N", default=top, help="at most N rows; the rest is counted")
    parser.add_argument("--all", dest="top", action="store_const", const=None, help="every row")
    parser.add_argument("--jsonl", action="store_true", help="one JSON object per row")


def add_selection_options(parser: ArgumentParser) -> None:
    """``--pid`` and ``--cgroup``: which processes are shown. All are read: a page is shared with all of them."""
    parser.add_argument("--pid", metavar="PID", type=int, action="append", help="only this process (repeatable)")
    parser.add_argument("--cgroup", metavar="PATH", help="only processes of this cgroup and those below it")


def add_reading_options(parser: ArgumentParser) -> None:
    """``-i SNAP`` and ``--nice``: where the picture comes from, and how gently it is taken."""
    add_input_option(parser)
    parser.add_argument(
        "--nice",
        action="store_true",
        help="read page tables a tenth of the time only: slower, and gentler to those who are read",
    )


def add_designs_option(parser: ArgumentParser) -> None:
    """``--designs A,B``: which designs to run; the two that decided if not given."""
    parser.add_argument(
        "--designs",
        type=_names,
        metavar="A,B",
        help="these reverse maps, or `all` of them (default: pte_chain,anon_vma_chain)",
    )


def add_input_option(parser: ArgumentParser) -> None:
    """``-i SNAP``: ask a recorded picture instead of the running machine."""
    parser.add_argument("-i", "--input", metavar="SNAP", help="ask this picture, not the running machine")


def row_limit(text: str) -> int:
    """Read a number of rows, one at least.

    Raises:
        UsageError: it is none.
    """
    if not text.isdigit() or not int(text):
        raise UsageError(f"not a number of rows: {text!r} (examples: 5, 100)")
    return int(text)


def _names(text: str) -> list[str]:
    return [name for name in (part.strip() for part in text.split(",")) if name]
