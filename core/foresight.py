"""The world models of several runs side by side: what each foresees of the same games, and dreams from one start.

All play the same real games with the same random actions. The metrics are those of each model's own ``loss``; dreams go
on from one situation with one sequence of actions, and are held against what the game really showed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from agentctl.core.assembly import blamed
from agentctl.core.config import Composition
from agentctl.core.contracts.samples import gather
from agentctl.core.dream import Awake, Screen, glimpse, mean_squared_error, opened, psnr
from agentctl.core.errors import ConfigError, NotReadyError
from agentctl.core.evaluate import MASK, random_actions
from agentctl.core.plugins import Switches
from agentctl.core.types import Array, Arrays, Decision, Metrics, Transition

ROWS = 8
WATCHED, WINDOW, BETWEEN = 160, 32, 16
"""Steps that are foreseen, in windows of so many, one every so many."""

HORIZONS = (1, 8, 32)


@dataclass(slots=True)
class Foresight:
    """What one run's world model made of it."""

    metrics: Metrics
    film: list[Array] = field(default_factory=list)  # the dream of row 0, uint8 (H, W, 3) each
    errors: list[list[float]] = field(default_factory=list)  # by step ahead: of each row that goes on, bytes squared

    def psnr(self, horizon: int) -> float | None:
        """In dB, over all rows, so many steps ahead; None where no game went on so long."""
        errors = self.errors[horizon - 1] if horizon <= len(self.errors) else []
        return psnr(float(np.mean(errors))) if errors else None


@dataclass(slots=True)
class Comparison:
    """``copied``: the foresight of the frame that dreams begin with. ``real``: what the game showed in row 0.

    Where a model shows no pictures nothing is dreamt: these are empty, and all films.
    """

    worlds: dict[str, Foresight]
    copied: Foresight
    real: list[Array]


def foresee(runs: Sequence[Path], seed: int, switches: Switches | None = None) -> Comparison:
    """Raises ConfigError unless all runs have a world model of one and the same game."""
    assemblies = {str(run): opened(run, ROWS, switches) for run in runs}
    check_same_game({name: assembly.composition for name, assembly in assemblies.items()})
    watched: dict[str, Awake] = {}
    found: dict[str, Foresight] = {}
    for name, assembly in assemblies.items():
        with blamed(assembly.composition):
            watched[name] = Awake(assembly)
            found[name] = Foresight(judged(watched[name], seed))
    comparison = Comparison(found, Foresight({}), [])
    if all(shows_pictures(awake) for awake in watched.values()):
        dream(watched, comparison, np.random.default_rng((seed, 1)))
    for awake in watched.values():
        awake.close()
    return comparison


def shows_pictures(awake: Awake) -> bool:
    try:
        Screen(awake.space, awake.world_model).show(glimpse(awake))
    except NotReadyError:
        return False
    return True


def judged(awake: Awake, seed: int) -> Metrics:
    """The mean of the model's metrics over windows of random play, from the start of new games."""
    awake.reset(seed)
    rng, steps = np.random.default_rng((seed, 0)), list[Transition]()
    for _ in range(WATCHED):
        steps.append(advance(awake, random_action(awake, rng)))
    windows = [steps[end - WINDOW : end] for end in range(WINDOW, WATCHED + 1, BETWEEN)]
    all_metrics = [awake.world_model.loss(gather(window)).metrics for window in windows]
    names = [name for name in all_metrics[0] if all(name in metrics for metrics in all_metrics)]
    return {name: float(np.nanmean([metrics[name] for metrics in all_metrics])) for name in names}


def dream(watched: dict[str, Awake], comparison: Comparison, rng: np.random.Generator) -> None:
    """Have every model imagine what the first run's game is then made to do, and note how far off it is."""
    real, *_ = watched.values()
    screens = {name: Screen(awake.space, awake.world_model) for name, awake in watched.items()}
    shows = next(iter(screens.values()))
    dreams = {name: (awake.flow.world, awake.state) for name, awake in watched.items()}
    start = [shows.show(one_row(real.state, row)) for row in range(ROWS)]
    going = np.ones(ROWS, bool)
    for _ in range(max(HORIZONS)):
        action = random_action(real, rng)
        seen = advance(real, action)
        after = stopped_states(seen)
        truth = [shows.show(one_row(after, row)) for row in range(ROWS)]
        note(comparison.copied, start, truth, going)
        comparison.real.append(truth[0])
        for name, (carry, state) in dreams.items():
            imagined = watched[name].world_model.imagine(carry, state, action)
            dreams[name] = imagined.carry, imagined.state
            pictures = [screens[name].show(one_row(imagined.state, row)) for row in range(ROWS)]
            note(comparison.worlds[name], pictures, truth, going)
        going &= ~(seen.ended | seen.cut)
        if not going[0]:
            break


def note(foresight: Foresight, pictures: list[Array], truth: list[Array], going: Array) -> None:
    """One more step ahead."""
    foresight.film.append(pictures[0])
    foresight.errors.append([mean_squared_error(pictures[row], truth[row]) for row in np.flatnonzero(going)])


def advance(awake: Awake, action: Array) -> Transition:
    """One step of the real game, as a world model learns from it."""
    step = awake.game.step(action)
    seen = awake.pipeline.advance(awake.flow, awake.state, Decision(action), step)
    awake.state = seen.next_state
    return seen


def random_action(awake: Awake, rng: np.random.Generator) -> Array:
    return random_actions(awake.action_space, awake.batch, rng, awake.state.get(MASK))


def stopped_states(seen: Transition) -> Arrays:
    """The states after a step, where an episode stopped the one in which it did."""
    after = {key: array.copy() for key, array in seen.next_state.items()}
    if seen.final is not None:
        for key, array in seen.final.arrays.items():
            after[key][seen.final.rows] = array
    return after


def one_row(state: Arrays, row: int) -> Arrays:
    return {key: array[row : row + 1] for key, array in state.items()}


def check_same_game(compositions: dict[str, Composition]) -> None:
    """Raise ConfigError naming the runs whose games differ, were they played in as many rows."""
    games = {name: game_of(composition) for name, composition in compositions.items()}
    first, *others = games
    if different := [name for name in others if games[name] != games[first]]:
        other = different[0]
        raise ConfigError(f"{first} plays {games[first]}, but {other} plays {games[other]}: compare runs of one game")


def game_of(composition: Composition) -> str:
    chosen = composition.one("game")
    assert chosen is not None
    return f"{chosen.name} {chosen.config.model_dump(mode='json')}"
