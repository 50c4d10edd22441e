"""From the words on the command line to an exit status; the only place that turns errors into text for a person."""

from __future__ import annotations

import os
import sys

from rmap.cli import status
from rmap.cli.registry import COMMANDS, load
from rmap.errors import InvariantError, NotPermitted, RmapError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType

REPORT = "this is a bug in rmap or in a reverse-map design, not yours: please report it with"
WORKS_WITHOUT_PRIVILEGES = "rmap demo, rmap compare, rmap explain, rmap who -i FILE KEY"


def main(argv: list[str] | None = None) -> int:
    """Run one command.

    Args:
        argv: the words behind the program's name; those of this process if None.

    Returns:
        the exit status, as ``rmap.cli.status`` lists them. Foreseen errors are told on stderr, never raised.
    """
    words = sys.argv[1:] if argv is None else argv
    _open_what_is_closed()
    try:
        result = _dispatch(words)
        sys.stdout.flush()
        return result
    except SystemExit as stop:  # how argparse ends after --help
        return stop.code if isinstance(stop.code, int) else status.OK
    except BrokenPipeError:
        _silence_stdout()
        return status.OK
    except KeyboardInterrupt:
        print("rmap: interrupted", file=sys.stderr)
        return status.INTERRUPTED
    except (RmapError, OSError) as error:
        from rmap.show.refusal import refusal

        print("\n".join(refusal(**_explain(error, words))), file=sys.stderr)
        return status.of_error(error)


def script() -> None:
    """What the installed command runs: :func:`main`, with a crash of rmap itself told as one (status 70)."""
    sys.excepthook = _crashed
    sys.exit(main())


def _dispatch(words: list[str]) -> int:
    if not words or words[0] in ("-h", "--help", "help"):
        print(overview())
        return status.OK if words else status.USAGE
    if words[0] == "--version":
        print(version())
        return status.OK
    command = load(words[0])
    from rmap.cli.parser import parser_of

    args = parser_of(words[0], command, words[1:]).parse_args(words[1:])
    return command.run(args)


def overview() -> str:
    """The text of ``rmap --help``."""
    lines = [
        "usage: rmap [--help | --version] COMMAND ...",
        "",
        "From a page back to every page-table entry (PTE) that maps it.",
    ]
    for group in dict.fromkeys(group for group, summary in COMMANDS.values()):
        lines += ["", group]
        lines += [f"  {verb:<11}{summary}" for verb, (of, summary) in COMMANDS.items() if of == group]
    lines += [
        "",
        "`rmap COMMAND --help` teaches each with examples. Data goes to stdout, talk to",
        "stderr; --json prints data for programs; NO_COLOR is heeded.",
        "",
        "Exit status",
        *(f"  {number:>3}  {meaning}" for number, meaning in status.MEANINGS.items()),
    ]
    return "\n".join(lines)


def version() -> str:
    """``rmap 0.1.0 (Python 3.11.7, Linux 6.18.44)``."""
    from rmap import __version__

    kernel = os.uname()
    python = ".".join(str(part) for part in sys.version_info[:3])
    return f"rmap {__version__} (Python {python}, {kernel.sysname} {kernel.release})"


def _explain(error: RmapError | OSError, words: list[str]) -> dict[str, str]:
    # The parts of an error that a person needs, as the arguments of `refusal`.
    if isinstance(error, NotPermitted):
        from rmap.cli.invocation import sudo_line

        # The library knows what is missing; only the command knows how it was called.
        helps = "CAP_" in error.needed and os.geteuid() != 0
        run = sudo_line(words) if helps else error.run
        return {
            "message": str(error),
            "needed": error.needed,
            "run": run,
            "works": error.works or WORKS_WITHOUT_PRIVILEGES,
        }
    if isinstance(error, InvariantError):
        return {"message": f"internal error: {error}\n{REPORT}\n  {version()}: rmap {' '.join(words)}"}
    if isinstance(error, OSError) and error.filename is not None:
        return {"message": f"{error.filename}: {error.strerror}"}
    if isinstance(error, OSError):
        return {"message": error.args[1] if len(error.args) > 1 else str(error)}
    return {"message": str(error)}


def _open_what_is_closed() -> None:
    # A caller may have closed stdout or stderr (`>&-`): what is written there goes nowhere, as it is meant to.
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115 (open as long as the program runs)


def _silence_stdout() -> None:
    # The reader went away (`| head`): nothing more can be said to it, not even when Python flushes at its end.
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)


def _crashed(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    sys.__excepthook__(kind, error, trace)
    print(f"rmap: {REPORT}\n      the lines above; {version()}: {' '.join(sys.argv)}", file=sys.stderr)
    raise SystemExit(status.INTERNAL)
