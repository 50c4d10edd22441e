"""Every page-table entry that maps a page, an address, a file's page.

Answers with the page, how many mappings were found of how many the kernel
counts, and one line per mapping. Several processes may map one page at
different addresses and at different offsets in their VMAs.

KEY names the page:

  4711:0x7f5a176cb000          what process 4711 has at an address
  /usr/lib/libc.so.6@0x28000   the page of a file at an offset in bytes (also
                               decimal, or with K, M, G)
  pfn:0x2f8443                 a page frame
  phys:0x2f8443000             the frame of a physical address
  swap:0:1234                  slot 1234 of swap area 0

or something larger, which is summed up:

  /usr/lib/libc.so.6           a file: which ranges of it who maps
  4711                         a process: what each of its areas shares
  file:4711                    a file whose name looks like something else

It looks first where the kernel's own reverse map would: in every area of the
file, at the same address of every process. When as many entries are found as
the kernel counts, it is done; only else every page table is searched. "found
by" says which way it went. What the kernel counts and was not found is hidden,
with the reasons; what changed during three attempts is raced.

The running machine shows page frames only to root; a recorded picture (-i)
can be asked by anybody who may read the file.

With --kernel, the walk that the kernel itself would do: from the page to its
anon_vma or file, through the interval tree there, to each VMA that covers the
page's index and the address it computes; each entry looked at, hit or not. It
ends with: equal to the page tables, or the difference.

examples
  sudo rmap who 4711:0x7f5a176cb000
  sudo rmap who /usr/lib/x86_64-linux-gnu/libc.so.6@0x28000 --all
  sudo rmap who 4711
  sudo rmap who --kernel 4711:0x7f5a176cb000
  rmap who -i here.rmap pfn:0x2f8443 --json

exit status: 1 if nothing maps the page, or if the kernel's walk and the page
tables differ
"""

from __future__ import annotations

import os
from argparse import ArgumentParser, Namespace
from dataclasses import replace
from typing import TYPE_CHECKING

from rmap.cli import status
from rmap.cli.output import emit, say, waiting
from rmap.cli.parser import add_input_option, add_output_options
from rmap.cli.source import absence, capture, origin_of, snapshot_of
from rmap.errors import UsageError

if TYPE_CHECKING:
    from rmap.snapshot import Key, Resolved, Snapshot, Who

ROWS = 20


def configure(parser: ArgumentParser, words: list[str]) -> None:
    """Add the arguments."""
    parser.add_argument("key", metavar="KEY", help="the page, as above")
    add_input_option(parser)
    parser.add_argument("--kernel", action="store_true", help="walk as the kernel would, and compare")
    parser.add_argument("--all", action="store_true", help=f"every mapping, not only {ROWS}")
    add_output_options(parser)


def run(args: Namespace) -> int:
    """Find the page, and who maps it."""
    from rmap.snapshot.keys import parse_key

    key = parse_key(args.key)
    if args.input is None and key.kind in ("address", "process") and (why := absence(key.pid)) is not None:
        say(f"rmap: {why}")
        return status.NO
    if args.kernel:
        if key.kind == "process" or key.whole:
            raise UsageError(f"{args.key} has many pages, and a walk begins with one: {args.key}{_one_of(key)}")
        return _by_the_kernel(args, key)
    if key.kind == "process":
        return _areas(args, key.pid)
    if key.whole:
        return _whole_file(args, key)
    if args.input is None:
        return _now(args, key)
    snapshot = snapshot_of(args)
    place = _resolve(snapshot, key)
    if place.swap is not None:
        answer = snapshot.who_swap(*place.swap)
    elif place.pfn is not None:
        answer = snapshot.who(place.pfn)
    else:
        say(f"rmap: {place.reason}")
        return status.NO
    return _tell(args, answer, origin_of(args, snapshot))


def _one_of(key: Key) -> str:
    return ":0xADDRESS" if key.kind == "process" else "@OFFSET"


def _now(args: Namespace, key: Key) -> int:
    # One page of the running machine, without reading all of it.
    from rmap.live.doctor.abilities import refuse_without_frames
    from rmap.live.lookup.look_up import NoPage, look_up

    refuse_without_frames()
    with waiting() as doing:
        answer = look_up(key, say=doing)
    if isinstance(answer, NoPage):
        say(f"rmap: {answer.reason}")
        return status.NO
    return _tell(args, answer, answer.found_by)


def _tell(args: Namespace, answer: Who, origin: str) -> int:
    from rmap.show.who import who

    limit = None if args.all else ROWS
    emit(args, answer.to_json(), lambda: who(answer, origin=origin, limit=limit))
    return status.OK if answer.found else status.NO


def _areas(args: Namespace, pid: int) -> int:
    from rmap.show.overview import areas
    from rmap.snapshot.questions.overview import areas_of
    from rmap.snapshot.questions.selection import row_of

    snapshot = snapshot_of(args)
    row = row_of(snapshot, pid)
    if row < 0:
        say(f"rmap: process {pid} is not in the picture")
        return status.NO
    views = areas_of(snapshot, row)
    comm = snapshot.processes.comm[row]
    limit = None if args.all else ROWS
    emit(args, {"pid": pid, "comm": comm, "areas": views}, lambda: areas(views, pid=pid, comm=comm, limit=limit))
    return status.OK


def _whole_file(args: Namespace, key: Key) -> int:
    from rmap.show.overview import mapped_file
    from rmap.snapshot.questions.file_view import file_view, files_named

    snapshot = snapshot_of(args)
    named = files_named(snapshot, key.path) or files_named(snapshot, os.path.realpath(key.path))
    if not named:
        say(f"rmap: nobody maps a file {key.path} (a page of it: {key.path}@0; a process: its number)")
        return status.NO
    views = [file_view(snapshot, row) for row in named]
    limit = None if args.all else ROWS
    emit(args, {"files": views}, lambda: [line for view in views for line in mapped_file(view, limit=limit)])
    return status.OK if any(view.mapped for view in views) else status.NO


def _by_the_kernel(args: Namespace, key: Key) -> int:
    # A difference between page tables and walk counts if it is there each time.
    from rmap.live.bpf import open_memory
    from rmap.live.capture.settle import AGAIN
    from rmap.show.kernel_walk import kernel_walk
    from rmap.structs.walk import compare, walk_page

    if args.input is not None:
        raise UsageError("--kernel walks the running kernel's own trees: a recorded picture (-i) does not hold them")
    with open_memory() as memory:
        difference = None
        for _ in range(1 + AGAIN):
            snapshot = capture(for_one_page=True, memory=memory)
            place = _resolve(snapshot, key)
            if place.pfn is None:
                what = "a swap slot has no page, and so no walk" if place.swap is not None else place.reason
                say(f"rmap: {what}")
                return status.NO
            walk = walk_page(memory, place.pfn)
            there = {(mapping.pid, mapping.address) for mapping in snapshot.who(place.pfn).mappings}
            if walk.kind not in ("anon", "file"):
                difference = None
                break
            difference = compare(walk, there, own_pid=os.getpid()).settled(difference)
            if difference.equal:
                break
    names = dict(zip(snapshot.processes.pid.tolist(), snapshot.processes.comm))
    names[os.getpid()] = "(rmap)"
    limit = None if args.all else ROWS
    data = {"walk": walk, "difference": difference}
    emit(args, data, lambda: kernel_walk(walk, difference, names, limit=limit))
    return status.OK if difference is not None and difference.equal and walk.hits else status.NO


def _resolve(snapshot: Snapshot, key: Key) -> Resolved:
    # The kernel names a file by its real path; whoever asks may know it by a link.
    from rmap.snapshot import resolve

    place = resolve(snapshot, key)
    if key.kind == "file" and place.pfn is None:
        real = os.path.realpath(key.path)
        return resolve(snapshot, replace(key, path=real)) if real != key.path else place
    return place
