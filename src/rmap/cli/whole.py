"""The whole command as one parser: what completion scripts and the man page are made from."""

from __future__ import annotations

from argparse import ArgumentParser, RawDescriptionHelpFormatter

from rmap.cli.parser import help_text
from rmap.cli.registry import COMMANDS, load


def whole_parser() -> ArgumentParser:
    """``rmap`` with every command below it."""
    parser = ArgumentParser(
        "rmap",
        description="From a page back to every page-table entry (PTE) that maps it.",
        formatter_class=RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="store_true", help="the version of rmap, Python and the kernel")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    for verb, (_, summary) in COMMANDS.items():
        command = load(verb)
        one = commands.add_parser(
            verb, help=summary, description=help_text(command), formatter_class=RawDescriptionHelpFormatter
        )
        command.configure(one, [])
    return parser
