"""Map the top-level folders onto `agentctl.*`; everything else about the distribution stands in pyproject.toml.

The folders stay at the top of the repository, yet never collide with another project's `core` or `agents`.
A folder with a `py.typed` is a root; the map is computed, so that no subpackage can be forgotten in the wheel.
"""

from collections.abc import Iterator
from pathlib import Path

from setuptools import setup

HERE = Path(__file__).resolve().parent
DATA = ("configs", "templates")  # shipped as package data: no subpackages inside


def folders(root: Path) -> Iterator[Path]:
    """Yield `root` and every folder below it that may hold modules."""
    yield root
    if root.name in DATA:
        return
    for child in sorted(root.iterdir()):
        if child.is_dir() and child.name.isidentifier() and child.name not in ("__pycache__", *DATA):
            yield from folders(child)


def package_map() -> dict[str, str]:
    """Return `{"agentctl.core": "core", ...}`."""
    roots = sorted(marker.parent for marker in HERE.glob("*/py.typed"))
    paths = [folder.relative_to(HERE).as_posix() for root in roots for folder in folders(root)]
    return {"agentctl." + path.replace("/", "."): path for path in paths}


PACKAGES = package_map()
setup(packages=list(PACKAGES), package_dir=PACKAGES)
