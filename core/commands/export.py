"""`agentctl export RUN --onnx`: a trained policy as a file for programs without agentctl."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from agentctl.core.commands.options import Json, Plug, switches
from agentctl.core.commands.output import print_json, print_text
from agentctl.core.errors import AgentctlError, ConfigError, NotReadyError

if TYPE_CHECKING:
    from agentctl.core.plugins import Switches


def export(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="a run's folder, or one of its checkpoints")],
    onnx: Annotated[bool, typer.Option("--onnx", help="in ONNX format, the only one yet")] = False,
    out: Annotated[Path | None, typer.Option(help="the file to write (default: RUN/policy.onnx)")] = None,
    plugin: Plug = None,
    json_: Json = False,
) -> None:
    """Write a run's policy as a file that onnxruntime runs: state in, best action out; perception is not in it."""
    if not onnx:
        raise ConfigError("export to what? agentctl export RUN --onnx")
    from agentctl.core.folder import run_of

    path = out or run_of(run) / "policy.onnx"
    about = _export(run, path, switches(plugin))
    if json_:
        print_json({"file": str(path), **about})
    else:
        print_text(f"written: {path}")


def _export(run: Path, path: Path, chosen: Switches) -> dict[str, str]:
    """Write the file; returns what it says about itself."""
    from agentctl.core.assembly import assemble
    from agentctl.core.checkpoint import latest_checkpoint
    from agentctl.core.folder import composition_of
    from agentctl.core.guard import Guard
    from agentctl.core.pipeline import describe
    from agentctl.core.protocols import ExportablePolicy
    from agentctl.core.runner import restore

    assembly = assemble(composition_of(run, chosen).without("replay"), batch=1)
    step = restore(assembly, latest_checkpoint(run))
    policy = assembly.policy.part if isinstance(assembly.policy, Guard) else assembly.policy
    name = assembly.composition.one("policy").name  # type: ignore[union-attr]
    if not isinstance(policy, ExportablePolicy):
        raise ConfigError(f"{run}: policy {name!r} cannot be exported: it has no export_onnx()")
    setup = assembly.setup
    about = {"policy": name, "step": str(step), "sees": describe(setup.space), "acts": describe(setup.action_space)}
    try:
        policy.export_onnx(path, {f"agentctl.{key}": value for key, value in about.items()})
    except ModuleNotFoundError as error:
        raise NotReadyError(f"{error}; pip install 'game-agentctl[export]'") from error
    except OSError as error:
        raise AgentctlError(f"{path}: cannot write there: {error}; choose another --out") from error
    return about
