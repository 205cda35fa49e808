"""Set agentctl up and use it, in one command each. Needs nothing but Python 3.11 or newer.

    python bootstrap.py run [GAME.yaml] [arguments for `agentctl run`]
    python bootstrap.py test [arguments for pytest]

Everything is installed into `.venv` beside this file, once; a second call starts at once.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

HERE = Path(__file__).resolve().parent
VENV = HERE / ".venv"
STAMP = VENV / "agentctl-installed"
DEFAULT_GAME = HERE / "configs" / "atari" / "default.yaml"
WINDOWS = os.name == "nt"

ALL_EXTRAS = ("atari", "export", "record", "replay", "tensorboard", "torch", "video", "window")
"""Not `timm`: it brings torchvision, which loads only beside a torch of the same build."""

CHECKS = {
    "ruff check": ("ruff", "check", "."),
    "ruff format": ("ruff", "format", "--check", "."),
    "mypy": ("mypy", "-p", "agentctl"),
    "pytest": ("pytest",),
}
SYSTEM_PACKAGES = {
    "chromium": ("chromium", "chromium-browser", "google-chrome"),
    "xdotool": ("xdotool",),
    "xvfb": ("Xvfb",),
}
"""What apt calls a package that tests use, and the programs of which one will do."""

USAGE, NOT_READY, STOPPED = 2, 4, 130  # exit codes
STDOUT, STDERR = 1, 2  # file descriptors; standard output belongs to what is run

Which = Callable[[str], "str | None"]


def main(arguments: list[str]) -> int:
    """Return the exit code of `bootstrap.py ARGUMENTS`."""
    if sys.version_info < (3, 11):  # noqa: UP036  (this file alone starts under any Python)
        say("agentctl needs Python 3.11 or newer; this is Python {}.{}".format(*sys.version_info[:2]))
        return NOT_READY
    commands = {"run": run, "test": test}
    if arguments and arguments[0] in commands:
        try:
            return commands[arguments[0]](arguments[1:])
        except KeyboardInterrupt:
            return STOPPED
    say(__doc__)
    return 0 if arguments in (["-h"], ["--help"]) else USAGE


def run(arguments: list[str]) -> int:
    """Install what the game's configuration needs, then become `agentctl run`."""
    game, rest = split_game(arguments)
    if not game.is_file():
        say(f"no such configuration: {game}")
        return USAGE
    ensure_installed(needs(game.read_text(encoding="utf-8")))
    return hand_over([str(program("agentctl")), "run", str(game), *rest])


def test(arguments: list[str]) -> int:
    """Install everything, then run every check, also after one has failed."""
    if ensure_installed([*ALL_EXTRAS, "dev"]):
        install_system_packages()
    for package in missing_system_packages():
        say(f"{package} is missing, so tests that need it will skip (on Debian and Ubuntu: apt-get install {package})")
    link_for_type_checkers()
    results = {name: call_module(*check, *(arguments if name == "pytest" else ())) for name, check in CHECKS.items()}
    for name, code in results.items():
        say(f"{name:12} {'ok' if code == 0 else f'FAILED (exit code {code})'}")
    return int(any(results.values()))


def split_game(arguments: list[str]) -> tuple[Path, list[str]]:
    """Return the game's configuration and what follows it; a name not found from here is looked up beside this file."""
    if not arguments or arguments[0].startswith("-"):
        return DEFAULT_GAME, arguments
    asked = Path(arguments[0])
    return (asked if asked.exists() else HERE / asked).resolve(), arguments[1:]


def needs(config: str) -> list[str]:
    """Return the extras that a configuration's opening comment names (`# needs: torch video`); without one, all."""
    for line in config.splitlines():
        if not line.startswith("#"):
            break
        if line.startswith("# needs:"):
            return line.removeprefix("# needs:").split()
    return list(ALL_EXTRAS)


def ensure_installed(extras: Iterable[str]) -> bool:
    """Make `.venv` hold agentctl with at least `extras`; return whether there was something to do."""
    stamp, *present = STAMP.read_text(encoding="utf-8").split() if STAMP.is_file() else [""]
    wanted = sorted({*present, *extras})
    stale = stamp != fingerprint() or wanted != present
    if stale:
        say(f"installing agentctl into {VENV}, extras: {', '.join(wanted) or 'none'}; the first time takes a while")
        STAMP.unlink(missing_ok=True)
        make_venv()
        must(*install_commands(wanted))
        STAMP.write_text(" ".join([fingerprint(), *wanted]), encoding="utf-8")
    say(f"agentctl is {program('agentctl')}")
    return stale


def fingerprint(root: Path = HERE) -> str:
    """Return a digest that changes when an earlier install no longer holds: also when the checkout has moved."""
    digest = hashlib.sha256(f"{sys.version_info[:3]} {root}".encode())
    for name in ("pyproject.toml", "setup.py", "constraints.txt"):
        digest.update((root / name).read_bytes())
    for package in sorted(root.glob("*/__init__.py")):  # an editable install takes note of these once
        digest.update(package.parent.name.encode())
    return digest.hexdigest()


def make_venv() -> None:
    """Make `.venv`, unless one that works and is of this Python is there."""
    uv, python = shutil.which("uv"), program("python")
    probe = f"import sys{'' if uv else ', pip'}; sys.exit(sys.version_info[:2] != {sys.version_info[:2]})"
    if python.exists() and call([str(python), "-c", probe]) == 0:
        return
    tool = [uv, "venv", "--python", sys.executable] if uv else [sys.executable, "-m", "venv"]
    must([*tool, "--clear", str(VENV)])


def install_commands(extras: list[str], which: Which = shutil.which) -> list[list[str]]:
    """Return the commands to try in turn; without a GPU, uv first tries for a torch without CUDA's gigabytes."""
    uv, python = which("uv"), str(program("python"))
    what = ["-e", f".[{','.join(extras)}]" if extras else ".", "-c", "constraints.txt"]
    if not uv:
        return [[python, "-m", "pip", "install", *what]]
    plain = [uv, "pip", "install", "--python", python, *what]
    return [plain] if which("nvidia-smi") else [[*plain, "--torch-backend", "cpu"], plain]


def missing_system_packages(which: Which = shutil.which) -> list[str]:
    """Return the packages none of whose programs is on the path."""
    return [package for package, programs in SYSTEM_PACKAGES.items() if not any(map(which, programs))]


def install_system_packages() -> None:
    """Ask apt for what is missing; without apt, or the right to use it, go on: the tests skip and say so."""
    missing = missing_system_packages()
    sudo = [] if os.access("/var/lib/dpkg", os.W_OK) else ["sudo", "-n"]
    if missing and all(map(shutil.which, [*sudo, "apt-get"])):
        call([*sudo, "apt-get", "update"], output=STDERR)
        call([*sudo, "apt-get", "install", "--yes", "--no-install-recommends", *missing], output=STDERR)


def link_for_type_checkers(root: Path = HERE) -> None:
    """Link `.typing/agentctl/core` to `core`, and so on: type checkers do not see through an editable install."""
    house = root / ".typing" / "agentctl"
    house.mkdir(parents=True, exist_ok=True)
    for folder in sorted(marker.parent.name for marker in root.glob("*/py.typed")):
        if not (house / folder).exists():
            try:
                (house / folder).symlink_to(Path("..", "..", folder), target_is_directory=True)
            except OSError as error:
                say(f"type checking needs symbolic links (on Windows: developer mode): {error}")


def program(name: str) -> Path:
    """Return the path of a program in `.venv`."""
    return VENV / "Scripts" / f"{name}.exe" if WINDOWS else VENV / "bin" / name


def call(command: list[str], output: int = STDOUT) -> int:
    """Run `command` here and return its exit code; Ctrl-C reaches it too, so let it end in its own way."""
    child = subprocess.Popen(command, cwd=HERE, stdout=output)
    try:
        code = child.wait()
    except KeyboardInterrupt:
        child.wait()
        raise
    return code if code >= 0 else 128 - code


def call_module(name: str, *arguments: str) -> int:
    """Run a module of `.venv`, with `-P` so that `core` cannot be imported by its bare name."""
    say(f"\n{name} {' '.join(arguments)}")
    return call([str(program("python")), "-P", "-m", name, *arguments])


def must(*commands: list[str]) -> None:
    """Run `commands` until one succeeds; end here when none does."""
    if not any(call(command, output=STDERR) == 0 for command in commands):
        say("agentctl could not be installed; the reason stands above")
        raise SystemExit(NOT_READY)


def hand_over(command: list[str]) -> int:
    """Become `command`, so that Ctrl-C and the exit code are its own; on Windows, which cannot, wait for it."""
    if not WINDOWS:
        os.execv(command[0], command)
    child = subprocess.Popen(command)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    return child.wait()


def say(line: str) -> None:
    """Print for the person."""
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
