"""Names of packages that are bound when first used."""

from __future__ import annotations

import subprocess
import sys

import pytest


@pytest.mark.parametrize("package", ["rmap.snapshot", "rmap.live"])
def test_a_package_loads_nothing_heavy_and_has_its_names(package: str) -> None:
    script = f"""
import sys, {package} as package
assert not {{"numpy", "pathlib", "dataclasses"}} & set(sys.modules), sorted(sys.modules)
for name in package.__all__:
    assert callable(getattr(package, name)), name
try:
    package.no_such_name
except AttributeError as error:
    assert "no_such_name" in str(error)
else:
    raise AssertionError
"""
    subprocess.run([sys.executable, "-c", script], check=True)


@pytest.mark.parametrize(
    ("package", "name"), [("rmap.snapshot", "isomorphic"), ("rmap.live", "abilities"), ("rmap.live", "capture")]
)
def test_a_name_is_not_its_module_whichever_is_imported_first(package: str, name: str) -> None:
    for first in (f"import {package}.{name}", f"from {package}.{name} import {name}", f"from {package} import {name}"):
        script = f"""
{first}
from {package} import {name}
assert {name}.__module__ == "{package}.{name}" and callable({name})
import {package}.{name}
from {package} import {name} as again
assert again is {name}
"""
        subprocess.run([sys.executable, "-c", script], check=True)


def test_a_name_can_be_replaced_and_put_back(monkeypatch: pytest.MonkeyPatch) -> None:
    import rmap.live

    before = rmap.live.capture
    with monkeypatch.context() as patch:
        patch.setattr(rmap.live, "capture", None)
        assert rmap.live.capture is None
    assert rmap.live.capture is before
