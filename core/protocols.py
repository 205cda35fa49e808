"""The nouns, one Protocol each: what the loop calls, and all that a component must have.

Every component is a class with a nested pydantic ``Config`` and the constructor ``(config, setup)``. Spaces are of one
row (no B); arrays always carry the leading B. Nothing random happens outside the seed in ``setup``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, Protocol, runtime_checkable

from gymnasium import spaces
from pydantic import BaseModel, ConfigDict

from agentctl.core.shared import Shared
from agentctl.core.types import (
    Array,
    Arrays,
    Batch,
    Belief,
    Carry,
    Decision,
    Imagined,
    Loss,
    Metrics,
    Snapshot,
    Step,
    Table,
    Transition,
)


class BaseConfig(BaseModel):
    """Base of every component's nested ``Config``: immutable, and an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)


@dataclass(frozen=True, slots=True)
class Setup:
    """What a component is built from: the space of the stage before it, and what the run fixes."""

    space: spaces.Dict = field(default_factory=spaces.Dict)  # of one row
    action_space: spaces.Space[Any] = field(default_factory=lambda: spaces.Discrete(1))
    batch: int = 1
    seed: int = 0
    world_model: WorldModel | None = None
    expert: Policy | None = None  # who a policy learns from, where its section names one
    folder: Path | None = None  # of the run, where a component may keep what is too large for every checkpoint
    save_every: int = 0  # steps between two checkpoints

    def after(self, space: spaces.Dict) -> Setup:
        """The same setup for the stage that follows ``space``."""
        return replace(self, space=space)


@dataclass(frozen=True, slots=True)
class Clock:
    """How a game keeps time: it waits for the action, ticks ``hz`` times a second, or allows ``deadline`` s a turn."""

    kind: str = "pausable"  # pausable | realtime | turn
    hz: float = 0.0
    deadline: float = 0.0


class Stateful(Protocol):
    """A component that a checkpoint holds. ``load(save())`` must give back the same behaviour to the bit."""

    def save(self) -> Snapshot: ...

    def load(self, snapshot: Snapshot) -> None: ...


@runtime_checkable
class Game(Protocol):
    """A batch of B games (or characters). Building one is cheap; nothing starts before ``reset``."""

    Config: ClassVar[type[BaseConfig]]
    observation_space: spaces.Dict
    action_space: spaces.Space[Any]
    clock: Clock

    def reset(self, seed: int) -> Arrays:
        """Start B episodes; the same seed gives the same game. Returns the observation, each array (B, ...)."""

    def step(self, action: Array) -> Step:
        """Act in every row; rows that finish restart at once and leave their last observation in ``Step.final``."""

    def frame(self) -> Array:
        """What a spectator sees of row 0: uint8 (H, W, 3), RGB."""

    def save(self) -> Snapshot | None:
        """The exact state, or None when the game cannot give it: the loop then restarts it at each checkpoint."""

    def load(self, snapshot: Snapshot) -> None:
        """Continue exactly where ``save`` was called."""

    def close(self) -> None: ...


@runtime_checkable
class Playable(Game, Protocol):
    """A game that tells how a person plays it: `agentctl record --human`. Without, its actions are keys by number."""

    @property
    def keys(self) -> Mapping[tuple[str, ...], Any]:
        """Keys held together, by their names in pygame -> one row's action: ``{("up", "space"): 10, (): 0}``.

        ``()`` is what to do while no key is held; without it the game waits, and each press is one step.
        """

    @property
    def fps(self) -> float:
        """Steps a second at which it is well played; where it waits, how fast a key held down repeats."""


@runtime_checkable
class Imagining(Game, Protocol):
    """A game that only a world model plays. Whoever learnt in it is measured awake."""

    def awake(self, batch: int) -> Game:
        """The real game, shown as this one is: the same names, spaces and actions. The two share nothing."""


@runtime_checkable
class SeveralGames(Game, Protocol):
    """A game whose rows play different games. Their returns are reported apart."""

    @property
    def row_names(self) -> Sequence[str]:
        """What each row plays."""


@runtime_checkable
class Perception(Protocol):
    """Observation -> percept: named arrays of fixed shape. Each perception adds what it knows."""

    Config: ClassVar[type[BaseConfig]]
    space: spaces.Dict  # what it adds

    def perceive(self, observation: Arrays) -> Arrays:
        """``observation`` also holds what earlier perceptions added. Returns only its own additions, each (B, ...)."""


@runtime_checkable
class WorldModel(Protocol):
    """Percept -> latent; state + action -> what comes next."""

    Config: ClassVar[type[BaseConfig]]
    space: spaces.Dict  # the latent; may be empty

    def initial(self, batch: int) -> Carry: ...

    def observe(self, carry: Carry, percept: Arrays, action: Array | None, first: Array) -> Belief:
        """Take in a percept; ``action`` led to it (None before the first). ``first`` rows forget their carry."""

    def imagine(self, carry: Carry, state: Arrays, action: Array) -> Imagined:
        """One step ahead of ``state`` (percept, latent and context by name) without touching the game."""

    def decode(self, latent: Arrays) -> Arrays:
        """The percept that a latent stands for."""

    def loss(self, batch: Batch) -> Loss: ...

    def learn(self, batch: Batch) -> Metrics: ...

    def save(self) -> Snapshot: ...

    def load(self, snapshot: Snapshot) -> None: ...


@runtime_checkable
class Memory(Protocol):
    """What was seen, where and when, row by row."""

    Config: ClassVar[type[BaseConfig]]
    space: spaces.Dict  # the context it recalls

    def recall(self, state: Arrays, time: Array) -> Arrays:
        """``time``: int64 (B,), steps since the episode began; 0 forgets what the row held. Returns (B, ...) arrays."""

    def write(self, state: Arrays, time: Array) -> None: ...

    def save(self) -> Snapshot: ...

    def load(self, snapshot: Snapshot) -> None: ...


@runtime_checkable
class Reward(Protocol):
    """Transition -> named terms. The loop weighs and sums them; the game's own reward is never changed."""

    Config: ClassVar[type[BaseConfig]]

    def score(self, transition: Transition) -> Arrays:
        """One or more named terms, each float32 (B,)."""

    def save(self) -> Snapshot: ...

    def load(self, snapshot: Snapshot) -> None: ...


@runtime_checkable
class Policy(Protocol):
    """State -> action, and learning from experience.

    A class attribute ``experience`` may say that it learns only from its ``own`` play, or only from what was
    ``recorded``: then no other replay is accepted.
    """

    Config: ClassVar[type[BaseConfig]]

    def initial(self, batch: int) -> Carry: ...

    def act(self, carry: Carry, state: Arrays, first: Array) -> Decision:
        """What it holds best: evaluation, play, embedding. ``first`` rows forget their carry."""

    def explore(self, carry: Carry, state: Arrays, first: Array) -> Decision:
        """How it gathers experience; ``Decision.extras`` come back in the batch."""

    def learn(self, batch: Batch) -> Metrics: ...

    def save(self) -> Snapshot: ...

    def load(self, snapshot: Snapshot) -> None: ...


@runtime_checkable
class ExportablePolicy(Policy, Protocol):
    """A policy that can be written as a file for programs without agentctl."""

    def export_onnx(self, path: Path, about: Mapping[str, str]) -> None:
        """What ``act`` holds best, without chance; ``about`` becomes the file's metadata."""


@runtime_checkable
class JudgedPolicy(Policy, Protocol):
    """A policy that is also judged on episodes that it never learns from, and may know when it has learnt enough."""

    finished: bool  # learning goes on no further: it would only get worse

    def judge(self, batch: Batch) -> Metrics:
        """How well it does on a batch that is ``held_out``. Nothing is learnt from it."""


@runtime_checkable
class ExplainedPolicy(Policy, Protocol):
    """A policy that tells more about itself than single figures."""

    def tables(self) -> dict[str, Table]:
        """By title, as they stand in the report."""


@runtime_checkable
class SharedPolicy(Policy, Protocol):
    """A policy that worker processes train together, each with games and a replay of its own.

    All that is learnt lies in memory that they share: ``learn`` changes it there, in any of them and at any time.
    """

    workers: int  # processes that play and learn
    shared_nbytes: int

    def share(self, shared: Shared) -> None:
        """Put all that is learnt into ``shared``, and leave it there from now on; ``load`` and ``save`` do so too."""

    def join(self, shared: Shared, seed: int) -> None:
        """Forget what is learnt here for what is in ``shared``, and draw from ``seed``: no two workers do the same."""


@runtime_checkable
class Replay(Protocol):
    """Where experience waits to be learnt from."""

    Config: ClassVar[type[BaseConfig]]
    nbytes: int  # what it will hold when full

    def add(self, transition: Transition) -> None: ...

    def ready(self) -> bool:
        """Whether it is time to learn: a rollout is full, a replay is warm and due."""

    def sample(self) -> Batch: ...

    def save(self) -> Snapshot: ...

    def load(self, snapshot: Snapshot) -> None: ...


@runtime_checkable
class PrioritisedReplay(Replay, Protocol):
    """A replay that prefers what the policy was wrong about."""

    def reprioritise(self, batch: Batch) -> None:
        """Take note of ``batch.error``; the batch is one of its own, just learnt from."""


@runtime_checkable
class OfflineReplay(Replay, Protocol):
    """A replay whose experience was recorded before: no game is played while a policy learns from it.

    The loop plays the recordings through the run's stages once, into ``add``; a checkpoint need not hold them.
    """

    recordings: Sequence[Path]
