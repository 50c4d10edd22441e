"""Take a page or a file out of every address space, and verify it.

The kernel's calls answer with success whether or not a page went: so what is in
memory and mapped is read before and after, and only that is told. Used are
means that touch the named pages alone: fadvise for pages that nobody maps,
PAGEOUT for pages with one mapper. Pages with several mappers stay, unless their
whole memory cgroup is pushed out (--whole-cgroup, which takes other memory of
it along; how much is said before). Never used: the root cgroup, drop_caches,
reclaim of a node, DAMON.

A page that is back within 0.1 s was in use, and "came back". Other pages of a
large folio may go along, and are counted as neighbours.

KEY is as for rmap who: a file, PATH@OFFSET, PID:0xADDRESS, pfn:N.

examples
  sudo rmap evict /srv/model.bin
  sudo rmap evict --dry-run 4711:0x7f5a176cb000
  sudo rmap evict --whole-cgroup /srv/model.bin

exit status: 1 if any page stayed
"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from dataclasses import asdict
from typing import TYPE_CHECKING

from rmap.cli import status
from rmap.cli.output import emit, say, waiting
from rmap.cli.parser import add_output_options
from rmap.cli.source import absence
from rmap.errors import UsageError

if TYPE_CHECKING:
    from rmap.live.evict import Target
    from rmap.snapshot import Key


def configure(parser: ArgumentParser, words: list[str]) -> None:
    """Add the arguments."""
    parser.add_argument("key", metavar="KEY", help="a file, or a page")
    parser.add_argument("--dry-run", action="store_true", help="say what would be done, and do nothing")
    parser.add_argument("--whole-cgroup", action="store_true", help="push out all memory of the pages' cgroup, too")
    add_output_options(parser)


def run(args: Namespace) -> int:
    """Find the pages, push them out, look again."""
    from rmap.live.ability import refuse_without_frames
    from rmap.live.evict import PageTarget
    from rmap.live.lookup import NoPage, look_up
    from rmap.snapshot import parse_key

    key = parse_key(args.key)
    if key.kind in ("process", "swap"):
        what = "a process: name a page of it" if key.kind == "process" else "a slot of swap: it is not in memory"
        raise UsageError(f"{args.key} is {what}")
    if key.kind == "address" and (why := absence(key.pid)) is not None:
        say(f"rmap: {why}")
        return status.NO
    refuse_without_frames()
    if key.kind == "file":
        return _evict_file(args, key)
    answer = look_up(key)
    if isinstance(answer, NoPage):
        say(f"rmap: {answer.reason}")
        return status.NO
    if answer.file is not None and answer.file_offset is not None and answer.kind == "file":
        return _evict_file(args, _file_key(answer.file, answer.file_offset))
    return _go(args, PageTarget(answer, args.key))


def _file_key(path: str, offset: int) -> Key:
    from rmap.snapshot import Key

    return Key("file", path=path, offset=offset)


def _evict_file(args: Namespace, key: Key) -> int:
    from rmap.live.evict import FileTarget
    from rmap.live.file_pages import opened
    from rmap.units import PAGE_SHIFT

    with opened(key.path) as fd:
        whole = FileTarget(key.path, fd) if key.whole else FileTarget(key.path, fd, key.offset >> PAGE_SHIFT, 1)
        return _go(args, whole)


def _go(args: Namespace, target: Target) -> int:
    from rmap.live.evict import evict
    from rmap.show.evict import evicted, verdict

    with waiting() as doing:
        done = evict(target, whole_cgroup=args.whole_cgroup, dry=args.dry_run, say=doing)
    emit(args, {**asdict(done), "all_gone": done.all_gone}, lambda: evicted(done))
    if not args.dry_run:
        say(f"rmap: {verdict(done)}")
    return status.OK if done.all_gone or (args.dry_run and done.tried) else status.NO
