"""The puppet program: the one the package was built with, or one compiled here when it is first needed."""

from __future__ import annotations

import atexit
import os
import shutil
import subprocess
import tempfile
from functools import lru_cache
from pathlib import Path

from rmap.errors import NotPermitted
from rmap.live.sources.kpage_columns import KpageFile
from rmap.live.sources.pagemap_columns import Pagemap
from rmap.live.sources.procfs import capabilities

SOURCE = Path(__file__).with_name("puppet.c")
SHIPPED = Path(__file__).with_name("puppet")
PROTOCOL = b"rmap puppet protocol 4"
"""As in puppet.c; counted up whenever requests or answers change."""
COMPILERS = ("gcc", "cc", "clang")
COMPILER_OPTIONS = ("-O2", "-static", "-no-pie")
CAPABILITIES = {"CAP_IPC_LOCK": 14, "CAP_SYS_ADMIN": 21}
"""What is needed beyond being root, and which bit each is: to lock memory without a limit, and to see frames."""


def missing_ability() -> str | None:
    """What this machine lacks for puppets to be driven and seen, in words; None if nothing."""
    if os.uname().machine != "x86_64":
        return "x86-64 (the model is of that machine)"
    if os.geteuid() != 0:
        return "root: page frames are hidden from others"
    held = capabilities()
    lacking = [name for name, bit in CAPABILITIES.items() if not held >> bit & 1]
    if lacking:
        return ", ".join(lacking)
    try:
        KpageFile("kpagecount").close()
        with Pagemap(os.getpid()):
            pass
    except (NotPermitted, OSError) as error:
        return str(error)
    try:
        puppet_program()
    except NotPermitted as error:
        return error.needed
    return None


def puppet_program() -> Path:
    """The program that every puppet runs.

    Raises:
        NotPermitted: it did not come with the package, and there is no C compiler here that links it statically.
    """
    found = SHIPPED if _is_shipped() else _compiled()
    if isinstance(found, str):
        raise NotPermitted("the puppet program is not there", needed=found)
    return found


def _is_shipped() -> bool:
    # Built from a source that speaks as we do: in a working copy it may have changed since.
    return os.access(SHIPPED, os.X_OK) and PROTOCOL in SHIPPED.read_bytes()


@lru_cache(maxsize=1)
def _compiled() -> Path | str:
    # The reason why not, where it cannot be compiled.
    compiler = next(filter(None, map(shutil.which, COMPILERS)), None)
    if compiler is None:
        return f"a C compiler ({', '.join(COMPILERS)}): this rmap was installed without a built puppet program"
    folder = Path(tempfile.mkdtemp(prefix="rmap-puppet-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    program = folder / "puppet"
    command = [compiler, *COMPILER_OPTIONS, str(SOURCE), "-o", str(program)]
    built = subprocess.run(command, capture_output=True, text=True, check=False)
    if built.returncode:
        reason = built.stderr.strip().splitlines()[-1:] or ["no reason given"]
        return f"a C compiler that links statically ({compiler}: {reason[0]})"
    return program
