"""From words to an exit status: what a shell and a person see of every way a command can end."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from argparse import ArgumentParser, Namespace
from pathlib import Path
from types import SimpleNamespace

import pytest

from rmap import errors
from rmap.cli import main, registry, status
from rmap.cli.output import emit

RMAP = [sys.executable, "-m", "rmap"]


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A command ``fake`` that raises ``error``, or prints ``data``."""
    fake = SimpleNamespace(__doc__="A command for tests.\n\nSee ``elsewhere``.", error=None, data={"n": 1})

    def configure(parser: ArgumentParser, words: list[str]) -> None:
        parser.add_argument("--json", action="store_true")
        parser.add_argument("--color", default="auto")

    def run(args: Namespace) -> int:
        if fake.error is not None:
            raise fake.error
        emit(args, fake.data, lambda: ["first 0x1000", "second"])
        return status.OK

    fake.configure, fake.run = configure, run
    monkeypatch.setitem(registry.COMMANDS, "fake", ("Tests", "A command for tests."))
    monkeypatch.setitem(sys.modules, "rmap.cli.commands.fake", fake)
    return fake


ENDINGS = [
    (errors.SyscallError(errno.ENOMEM, "mmap", "too long"), 2, "mmap: Cannot allocate memory (too long)"),
    (errors.UsageError("no such design"), 2, "no such design"),
    (errors.LimitError("at most 10,000 processes"), 2, "at most 10,000 processes"),
    (errors.UntrackedPage("zero", "all share it"), 1, "no reverse map tracks this page (zero): all share it"),
    (errors.NotPermitted("refused", works="rmap demo"), 3, "refused"),
    (errors.SourceError("/proc/1/maps is odd"), 4, "/proc/1/maps is odd"),
    (errors.SnapshotError("x.rmap is cut off"), 4, "x.rmap is cut off"),
    (errors.TraceError("x.trace is cut off"), 4, "x.trace is cut off"),
    (FileNotFoundError(errno.ENOENT, "No such file", "x.rmap"), 4, "x.rmap: No such file"),
    (errors.InvariantError("I13", "lost"), 70, "internal error: I13: lost"),
]


@pytest.mark.parametrize(("error", "expected", "text"), ENDINGS)
def test_every_error_ends_with_its_status_and_its_words(
    command: SimpleNamespace, capsys: pytest.CaptureFixture[str], error: Exception, expected: int, text: str
) -> None:
    command.error = error
    assert main(["fake"]) == expected
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"rmap: {text}\n")
    assert "Traceback" not in err


def test_an_internal_error_asks_for_a_report_with_the_command(
    command: SimpleNamespace, capsys: pytest.CaptureFixture[str]
) -> None:
    command.error = errors.InvariantError("I13", "lost")
    main(["fake", "--json"])
    err = " ".join(capsys.readouterr().err.split())
    assert "please report it" in err
    assert "rmap fake --json" in err
    assert os.uname().release in err


def test_an_interruption_is_told_without_a_traceback(
    command: SimpleNamespace, capsys: pytest.CaptureFixture[str]
) -> None:
    command.error = KeyboardInterrupt()
    assert main(["fake"]) == 130
    assert capsys.readouterr().err == "rmap: interrupted\n"


def test_a_refusal_names_the_command_to_run_as_root(
    command: SimpleNamespace, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    program = tmp_path / "rmap"
    program.touch()
    monkeypatch.setattr(sys, "argv", [str(program)])
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    command.error = errors.NotPermitted("frames are hidden", needed="CAP_SYS_ADMIN", works="rmap compare")
    assert main(["fake", "--json"]) == 3
    assert capsys.readouterr().err.splitlines() == [
        "rmap: frames are hidden",
        "  needed    CAP_SYS_ADMIN",
        f"  run       sudo {program} fake --json",
        "  works     rmap compare",
    ]


def test_every_status_that_an_error_maps_to_has_a_meaning() -> None:
    for error, expected, _ in ENDINGS:
        assert status.of_error(error) == expected
        assert expected in status.MEANINGS
    assert status.of_error(ZeroDivisionError()) == status.INTERNAL


def test_an_unknown_command_names_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compere"]) == 2
    assert "did you mean `rmap compare`?" in capsys.readouterr().err


def test_an_unknown_option_is_a_usage_error(command: SimpleNamespace, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fake", "--nonsense"]) == 2
    assert capsys.readouterr().err == "rmap: unrecognized arguments: --nonsense (`rmap fake --help`)\n"


def test_help_of_a_command_is_its_docstring(command: SimpleNamespace, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fake", "--help"]) == 0
    out = capsys.readouterr().out
    assert "A command for tests.\n\nSee `elsewhere`." in out


def test_no_command_shows_the_overview_as_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    assert capsys.readouterr().out.startswith("usage: rmap ")


def test_version_names_python_and_kernel(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == (
        f"rmap 0.1.0 (Python {'.'.join(map(str, sys.version_info[:3]))}, Linux {os.uname().release})\n"
    )


def test_json_carries_the_schema_number(command: SimpleNamespace, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fake", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"schema": 1, "n": 1}


def test_colour_changes_no_character(
    command: SimpleNamespace, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    main(["fake", "--color", "never"])
    plain = capsys.readouterr().out
    main(["fake", "--color", "always"])
    colored = capsys.readouterr().out
    assert "\x1b[" in colored
    assert __import__("re").sub(r"\x1b\[[0-9;]*m", "", colored) == plain == "first 0x1000\nsecond\n"


@pytest.mark.parametrize(("variable", "value"), [("NO_COLOR", "1"), ("TERM", "dumb")])
def test_no_color_and_a_dumb_terminal_are_heeded(
    command: SimpleNamespace,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    variable: str,
    value: str,
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    main(["fake"])
    assert "\x1b[" in capsys.readouterr().out
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    monkeypatch.setenv(variable, value)
    main(["fake"])
    assert "\x1b[" not in capsys.readouterr().out


def test_a_closed_pipe_ends_quietly() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    try:
        done = subprocess.run([*RMAP, "--help"], stdout=writing, stderr=subprocess.PIPE, check=False)
    finally:
        os.close(writing)
    assert done.returncode == 0
    assert done.stderr == b""


def test_a_crash_of_rmap_itself_is_status_70_with_its_traceback() -> None:
    crash = (
        "import sys, rmap.cli.entry as entry\n"
        "sys.argv = ['rmap', 'doctor']\n"
        "entry._dispatch = lambda words: 1 / 0\n"
        "entry.script()\n"
    )
    done = subprocess.run([sys.executable, "-c", crash], capture_output=True, text=True, check=False)
    assert done.returncode == 70
    assert "ZeroDivisionError" in done.stderr
    assert "please report it" in done.stderr


def test_help_loads_nothing_heavy() -> None:
    """The overview must answer at once: no NumPy, no rich, not even argparse."""
    script = (
        "import sys\n"
        "before = set(sys.modules)\n"
        "from rmap.cli import main\n"
        "main(['--help'])\n"
        "print(*sorted(set(sys.modules) - before), file=sys.stderr)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    loaded = set(done.stderr.split())
    assert not loaded & {"numpy", "rich", "argparse", "typing", "json", "dataclasses", "subprocess"}
    assert len(loaded) < 20, sorted(loaded)


def test_importing_rmap_loads_no_numpy_and_binds_names_when_used() -> None:
    script = "import sys, rmap; assert 'numpy' not in sys.modules; rmap.Snapshot; assert 'numpy' in sys.modules"
    subprocess.run([sys.executable, "-c", script], check=True)


def test_every_public_name_is_there() -> None:
    import rmap

    for name in rmap.__all__:
        assert getattr(rmap, name) is not None
        assert name in dir(rmap)
    with pytest.raises(AttributeError, match="no attribute 'kernle'"):
        _ = rmap.kernle
