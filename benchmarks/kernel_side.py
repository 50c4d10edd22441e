"""The running kernel's side of the comparison: compiles ``yardstick.c`` and runs it."""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path


class NoYardstick(Exception):
    """The yardstick cannot be built or run here."""


@dataclass(frozen=True)
class KernelTimes:
    """What the running kernel needs.

    Attributes:
        release: as ``uname -r`` says.
        ns: operation -> median, ns per page; ns per fork for ``fork_vmas`` and ``fork_nothing``.
    """

    release: str
    ns: dict[str, float]


def measure(pages: int, rounds: int, vmas: int) -> KernelTimes:
    """Build and run the yardstick; takes some seconds per round.

    Raises:
        NoYardstick: no C compiler, or the program failed.
    """
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        raise NoYardstick("no C compiler (gcc or cc) on this machine")
    source = Path(__file__).with_name("yardstick.c")
    with tempfile.TemporaryDirectory() as folder:
        program = Path(folder) / "yardstick"
        # Static where that is possible: the fewer areas of its own, the less its forks cost beyond what is measured.
        for options in (["-static"], []):
            if _run([compiler, "-O2", *options, str(source), "-o", str(program)]).returncode == 0:
                break
        else:
            raise NoYardstick(f"{compiler} does not compile {source}")
        done = _run([str(program), str(pages), str(rounds), str(vmas)])
    if done.returncode:
        raise NoYardstick(done.stderr.strip())
    told = json.loads(done.stdout)
    return KernelTimes(told["kernel"], {name: times["median"] for name, times in told["ns"].items()})


def _run(command: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, check=False)
