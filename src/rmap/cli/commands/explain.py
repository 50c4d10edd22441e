"""A small story, step by step: what a fault, a fork, a COW changes.

Each story runs in the model kernel and prints after each step what changed:
the page's mapping, index and mapcount, the VMA's start and pgoff, the
arithmetic that finds an address, each place looked at, hit or miss. Without
STORY the stories are listed.

examples
  rmap explain offset                     one page, two offsets
  rmap explain fork --design pte_chain    the same step with chains
  sudo rmap explain offset --live         real processes, the running kernel
"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from rmap.cli import status
from rmap.cli.output import emit
from rmap.cli.parser import add_output_options
from rmap.errors import UsageError


def configure(parser: ArgumentParser, words: list[str]) -> None:
    """Add the arguments."""
    parser.add_argument("story", metavar="STORY", nargs="?", help="fault, fork, cow, evict, mremap or offset")
    parser.add_argument("--design", default="anon_vma_chain", help="tell it with this reverse map")
    parser.add_argument("--live", action="store_true", help="do it with real processes (root)")
    add_output_options(parser)


def run(args: Namespace) -> int:
    """Tell the story."""
    from rmap.lab.explain import STORIES, tell
    from rmap.show.story import stories, story

    if args.story is None:
        emit(args, {"stories": dict(STORIES)}, lambda: stories(STORIES))
        return status.OK
    if args.story not in STORIES:
        raise UsageError(f"no story {args.story!r}; there are: {', '.join(STORIES)}")
    told = tell(args.story, args.design, live=args.live)
    emit(args, {"story": told}, lambda: story(told))
    return status.OK if told.holds else status.NO
