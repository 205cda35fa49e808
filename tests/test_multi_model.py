"""One transformer for several games: told which, it foresees each; and what it learnt there begins another run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from running import loop_of
from token_worlds import ACTIONS, PLACES, batch_of, dots, revived, setup

from agentctl.core.checkpoint import write_checkpoint
from agentctl.core.errors import ConfigError
from agentctl.core.protocols import Setup
from agentctl.core.types import Batch
from agentctl.games.multi.game import EXAMPLE
from agentctl.world_models.token_transformer import TokenTransformer

SMALL = {"layers": 1, "dim": 32, "heads": 2, "lr": 3e-3, "threads": 1, "precision": "fp32", "temperature": 0.0,
         "history": 1, "causal": False, "decoding": "parallel"}  # fmt: skip


def of_games(games: int) -> Setup:
    given = setup()
    return given.after(spaces.Dict({**given.space.spaces, "game": spaces.Discrete(games)}))


def model(given: Setup, **options: Any) -> TokenTransformer:
    return TokenTransformer(TokenTransformer.Config.model_validate({**SMALL, **options}), given)


def opposite(rng: np.random.Generator, rows: int = 64) -> Batch:
    """A dot on a ring: in game 0 it goes to the left, in game 1 to the right. Only the game tells."""
    game, place = rng.integers(2, size=rows), rng.integers(PLACES, size=rows)
    frames = dots(np.stack([place, (place + 2 * game - 1) % PLACES]))
    batch = batch_of(frames, rng.integers(1, ACTIONS + 1, (1, rows)), reward=game[None].astype(np.float32))
    batch.state = {**batch.state, "game": game[None]}
    return batch


def learnt(world: TokenTransformer, updates: int) -> dict[str, float]:
    rng = np.random.default_rng(0)
    for _ in range(updates):
        world.learn(opposite(rng))
    return world.loss(opposite(rng, 256)).metrics


def test_what_only_the_game_tells_is_foreseen_by_its_token_alone() -> None:
    told, untold = learnt(model(of_games(2)), 100), learnt(model(setup()), 100)
    assert told["changed_accuracy"] > 0.97 and told["reward_f1"] == 1
    assert untold["bits"] == pytest.approx(2 / PLACES, abs=0.03)  # of either neighbour: a bit, for each of two tokens


def test_each_games_figures_are_those_of_its_own_samples() -> None:
    world, batch = model(of_games(2)), opposite(np.random.default_rng(1), 50)
    learnt(world, 20)
    whole = world.loss(batch).metrics
    for game in range(2):
        mine = batch.state["game"][0] == game
        only = batch_of(np.stack([batch.state["tokens"][0], batch.next_state["tokens"]])[:, mine],
                        batch.action[:, mine], reward=batch.reward[:, mine])  # fmt: skip
        only.state = {**only.state, "game": batch.state["game"][:, mine]}
        alone = world.loss(only).metrics
        for name in ("accuracy", "copy_accuracy", "changed_accuracy", "bits"):
            assert whole[f"game_{game}/{name}"] == pytest.approx(alone[name], rel=1e-4)


def test_imagining_asks_which_game_it_is() -> None:
    world = model(of_games(2))
    learnt(world, 100)
    frames = dots(np.array([[3, 3]]))[0]
    state = {"tokens": frames, "game": np.array([0, 1])}
    belief = world.observe(world.initial(2), state, None, np.ones(2, bool))
    ahead = world.imagine(belief.carry, state, np.ones(2, int)).state
    assert ahead["tokens"][:, 0].argmax(1).tolist() == [2, 4] and ahead["game"].tolist() == [0, 1]


def test_without_games_the_network_is_as_it_always_was() -> None:
    """The names of its weights: old checkpoints load."""
    one, several = (set(model(given)._fit.net.state_dict()) for given in (setup(), of_games(2)))
    assert several - one == {"game.weight"} and not one - several


def test_a_replay_that_drops_the_game_is_told() -> None:
    batch = opposite(np.random.default_rng(0))
    batch.state = {"tokens": batch.state["tokens"]}
    with pytest.raises(ValueError, match=r"no 'game': name it in replay\.keep"):
        model(of_games(2)).learn(batch)


def saved(world: TokenTransformer, folder: Path) -> Path:
    write_checkpoint(folder / "checkpoints", 0, {"world_model": revived(world.save())}, keep=1)
    return folder


def test_a_run_begins_with_what_another_had_learnt(tmp_path: Path) -> None:
    world = model(of_games(2))
    before = learnt(world, 100)
    run = saved(world, tmp_path)
    begun = model(of_games(2), **{"from": str(run)})
    assert begun.loss(opposite(np.random.default_rng(5), 256)).metrics["changed_accuracy"] > 0.97 < before["accuracy"]
    third = model(of_games(3), **{"from": str(run)})._fit.net.game.weight
    mean = world._fit.net.game.weight.mean(0)
    assert all(torch.allclose(row, mean) for row in third) and len(third) == 3
    twin = model(of_games(2))
    twin.load(revived(begun.save()))
    rng, again = np.random.default_rng(2), np.random.default_rng(2)
    for _ in range(3):
        assert begun.learn(opposite(rng)) == twin.learn(opposite(again))


def test_a_model_of_other_sizes_is_refused(tmp_path: Path) -> None:
    run = saved(model(of_games(2)), tmp_path / "one")
    with pytest.raises(ValueError, match=r"action\.weight \(3, 32\) \(here \(3, 16\)\).* the same options"):
        model(of_games(2), dim=16, **{"from": str(run)})
    with pytest.raises(ValueError, match=r"game\.weight \(2, 32\) \(here none\)"):
        model(setup(), **{"from": str(run)})
    write_checkpoint(tmp_path / "none" / "checkpoints", 0, {}, keep=1)
    with pytest.raises(ValueError, match="holds no transformer"):
        model(setup(), **{"from": str(tmp_path / "none")})


def test_a_run_of_two_games_is_gone_on_with_in_a_third(tmp_path: Path) -> None:
    """End to end: the tokenizer comes along, and a tokenizer of another size is told."""
    eyes = {"frozen_after": 2, "codes": 16, "dim": 4, "width": 8}
    first = {
        "game": {"name": "multi", "games": EXAMPLE, "batch": 4},
        "world_model": {"name": "token_transformer", **SMALL, "tokenizer": eyes},
        "policy": "random",
        "replay": {"name": "uniform", "capacity": 100, "warmup": 20, "every": 4, "batch_size": 8},
        "run": {"steps": 60, "cycle_steps": 60},
        "evaluation": {"episodes": 2, "max_steps": 5},
    }
    one = loop_of(first, tmp_path / "one")
    one.train()
    taken = {**first["world_model"], "from": str(tmp_path / "one"), "tokenizer": {**eyes, "frozen_after": 0}}
    second = {**first, "game": {**first["game"], "games": EXAMPLE[1:]}, "world_model": taken}
    learner, begun = (loop.assembly.pipeline.world_model for loop in (one, loop_of(second, tmp_path / "two")))
    there, here = learner.save().arrays, begun.save().arrays
    same = [name for name in here if name.startswith(("net/", "tokenizer/tokenizer")) and name != "net/game.weight"]
    assert len(same) > 10 and all(np.array_equal(here[name], there[name]) for name in same)
    with pytest.raises(ConfigError, match=r"codes 16 \(here 32\)"):
        loop_of({**second, "world_model": {**taken, "tokenizer": {**eyes, "codes": 32}}})
