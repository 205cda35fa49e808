"""Map the top-level folders onto `agentctl.*`; everything else about the distribution stands in pyproject.toml.

The folders stay at the top of the repository, yet never collide with another project's `core` or `agents`.
The map is computed, so that no subpackage can be forgotten in the wheel.
"""

from collections.abc import Iterator
from pathlib import Path

from setuptools import setup

HERE = Path(__file__).resolve().parent
ROOTS = ("core", "games", "agents", "world_models", "plugins", "configs", "testing")
CODELESS = ("configs", "templates")  # data only: no subpackages below


def folders(root: Path) -> Iterator[Path]:
    """Yield `root` and every folder below it that holds Python modules."""
    yield root
    if root.name in CODELESS:
        return
    for child in sorted(root.iterdir()):
        if child.is_dir() and child.name.isidentifier() and child.name not in ("__pycache__", *CODELESS):
            yield from folders(child)


def package_map() -> dict[str, str]:
    """Return `{"agentctl.core": "core", ...}` for the roots that exist."""
    present = [HERE / root for root in ROOTS if (HERE / root).is_dir()]
    paths = [path.relative_to(HERE).as_posix() for root in present for path in folders(root)]
    return {"agentctl." + path.replace("/", "."): path for path in paths}


PACKAGES = package_map()
setup(packages=list(PACKAGES), package_dir=PACKAGES)
