"""`agentctl record` and `agentctl replay`: games on disk, and whether a run still plays and scores them the same."""

from __future__ import annotations

import statistics
import sys
from contextlib import closing
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from agentctl.core.commands.options import Game, Json, Off, Plug, Set, find_config, switches
from agentctl.core.commands.output import print_json, print_table, print_text
from agentctl.core.errors import AgentctlError, ConfigError

if TYPE_CHECKING:
    from agentctl.core.assembly import Assembly
    from agentctl.core.playback import Comparison
    from agentctl.core.recording import Recorder, Recording
    from agentctl.core.tape import Recorded

MOST_SHOWN = 10
HUMAN = "human"
STOPPING = b"stopping: what was recorded is kept; once more stops at once\n"


class FailOn(StrEnum):
    """What makes `agentctl replay` end with 1."""

    diff = "diff"


@dataclass(slots=True)
class Stop:
    """What Ctrl-C sets."""

    stop_asked: bool = False

    def ask_to_stop(self) -> None:
        self.stop_asked = True


def record(
    game: Game,
    agent: Annotated[
        str | None,
        typer.Option(
            metavar="RUN|NAME|expert", help="who plays: a run's folder, a policy (default: random), an expert"
        ),
    ] = None,
    human: Annotated[bool, typer.Option("--human", help="you play, by keyboard, in a window")] = False,
    fps: Annotated[
        float | None, typer.Option(min=0.1, help="with --human: steps a second (default: the game's)")
    ] = None,
    games: Annotated[int, typer.Option(min=1, help="whole games to record")] = 10,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="the recording's folder (default: recordings/<game>-<agent>)")
    ] = None,
    set_: Set = None,
    off: Off = None,
    plugin: Plug = None,
    json_: Json = False,
) -> None:
    """Record whole games as a Minari dataset: observations, actions, rewards, and how they came about."""
    from agentctl.core.assembly import blamed

    who = _player(agent, human, fps)
    assembly = _assembled(find_config(game), who, games, (set_ or [], off or [], plugin or []))
    folder = out or Path("recordings") / _name(assembly, who)
    stop = Stop()
    with blamed(assembly.composition):
        if human:
            done = _record_person(assembly, folder, games, fps, stop)
        else:
            done = _record(assembly, who, folder, games, stop)
    summary = {"recording": str(folder), "agent": who, **asdict(done), **_statistics(done.returns)}
    if json_:
        print_json({**summary, "stopped": stop.stop_asked})
    elif done.returns:
        text = f"{len(done.returns)} games, {done.steps:,} steps, return {summary['return_mean']:.2f}"
        print_text(f"{text} +- {summary['return_std']:.2f}: {folder}")
    else:
        print_text(f"no game was played to its end: {folder}")
    if stop.stop_asked:
        raise typer.Exit(130)


def replay(
    recording: Annotated[Path, typer.Argument(metavar="REC", help="a recording's folder")],
    against: Annotated[
        Path, typer.Option(metavar="GAME.yaml|RUN", help="what to show it to: a run's YAML, or a run's folder")
    ],
    fail_on: Annotated[FailOn | None, typer.Option(help="diff: end with 1 when anything differs or is damaged")] = None,
    set_: Set = None,
    off: Off = None,
    plugin: Plug = None,
    json_: Json = False,
) -> None:
    """Show a recording to a run's perception, rewards and policy, and print where they decide or score otherwise."""
    from agentctl.core.assembly import blamed
    from agentctl.core.playback import compare
    from agentctl.core.recording import Recording

    found = Recording(recording)
    assembly = _shown_to(against, set_ or [], off or [], plugin)
    with blamed(assembly.composition):
        done = compare(found, assembly)
    if json_:
        damaged = {str(number): why for number, why in found.damaged.items()}
        print_json({**asdict(done), "unknown": sorted(done.unknown), "damaged": damaged})
    else:
        _print_comparison(found, done)
    if fail_on is FailOn.diff and (done.differences or found.damaged):
        raise typer.Exit(1)


def _player(agent: str | None, human: bool, fps: float | None) -> str:
    """Who plays. Raises ConfigError for options that contradict each other."""
    if human and agent is not None:
        raise ConfigError(f"--human and --agent {agent}: only one of them can play; leave one out")
    if fps is not None and not human:
        raise ConfigError(
            "--fps is the speed of a person's game; add --human, or leave it out: agents play at full speed"
        )
    return HUMAN if human else agent or "random"


def _assembled(game: Path, who: str, games: int, words: tuple[list[str], list[str], list[str]]) -> Assembly:
    from agentctl.core.performer import performer, unmanned

    overrides, off, plugins = words
    if who == HUMAN:
        return unmanned(game, overrides, off, switches(plugins))
    return performer(game, who, games, overrides, off, switches(plugins))


def _record(assembly: Assembly, agent: str, folder: Path, games: int, stop: Stop) -> Recorded:
    from agentctl.core.evaluate import Player
    from agentctl.core.runner import stopping
    from agentctl.core.tape import Tape
    from agentctl.core.tape import record as record_games

    tape, policy = Tape(assembly.game), assembly.policy
    recorder = _recorder(assembly, agent, folder)
    player = Player(assembly.pipeline, lambda flow, state: policy.act(flow.policy, state, flow.first), assembly.rewards)
    with closing(tape), stopping(stop, STOPPING):
        state = player.begin(tape.reset(_seed(assembly)), policy.initial(assembly.batch))
        return record_games(player, tape, state, recorder, games, lambda: stop.stop_asked)


def _record_person(assembly: Assembly, folder: Path, games: int, fps: float | None, stop: Stop) -> Recorded:
    """The same with a window; it opens before the folder is made, so that where there is none nothing is left."""
    from agentctl.core.evaluate import Player
    from agentctl.core.keyboard import Keyboard
    from agentctl.core.runner import stopping
    from agentctl.core.tape import Tape
    from agentctl.core.tape import record as record_games

    tape, title = Tape(assembly.game), _game(assembly)
    with closing(tape), stopping(stop, STOPPING):
        observation = tape.reset(_seed(assembly))
        with closing(Keyboard(tape, title, fps, stop)) as keyboard:
            recorder = _recorder(assembly, HUMAN, folder)
            sys.stderr.write(f"keys: {', '.join(keyboard.keys.names)}; P pauses, Escape ends\n")
            player = Player(assembly.pipeline, keyboard.act, assembly.rewards)
            state = player.begin(observation, {})
            return record_games(player, tape, state, recorder, games, keyboard.ended)


def _recorder(assembly: Assembly, agent: str, folder: Path) -> Recorder:
    from agentctl.core.recording import Recorder

    return Recorder(folder, assembly.game.observation_space, assembly.game.action_space, _about(assembly, agent))


def _seed(assembly: Assembly) -> int:
    return assembly.composition.settings.run.seed


def _game(assembly: Assembly) -> str:
    """The game's name."""
    chosen = assembly.composition.one("game")
    assert chosen is not None
    return chosen.name


def _about(assembly: Assembly, agent: str) -> dict[str, Any]:
    """What a recording tells of how it came about."""
    from agentctl.core.lock import make_lock

    lock = make_lock(assembly.composition)
    versions = {name: lock[name] for name in ("python", "packages", "plugins")}
    return {"game": _game(assembly), "agent": agent, "rows": assembly.batch, "config": lock["config"], **versions}


def _name(assembly: Assembly, agent: str) -> str:
    return f"{_game(assembly).replace('/', '-')}-{Path(agent).name}"


def _statistics(returns: list[float]) -> dict[str, float | None]:
    if not returns:
        return {"return_mean": None, "return_std": None}
    return {"return_mean": statistics.fmean(returns), "return_std": statistics.pstdev(returns)}


def _shown_to(against: Path, overrides: list[str], off: list[str], plugin: list[str] | None) -> Assembly:
    from agentctl.core.assembly import assemble
    from agentctl.core.checkpoint import latest_checkpoint
    from agentctl.core.config import compose
    from agentctl.core.folder import composition_of
    from agentctl.core.runner import restore

    if not against.is_dir():
        return assemble(compose(find_config(against), overrides, off, switches(plugin)).without("replay"))
    if off:
        raise AgentctlError(f"--off {off[0]}: a run's folder keeps its stages; give its config.yaml to change them")
    assembly = assemble(composition_of(against, switches(plugin), tuple(overrides)).without("replay"))
    restore(assembly, latest_checkpoint(against))
    return assembly


def _print_comparison(found: Recording, done: Comparison) -> None:
    for number, why in found.damaged.items():
        print_text(f"episode {number} is damaged and left out: {why}")
    for name in sorted(done.unknown):
        print_text(f"{name}: only one of the two scores it")
    kinds = sorted({difference.what for difference in done.differences})
    if not kinds:
        print_text(f"the same in all {done.steps:,} steps of {len(found.lengths)} episodes")
        return
    print_table(["what", "steps that differ", "of"], [[k, f"{done.count(k):,}", f"{done.steps:,}"] for k in kinds])
    shown = done.differences[:MOST_SHOWN]
    rows = [[str(d.episode), str(d.step), d.what, _brief(d.recorded), _brief(d.now)] for d in shown]
    print_table(["episode", "step", "what", "recorded", "now"], rows)
    if len(done.differences) > MOST_SHOWN:
        print_text(f"... and {len(done.differences) - MOST_SHOWN:,} more; --json lists all")


def _brief(value: Any) -> str:
    """A value in a table's cell."""
    return f"{value:.6g}" if isinstance(value, float) else str(value)
