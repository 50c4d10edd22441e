"""Compile what is not Python: the BPF programs, and the puppet that `rmap conform` drives.

Without clang (or a C compiler that links statically) the package is built without them: rmap then answers from /proc
alone, and `rmap doctor` says so.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sysconfig
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

PACKAGE = Path("src/rmap")
KERNEL_HEADERS = PACKAGE / "live" / "bpf"
PUPPET = PACKAGE / "lab" / "conform" / "puppet.c"


class CompiledParts(BuildHookInterface):  # type: ignore[type-arg]
    """Adds compiled files to the wheel; an editable install gets them in the source tree."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile; what cannot be compiled is left out, and told."""
        root = Path(self.root)
        editable = version == "editable"
        self._folder = None if editable else Path(tempfile.mkdtemp(prefix="rmap-build-"))
        native = False
        for source in sorted(root.glob(f"{PACKAGE}/**/*.bpf.c")):
            self._add(root, source, source.with_suffix(".o"), _bpf_command(root), build_data)
        puppet = root / PUPPET
        if puppet.is_file():
            native = self._add(root, puppet, puppet.with_suffix(""), _puppet_command(), build_data)
        if native:  # the puppet is a program of this machine; BPF programs are of every machine
            build_data["pure_python"] = False
            build_data["tag"] = f"py3-none-{sysconfig.get_platform().replace('-', '_').replace('.', '_')}"

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Remove what was compiled for a wheel."""
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)

    def _add(
        self, root: Path, source: Path, target: Path, command: list[str] | None, build_data: dict[str, Any]
    ) -> bool:
        if command is None:
            self.app.display_warning(f"no compiler for {source.name}: built without it")
            return False
        output = target if self._folder is None else self._folder / target.name
        done = subprocess.run([*command, str(source), "-o", str(output)], capture_output=True, text=True, check=False)
        if done.returncode:
            self.app.display_warning(f"{source.name} does not compile here: built without it\n{done.stderr}")
            return False
        strip = shutil.which("llvm-strip")
        if strip is not None and source.name.endswith(".bpf.c"):
            subprocess.run([strip, "-g", str(output)], check=False)
        if self._folder is not None:
            build_data["force_include"][str(output)] = str(target.relative_to(root / "src"))
        return True


def _bpf_command(root: Path) -> list[str] | None:
    clang = shutil.which("clang")
    if clang is None:
        return None
    # Debian keeps asm/types.h, which linux/bpf.h wants, in a folder per machine.
    multiarch = Path(f"/usr/include/{os.uname().machine}-linux-gnu")
    arch = {"x86_64": "x86", "aarch64": "arm64"}.get(os.uname().machine, os.uname().machine)
    return [
        *(clang, "-g", "-O2", "-Wall", "-Wno-unused-function", "-target", "bpf", f"-D__TARGET_ARCH_{arch}"),
        *(f"-I{multiarch}", f"-I{root / KERNEL_HEADERS}", "-c"),
    ]


def _puppet_command() -> list[str] | None:
    compiler = next(filter(None, map(shutil.which, ("cc", "gcc", "clang"))), None)
    return None if compiler is None else [compiler, "-O2", "-static", "-no-pie", "-s"]
