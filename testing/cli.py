"""The command line as a user has it: in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class Result:
    """What a command left behind."""

    exit_code: int
    stdout: str
    stderr: str

    @property
    def json(self) -> Any:
        """The last line of stdout, as `--json` prints it."""
        return json.loads(self.stdout.strip().splitlines()[-1])


def run_cli(
    *arguments: str | Path,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    python: str | Path = sys.executable,
    timeout: float = 300.0,
) -> Result:
    """Run ``agentctl ARGUMENTS``; ``env`` is added to the environment, ``python`` may be that of another one."""
    command = [str(python), "-P", "-m", "agentctl.core.cli", *map(str, arguments)]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        cwd=cwd,
        env={**os.environ, **(env or {})},
        timeout=timeout,
        check=False,
    )
    return Result(done.returncode, done.stdout, done.stderr)
