"""From a composition to built parts: every stage from the space before it, checked before the game starts."""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from gymnasium import spaces

from agentctl.core.config import Chosen, Composition
from agentctl.core.errors import AgentctlError, ConfigError, NotReadyError, PluginError
from agentctl.core.guard import Guard, guarded
from agentctl.core.pipeline import Pipeline, describe, joined
from agentctl.core.plugins import KINDS, LISTS
from agentctl.core.protocols import Game, Imagining, OfflineReplay, Policy, Replay, Reward, Setup, SharedPolicy
from agentctl.core.types import Array, Batch, Metrics, Transition


@dataclass(frozen=True, slots=True)
class Row:
    """One line of `agentctl config check`."""

    stage: str
    name: str
    detail: str
    nbytes: int = 0


@dataclass(slots=True)
class Rewards:
    """The weighted reward terms of a run."""

    parts: list[tuple[float, Reward]]

    def score(self, transition: Transition) -> None:
        """Fill ``transition.terms`` and ``transition.total``; without parts the total is the game's own reward."""
        if not self.parts:
            transition.terms, transition.total = {"game": transition.reward}, transition.reward
            return
        weighted: list[Array] = []
        for weight, reward in self.parts:
            for name, term in reward.score(transition).items():
                transition.terms[name] = term
                weighted.append(np.multiply(term, weight, dtype=np.float32))
        transition.total = sum(weighted[1:], weighted[0]) if weighted else np.zeros_like(transition.reward)


@dataclass(slots=True)
class Assembly:
    """The built parts of one run. Nothing has started yet."""

    composition: Composition
    setup: Setup  # of the policy: the whole state's space
    game: Game
    pipeline: Pipeline
    policy: Policy
    rewards: Rewards
    replay: Replay | None
    rows: list[Row]

    @property
    def batch(self) -> int:
        return self.setup.batch

    def another_game(self, batch: int) -> Game:
        """A game of the same kind with its own rows, for evaluation. Lives, clips and the like stay as configured.

        Where this one is imagined, it is the real one.
        """
        if isinstance(self.game, Imagining):
            return self.game.awake(batch)
        chosen = self.composition.one("game")
        assert chosen is not None
        return build(self.composition, chosen, replace(self.setup, space=spaces.Dict(), batch=batch))  # type: ignore[no-any-return]

    def another_pipeline(self, batch: int) -> Pipeline:
        """The same stages with a memory of its own rows; policy and world model are shared."""
        memory = self.pipeline.memory
        chosen = self.composition.one("memory")
        if chosen is not None:
            space = spaces.Dict({k: v for k, v in self.setup.space.items() if k not in memory.space.spaces})  # type: ignore[union-attr]
            memory = build(self.composition, chosen, replace(self.setup, space=space, batch=batch))
        if isinstance(memory, Guard) and isinstance(self.pipeline.memory, Guard):
            memory.notify, memory.errors = self.pipeline.memory.notify, self.pipeline.memory.errors
        return Pipeline(self.pipeline.perceptions, self.pipeline.world_model, memory)

    def another_rewards(self, batch: int) -> Rewards:
        """Reward terms with running figures of their own, so that evaluation leaves training's alone."""
        return _rewards(self.composition, replace(self.setup, batch=batch), [])

    def learn(self, batch: Batch) -> Metrics:
        """Policy and world model each learn from a batch; the world model's figures are ``world_model/...``."""
        metrics = dict(self.policy.learn(batch))
        if self.pipeline.world_model is not None:
            metrics |= {f"world_model/{name}": value for name, value in self.pipeline.world_model.learn(batch).items()}
        return {name: float(value) for name, value in metrics.items()}

    def stateful(self) -> dict[str, Any]:
        """What a checkpoint holds, by name (the game and the loop are the loop's own concern)."""
        named: dict[str, Any] = {"policy": self.policy, "replay": self.replay}
        named |= {"world_model": self.pipeline.world_model, "memory": self.pipeline.memory}
        named |= {f"reward-{index}": reward for index, (_, reward) in enumerate(self.rewards.parts)}
        return {name: part for name, part in named.items() if part is not None}

    def guards(self) -> dict[str, Guard]:
        """The components that have a fallback, by their place in the YAML: ``policy``, ``reward.0``."""
        stages = self.pipeline
        parts: list[Any] = [*stages.perceptions, stages.world_model, stages.memory, self.policy]
        parts += [reward for _, reward in self.rewards.parts]
        return {".".join(map(str, part.chosen.loc)): part for part in parts if isinstance(part, Guard)}


def assemble(composition: Composition, batch: int | None = None, folder: Path | None = None) -> Assembly:
    """Build every part; ``folder``: of the run that trains them, if any.

    Raises ConfigError naming both stages when one cannot follow the other.
    """
    game_choice = composition.one("game")
    assert game_choice is not None
    rows: list[Row] = []
    run = composition.settings.run
    setup = Setup(batch=batch or game_choice.section.batch, seed=run.seed, folder=folder, save_every=run.cycle_steps)  # type: ignore[attr-defined]
    game: Game = build(composition, game_choice, setup)
    setup = replace(setup, space=game.observation_space, action_space=game.action_space)
    shows = f"{describe(game.observation_space, setup.batch)} -> {describe(game.action_space)}"
    rows.append(Row("game", game_choice.name, shows))
    perceptions, setup = _perceptions(composition, setup, rows)
    world_model, setup = _stage(composition, "world_model", setup, rows)
    setup = replace(setup, world_model=world_model)
    memory, setup = _stage(composition, "memory", setup, rows)
    rewards = _rewards(composition, setup, rows)
    taught = replace(setup, expert=_expert(composition, setup, rows))
    policy: Policy = _stage(composition, "policy", taught, rows)[0]
    replay: Replay | None = _stage(composition, "replay", setup, rows)[0]
    _check_shared(composition, policy)
    _check_learning(composition, policy, replay)
    pipeline = Pipeline(perceptions, world_model, memory)
    return Assembly(composition, setup, game, pipeline, policy, rewards, replay, rows)


def build(composition: Composition, chosen: Chosen, setup: Setup) -> Any:
    """Build one part (with its fallback, if any); what goes wrong inside names its YAML line and plugin."""
    try:
        part = chosen.component_class(chosen.config, setup)
    except AgentctlError:
        raise
    except FileNotFoundError as error:
        raise NotReadyError(
            f"{composition.document.origin(chosen.loc)}: {chosen.kind} {chosen.name!r}: {error}"
        ) from error
    except (ValueError, TypeError, KeyError) as error:
        raise ConfigError(_misfit(composition, chosen, setup, error)) from error
    except Exception as error:
        raise PluginError(
            f"{_misfit(composition, chosen, setup, error)}; disable it with -p no:{chosen.plugin}"
        ) from error
    if chosen.fallback is None:
        return part
    stand_in = build(composition, chosen.fallback, setup)
    return guarded(part, stand_in, chosen, composition.settings.run.max_errors)


def _perceptions(composition: Composition, setup: Setup, rows: list[Row]) -> tuple[list[Any], Setup]:
    """Each perception is built from the observation plus what earlier ones added; together they are the percept."""
    parts, percept, seen = [], spaces.Dict(), setup.space
    for chosen in composition.many("perception"):
        part = build(composition, chosen, setup.after(seen))
        origin = composition.document.origin(chosen.loc)
        percept = joined(percept, part.space, f"perception {chosen.name!r}", origin)
        seen = spaces.Dict({**seen.spaces, **part.space.spaces})
        rows.append(Row("perception", chosen.name, describe(part.space, setup.batch)))
        parts.append(part)
    if not parts:
        rows.append(Row("perception", "off", "the observation as it is"))
    return parts, setup.after(percept if parts else setup.space)


def _stage(composition: Composition, kind: str, setup: Setup, rows: list[Row]) -> tuple[Any, Setup]:
    """Build the one component of a kind, if it is on, and widen the space by what it adds."""
    chosen = composition.one(kind)
    if chosen is None:
        rows.append(Row(kind, "off", ""))
        return None, setup
    part = build(composition, chosen, setup)
    nbytes = int(getattr(part, "nbytes", 0))
    space = getattr(part, "space", None)
    if isinstance(space, spaces.Dict):
        setup = setup.after(
            joined(setup.space, space, f"{kind} {chosen.name!r}", composition.document.origin(chosen.loc))
        )
    detail = describe(space, setup.batch) if isinstance(space, spaces.Dict) else ""
    rows.append(Row(kind, chosen.name, describe(setup.action_space) if kind == "policy" else detail, nbytes))
    return part, setup


def _expert(composition: Composition, setup: Setup, rows: list[Row]) -> Policy | None:
    """Who the policy learns from. Where nothing is learnt, as in another program, nobody is needed."""
    chosen = composition.one("policy")
    if chosen is None or chosen.expert is None or composition.one("replay") is None:
        return None
    part: Policy = build(composition, chosen.expert, setup)
    rows.append(Row("expert", chosen.expert.name, describe(setup.action_space)))
    return part


def _rewards(composition: Composition, setup: Setup, rows: list[Row]) -> Rewards:
    parts = [(chosen.section.weight, build(composition, chosen, setup)) for chosen in composition.many("reward")]  # type: ignore[attr-defined]
    names = [f"{chosen.section.weight:g} x {chosen.name}" for chosen in composition.many("reward")]  # type: ignore[attr-defined]
    rows.append(Row("reward", "total", " + ".join(names) or "the game's own reward"))
    return Rewards(parts)


def _check_learning(composition: Composition, policy: Policy, replay: Replay | None) -> None:
    """Raise ConfigError when the replay does not hold what the policy learns from (see ``Policy``)."""
    source, recorded = getattr(policy, "experience", ""), isinstance(replay, OfflineReplay)
    if replay is None or source == "" or (source == "recorded") == recorded:
        return
    (chosen, waiting), origin = (composition.one(kind) for kind in ("policy", "replay")), composition.document.origin
    assert chosen is not None and waiting is not None
    what = "recordings: use replay: demonstrations" if source == "recorded" else "its own play: use another replay"
    raise ConfigError(
        f"{origin(waiting.loc)}: policy {chosen.name!r} ({origin(chosen.loc)}) cannot learn from the replay "
        f"{waiting.name!r}, only from {what}"
    )


def _check_shared(composition: Composition, policy: Policy) -> None:
    """Raise ConfigError for what worker processes cannot do: they share the policy, and nothing else that learns."""
    chosen, model = composition.one("policy"), composition.one("world_model")
    assert chosen is not None
    if not isinstance(policy, SharedPolicy):
        return
    workers = f"policy {chosen.name!r}, which {policy.workers} worker processes train,"
    if chosen.fallback is not None:
        loc = chosen.fallback.loc
        stand_in = f"{composition.document.origin(loc)}: {chosen.fallback.name!r} cannot be the fallback of {workers}"
        raise ConfigError(f"{stand_in} since each would decide alone when it takes over: remove `fallback`")
    if model is not None:
        where = f"{composition.document.origin(model.loc)}: world_model {model.name!r} cannot stand before {workers}"
        raise ConfigError(f"{where} since each would learn a model of its own: use --off world_model")


def _misfit(composition: Composition, chosen: Chosen, setup: Setup, error: Exception) -> str:
    """Both stages with their YAML lines, the space between them, and where in the code the second said no."""
    origin, frame = composition.document.origin, traceback.extract_tb(error.__traceback__)[-1]
    what = f"{origin(chosen.loc)}: {chosen.kind} {chosen.name!r} cannot be built"
    shaping = [part for part in composition.chosen if part.kind in ("game", "perception", "world_model", "memory")]
    before = [part for part in shaping if _rank(part) < _rank(chosen)]
    if before:
        last, shows = before[-1], f"{describe(setup.space)} -> {describe(setup.action_space)}"
        what += f" on {last.kind} {last.name!r} ({origin(last.loc)}), which leaves it {shows}"
    return f"{what}: {error} [{frame.filename}:{frame.lineno}]"


def _rank(chosen: Chosen) -> tuple[int, int]:
    """Where a part stands in the pipeline."""
    return list(KINDS).index(chosen.kind), int(chosen.loc[1]) if chosen.kind in LISTS else 0


def total_bytes(rows: list[Row]) -> int:
    """What the parts will hold when full."""
    return sum(row.nbytes for row in rows)


def blame(error: BaseException, composition: Composition) -> Chosen | None:
    """The component whose code raised ``error``: the deepest frame of a chosen class's method, or of its module."""
    chosen = [part for item in composition.chosen for part in (item, item.fallback, item.expert) if part is not None]
    classes = {item.component_class: item for item in reversed(chosen)}
    modules = {item.component_class.__module__: item for item in reversed(chosen)}
    found, trace = None, error.__traceback__
    while trace is not None:
        frame, trace = trace.tb_frame, trace.tb_next
        owner = classes.get(type(frame.f_locals.get("self")))
        module = frame.f_globals.get("__name__", "")
        if owner is None and found is not None and found.component_class.__module__ == module:
            continue  # a helper of the one already found
        found = owner or modules.get(module, found)
    return found


def crashed(error: Exception, composition: Composition) -> AgentctlError:
    """What to print when a component failed: where, and the exact switch that disables it."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    what = f"{type(error).__name__}: {error} [{frame.filename}:{frame.lineno}]"
    culprit = blame(error, composition)
    if culprit is None:
        return AgentctlError(f"it failed: {what}; what was saved before is kept")
    where, who = composition.document.origin(culprit.loc), f"{culprit.kind} {culprit.name!r} (plugin {culprit.plugin})"
    return PluginError(f"{where}: {who} failed: {what}; {way_out(culprit)}")


@contextmanager
def blamed(composition: Composition) -> Iterator[None]:
    """Turn a component's failure into an error that names it."""
    try:
        yield
    except AgentctlError:
        raise
    except Exception as error:
        raise crashed(error, composition) from error


def way_out(culprit: Chosen) -> str:
    """What a user can do about a component that fails: the exact switches."""
    kind, plugin = culprit.loc[0], f"-p no:{culprit.plugin}"
    if culprit.loc[-1] == "fallback":
        return f"it is a fallback: name another one; {plugin} disables its plugin"
    if kind in ("game", "policy", "replay"):
        instead = "choose another one" + (", or give it a fallback: in the YAML" if kind == "policy" else "")
        return f"a run needs a {kind}: {instead}; {plugin} disables its plugin"
    switch = f"-s {kind}.{culprit.loc[1]}.enabled=false" if len(culprit.loc) > 1 else f"--off {kind}"
    return f"switch it off with {switch}, or give it a fallback: in the YAML; {plugin} disables its plugin"
