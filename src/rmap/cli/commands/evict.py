"""Take a page or a file out of every address space, and verify it.

The kernel's calls answer with success whether or not a page went. So what is in
memory and what maps it is read before and afterwards, from the page cache and
the page tables, and only that is told. Without a flag only the named pages are
touched (and what shares a folio with them):

  fadvise DONTNEED          pages of a file that nobody maps; dirty ones of the
                            named range are written to it first
  process_madvise PAGEOUT   pages with one mapper; what is not a file's goes to
                            swap, if there is any

Pages with several mappers stay, for the kernel skips these. --whole-cgroup also
reclaims the cgroup that most of the pages are charged to (memory.reclaim,
memory.force_empty) until they are gone: other memory there goes, too; how much
it may be is said first. The root cgroup is refused, and so are pages that are
charged elsewhere. Reclaim of a node, drop_caches and DAMON are never used.

Pages that are in memory again within 100 ms "came back": somebody uses them.

KEY is as for `rmap who`: PATH, PATH@OFFSET, PID:0xADDRESS, pfn:N, phys:N. PATH
may be /proc/PID/fd/N (a deleted file, a memfd).

examples
  sudo rmap evict /srv/model.bin
  sudo rmap evict --dry-run 4711:0x7f5a176cb000
  sudo rmap evict --whole-cgroup /srv/model.bin@2M --json

exit status: 1 if any page stayed or came back (or, with --dry-run, would stay)
"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from dataclasses import asdict

from rmap.cli import status
from rmap.cli.output import emit, say
from rmap.cli.parser import add_output_options
from rmap.cli.source import absence


def configure(parser: ArgumentParser, words: list[str]) -> None:
    """Add the arguments."""
    parser.add_argument("key", metavar="KEY", help="a file, or a page of it, of a process, or a frame")
    parser.add_argument("--dry-run", action="store_true", help="say what would be done, and change nothing")
    parser.add_argument(
        "--whole-cgroup", action="store_true", help="allow reclaiming the cgroup that the pages are charged to"
    )
    add_output_options(parser)


def run(args: Namespace) -> int:
    """Find the pages, push them out, look again."""
    from rmap.live.doctor.abilities import refuse_without_frames
    from rmap.live.evict import Nothing, evict, target_of
    from rmap.show.evict import announcement, eviction, verdict
    from rmap.snapshot import parse_key

    key = parse_key(args.key)
    if key.kind == "address" and (why := absence(key.pid)) is not None:
        say(f"rmap: {why}")
        return status.NO
    refuse_without_frames()
    with target_of(key, args.key) as target:
        if isinstance(target, Nothing):
            say(f"rmap: {target.reason}")
            return status.NO
        done = evict(
            target,
            whole_cgroup=args.whole_cgroup,
            dry_run=args.dry_run,
            say=lambda text: say("\n".join(announcement(text))),
        )
    emit(args, {**asdict(done), "done": done.done}, lambda: eviction(done))
    say(f"rmap: {verdict(done)}")
    return status.OK if done.done else status.NO
