"""The contracts hold for what ships, and each check catches the fault that it is there for."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gymnasium import spaces
from pydantic import BaseModel, Field

from agentctl.agents.random import RandomPolicy
from agentctl.core import BaseConfig, Setup
from agentctl.core.contracts import common, contract, examine, examine_plugin
from agentctl.core.contracts.finding import Breach, find
from agentctl.core.contracts.imports import importing
from agentctl.core.contracts.manifest import manifest
from agentctl.core.contracts.outputs import rows_of
from agentctl.core.contracts.samples import Script, allowed, gather, misfit, sample
from agentctl.core.hooks import Component
from agentctl.core.plugins import KINDS, Registry, Switches
from agentctl.core.types import Batch, Snapshot
from agentctl.plugins.memory.last_seen import LastSeen
from agentctl.plugins.replay.rollout import Rollout
from agentctl.plugins.reward.clip import Clip
from agentctl.plugins.reward.scale import Scale
from agentctl.testing import Result, ToyGame, assert_contract, check_component, run_cli, transitions
from agentctl.world_models.tabular import Tabular

# what ships


NEED_OTHERS = {
    "agentctl.games.imagined.game:ImaginedGame",
    "agentctl.agents.dagger:DAgger",
    "agentctl.agents.imagined_actor_critic:ImaginedActorCritic",
    "agentctl.agents.saved:SavedPolicy",
    "agentctl.plugins.replay.demonstrations:Demonstrations",
}
"""Components that need an expert, a run, a recording, or a world model that draws; tests of their own have them."""


def shipped() -> Iterator[Any]:
    """Every built-in component, one per class; those that need an extra are slow and skipped without it."""
    seen = set(NEED_OTHERS)
    for plugin in Registry().plugins.values():
        for kind, row in plugin.components:
            if plugin.builtin and row.target not in seen:
                seen.add(row.target)
                marks = [pytest.mark.slow] if row.requires else []
                yield pytest.param(kind, row, marks=marks, id=f"{kind}-{row.name}")


@pytest.mark.parametrize(("kind", "row"), list(shipped()))
def test_what_ships_keeps_its_contract(kind: str, row: Component) -> None:
    for extra in row.requires:
        pytest.importorskip(extra)
    assert_contract(kind, row.name)


def test_what_ships_as_observers_keeps_its_contract() -> None:
    registry = Registry()
    watching = [name for name, plugin in registry.plugins.items() if "agentctl_run_started" in plugin.hooks]
    assert len(watching) >= 4
    for name in watching:
        findings = examine_plugin(registry, name)["observer"]
        assert [finding for finding in findings if finding.status == "failed"] == []


# every check can fail: one fault each


class Loose(ToyGame):
    class Config(BaseModel):
        length: int = 5
        limit: int = 20


class Changeable(ToyGame):
    class Config(ToyGame.Config, frozen=False):
        pass


class Mute(ToyGame):
    class Config(BaseConfig):
        length: int = 5
        limit: int = 20


class Lacking(ToyGame):
    def __init__(self, config: Any, setup: Setup) -> None:
        super().__init__(config, setup)
        self.frame = None
        del self.clock


class Integers(ToyGame):
    def step(self, action):
        step = super().step(action)
        step.reward = step.reward.astype(np.int64)
        return step


class Outside(ToyGame):
    def step(self, action):
        step = super().step(action)
        step.observation = {"position": step.observation["position"] + 100}
        return step


class OneRow(ToyGame):
    def __init__(self, config: Any, setup: Setup) -> None:
        super().__init__(config, setup)
        self.batch = 1


class Meddler(ToyGame):
    def step(self, action):
        action[:] = self.RIGHT
        return super().step(action)


class Reusing(ToyGame):
    def step(self, action):
        step = super().step(action)
        if not hasattr(self, "held"):
            self.held = step.observation["position"]
        self.held[:] = step.observation["position"]
        step.observation = {"position": self.held}
        return step


class Unseeded(ToyGame):
    def reset(self, seed):
        super().reset(seed)
        self._rng = np.random.default_rng()
        return {"position": self._position.copy()}


class Forgetful(ToyGame):
    def save(self):
        snapshot = super().save()
        return Snapshot(snapshot.arrays, {"rng": np.random.default_rng(1).bit_generator.state})


class Pickling(ToyGame):
    def save(self):
        return Snapshot(super().save().arrays, {"rng": self._rng})


class Saving(ToyGame):
    """Its save draws a number: the run goes on differently."""

    def save(self):
        self._rng.random()
        return super().save()


class Abrupt(ToyGame):
    def step(self, action):
        step = super().step(action)
        step.final = None
        return step


class Continuing(ToyGame):
    def reset(self, seed):
        if not hasattr(self, "_rng"):
            return super().reset(seed)
        rng = self._rng
        observation = super().reset(seed)
        self._rng = rng
        return observation


class Grey(ToyGame):
    def frame(self):
        return super().frame()[..., 0]


class Restless(ToyGame):
    """Another game at every reset of one seed."""

    draws = 0

    def reset(self, seed):
        Restless.draws += 1
        return super().reset(seed + Restless.draws)


class Coupled:
    """A perception whose rows know of each other."""

    class Config(BaseConfig):
        """Nothing to choose."""

    def __init__(self, config: Any, setup: Setup) -> None:
        self.space = spaces.Dict({"mean": spaces.Box(-np.inf, np.inf, (), np.float64)})

    def perceive(self, observation):
        value = next(iter(observation.values()))
        return {"mean": np.full(len(value), value.mean())}


class Remembering(Coupled):
    last = 0.0

    def perceive(self, observation):
        value = next(iter(observation.values())).reshape(len(next(iter(observation.values()))), -1).mean(axis=1)
        before, self.last = self.last, float(value[0])
        return {"mean": value + before}


class FixedRows(Coupled):
    def __init__(self, config: Any, setup: Setup) -> None:
        super().__init__(config, setup)
        self.held = np.zeros(setup.batch)

    def perceive(self, observation):
        return {"mean": self.held + next(iter(observation.values())).reshape(len(self.held), -1).mean(axis=1)}


class Endless(LastSeen):
    def write(self, state, time):
        super().write(state, np.ones_like(time))

    def recall(self, state, time):
        return super().recall(state, np.ones_like(time))


class RecallWrites(LastSeen):
    def recall(self, state, time):
        recalled = super().recall(state, time)
        super().write(state, time)
        return recalled


class Improver(Clip):
    def score(self, transition):
        transition.reward += 1
        return super().score(transition)


class NotFinite(Clip):
    def score(self, transition):
        return {"nan": np.full(len(transition.reward), np.nan, np.float32)}


class Amnesiac(Scale):
    def load(self, snapshot):
        pass


class Blind(RandomPolicy):
    def act(self, carry, state, first):
        return super().act(carry, {}, first)

    explore = act


class Spoiler(RandomPolicy):
    def learn(self, batch):
        batch.reward[:] = 0
        return {}


class Diverged(RandomPolicy):
    def learn(self, batch):
        return {"loss": float("nan")}


class Shuffled(Rollout):
    def sample(self) -> Batch:
        batch = super().sample()
        batch.reward = batch.reward[::-1]
        return batch


class Cuts(Rollout):
    """Loses where episodes stopped."""

    def sample(self) -> Batch:
        batch = super().sample()
        batch.final_index = batch.final_index[:0]
        batch.final_state = {key: value[:0] for key, value in batch.final_state.items()}
        return batch


class Never(Rollout):
    def ready(self) -> bool:
        return False


class Hopeless(Tabular):
    def loss(self, batch):
        loss = super().loss(batch)
        loss.total = float("inf")
        return loss


class Dreamer(Tabular):
    def decode(self, latent):
        return {"cell": np.full(8, 99)}


FAULTS = [
    ("game", Loose, "config"),
    ("game", Changeable, "config"),
    ("game", Mute, "config"),
    ("game", Lacking, "members"),
    ("game", Integers, "batching"),
    ("game", Outside, "batching"),
    ("game", OneRow, "batching"),
    ("game", Meddler, "batching"),
    ("game", Reusing, "fresh arrays"),
    ("game", Unseeded, "determinism"),
    ("game", Forgetful, "save and load"),
    ("game", Pickling, "save and load"),
    ("game", Saving, "save and load"),
    ("game", Abrupt, "episodes"),
    ("game", Continuing, "reset"),
    ("game", Grey, "frame"),
    ("game", Restless, "gymnasium"),
    ("perception", Coupled, "pure"),
    ("perception", Remembering, "pure"),
    ("perception", FixedRows, "other rows"),
    ("memory", Endless, "forgets"),
    ("memory", RecallWrites, "forgets"),
    ("reward", Improver, "batching"),
    ("reward", NotFinite, "batching"),
    ("reward", Amnesiac, "save and load"),
    ("policy", Blind, "action mask"),
    ("policy", Spoiler, "batching"),
    ("policy", Diverged, "batching"),
    ("replay", Shuffled, "experience"),
    ("replay", Cuts, "experience"),
    ("replay", Never, "experience"),
    ("world_model", Hopeless, "imagination"),
    ("world_model", Dreamer, "imagination"),
]
NEEDS = {"memory": {"fields": ("cell",)}}


@pytest.mark.parametrize(("kind", "faulty", "check"), FAULTS, ids=[f"{fault[1].__name__}" for fault in FAULTS])
def test_a_fault_is_found_by_the_check_that_is_there_for_it(kind: str, faulty: type, check: str) -> None:
    findings = {finding.check: finding for finding in examine(kind, faulty, NEEDS.get(kind))}
    assert findings[check].status == "failed", findings
    assert findings[check].detail and findings[check].remedy


def test_one_fault_is_told_once() -> None:
    statuses = [finding.status for finding in check_component("reward", NotFinite)]
    assert statuses.count("failed") == 1 and "skipped" in statuses


def test_a_slow_step_is_over_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    class Slow(ToyGame):
        def step(self, action):
            time.sleep(0.005)
            return super().step(action)

    monkeypatch.setattr(common, "STEP_BUDGET", 4.0)
    budget = {finding.check: finding for finding in check_component("game", Slow)}["step budget"]
    assert budget.status == "failed" and "budget 4 ms" in budget.detail


def test_each_check_has_a_fault_that_it_finds() -> None:
    tested = {(kind, check) for kind, _, check in FAULTS}
    anywhere = {check for _, check in tested} | {"step budget"}
    for kind in KINDS:
        own = set(contract(kind)) - set(common_checks())
        assert {(kind, check) for check in own - {"other rows"}} <= tested
    assert set(common_checks()) | {"other rows"} <= anywhere


def common_checks() -> set[str]:
    return set.intersection(*(set(contract(kind)) for kind in KINDS))


def test_without_a_setup_that_fits_every_refusal_is_told() -> None:
    class Picky(Clip):
        def __init__(self, config: Any, setup: Setup) -> None:
            raise ValueError(f"wants sound, not {sorted(setup.space.spaces)}")

    findings = check_component("reward", Picky)
    assert [(finding.check, finding.status) for finding in findings] == [("build", "failed")]
    assert "wants sound, not ['pixels']" in findings[0].detail and "example_setup" in findings[0].remedy


def test_a_policy_that_plans_is_given_a_world_model() -> None:
    class Planner(RandomPolicy):
        def __init__(self, config: Any, setup: Setup) -> None:
            if setup.world_model is None:
                raise ValueError("needs a world model")
            super().__init__(config, setup)
            self.model = setup.world_model

        def act(self, carry, state, first):
            decision = super().act(carry, state, first)
            self.model.imagine(self.model.initial(len(first)), state, decision.action)
            return decision

    assert_contract("policy", Planner)


def test_a_component_may_bring_its_own_example() -> None:
    class Sound(Clip):
        class Config(Clip.Config):
            model_config = {"json_schema_extra": {"examples": [{"rate": 8000}]}}
            rate: int = Field(description="samples per second")

        def __init__(self, config: Any, setup: Setup) -> None:
            assert "sound" in setup.space.spaces and config.rate == 8000
            super().__init__(config, setup)

        @classmethod
        def example_setup(cls) -> Setup:
            return Setup(space=spaces.Dict({"sound": spaces.Box(-1, 1, (160,), np.float32)}))

    assert_contract("reward", Sound)


def test_an_assertion_names_the_check_and_the_remedy() -> None:
    with pytest.raises(AssertionError, match=r"(?s)frame: frame\(\) is uint8 \(16, 96\).*-> return an RGB picture"):
        assert_contract("game", Grey)


def test_the_toy_game_for_authors_keeps_its_contract(toy_game: ToyGame) -> None:
    assert_contract("game", type(toy_game))


def test_the_fixtures_for_authors_are_there(registry: Registry, cli: Callable[..., Result]) -> None:
    assert registry.plugins == {}
    assert cli("plugins", "docs", "--json").json["kinds"]["reward"]["hook"] == "agentctl_rewards"


# imports, in a process of their own


@pytest.mark.parametrize(
    ("code", "complaint"),
    [
        ("import socket\nsocket.socket().connect_ex(('127.0.0.1', 9))\n", "opens a connection"),
        ("open('left_behind.txt', 'w').close()\n", "writes a file"),
        ("import os\nos.makedirs('left_behind')\n", "writes a file"),
        ("import time\ntime.sleep(1.1)\n", "budget 1 s"),
        ("import torch\n", "imports torch"),
        ("import no_such_module\n", "fails: ModuleNotFoundError"),
    ],
    ids=["network", "write", "folder", "slow", "torch", "broken"],
)  # fmt: skip
def test_what_an_import_must_not_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str, complaint: str) -> None:
    if "torch" in code:
        (tmp_path / "torch.py").write_text("", encoding="utf-8")  # its name is enough
    (tmp_path / "rude_plugin.py").write_text(code, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(Breach, match=complaint) as caught:
        importing("rude_plugin", [])
    assert caught.value.remedy


def test_a_component_may_import_what_its_table_must_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "polite_table.py").write_text("", encoding="utf-8")
    (tmp_path / "polite_parts.py").write_text("import torch\n", encoding="utf-8")
    (tmp_path / "torch.py").write_text("import time\ntime.sleep(1.1)\n", encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    assert "with its components 1." in importing("polite_table", ["polite_parts"])


# plugins


TABLE = """
from agentctl.core import Component, hookimpl
CLIP = "agentctl.plugins.reward.clip:Clip"

@hookimpl
def agentctl_rewards():
    names = {"two words": "x", "mute": "", "good": "x"}
    return [*(Component(name, CLIP, told) for name, told in names.items()), Component("lame", CLIP, "x", fallback="no")]
"""

OBSERVER = """
from agentctl.core import Observer, hookimpl

class Clumsy(Observer):
    def evaluated(self, evaluation):
        raise ZeroDivisionError

@hookimpl
def agentctl_run_started(run):
    run.observers.append(Clumsy())
"""


def one_file_registry(folder: Path, code: str) -> Registry:
    (folder / "mine.py").write_text(code, encoding="utf-8")
    return Registry(Switches((folder / "mine.py",)), discover=False)


@pytest.mark.parametrize(
    ("name", "status"), [("two words", "failed"), ("mute", "failed"), ("lame", "failed"), ("good", "ok")]
)
def test_the_manifest_is_examined(tmp_path: Path, name: str, status: str) -> None:
    registry = one_file_registry(tmp_path, TABLE)
    plugin, component = registry.find("reward", name)
    assert find("manifest", lambda: manifest(registry, plugin, "reward", component)).status == status


def test_an_observer_that_raises_is_found(tmp_path: Path) -> None:
    finding = examine_plugin(one_file_registry(tmp_path, OBSERVER), "mine")["observer"][-1]
    assert finding.status == "failed" and "ZeroDivisionError" in finding.detail


def test_check_prints_what_failed_and_what_to_do() -> None:
    done = run_cli("plugins", "check", "toy_step_cost", "--json")
    assert done.exit_code == 0, done.stdout
    checks = {finding["check"] for finding in done.json["components"]["reward toy_step_cost"]}
    assert {"manifest", "import", *contract("reward")} <= checks


# the made-up experience itself


@pytest.mark.parametrize(
    "space",
    [
        spaces.Box(-1, 1, (3,), np.float32),
        spaces.Box(0, 255, (4, 4, 3), np.uint8),
        spaces.Box(-np.inf, np.inf, (2,), np.float32),
        spaces.Box(1e9, 1e9 + 1, (2,), np.float64),
        spaces.Box(0, np.iinfo(np.int64).max, (2,), np.int64),
        spaces.Discrete(3, start=-1),
        spaces.MultiDiscrete([2, 5]),
        spaces.MultiBinary(4),
    ],
    ids=str,
)
def test_samples_lie_in_their_space_as_gymnasium_sees_it(space: spaces.Space) -> None:
    drawn = sample(space, 50, np.random.default_rng(0))
    assert all(space.contains(row if space.shape else row.item()) for row in drawn)
    assert misfit(drawn, space, 50) == ""


def test_what_does_not_fit_is_told() -> None:
    space = spaces.Dict({"x": spaces.Box(0, 1, (2,), np.float32)})
    for wrong in (
        np.zeros((3, 2)),
        np.zeros((2, 2), np.float32),
        np.full((3, 2), np.nan, np.float32),
        [[0.0, 0.0]] * 3,
    ):
        with pytest.raises(Breach):
            rows_of({"x": wrong}, space, 3, "it")
    rows_of({"x": np.ones((3, 2), np.float32)}, space, 3, "it")


def test_masked_choices_are_told_part_by_part() -> None:
    mask = np.array([[True, False, True, True, False]])
    space = spaces.MultiDiscrete([2, 3])
    verdicts = {(a, b): bool(allowed(np.array([[a, b]]), mask, space)[0]) for a in range(2) for b in range(3)}
    assert verdicts == {(a, b): a == 0 and b < 2 for a in range(2) for b in range(3)}


def test_a_gathered_batch_leads_where_its_transitions_led() -> None:
    steps = list(transitions(30, batch=4))
    after = gather(steps).successors()
    for t, step in enumerate(steps):
        for row in range(4):
            stopped = step.final is not None and row in step.final.rows
            where = step.final.arrays if stopped else step.next_state
            place = int(np.flatnonzero(step.final.rows == row)[0]) if stopped else row
            assert after["cell"][t, row] == where["cell"][place]


def test_time_counts_from_each_first_step() -> None:
    script = Script(Setup(), 6)
    for t in range(25):
        assert ((script.time(t) == 0) == script.first(t)).all()
        if t:
            assert (script.time(t) == np.where(script.first(t), 0, script.time(t - 1) + 1)).all()
