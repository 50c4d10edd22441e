"""Names of packages that are bound when first used."""

from __future__ import annotations

import subprocess
import sys

import pytest


@pytest.mark.parametrize("package", ["rmap", "rmap.snapshot"])
def test_a_package_loads_nothing_heavy_and_has_its_names(package: str) -> None:
    script = f"""
import sys, {package} as package
assert not {{"numpy", "pathlib", "dataclasses"}} & set(sys.modules), sorted(sys.modules)
for name in package.__all__:
    assert getattr(package, name) is not None, name
try:
    package.no_such_name
except AttributeError as error:
    assert "no_such_name" in str(error)
else:
    raise AssertionError
"""
    subprocess.run([sys.executable, "-c", script], check=True)


@pytest.mark.parametrize(
    ("package", "name", "home"),
    [
        ("rmap.snapshot", "isomorphic", "rmap.snapshot.rules.isomorphic"),
        ("rmap.snapshot", "resolve", "rmap.snapshot.questions.resolve"),
        ("rmap", "capture", "rmap.live.capture.capture"),
    ],
)
def test_a_name_is_what_its_module_calls_so_whichever_is_imported_first(package: str, name: str, home: str) -> None:
    for first in (f"import {home}", f"from {home} import {name}", f"from {package} import {name}"):
        script = f"""
{first}
from {package} import {name}
assert {name}.__module__ == "{home}" and callable({name})
import {home}
from {package} import {name} as again
assert again is {name}
"""
        subprocess.run([sys.executable, "-c", script], check=True)


def test_a_name_can_be_replaced_and_put_back(monkeypatch: pytest.MonkeyPatch) -> None:
    import rmap

    before = rmap.capture
    with monkeypatch.context() as patch:
        patch.setattr(rmap, "capture", None)
        assert rmap.capture is None
    assert rmap.capture is before
