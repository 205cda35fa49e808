"""`agentctl dream`: play inside a run's world model, by hand or headless, and beside the real game."""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Sequence
from contextlib import closing, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from agentctl.core.commands.options import Json, Plug, switches
from agentctl.core.commands.output import print_json, print_text
from agentctl.core.commands.record import HUMAN, Stop
from agentctl.core.errors import AgentctlError, ConfigError

if TYPE_CHECKING:
    from gymnasium import spaces

    from agentctl.core.assembly import Assembly
    from agentctl.core.dream import Dream
    from agentctl.core.evaluate import Act
    from agentctl.core.protocols import Policy
    from agentctl.core.types import Array

POLICY, RANDOM = "policy", "random"
STEPS = 100  # where neither --steps nor a file says how many
STOPPING = b"stopping: what was dreamt is kept; once more stops at once\n"
WATCH_TRAINING = ("metrics", "tensorboard", "report", "progress")
"""Observers that a dream does not need; the recorder is left, which writes the video."""


@dataclass(slots=True)
class Wish:
    """What the command line asks for."""

    run: Path
    actions: str  # a file, `policy`, `random` or `human`
    steps: int | None
    seed: int
    start_steps: int
    beside_real: bool
    stop: Stop


def dream(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="a run's folder, or one of its checkpoints")],
    actions: Annotated[
        str | None,
        typer.Option(
            metavar="FILE|policy|random",
            help="who acts: a file with one action a line, the run's policy, or chance; without it you, in a window",
        ),
    ] = None,
    steps: Annotated[
        int | None, typer.Option(min=1, help="imagined steps at most (default: FILE's, else 100; in a window no end)")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="of the real games that dreams begin in, and of chance")] = 0,
    start_steps: Annotated[
        int, typer.Option(min=0, help="real steps before each dream: the policy's own, or chance's")
    ] = 8,
    beside_real: Annotated[
        bool, typer.Option("--beside-real", help="the real game does the same, and is shown at the left")
    ] = False,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="where video and figures go (default: RUN/dreams)")
    ] = None,
    plugin: Plug = None,
    json_: Json = False,
) -> None:
    """Play inside a run's world model: a video, and what was imagined in each step."""
    stop = Stop()
    figures = _dream(Wish(run, actions or HUMAN, steps, seed, start_steps, beside_real, stop), out, plugin or [])
    if json_:
        print_json(figures)
    else:
        _print(figures)
    if stop.stop_asked:
        raise typer.Exit(130)


def _dream(wish: Wish, out: Path | None, plugins: list[str]) -> dict[str, Any]:
    """Dream, and write it down. Returns the summary."""
    from agentctl.core.assembly import blamed
    from agentctl.core.checkpoint import latest_checkpoint, write_json
    from agentctl.core.dream import opened
    from agentctl.core.folder import run_of

    checkpoint = latest_checkpoint(wish.run)
    assembly = opened(checkpoint, 1, switches([*(f"no:{name}" for name in WATCH_TRAINING), *plugins]))
    with blamed(assembly.composition):
        dreaming, film = _dreamt(wish, assembly, folder := out or run_of(wish.run) / "dreams")
        figures = {"run": str(wish.run), "checkpoint": str(checkpoint), "actions": wish.actions, "seed": wish.seed}
        figures |= {**_figures(dreaming), "stopped": wish.stop.stop_asked, "video": None, "moments": None}
        if dreaming.moments:
            name = f"{checkpoint.name}-{Path(wish.actions).stem}-{wish.seed}"
            video, moments = filmed(assembly, film, folder / f"{name}.mp4"), folder / f"{name}.json"
            figures |= {"video": str(video) if video else None, "moments": str(moments)}
            write_json(moments, {**figures, "moments": [asdict(moment) for moment in dreaming.moments]})
    return figures


def _dreamt(wish: Wish, assembly: Assembly, folder: Path) -> tuple[Dream, list[Array]]:
    """The dream when it is over, and its pictures. What cannot be done is said before anything is shown."""
    from agentctl.core.dream import Awake, Dream
    from agentctl.core.keyboard import open_display

    awake = Awake(assembly)
    script = [] if wish.actions in (HUMAN, POLICY, RANDOM) else read_actions(Path(wish.actions), awake.action_space)
    chance = by_chance(awake.action_space, wish.seed)
    start = by_policy(assembly.policy) if wish.actions == POLICY else chance
    dreaming = Dream(awake, start, wish.start_steps, beside_real=wish.beside_real)
    if wish.actions == HUMAN:
        open_display()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise AgentctlError(f"{folder}: cannot write there: {error}; choose another --out") from error
    if wish.actions == HUMAN:
        return dreaming, _by_hand(dreaming, wish)
    act = by_script(script) if script else start
    most = min(wish.steps or sys.maxsize, len(script)) if script else wish.steps or STEPS
    return dreaming, _headless(dreaming, act, wish, most)


def _headless(dreaming: Dream, act: Act, wish: Wish, most: int) -> list[Array]:
    """Dream ``most`` steps, or until stopped. Returns the pictures."""
    from agentctl.core.runner import stopping

    film: list[Array] = []
    with closing(dreaming), stopping(wish.stop, STOPPING):
        dreaming.reset(wish.seed)
        keep(film, dreaming.frame())
        while len(dreaming.moments) < most and not wish.stop.stop_asked:
            decision = act(dreaming.flow, dreaming.state)
            dreaming.flow.policy = decision.carry
            dreaming.step(decision.action)
            keep(film, dreaming.picture)
    return film


def _by_hand(dreaming: Dream, wish: Wish) -> list[Array]:
    """The same with a window and the keyboard."""
    from agentctl.core.keyboard import Keyboard
    from agentctl.core.runner import stopping
    from agentctl.core.tape import Tape

    film: list[Array] = []
    tape = Tape(dreaming)
    with closing(tape), stopping(wish.stop, STOPPING):
        tape.reset(wish.seed)
        keep(film, dreaming.frame())
        with closing(Keyboard(tape, f"{wish.run} dreams", None, wish.stop)) as keyboard:
            sys.stderr.write(f"keys: {', '.join(keyboard.keys.names)}; P pauses, Escape ends\n")
            while len(dreaming.moments) != wish.steps and not keyboard.ended():
                tape.step(keyboard.act(dreaming.flow, dreaming.state).action)
                keep(film, dreaming.picture)
    return film


def keep(film: list[Array], picture: Array) -> None:
    """Add a picture, unless there are as many as a video can use."""
    from agentctl.core.evaluate import MAX_FRAMES

    if len(film) < MAX_FRAMES:
        film.append(picture)


def by_chance(space: spaces.Space[Any], seed: int) -> Act:
    """Acts at random, as far as the state's mask allows."""
    import numpy as np

    from agentctl.core.evaluate import MASK, random_actions
    from agentctl.core.types import Decision

    rng = np.random.default_rng([seed, *b"dream"])
    return lambda flow, state: Decision(random_actions(space, 1, rng, state.get(MASK)))


def by_policy(policy: Policy) -> Act:
    """Acts as a run's policy does, as far as the model imagines what it looks at."""
    from agentctl.core.pipeline import Flow
    from agentctl.core.types import Arrays, Decision

    def act(flow: Flow, state: Arrays) -> Decision:
        try:
            return policy.act(flow.policy or policy.initial(1), state, flow.first)
        except KeyError as error:
            raise ConfigError(
                f"--actions policy: it looks at {error}, and the world model imagines only {sorted(state)}; "
                "use random, or a file of actions"
            ) from error

    return act


def by_script(script: Sequence[Array]) -> Act:
    """Acts as written, whatever it sees."""
    from agentctl.core.types import Decision

    lines = iter(script)
    return lambda flow, state: Decision(next(lines))


def read_actions(path: Path, space: spaces.Space[Any]) -> list[Array]:
    """One action for each line that is not empty, (1,) or (1, n). Raises ConfigError naming file and line."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeError) as error:
        raise ConfigError(
            f"--actions {path}: neither `policy` nor `random`, nor a file that can be read: {error}"
        ) from error
    found = [action_of(line, f"{path}:{n}", space) for n, line in enumerate(lines, start=1) if line.strip()]
    if not found:
        raise ConfigError(f"{path}: holds no action; write one a line, as 3 or [0.5, -1]")
    return found


def action_of(text: str, where: str, space: spaces.Space[Any]) -> Array:
    """One row's action, with a leading 1, from a number or a JSON list of them."""
    import numpy as np

    try:
        given = np.asarray(json.loads(text))
    except ValueError as error:
        raise ConfigError(f"{where}: {text.strip()!r} is no action; write it as 3 or [0.5, -1]") from error
    action = given.astype(space.dtype) if given.dtype.kind in "iuf" else given
    exact = action.dtype.kind == "f" or np.array_equal(action, given)
    if not (exact and space.contains(action)):
        raise ConfigError(f"{where}: the action {text.strip()} is not in {space}, the run's actions")
    return action[None]


def _figures(dreaming: Dream) -> dict[str, Any]:
    """What it came to. ``frames_per_second``: of the model alone, in its median step."""
    from agentctl.core.dream import psnr

    moments = dreaming.moments
    real = [moment.real for moment in moments if moment.real is not None]
    figures: dict[str, Any] = {
        "steps": len(moments),
        "dreams": moments[-1].dream + 1 if moments else 0,
        "return": sum(moment.reward for moment in moments),
        "frames_per_second": round(1 / statistics.median(dreaming.seconds), 1) if moments else None,
    }
    if real:
        figures["real_return"] = sum(step.reward for step in real)
        figures["psnr"] = psnr(statistics.fmean(step.mse for step in real))
        figures["psnr_copy_last"] = psnr(statistics.fmean(step.mse_copy_last for step in real))
    return figures


def filmed(assembly: Assembly, film: list[Array], path: Path) -> Path | None:
    """Have the recorder write the video; None where there is none."""
    from agentctl.core.audience import Audience
    from agentctl.core.run import Evaluation, Run
    from agentctl.core.runner import announced

    run, shown = Run(path.parent, assembly.composition.resolved(), {}, quiet=True), Evaluation(0, [], [], [])
    with announced(run, assembly.composition):
        for observer in Audience(run, assembly.composition.registry).who_see("frames"):
            observer.frames(film, shown)
    if shown.video is None:
        return None
    shown.video.replace(path)
    with suppress(OSError):
        shown.video.parent.rmdir()
    return path


def _print(figures: dict[str, Any]) -> None:
    if not figures["steps"]:
        print_text("nothing was dreamt")
        return
    steps, dreams = figures["steps"], figures["dreams"]
    print_text(f"{steps:,} steps in {dreams} dream{'s'[: dreams > 1]}, imagined return {figures['return']:.2f}")
    print_text(f"{figures['frames_per_second']:,} frames a second, the model alone")
    if "psnr" in figures:
        model, copied = (_decibels(figures[name]) for name in ("psnr", "psnr_copy_last"))
        text = f"beside the real game: return {figures['real_return']:.2f}, pictures {model}"
        print_text(f"{text}; the last picture before the dream {copied}")
    print_text(f"video: {figures['video'] or 'none: the recorder is off, or lacks game-agentctl[video]'}")
    print_text(f"each step: {figures['moments']}")


def _decibels(value: float | None) -> str:
    return "the same" if value is None else f"{value:.1f} dB"
