"""The house's rules that no type checker sees: who imports whom, what loads when, and what never stands in a file."""

import ast
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent
ROOTS = sorted(marker.parent.name for marker in REPOSITORY.glob("*/py.typed"))
SKIPPED = {".git", ".venv", ".typing", "__pycache__", "build", "dist", "runs", "templates"}
CACHES = re.compile(r"\.\w+_cache|\.hypothesis|.+\.egg-info")
PACKS = ("games", "plugins")  # here each subfolder is a house of its own
MAX_FUNCTION, MAX_FILE = 45, 320


def walk(folder: Path) -> Iterator[Path]:
    """Yield the files below `folder`, without what git ignores and without templates."""
    for path in sorted(folder.iterdir()):
        if path.is_file():
            yield path
        elif path.is_dir() and path.name not in SKIPPED and not CACHES.fullmatch(path.name):
            yield from walk(path)


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


PYTHON = [path for path in walk(REPOSITORY) if path.suffix == ".py"]
PRODUCT = [path for path in PYTHON if path.relative_to(REPOSITORY).parts[0] in ROOTS]


def module_name(path: Path) -> str:
    """Return `agentctl.core.loop` for `core/loop.py`."""
    parts = path.relative_to(REPOSITORY).with_suffix("").parts
    return ".".join(("agentctl", *(parts[:-1] if parts[-1] == "__init__" else parts)))


def imports(tree: ast.Module, importer: str = "") -> Iterator[tuple[int, str]]:
    """Yield line and full name of everything imported, wherever it stands; `from a import b` yields `a.b`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            package = importer.split(".")[: -node.level] if node.level else []
            base = [*package, *([node.module] if node.module else [])]
            yield from ((node.lineno, ".".join([*base, alias.name])) for alias in node.names)


def imports_of(path: Path) -> Iterator[tuple[int, str]]:
    return imports(tree_of(path), module_name(path) + ".__init__" * (path.name == "__init__.py"))


def within(name: str, package: str) -> bool:
    return f"{name}.".startswith(f"{package}.")


def may_import(importer: str, imported: str) -> bool:
    """Say whether one `agentctl` module may import another: inward to core, or within its own folder."""
    if within(imported, "agentctl.core"):
        return within(importer, "agentctl.core.nn") or not (
            within(importer, "agentctl.core") and within(imported, "agentctl.core.nn")
        )
    folder = ".".join(importer.split(".")[:2])
    house = ".".join(importer.split(".")[:3]) if folder.split(".")[1] in PACKS else folder
    return not within(imported, "agentctl") or within(imported, house) or within(imported, f"{folder}.blocks")


def offences(files: list[Path], find: Callable[[Path], Iterator[tuple[int, str]]]) -> list[str]:
    """Return `file:line what` for everything that `find` finds."""
    return [f"{path.relative_to(REPOSITORY)}:{line} {what}" for path in files for line, what in find(path)]


def test_imports_point_inward() -> None:
    def find(path: Path) -> Iterator[tuple[int, str]]:
        for line, imported in imports_of(path):
            if not may_import(module_name(path), imported):
                yield line, f"imports {imported}"

    assert offences(PRODUCT, find) == []


@pytest.mark.parametrize(
    ("importer", "imported", "allowed"),
    [
        ("agentctl.core.loop", "agentctl.core.types", True),
        ("agentctl.core.loop", "agentctl.games.toy", False),
        ("agentctl.core.loop", "agentctl.core.nn.fit", False),
        ("agentctl.core.nn.fit", "agentctl.core.nn.ema", True),
        ("agentctl.agents.ppo", "agentctl.core.nn.fit", True),
        ("agentctl.agents.ppo", "agentctl.agents.blocks", True),
        ("agentctl.agents.ppo", "agentctl.world_models.vqvae", False),
        ("agentctl.games.toy.maze", "agentctl.games.toy.grid", True),
        ("agentctl.games.toy.maze", "agentctl.games.atari", False),
        ("agentctl.plugins.memory", "agentctl.plugins.replay", False),
        ("agentctl.testing.contracts", "agentctl.agents.ppo", False),
        ("agentctl.agents.ppo", "numpy", True),
    ],
)
def test_the_import_rule_itself(importer: str, imported: str, allowed: bool) -> None:
    assert may_import(importer, imported) is allowed


def test_relative_imports_are_seen() -> None:
    tree = ast.parse("from ..games import toy\nfrom . import types")
    assert [name for _, name in imports(tree, "agentctl.core.loop")] == ["agentctl.games.toy", "agentctl.core.types"]


def test_core_uses_torch_only_in_nn() -> None:
    def find(path: Path) -> Iterator[tuple[int, str]]:
        if not within(module_name(path), "agentctl.core.nn"):
            yield from ((line, name) for line, name in imports_of(path) if within(name, "torch"))

    assert offences([path for path in PRODUCT if within(module_name(path), "agentctl.core")], find) == []


def test_no_root_is_imported_by_its_bare_name() -> None:
    def find(path: Path) -> Iterator[tuple[int, str]]:
        yield from ((line, name) for line, name in imports_of(path) if name.split(".")[0] in ROOTS)

    assert offences(PYTHON, find) == []


LOADED = """
import sys
{action}
heavy = ("torch", "agentctl.games", "agentctl.agents", "agentctl.world_models", "agentctl.plugins")
sys.exit("loaded: " + ", ".join(name for name in heavy if name in sys.modules) if set(heavy) & set(sys.modules) else 0)
"""
HELP = """
sys.argv = ["agentctl", "--help"]
from agentctl.core.cli import main
try:
    code = main()
except SystemExit as exit:
    code = exit.code
assert not code, code
"""


@pytest.mark.parametrize("action", ["import agentctl.core", HELP], ids=["import", "help"])
def test_starting_loads_neither_torch_nor_any_implementation(action: str) -> None:
    done = subprocess.run(
        [sys.executable, "-P", "-c", LOADED.format(action=action)], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr


def test_functions_and_files_stay_short() -> None:
    def find(path: Path) -> Iterator[tuple[int, str]]:
        length = len(path.read_text(encoding="utf-8").splitlines())
        if length > MAX_FILE:
            yield length, f"file of {length} lines"
        for node in ast.walk(tree_of(path)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lines = (node.end_lineno or node.lineno) - node.lineno + 1
                if lines > MAX_FUNCTION:
                    yield node.lineno, f"{node.name} has {lines} lines"

    assert offences(PRODUCT, find) == []


REGISTRY = re.compile("files[.]pythonhosted|pypi[.]org/simple|download[.]pytorch[.]org|--(?:extra-)?index-url|/simple/")
"""Where packages come from is the business of the machine that installs them."""


def test_no_file_names_a_registry_or_this_checkout() -> None:
    here = re.compile(re.escape(str(REPOSITORY)) + r"(?![\w-])") if len(REPOSITORY.parts) > 2 else re.compile("(?!)")

    def find(path: Path) -> Iterator[tuple[int, str]]:
        for number, line in enumerate(path.read_text(encoding="utf-8", errors="ignore").splitlines(), start=1):
            yield from ((number, pattern.pattern) for pattern in (REGISTRY, here) if pattern.search(line))

    others = [path for path in walk(REPOSITORY) if path != Path(__file__).resolve()]
    assert offences(others, find) == []


def unsafe(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Yield what would run code found in data."""
    yield from ((line, name) for line, name in imports(tree) if within(name, "pickle"))
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            given = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
            if called in ("eval", "exec", "yaml.load", "yaml.unsafe_load", "yaml.full_load"):
                yield node.lineno, called
            if called == "torch.load" and given.get("weights_only") != "True":
                yield node.lineno, "torch.load without weights_only=True"
            if given.get("allow_pickle") == "True":
                yield node.lineno, "allow_pickle=True"


def test_product_code_never_runs_what_it_reads() -> None:
    assert offences(PRODUCT, lambda path: unsafe(tree_of(path))) == []


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("import pickle", 1),
        ("from pickle import loads", 1),
        ("eval('1')", 1),
        ("model.eval()", 0),
        ("yaml.load(text, Loader=yaml.Loader)", 1),
        ("yaml.safe_load(text)", 0),
        ("torch.load(path)", 1),
        ("torch.load(path, weights_only=False)", 1),
        ("torch.load(path, weights_only=True)", 0),
        ("numpy.load(path, allow_pickle=True)", 1),
    ],
)
def test_the_safety_rule_itself(source: str, found: int) -> None:
    assert len(list(unsafe(ast.parse(source)))) == found
