"""The toy keeps its rules, and what plays it (perception, memory, counting model, Dyna-Q) does what it says."""

import json
from collections import Counter, deque
from collections.abc import Callable

import numpy as np
import pytest
from gymnasium import spaces
from pydantic import ValidationError

from agentctl.agents.dyna_q import DynaQ
from agentctl.core.protocols import Setup
from agentctl.core.types import Array, Batch, Decision, Snapshot, Transition
from agentctl.games.toy import art
from agentctl.games.toy.game import FRAME_SCALE, MAZE, Lantern
from agentctl.games.toy.perception import Cells
from agentctl.games.toy.reward import StepCost
from agentctl.plugins.memory.last_seen import LastSeen
from agentctl.world_models.tabular import Tabular

MOVES = {0: (-1, 0), 1: (0, 1), 2: (1, 0), 3: (0, -1)}
SMALL = ("#####", "#a.b#", "##S##", "##*##")


def lantern(batch: int, **config: object) -> Lantern:
    return Lantern(Lantern.Config.model_validate(config), Setup(batch=batch))


def cells(game: Lantern) -> Cells:
    return Cells(Cells.Config(), Setup(space=game.observation_space))


def revived(snapshot: Snapshot) -> Snapshot:
    """The snapshot as a checkpoint gives it back: its data through JSON."""
    return Snapshot(
        {k: v.copy() for k, v in snapshot.arrays.items()}, json.loads(json.dumps(snapshot.data, allow_nan=False))
    )


# the game ------------------------------------------------------------------------------------------------------------


class OneRow:
    """The rules again, one row, in plain Python: the reference that the vectorised game is held against."""

    def __init__(self, limit: int, right_door: int) -> None:
        self.limit = limit
        self.restart(right_door)

    def restart(self, right_door: int) -> None:
        self.place = next((r, line.index("S")) for r, line in enumerate(MAZE) if "S" in line)
        self.time, self.right_door = 0, right_door

    def step(self, action: int) -> tuple[float, bool, bool]:
        row, column = (here + move for here, move in zip(self.place, MOVES[action], strict=True))
        if MAZE[row][column] not in "#*":
            self.place = row, column
        self.time += 1
        door = " ab".find(MAZE[self.place[0]][self.place[1]])
        if door > 0:
            return (1.0 if door == self.right_door else -1.0), True, False
        return 0.0, False, self.time >= self.limit

    def picture(self) -> Array:
        drawings = {"#": art.WALL, "a": art.DOORS[0], "b": art.DOORS[1]}
        drawings["*"] = art.LANTERN[self.right_door if self.time == 0 else 0]
        canvas = np.zeros((len(MAZE) * art.TILE, len(MAZE[0]) * art.TILE, 3), np.uint8)
        for r, line in enumerate(MAZE):
            for c, letter in enumerate(line):
                drawing = art.AGENT if (r, c) == self.place else drawings.get(letter, art.FLOOR)
                for y in range(art.TILE):
                    for x in range(art.TILE):
                        canvas[r * art.TILE + y, c * art.TILE + x] = art.PALETTE[drawing[y][x]]
        return canvas


def test_the_game_plays_by_the_rules_of_a_plain_reference() -> None:
    game, rng, outcomes = lantern(6, limit=40), np.random.default_rng(0), Counter()
    pictures = game.reset(7)["picture"]
    rows = [OneRow(40, int(door)) for door in game.save().arrays["right_door"]]
    to_door = {1: "uuuuuuulluullll", 2: "uuuuuuurruurrrr"}  # a random walk alone would hardly ever end
    plans = [deque[int]() for _ in rows]
    for step in range(600):
        if step % 50 == 0:
            assert all((row.picture() == picture).all() for row, picture in zip(rows, pictures, strict=True))
        for plan, row in zip(plans, rows, strict=True):
            if row.time == 0:
                walk = to_door[int(rng.integers(1, 3))] if rng.random() < 0.5 else ""
                plan.clear()
                plan.extend("urdl".index(letter) for letter in walk)
        action = np.array([plan.popleft() if plan else rng.integers(4) for plan in plans])
        said = game.step(action)
        expected = [row.step(int(a)) for row, a in zip(rows, action, strict=True)]
        assert list(zip(said.reward, said.ended, said.cut, strict=True)) == expected
        outcomes.update(expected)
        finished = [i for i, (_, ended, cut) in enumerate(expected) if ended or cut]
        assert (said.final.rows.tolist() if said.final else []) == finished
        for place, i in enumerate(finished):
            assert (said.final.arrays["picture"][place] == rows[i].picture()).all()
            rows[i].restart(int(game.save().arrays["right_door"][i]))
        pictures = said.observation["picture"]
    assert min(outcomes[won, True, False] for won in (1.0, -1.0)) > 20 and outcomes[0.0, False, True] > 20


def test_the_same_seed_gives_the_same_game_and_doors_are_fair() -> None:
    one, two, other = lantern(2000), lantern(2000), lantern(2000)
    assert (one.reset(3)["picture"] == two.reset(3)["picture"]).all()
    other.reset(4)
    doors = one.save().arrays["right_door"]
    assert (doors != other.save().arrays["right_door"]).any()
    assert abs((doors == 1).mean() - 0.5) < 4 * 0.5 / np.sqrt(2000)


def test_a_loaded_game_continues_to_the_bit() -> None:
    game, rng = lantern(5, limit=9, maze=SMALL), np.random.default_rng(1)
    game.reset(0)
    for action in rng.integers(0, 4, (20, 5)):
        game.step(action)
    twin = lantern(5, limit=9, maze=SMALL)
    twin.load(revived(game.save()))
    for action in rng.integers(0, 4, (50, 5)):
        ours, theirs = game.step(action), twin.step(action)
        for name in ("reward", "ended", "cut"):
            assert (getattr(ours, name) == getattr(theirs, name)).all()
        assert (ours.observation["picture"] == theirs.observation["picture"]).all()


def test_only_the_first_picture_tells_the_doors_apart() -> None:
    game = lantern(2)
    game.reset(0)
    state = game.save()
    state.arrays["right_door"][:] = [1, 2]
    game.load(state)
    amber, blue = game._observe()["picture"]
    assert (amber != blue).any()
    for action in np.random.default_rng(0).integers(0, 4, 90):
        amber, blue = game.step(np.array([action, action])).observation["picture"]
        assert (amber == blue).all()


def way_lengths() -> dict[str, int]:
    """Shortest ways from the start to each door, by breadth-first search on the map."""
    start = next((r, line.index("S")) for r, line in enumerate(MAZE) if "S" in line)
    frontier, distance, doors = deque([start]), {start: 0}, {}
    while frontier:
        here = frontier.popleft()
        letter = MAZE[here[0]][here[1]]
        if letter in "ab":
            doors[letter] = distance[here]
            continue
        for move in MOVES.values():
            there = here[0] + move[0], here[1] + move[1]
            if MAZE[there[0]][there[1]] not in "#*" and there not in distance:
                distance[there] = distance[here] + 1
                frontier.append(there)
    return doors


def moves_of(game: Lantern) -> tuple[Array, Array, Array, Array]:
    """The true MDP, read from the game itself: next cell, reward and end for every (door, cell, action)."""
    open_cells = np.flatnonzero(np.isin(np.array([list(line) for line in MAZE]).ravel(), [".", "S"]))
    door, cell, action = (axis.ravel() for axis in np.meshgrid([1, 2], open_cells, range(4), indexing="ij"))
    game.reset(0)
    state = game.save()
    state.arrays.update(cell=cell, right_door=door, time=np.ones_like(cell))
    game.load(state)
    step = game.step(action)
    return np.stack([door, cell, action]), game.save().arrays["cell"], step.reward, step.ended


def test_the_optimum_is_one_less_the_shortest_way() -> None:
    lengths = way_lengths()
    assert lengths == {"a": 15, "b": 15}
    pairs, after, reward, ended = moves_of(lantern(2 * sum(line.count(".") + line.count("S") for line in MAZE) * 4))
    q = np.zeros((3, len("".join(MAZE)), 4))
    for _ in range(100):
        q[tuple(pairs)] = reward - 0.01 + np.where(ended, 0, q[pairs[0], after].max(axis=1))
    start = "".join(MAZE).index("S")
    assert q[1, start].max() == pytest.approx(1 - 0.01 * lengths["a"])
    assert q[2, start].max() == pytest.approx(1 - 0.01 * lengths["b"])


def test_the_frame_is_row_0_enlarged() -> None:
    game = lantern(3)
    picture = game.reset(0)["picture"][0]
    frame = game.frame()
    assert frame.dtype == np.uint8 and frame.shape == (240, 300, 3)
    assert (frame[::FRAME_SCALE, ::FRAME_SCALE] == picture).all()
    assert (frame[FRAME_SCALE - 1 :: FRAME_SCALE, FRAME_SCALE - 1 :: FRAME_SCALE] == picture).all()


@pytest.mark.parametrize(
    ("maze", "complaint"),
    [
        (("#####", "#a.b", "##S##", "##*##"), "equally long"),
        (("#####", "#a?b#", "##S##", "##*##"), r"\['\?'\]"),
        (("#####", "#a.b#", "##.##", "##*##"), "'S': 0"),
        (("######", "#a#.b#", "##.S##", "###*##"), r"no way leads from `S` to door \['a'\]"),
    ],
)
def test_a_maze_that_cannot_be_won_is_refused(maze: tuple[str, ...], complaint: str) -> None:
    with pytest.raises(ValidationError, match=complaint):
        Lantern.Config(maze=maze)


def test_every_step_costs_one() -> None:
    seen = Transition(
        {}, np.zeros(2, bool), {}, Decision(np.zeros(2)), np.ones(2, np.float32), np.zeros(2, bool), np.zeros(2, bool),
        np.zeros(2, bool), {}, None,
    )  # fmt: skip
    assert StepCost(StepCost.Config(), Setup()).score(seen)["step_cost"].tolist() == [-1, -1]


# perception ----------------------------------------------------------------------------------------------------------


def test_perception_reads_every_picture_right() -> None:
    """Wherever the agent can stand (doors included), whatever the lantern shows."""
    where = np.flatnonzero([letter in ".Sab" for letter in "".join(MAZE)])
    cell, shown = (axis.ravel() for axis in np.meshgrid(where, [0, 1, 2], indexing="ij"))
    game = lantern(len(cell))
    game.reset(0)
    state = game.save()
    state.arrays.update(cell=cell, right_door=np.maximum(shown, 1), time=(shown == 0).astype(np.int64))
    game.load(state)
    eyes = cells(game)
    percept = eyes.perceive(game._observe())
    assert (percept["cell"] == cell).all() and (percept["lantern"] == shown).all()
    assert all(eyes.space[name].contains(value) for name in percept for value in percept[name])


def test_perception_says_what_it_cannot_read() -> None:
    pixels = spaces.Dict({"pixels": spaces.Box(0, 255, (84, 84), np.uint8)})
    with pytest.raises(ValueError, match="toy_cells reads the `picture` of toy/lantern and is given .*pixels"):
        Cells(Cells.Config(), Setup(space=pixels))


# memory --------------------------------------------------------------------------------------------------------------

SEEN = spaces.Dict({"lamp": spaces.Discrete(3), "foe": spaces.Box(1, 9, (2,), np.float32), "name": spaces.Text(3)})


def last_seen(batch: int, *fields: str) -> LastSeen:
    return LastSeen(LastSeen.Config(fields=fields), Setup(space=SEEN, batch=batch))


def test_memory_recalls_what_a_plain_list_search_finds() -> None:
    rng, memory = np.random.default_rng(0), last_seen(4, "lamp", "foe")
    history: list[list[tuple[int, Array]]] = [[] for _ in range(4)]
    for _ in range(300):
        for row in range(4):
            if rng.random() < 0.1:
                history[row] = []
        time = np.array([len(seen) for seen in history])
        lamp = rng.integers(0, 3, 4) * (rng.random(4) < 0.4)
        foe = (rng.random((4, 2)) * (rng.random((4, 1)) < 0.3)).astype(np.float32)
        recalled = memory.recall({"lamp": lamp, "foe": foe}, time)
        for row, seen in enumerate(history):
            assert recalled["recalled_lamp"][row] == next((lamp for lamp, _ in reversed(seen) if lamp), 0)
            expected = next((foe for _, foe in reversed(seen) if foe.any()), np.zeros(2))
            assert (recalled["recalled_foe"][row] == expected).all()
        memory.write({"lamp": lamp, "foe": foe}, time)
        for row, seen in enumerate(history):
            seen.append((int(lamp[row]), foe[row]))


def test_recalling_changes_nothing_and_fits_its_space() -> None:
    memory = last_seen(2, "lamp", "foe")
    memory.write({"lamp": np.array([2, 1]), "foe": np.ones((2, 2), np.float32)}, np.zeros(2, np.int64))
    first = memory.recall({}, np.array([0, 5]))
    again = memory.recall({}, np.array([5, 5]))
    assert first["recalled_lamp"].tolist() == [0, 1] and again["recalled_lamp"].tolist() == [2, 1]
    assert all(memory.space[name].contains(value[row]) for name, value in first.items() for row in (0, 1))


def test_a_loaded_memory_remembers() -> None:
    memory, twin = last_seen(2, "lamp"), last_seen(2, "lamp")
    memory.write({"lamp": np.array([2, 0])}, np.zeros(2, np.int64))
    twin.load(revived(memory.save()))
    assert twin.recall({}, np.ones(2, np.int64))["recalled_lamp"].tolist() == [2, 0]


@pytest.mark.parametrize(
    ("field", "complaint"), [("lump", r"\['lump'\]; choose among \['foe', 'lamp', 'name'\]"), ("name", "numbers")]
)
def test_memory_refuses_what_it_cannot_hold(field: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        last_seen(1, field)


# the counting world model --------------------------------------------------------------------------------------------

MDP = Callable[[int, int, np.random.Generator], tuple[int, float, bool]]
"""A tiny world: (state, action, chance) -> next state, reward, ended."""


def played(mdp: MDP, states: int, steps: int, rows: int, rng: np.random.Generator, limit: int = 10**9) -> Batch:
    """A batch of random play, two actions; episodes start anywhere and are cut after ``limit`` steps."""
    shape = steps, rows
    state, action, reward = (
        np.zeros((steps + 1, rows), np.int64),
        rng.integers(0, 2, shape),
        np.zeros(shape, np.float32),
    )
    ended, cut, time, finals = np.zeros(shape, bool), np.zeros(shape, bool), np.zeros(rows, np.int64), []
    state[0] = rng.integers(0, states, rows)
    for t, b in np.ndindex(shape):
        time[b] += 1
        state[t + 1, b], reward[t, b], ended[t, b] = mdp(int(state[t, b]), int(action[t, b]), rng)
        cut[t, b] = not ended[t, b] and time[b] >= limit
        if ended[t, b] or cut[t, b]:
            finals.append((t, b, state[t + 1, b]))
            state[t + 1, b], time[b] = rng.integers(0, states), 0
    ends = np.array(finals, np.int64).reshape(-1, 3)
    return Batch(
        state={"x": state[:-1]}, first=np.zeros(shape, bool), action=action, reward=reward, ended=ended, cut=cut,
        extras={}, carry={}, next_state={"x": state[-1]}, final_index=ends[:, :2], final_state={"x": ends[:, 2]},
    )  # fmt: skip


def one_step(x: int, action: int, after: int, reward: float, ended: bool = False, rows: int = 1) -> Batch:
    """The same step in every row."""
    here = {"x": np.full((1, rows), x)}
    flags = np.zeros((1, rows), bool)
    return Batch(
        state=here, first=flags, action=np.full((1, rows), action), reward=np.full((1, rows), reward, np.float32),
        ended=flags | ended, cut=flags, extras={}, carry={}, next_state={"x": np.full(rows, after)},
        final_index=np.zeros((0, 2), np.int64), final_state={"x": np.zeros(0, np.int64)},
    )  # fmt: skip


def gamble(x: int, action: int, rng: np.random.Generator) -> tuple[int, float, bool]:
    """Action 1 from state x pays x or ends, by chance; action 0 moves anywhere."""
    if action == 1:
        return x, float(x), bool(rng.random() < 0.3)
    return int(rng.integers(4)), 0.0, False


def small(states: int, actions: int = 2, **setup: object) -> Setup:
    return Setup(space=spaces.Dict({"x": spaces.Discrete(states)}), action_space=spaces.Discrete(actions), **setup)  # type: ignore[arg-type]


def tabular(states: int = 4) -> Tabular:
    return Tabular(Tabular.Config(), small(states))


def test_outcomes_are_imagined_as_often_as_they_happened() -> None:
    model, rng, happened = tabular(), np.random.default_rng(0), Counter()
    for _ in range(5):
        batch = played(gamble, 4, 40, 5, rng)
        model.learn(batch)
        steps = (batch.state["x"], batch.action, batch.successors()["x"], batch.reward, batch.ended)
        happened.update(zip(*(array.ravel().tolist() for array in steps), strict=True))
    draws = 20_000
    for x, action in np.ndindex(4, 2):
        here = {key[2:]: count for key, count in happened.items() if key[:2] == (x, action)}
        dreamt = model.imagine({}, {"x": np.full(draws, x)}, np.full(draws, action))
        seen = Counter(zip(dreamt.state["x"].tolist(), dreamt.reward.tolist(), dreamt.ended.tolist(), strict=True))
        assert set(seen) == set(here)
        for outcome, count in here.items():
            share = count / sum(here.values())
            assert abs(seen[outcome] / draws - share) <= 4 * np.sqrt(share * (1 - share) / draws)


def test_the_model_of_the_toy_is_the_toy() -> None:
    """Shown each step once, it imagines each as it is, the memory's context included."""
    (door, cell, action), after, reward, ended = moves_of(lantern(2 * 81 * 4))
    dark = np.zeros_like(cell)
    percept = spaces.Dict({"cell": spaces.Discrete(len("".join(MAZE))), "lantern": spaces.Discrete(3)})
    model = Tabular(Tabular.Config(), Setup(space=percept, action_space=spaces.Discrete(4)))
    here = {"cell": cell, "lantern": dark, "recalled_lantern": door}
    there = here | {"cell": np.where(ended, np.flatnonzero(np.isin(list("".join(MAZE)), ["a"]))[0], after)}
    batch = Batch(
        {k: v[None] for k, v in here.items()}, np.zeros((1, len(cell)), bool), action[None], reward[None], ended[None],
        np.zeros((1, len(cell)), bool), {}, {}, there, np.zeros((0, 2), np.int64), {k: v[:0] for k, v in here.items()},
    )  # fmt: skip
    model.learn(batch)
    dreamt = model.imagine({}, here, action)
    assert all((dreamt.state[name] == there[name]).all() for name in here)
    assert (dreamt.reward == reward).all() and (dreamt.ended == ended).all() and ended.any()


def test_the_loss_is_the_likelihood_that_the_counts_give() -> None:
    model = tabular(states=4)
    assert model.loss(one_step(0, 0, 1, 0.0)).total == pytest.approx(np.log(4))
    for _ in range(3):
        model.learn(one_step(0, 0, 1, 0.0))
    model.learn(one_step(0, 0, 2, 0.5))
    assert model.loss(one_step(0, 0, 1, 0.0)).total == pytest.approx(-np.log((3 + 1 / 4) / 5))
    assert model.loss(one_step(0, 0, 2, 0.5)).total == pytest.approx(-np.log((1 + 1 / 4) / 5))
    for never in (one_step(0, 0, 2, 0.0), one_step(0, 0, 1, 0.0, ended=True), one_step(0, 0, 3, 0.0)):
        assert model.loss(never).total == pytest.approx(-np.log(1 / 4 / 5))
    assert model.loss(one_step(0, 1, 1, 0.0)).total == pytest.approx(np.log(4))


def test_what_was_never_tried_changes_nothing() -> None:
    model = tabular()
    for _ in range(2):
        dreamt = model.imagine({}, {"x": np.array([3, 2])}, np.array([1, 1]))
        assert dreamt.state["x"].tolist() == [3, 2] and not dreamt.reward.any() and not dreamt.ended.any()
        model.learn(one_step(0, 0, 1, 1.0))


def test_the_model_says_which_value_it_cannot_count() -> None:
    with pytest.raises(ValueError, match=r"from 0 to \d+; x is -1\.\.-1"):
        tabular().learn(one_step(-1, 0, 1, 0.0))


def test_a_loaded_model_dreams_the_same() -> None:
    model, twin, rng = tabular(), tabular(), np.random.default_rng(0)
    model.learn(played(gamble, 4, 50, 4, rng))
    twin.load(revived(model.save()))
    more = played(gamble, 4, 50, 4, rng)
    assert model.learn(more) == twin.learn(more)
    asked = {"x": rng.integers(0, 4, 500)}, rng.integers(0, 2, 500)
    ours, theirs = model.imagine({}, *asked), twin.imagine({}, *asked)
    assert (ours.state["x"] == theirs.state["x"]).all() and (ours.ended == theirs.ended).all()


# Dyna-Q --------------------------------------------------------------------------------------------------------------

DISCOUNT = 0.9


def chain(x: int, action: int, rng: np.random.Generator) -> tuple[int, float, bool]:
    """States 0 to 5 in a row; 1 goes right, 0 left; reaching 5 pays 1 and ends."""
    after = x + 1 if action else max(x - 1, 0)
    return after, float(after == 5), after == 5


CHAIN_Q = np.array([[DISCOUNT ** (5 - max(x - 1, 0)), DISCOUNT ** (4 - x)] for x in range(5)])
"""The chain's optimal values in closed form, states 0 to 4."""


def dyna(states: int = 6, actions: int = 2, seed: int = 0, model: Tabular | None = None, **config: float) -> DynaQ:
    settings = DynaQ.Config.model_validate({"discount": DISCOUNT} | config)
    return DynaQ(settings, small(states, actions, seed=seed, world_model=model))


def values(policy: DynaQ) -> Array:
    return policy.save().arrays["q"]


def test_q_learning_finds_the_optimal_values() -> None:
    policy, rng = dyna(), np.random.default_rng(0)
    for _ in range(60):
        policy.learn(played(chain, 5, 10, 4, rng))
    assert values(policy)[:5] == pytest.approx(CHAIN_Q, abs=1e-3)
    assert not values(policy)[5].any()


def test_a_cut_is_not_an_end() -> None:
    """Episodes of a single step: whoever takes a cut for an end never sees further than one step."""
    policy, rng = dyna(), np.random.default_rng(0)
    for _ in range(60):
        policy.learn(played(chain, 5, 10, 4, rng, limit=1))
    assert values(policy)[:5] == pytest.approx(CHAIN_Q, abs=1e-3)


def test_planning_finds_them_from_a_fifteenth_of_the_steps() -> None:
    model = tabular(states=6)
    planner, learner, rng = dyna(model=model, planning=30), dyna(), np.random.default_rng(0)
    for _ in range(4):
        batch = played(chain, 5, 10, 4, rng)
        model.learn(batch)
        planner.learn(batch)
        learner.learn(batch)
    assert values(planner)[:5] == pytest.approx(CHAIN_Q, abs=1e-3)
    assert np.abs(values(learner)[:5] - CHAIN_Q).max() > 0.1


def test_rows_that_meet_in_one_entry_are_averaged() -> None:
    policy = dyna(lr=1.0)
    batch = one_step(2, 1, 3, 0.0, ended=True, rows=4)
    batch.reward[:] = [1, 2, 3, 6]
    policy.learn(batch)
    assert values(policy)[2].tolist() == [0, 3]


def test_epsilon_falls_with_the_steps_of_all_rows() -> None:
    policy = dyna(states=2, epsilon_start=1.0, epsilon_end=0.1, epsilon_steps=4000)
    policy.learn(one_step(0, 1, 1, 1.0, ended=True))
    state, shares = {"x": np.zeros(1000, np.int64)}, []
    for _ in range(6):
        shares.append(float((policy.explore({}, state, np.zeros(1000, bool)).action == 0).mean()))
    expected = np.array([1, 0.775, 0.55, 0.325, 0.1, 0.1]) / 2  # half of the random actions are the worse one
    assert shares == pytest.approx(expected, abs=4 * 0.5 / np.sqrt(1000))
    assert (policy.act({}, state, np.zeros(1000, bool)).action == 1).all()


def masked(x: int, *allowed: int) -> dict[str, Array]:
    return {"x": np.full(300, x), "action_mask": np.tile(np.isin(range(3), allowed), (300, 1))}


def test_masked_actions_are_neither_chosen_nor_counted_on() -> None:
    space = spaces.Dict({"x": spaces.Discrete(2), "action_mask": spaces.MultiBinary(3)})
    policy = DynaQ(DynaQ.Config(lr=1.0, discount=DISCOUNT), Setup(space=space, action_space=spaces.Discrete(3)))
    state, first = masked(0, 1, 2), np.zeros(300, bool)
    assert set(policy.explore({}, state, first).action) == {1, 2}
    assert 0 not in policy.act({}, state, first).action
    bad, way = one_step(1, 0, 1, -1.0, ended=True), one_step(0, 1, 1, 0.0)
    for batch, here, there in ((bad, 1, 1), (way, 0, 1)):
        for arrays, x, lead in (
            (batch.state, here, (1, 1)),
            (batch.next_state, there, (1,)),
            (batch.final_state, 1, (0,)),
        ):
            arrays["action_mask"] = np.broadcast_to([True, x == 0, False], (*lead, 3))  # type: ignore[index]
        policy.learn(batch)
    assert values(policy)[0, 1] == pytest.approx(-DISCOUNT)  # the only way on costs 1; the masked ones would be free


def test_a_loaded_policy_learns_on_to_the_bit() -> None:
    model, rng = tabular(states=6), np.random.default_rng(0)
    policy = dyna(model=model)
    for _ in range(3):
        batch = played(chain, 5, 10, 4, rng)
        model.learn(batch)
        policy.learn(batch)
    twin_model = tabular(states=6)
    twin = dyna(model=twin_model, seed=99)
    twin_model.load(revived(model.save()))
    twin.load(revived(policy.save()))
    batch, state = played(chain, 5, 10, 4, rng), {"x": rng.integers(0, 6, 200)}
    assert policy.learn(batch) == twin.learn(batch)
    assert (values(policy) == values(twin)).all()
    for choose in ("explore", "act"):
        ours, theirs = (getattr(each, choose)({}, state, np.zeros(200, bool)).action for each in (policy, twin))
        assert (ours == theirs).all()


PIXELS = spaces.Dict({"pixels": spaces.Box(0, 255, (84, 84), np.uint8)})
MANY = spaces.Dict({name: spaces.Discrete(1000) for name in "abc"})


@pytest.mark.parametrize(
    ("part", "setup", "complaint"),
    [
        (DynaQ, Setup(space=PIXELS, action_space=spaces.Discrete(2)), r"Discrete fields.*\['pixels'\].*perception"),
        (DynaQ, Setup(space=MANY, action_space=spaces.Discrete(2)), "1,000,000,000 states x 2 actions"),
        (DynaQ, Setup(space=SEEN, action_space=spaces.Box(0, 1)), "Discrete actions from 0 on, not Box"),
        (Tabular, Setup(space=PIXELS, action_space=spaces.Discrete(2)), r"Discrete fields.*\['pixels'\].*perception"),
        (Tabular, Setup(space=SEEN, action_space=spaces.Box(0, 1)), "Discrete actions from 0 on, not Box"),
    ],
)
def test_tables_say_what_they_cannot_hold(part: type, setup: Setup, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        part(part.Config(), setup)
