"""Gymnasium environments as games, games as Gymnasium environments, and the two perceptions that fit both."""

from collections.abc import Iterator
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.utils.env_checker import check_env

from agentctl.core.errors import NotReadyError
from agentctl.core.gym_env import GameEnv, make
from agentctl.core.protocols import Game, Perception, Setup
from agentctl.core.types import Array, Arrays
from agentctl.games.gym.game import GymGame
from agentctl.plugins.perception.select import Select

TAXI = max(env_id for env_id in gymnasium.registry if env_id.startswith("Taxi-v"))


def build(env_id: str, batch: int = 1, **options: Any) -> GymGame:
    return GymGame(GymGame.Config(id=env_id, options=options), Setup(batch=batch))


class Clockwork(gymnasium.Env[Any, int]):
    """Counts its steps in every part of its observation; dies at ``life`` steps."""

    metadata = {"render_modes": ["rgb_array"]}

    def __init__(self, life: int = 5, render_mode: str | None = None) -> None:
        self.life, self.render_mode = life, render_mode
        self.observation_space = spaces.Dict(
            {
                "picture": spaces.Box(0, 255, (2, 3, 3), np.uint8),
                "clock": spaces.Box(0.0, np.inf, (2, 2), np.float64),
                "hand": spaces.Discrete(100),
            }
        )
        self.action_space = spaces.Discrete(3)

    def seen(self) -> tuple[dict[str, Any], dict[str, Any]]:
        clock = {
            "picture": np.full((2, 3, 3), self.t, np.uint8),
            "clock": np.full((2, 2), float(self.t)),
            "hand": self.t,
        }
        return clock, {"action_mask": np.array([1, self.t % 2, 0], np.int8)}

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.t = 0
        return self.seen()

    def step(self, action: int) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.t += 1
        seen, info = self.seen()
        return seen, float(action), self.t >= self.life, False, info

    def render(self) -> Any:
        return np.full((4, 5, 3), self.t, np.uint8)


class Screen(gymnasium.Env[Array, int]):
    """Shows a gray picture and cannot draw anything else."""

    observation_space = spaces.Box(0, 255, (6, 7), np.uint8)
    action_space = spaces.Discrete(2)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Array, dict[str, Any]]:
        super().reset(seed=seed)
        return self.np_random.integers(0, 256, (6, 7), np.uint8), {}

    def step(self, action: int) -> tuple[Array, float, bool, bool, dict[str, Any]]:
        return self.np_random.integers(0, 256, (6, 7), np.uint8), 0.0, False, False, {}


@pytest.fixture(autouse=True)
def registered() -> Iterator[None]:
    gymnasium.register("Clockwork-v0", Clockwork)
    gymnasium.register("Screen-v0", Screen, max_episode_steps=3)
    yield
    del gymnasium.registry["Clockwork-v0"], gymnasium.registry["Screen-v0"]


def test_every_transition_is_one_of_cartpole_itself() -> None:
    game, physics = build("CartPole-v1", 3), gymnasium.make("CartPole-v1").unwrapped
    rng = np.random.default_rng(0)
    seen, ended = game.reset(1)["vector"], 0
    assert isinstance(game, Game) and seen.dtype == np.float32 and len(np.unique(seen, axis=0)) == 3
    for _ in range(100):
        action = rng.integers(0, 2, 3)
        step = game.step(action)
        after = step.observation["vector"].copy()
        if step.final is not None:
            after[step.final.rows] = step.final.arrays["vector"]
            assert np.abs(step.observation["vector"][step.final.rows]).max() <= 0.05  # a new episode's first
        for row in range(3):
            physics.reset()
            physics.state = seen[row].astype(np.float64)
            expected, _, terminated, _, _ = physics.step(int(action[row]))
            assert np.allclose(after[row], expected, atol=1e-6) and terminated == step.ended[row]
        ended += int(step.ended.sum())
        assert step.reward.dtype == np.float32 and not step.cut.any()
        seen = step.observation["vector"]
    assert ended > 5


def test_a_seed_fixes_the_game() -> None:
    one, two = build("CartPole-v1", 2), build("CartPole-v1", 2)
    assert np.array_equal(one.reset(3)["vector"], two.reset(3)["vector"])
    for action in np.random.default_rng(0).integers(0, 2, (60, 2)):
        assert np.array_equal(one.step(action).observation["vector"], two.step(action).observation["vector"])
    assert not np.array_equal(one.reset(3)["vector"], two.reset(4)["vector"])


def test_the_time_limit_cuts_and_does_not_end() -> None:
    game = build("CartPole-v1", max_episode_steps=4)
    game.reset(0)
    steps = [game.step(np.array([t % 2])) for t in range(8)]
    assert [bool(step.cut[0]) for step in steps] == [False, False, False, True] * 2
    assert not any(step.ended.any() for step in steps)
    both = build("Clockwork-v0", life=3, max_episode_steps=3)
    both.reset(0)
    last = [both.step(np.array([0])) for _ in range(3)][-1]
    assert last.ended[0] and not last.cut[0]  # what is over by the rules has no future, whatever the clock says


def test_taxi_masks_are_the_legal_actions_of_the_state_shown() -> None:
    game, rules = build(TAXI, 2, max_episode_steps=5), gymnasium.make(TAXI).unwrapped
    observation = game.reset(0)
    rng = np.random.default_rng(0)

    def check(shown: Arrays) -> None:
        legal = np.stack([rules.action_mask(index) for index in shown["index"]])
        assert np.array_equal(shown["action_mask"], legal) and not legal.all()

    check(observation)
    for _ in range(20):
        step = game.step(rng.integers(0, 6, 2))
        check(step.observation)
        if step.final is not None:
            check(step.final.arrays)
    assert game.observation_space["action_mask"].shape == (6,)


def test_a_dict_keeps_its_names_and_final_holds_the_old_episode() -> None:
    game = build("Clockwork-v0", 2, life=3)
    game.reset(0)
    steps = [game.step(np.array([1, 2])) for _ in range(3)]
    last = steps[-1]
    assert {name: part.dtype for name, part in last.observation.items()} == {
        "picture": np.uint8,
        "clock": np.float32,
        "hand": np.int64,
        "action_mask": np.int8,
    }
    assert last.final is not None and last.final.rows.tolist() == [0, 1] and last.ended.all()
    for t, arrays in [(1, steps[0].observation), (3, last.final.arrays), (0, last.observation)]:
        assert arrays["picture"].shape == (2, 2, 3, 3) and (arrays["picture"] == t).all()
        assert arrays["clock"].shape == (2, 2, 2) and (arrays["clock"] == t).all() and (arrays["hand"] == t).all()
        assert arrays["action_mask"].tolist() == [[1, t % 2, 0]] * 2
        assert all(game.observation_space[name].contains(array[0]) for name, array in arrays.items() if name != "hand")
    assert last.reward.tolist() == [1.0, 2.0] and (game.frame() == 0).all()


@pytest.mark.parametrize(
    ("env_id", "name", "shape"),
    [("FrozenLake-v1", "index", ()), ("Blackjack-v1", "vector", (45,)), ("Screen-v0", "pixels", (1, 6, 7))],
)
def test_observations_are_named_by_what_they_are(env_id: str, name: str, shape: tuple[int, ...]) -> None:
    game = build(env_id, 2)
    assert {key: part.shape for key, part in game.observation_space.items()} == {name: shape}
    assert game.reset(0)[name].shape == (2, *shape)


def test_mistakes_name_the_value_and_the_remedy() -> None:
    for wrong, hint in [("CartPol-v1", "'CartPole-v1'"), ("CartPole", "'CartPole-v1'"), ("no_such:X-v0", "'no_such'")]:
        with pytest.raises(ValueError, match=hint):
            build(wrong)
    with pytest.raises(ValueError, match="gravity"):
        build("CartPole-v1", gravity=3)
    game = build("Screen-v0")
    game.reset(0)
    with pytest.raises(NotReadyError, match="Screen-v0"):
        game.frame()


def env_of(env_id: str, render_mode: str | None = "rgb_array", **options: Any) -> GameEnv:
    return GameEnv(build(env_id, **options), render_mode)


@pytest.mark.parametrize("env_id", ["Clockwork-v0", "CartPole-v1", TAXI])
def test_the_single_form_passes_gymnasiums_checker(env_id: str) -> None:
    check_env(env_of(env_id), skip_render_check=env_id != "Clockwork-v0")


def test_the_single_form_shows_the_last_observation_and_then_the_first() -> None:
    env = env_of("Clockwork-v0", life=3)
    first, _ = env.reset(seed=1)
    assert set(first) == {"picture", "clock", "hand", "action_mask"} and (first["clock"] == 0).all()
    outcomes = [env.step(2) for _ in range(3)]
    assert [(seen["hand"], reward, ended, cut) for seen, reward, ended, cut, _ in outcomes] == [
        (1, 2.0, False, False),
        (2, 2.0, False, False),
        (3, 2.0, True, False),
    ]
    assert (env.render() == 0).all() and env.reset()[0]["hand"] == 0
    assert env.step(0)[0]["hand"] == 1 and env.reset()[0]["hand"] == 0  # a reset in the middle starts anew
    env.close()


def test_an_observation_of_one_array_comes_bare() -> None:
    env = env_of("CartPole-v1")
    assert isinstance(env.observation_space, spaces.Box)
    assert env.observation_space.contains(env.reset(seed=0)[0])
    assert env_of("CartPole-v1", render_mode=None).render() is None


def test_a_seeded_reset_starts_anew_even_after_the_end() -> None:
    env = env_of("CartPole-v1", max_episode_steps=2)
    first, _ = env.reset(seed=1)
    assert [env.step(0)[3] for _ in range(2)] == [False, True]
    assert np.array_equal(env.reset(seed=1)[0], first)


def test_the_single_form_of_atari_goes_on_after_a_lost_life() -> None:
    pytest.importorskip("ale_py")
    from agentctl.games.atari.game import AtariGame

    config = AtariGame.Config(rom="breakout", life_loss="end", stack=1)
    env = GameEnv(AtariGame(config, Setup(batch=1)), "rgb_array")
    check_env(env)
    env.reset(seed=0)
    rng, lives = np.random.default_rng(0), 0
    while True:
        seen, _, terminated, truncated, info = env.step(rng.integers(0, 4))
        assert not truncated
        if info["over"]:
            break
        if terminated:
            lives += 1
            assert np.array_equal(env.reset()[0], seen)
    assert terminated and lives == 4 and not np.array_equal(env.reset()[0], seen)
    assert env.render() is not None and env.render().shape == (210, 160, 3)


@pytest.mark.parametrize(
    ("name", "options"),
    [("gym", {"id": "CartPole-v1"}), ("atari/pong", {"stack": 4, "threads": 1, "height": 42, "width": 42})],
)
def test_stable_baselines_trains_on_it_unchanged(name: str, options: dict[str, Any]) -> None:
    sb3 = pytest.importorskip("stable_baselines3")
    if name.startswith("atari"):
        pytest.importorskip("ale_py")
    policy = "CnnPolicy" if name.startswith("atari") else "MlpPolicy"
    env = make(name, **options)
    agent = sb3.PPO(policy, env, n_steps=64, batch_size=64, n_epochs=1, device="cpu", seed=0)
    before = [weight.detach().clone() for weight in agent.policy.parameters()]
    agent.learn(256)
    assert agent.num_timesteps == 256
    assert any((old != new).any() for old, new in zip(before, agent.policy.parameters(), strict=True))
    env.close()


def test_make_finds_registered_games_and_refuses_wrong_options() -> None:
    env = make("gym", id="CartPole-v1", options={"max_episode_steps": 7}, render_mode="rgb_array")
    check_env(env, skip_render_check=True)
    env.reset(seed=0)
    assert [env.step(t % 2)[3] for t in range(7)] == [False] * 6 + [True]
    with pytest.raises(Exception, match="idd"):
        make("gym", idd="CartPole-v1")


PIXELS, VECTOR = spaces.Box(0, 255, (4, 8, 8), np.uint8), spaces.Box(-1, 1, (5,), np.float32)
MASK, INDEX = spaces.MultiBinary(3), spaces.Discrete(4)


def select(kind: str, mask: bool = True, **given: spaces.Space[Any]) -> Select:
    return Select(Select.Config(kind=kind, mask=mask), Setup(space=spaces.Dict(given)))  # type: ignore[arg-type]


@pytest.mark.parametrize(("kind", "chosen"), [("image", "screen"), ("vector", "health")])
def test_a_selection_passes_arrays_of_its_kind_and_the_mask_uncopied(kind: str, chosen: str) -> None:
    part = select(kind, screen=PIXELS, health=VECTOR, action_mask=MASK, place=INDEX)
    observation = {"screen": np.zeros((2, 4, 8, 8), np.uint8), "health": np.zeros((2, 5), np.float32)}
    observation |= {"action_mask": np.ones((2, 3), np.int8), "place": np.zeros(2, np.int64)}
    percept = part.perceive(observation)
    assert isinstance(part, Perception) and set(percept) == set(part.space) == {chosen, "action_mask"}
    assert all(percept[name] is observation[name] for name in percept)


def test_a_selection_without_mask_leaves_it_to_another() -> None:
    assert set(select("image", mask=False, screen=PIXELS, action_mask=MASK).space) == {"screen"}


def test_an_empty_selection_says_what_there_is() -> None:
    with pytest.raises(ValueError, match="no vector.*screen"):
        select("vector", screen=PIXELS)
