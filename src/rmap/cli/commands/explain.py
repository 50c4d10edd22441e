"""A small story, step by step; or a page of this machine, drawn.

Each STORY runs in the model kernel and prints after each step what changed:
the page's mapping, index and mapcount, the VMA's start and pgoff, the
arithmetic that finds an address, each place looked at, hit or miss. Without
STORY the stories are listed.

PID:ADDR draws a real page instead: the anon_vma it hangs on, that one's family
(parents, counters), the VMAs that a walk meets, with their chains, the sum that
gives the page's address in each, and what the page table holds there. In the
chain of a VMA, the active anon_vma stands in brackets.

examples
  rmap explain offset                     one page, two offsets
  rmap explain fork --design pte_chain    the same step with chains
  sudo rmap explain offset --live         real processes, the running kernel
  sudo rmap explain 4711:0x7f5a176cb000 --svg page.svg
  rmap explain -i here.rmap pfn:0x2f8443

exit status: 1 if a story did not go as it says, or if nothing is at PID:ADDR
"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from rmap.cli import status
from rmap.cli.output import emit, say
from rmap.cli.parser import add_input_option, add_output_options
from rmap.cli.source import absence, origin_of, snapshot_of
from rmap.errors import NotPermitted, UsageError

if TYPE_CHECKING:
    from rmap.snapshot import Key

ROWS = 12
ORIGIN = "the kernel's own anon_vmas and struct pages, and every page table, read just now"


def configure(parser: ArgumentParser, words: list[str]) -> None:
    """Add the arguments."""
    parser.add_argument("story", metavar="STORY|KEY", nargs="?", help="fault, fork, cow, evict, mremap, offset; a page")
    parser.add_argument("--design", help="tell it with this reverse map (default: anon_vma_chain)")
    parser.add_argument("--live", action="store_true", help="do it with real processes (root)")
    add_input_option(parser)
    parser.add_argument("--svg", metavar="FILE", help="also draw the page into this file")
    parser.add_argument("--force", action="store_true", help="replace the file if it is there")
    parser.add_argument("--all", action="store_true", help=f"every VMA, not only {ROWS}")
    add_output_options(parser)


def run(args: Namespace) -> int:
    """Tell the story, or draw the page."""
    from rmap.lab.explain import STORIES
    from rmap.show.story import stories

    if args.story is None:
        if args.svg or args.input:
            raise UsageError("which page? `rmap explain PID:ADDR --svg FILE`")
        emit(args, {"stories": dict(STORIES)}, lambda: stories(STORIES))
        return status.OK
    if is_key(args.story):
        if args.live or args.design:
            raise UsageError(f"{args.story} is a page of a real machine: --live and --design are for stories")
        return _draw(args)
    if args.svg or args.input:
        raise UsageError(f"--svg and -i are for pages (PID:ADDR), not for the story {args.story!r}")
    return _tell(args)


def is_key(text: str) -> bool:
    """Whether a word names a page and not a story: a colon, a slash or digits make the difference."""
    return any(letter in text for letter in ":/@") or text.isdigit()


def _tell(args: Namespace) -> int:
    from rmap.lab.explain import STORIES, tell
    from rmap.show.story import story

    if args.story not in STORIES:
        raise UsageError(f"no story {args.story!r}; there are: {', '.join(STORIES)}; or a page: PID:0xADDRESS")
    tale = tell(args.story, args.design or "anon_vma_chain", live=args.live)
    emit(args, {"story": tale}, lambda: story(tale))
    return status.OK if tale.holds else status.NO


def _draw(args: Namespace) -> int:
    from rmap.show.family import family
    from rmap.show.family_svg import family_svg
    from rmap.snapshot import parse_key, resolve
    from rmap.snapshot.questions.family import family_of

    key = parse_key(args.story)
    _refuse_early(args, key)
    if args.input is None and key.kind == "address" and (why := absence(key.pid)) is not None:
        say(f"rmap: {why}")
        return status.NO
    snapshot = snapshot_of(args, topology=True)
    place = resolve(snapshot, key)
    if place.pfn is None:
        say(f"rmap: {place.reason or 'a swap slot has no page to draw: `rmap who` lists its entries'}")
        return status.NO
    drawn = family_of(snapshot, place.pfn)
    if args.svg is not None:
        Path(args.svg).write_text(family_svg(drawn, title=f"{args.story} on {snapshot.about['host']}"))
        say(f"{args.svg}: drawn")
    origin = ORIGIN if args.input is None else origin_of(args, snapshot)
    emit(args, {"family": drawn}, lambda: family(drawn, origin=origin, limit=None if args.all else ROWS))
    return status.OK


def _refuse_early(args: Namespace, key: Key) -> None:
    # Refusals that need no reading of the machine come before it.
    if key.kind == "process":
        raise UsageError(f"{key.pid} is a process, with many pages: name one as {key.pid}:0xADDRESS")
    if args.svg is not None:
        from rmap.snapshot.storage import refuse_target

        refuse_target(args.svg, force=args.force)
    if args.input is None:
        from rmap.live.bpf import why_not

        if missing := why_not():
            raise NotPermitted(
                "anon_vmas are shown by the kernel's own memory alone, and that cannot be read here",
                needed=missing,
                works="rmap explain STORY, rmap explain -i FILE KEY, rmap who",
            )
