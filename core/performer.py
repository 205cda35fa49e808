"""Who plays: a run's trained agent, the game's own expert, or any policy by its name, each with its whole pipeline."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from agentctl.core.assembly import Assembly, assemble
from agentctl.core.checkpoint import latest_checkpoint
from agentctl.core.config import Composition, compose
from agentctl.core.errors import ConfigError, did_you_mean
from agentctl.core.folder import composition_of
from agentctl.core.frame import is_run
from agentctl.core.plugins import Switches
from agentctl.core.runner import restore

EXPERT = "expert"
OF_THE_GAME = ("game", "reward")


def performer(
    game: Path, agent: str, rows: int, overrides: Sequence[str], off: Sequence[str], switches: Switches
) -> Assembly:
    """The parts that play ``game`` as ``agent`` would, in ``rows`` rows at most. Nothing of it learns.

    ``agent``: a run's folder or one of its checkpoints, ``expert`` (the game's own), or a policy's name. Raises
    ConfigError when there is no such agent, and as a run would when it does not fit the game.
    """
    run = Path(agent)
    if is_run(agent):
        played = _as_run(compose(game, overrides, off, switches), composition_of(run, switches))
        assembly = assemble(played, batch=_rows(played, rows))
        restore(assembly, latest_checkpoint(run))
        return assembly
    composition = compose(game, overrides, off, switches)
    name = expert_of(composition) if agent == EXPERT else agent
    known = composition.registry.components("policy")
    if name not in known:
        raise ConfigError(f"--agent {agent}: neither a run's folder nor a policy{did_you_mean(name, known)}")
    policy = json.dumps({"name": name, **(_of_the_game(composition, name) if agent == EXPERT else {})})
    played = compose(game, [*overrides, f"policy={policy}"], off, switches).without("replay")
    return assemble(played, batch=_rows(played, rows))


def unmanned(game: Path, overrides: Sequence[str], off: Sequence[str], switches: Switches) -> Assembly:
    """One row of ``game`` with its stages and rewards, for a person to play; its own policy is not built."""
    assembly = performer(game, "random", 1, overrides, off, switches)
    assembly.composition = assembly.composition.without("policy")
    return assembly


def expert_of(composition: Composition) -> str:
    """The policy that knows a game by its rules. Raises ConfigError when the game brings none."""
    chosen = composition.one("game")
    assert chosen is not None
    _, component = composition.registry.find("game", chosen.name)
    if not component.expert:
        raise ConfigError(f"{chosen.name} brings no expert; name a policy, or a run's folder, e.g. runs/my-run")
    return component.expert


def _of_the_game(composition: Composition, expert: str) -> dict[str, Any]:
    """The options that an expert shares with its game, such as a map, as the game has them."""
    chosen = composition.one("game")
    assert chosen is not None
    fields = composition.registry.load("policy", expert).Config.model_fields
    return {name: value for name, value in chosen.config.model_dump(mode="json").items() if name in fields}


def _as_run(game: Composition, run: Composition) -> Composition:
    """The run's stages and policy in the game, which keeps its own rewards."""
    games_own = tuple(part for part in game.chosen if part.kind in OF_THE_GAME)
    stages = run.without(*OF_THE_GAME, "replay").chosen
    return replace(run, settings=game.settings, chosen=games_own + stages)


def _rows(composition: Composition, most: int) -> int:
    chosen = composition.one("game")
    assert chosen is not None
    return min(most, int(chosen.section.batch))  # type: ignore[attr-defined]
