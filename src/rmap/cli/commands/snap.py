"""Record the running machine's memory as a picture, in one file.

The picture holds processes, VMAs, files and, for every page-table entry, which
frame it maps: no page's content. Every question of rmap can be asked of it
later (-i FILE), on any machine and by any user who may read the file; rmap
compare FILE runs it under every design. With --parquet DIR, also (or only) as
a folder of Parquet files for DuckDB, Polars and Spark (extra `data`).

The kernel shows page frames only to root (CAP_SYS_ADMIN). What could not be
read is counted on stderr and in the file.

examples
  sudo rmap snap -o here.rmap
  sudo rmap snap -o web.rmap --pid 4711 --pid 4712
  sudo rmap snap --parquet here.parquet
  rmap compare here.rmap

exit status: 1 if no process could be read
"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path

from rmap.cli import status
from rmap.cli.output import emit, say
from rmap.cli.parser import add_output_options
from rmap.cli.source import capture
from rmap.errors import UsageError


def configure(parser: ArgumentParser, words: list[str]) -> None:
    """Add the arguments."""
    parser.add_argument("-o", "--output", metavar="FILE", help="where to write it (NAME.rmap)")
    parser.add_argument("--parquet", metavar="DIR", help="write Parquet files into this folder")
    parser.add_argument("--pid", metavar="PID", type=int, action="append", help="only this process (repeatable)")
    parser.add_argument("--vm-flags", action="store_true", help="every flag of every VMA, locked ones too (slower)")
    parser.add_argument("--force", action="store_true", help="replace FILE, write into a DIR that is not empty")
    add_output_options(parser)


def run(args: Namespace) -> int:
    """Take the picture and write it."""
    from rmap.live.doctor.abilities import refuse_without_frames
    from rmap.show.capture_notes import snapshot_facts, snapshot_line
    from rmap.snapshot.storage import refuse_target

    if args.output is None and args.parquet is None:
        raise UsageError("where is it to be written? -o NAME.rmap, or --parquet DIR")
    refuse_without_frames()
    target = None if args.output is None else Path(args.output)
    if target is not None:
        refuse_target(target, force=args.force)  # asked before the work, not after it
    if args.parquet is not None:
        from rmap.snapshot.export.arrow import refuse_folder, refuse_without, write_parquet

        refuse_without("pyarrow", "Parquet")
        refuse_folder(args.parquet, force=args.force)
    snapshot = capture(args.pid, vm_flags=args.vm_flags)
    if not len(snapshot.processes):
        say("rmap: none of these processes could be read: no picture was written")
        return status.NO
    facts = snapshot_facts(snapshot)
    written = {}
    if target is not None:
        snapshot.save(target, force=args.force)
        written[str(target)] = target.stat().st_size
    if args.parquet is not None:
        made = write_parquet(snapshot, args.parquet, force=args.force)
        written[args.parquet] = sum(file.stat().st_size for file in made)
    name, size = next(iter(written.items()))
    data = {"file": name, "bytes": size, **facts, "written": written}
    emit(args, data, lambda: [snapshot_line(name, facts, size) for name, size in written.items()])
    return status.OK
