"""A run from inside its world model: its game awake, as the run's stages show it, and dreams that begin there.

Nothing here learns. `games/imagined` trains policies in what a model imagines; `agentctl dream` lets one look at it.
"""

from __future__ import annotations

import math
import time
from collections.abc import Collection
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from gymnasium import spaces

from agentctl.core.assembly import Assembly, assemble
from agentctl.core.checkpoint import latest_checkpoint
from agentctl.core.errors import ConfigError, NotReadyError
from agentctl.core.evaluate import Act
from agentctl.core.folder import composition_of
from agentctl.core.keys import Combinations, keys_of, steps_per_second
from agentctl.core.pipeline import Flow
from agentctl.core.plugins import Switches
from agentctl.core.protocols import BaseConfig, Imagining, WorldModel
from agentctl.core.runner import restore
from agentctl.core.types import Array, Arrays, Final, Imagined, Snapshot, Step

GAP = 2  # white columns between two pictures
BRIGHTEST = 255


def opened(run: Path, batch: int, switches: Switches | None = None) -> Assembly:
    """The stages and the policy of a run, or of one of its checkpoints, with what they had learnt there.

    Raises ConfigError when the run has no world model.
    """
    composition = composition_of(run, switches)
    if composition.one("world_model") is None:
        raise ConfigError(f"{run}: this run has no world model to play in; name a run whose YAML has a world_model")
    assembly = assemble(composition.without("reward", "replay"), batch=batch)
    restore(assembly, latest_checkpoint(run))
    return assembly


def twin(assembly: Assembly, batch: int, learnt: Snapshot) -> Assembly:
    """The same parts built anew for ``batch`` rows, the world model as ``learnt`` tells; no file is read again."""
    another = assemble(assembly.composition, batch=batch)
    assert another.pipeline.world_model is not None
    another.pipeline.world_model.load(learnt)
    guards = assembly.guards()
    for name, guard in another.guards().items():
        guard.errors = guards[name].errors
    return another


class Awake:
    """The real game, seen as a run's policy sees it: through perceptions, world model and memory."""

    Config: ClassVar[type[BaseConfig]] = BaseConfig

    def __init__(self, assembly: Assembly, names: Collection[str] | None = None) -> None:
        """``names``: of the state, those to show; default all. A run's game that is itself imagined is taken awake."""
        game, space, model = assembly.game, assembly.setup.space, assembly.pipeline.world_model
        assert model is not None
        self.game = game.awake(assembly.batch) if isinstance(game, Imagining) else game
        self.pipeline, self.world_model, self.batch = assembly.pipeline, model, assembly.batch
        self.space = space  # of the whole state
        self.observation_space = space if names is None else spaces.Dict({name: space[name] for name in names})
        self.action_space, self.clock = game.action_space, self.game.clock

    @property
    def keys(self) -> Combinations:
        return keys_of(self.game)

    @property
    def fps(self) -> float:
        return steps_per_second(self.game)

    def reset(self, seed: int) -> Arrays:
        """Start B episodes. Also sets ``flow`` and ``state``, all that is known of where they stand."""
        self.flow, self.state = self.pipeline.begin(self.game.reset(seed), self.batch, {})
        return self._shown(self.state)

    def step(self, action: Array) -> Step:
        step, final = self.game.step(action), None
        if step.final is not None:
            seen = self.pipeline.peek(self.flow, step.observation, step.final, action)
            final = Final(seen.rows, self._shown(seen.arrays))
        self.state = self.pipeline.see(self.flow, step.observation, action, step.ended | step.cut)
        return replace(step, observation=self._shown(self.state), final=final)

    def frame(self) -> Array:
        return self.game.frame()

    def save(self) -> None:
        """None: it is for looking, and begins anew each time."""

    def load(self, snapshot: Snapshot) -> None:
        raise RuntimeError("a game that is looked at awake keeps no state; reset(seed) starts it anew")

    def close(self) -> None:
        self.game.close()

    def _shown(self, state: Arrays) -> dict[str, Array]:
        return {name: state[name] for name in self.observation_space.spaces}


def glimpse(awake: Awake) -> Arrays:
    """What the world model makes of a made-up situation, without what it only passes on. Changes nothing."""
    model, memory = awake.world_model, awake.pipeline.memory
    before = model.save()
    state = {name: np.asarray(part.sample())[None] for name, part in awake.space.items()}
    added = model.space.spaces.keys() | (memory.space.spaces.keys() if memory is not None else ())
    percept = {name: value for name, value in state.items() if name not in added}
    belief = model.observe(model.initial(1), percept, None, np.ones(1, bool))
    state |= belief.latent
    imagined = model.imagine(belief.carry, state, np.asarray(awake.action_space.sample())[None])
    model.load(before)
    return {name: value for name, value in imagined.state.items() if name in state and value is not state[name]}


class Screen:
    """Finds the picture in a run's state, or has its world model draw the one that a latent stands for."""

    def __init__(self, space: spaces.Dict, model: WorldModel) -> None:
        self._model = model
        self._name = next((name for name, part in space.items() if is_image(part)), "")

    def show(self, state: Arrays) -> Array:
        """Row 0's newest picture, uint8 (H, W, 3). Raises NotReadyError when there is none."""
        latents, picture = self._model.space.spaces.keys(), state.get(self._name)
        if picture is None and self._name and latents and latents <= state.keys():
            picture = self._model.decode({name: state[name][:1] for name in latents}).get(self._name)
        if picture is None:
            wanted = f"nor draws the {self._name}" if self._name else "and the percept holds no picture to draw"
            raise NotReadyError(
                f"there is nothing to see: the world model imagines {', '.join(sorted(state)) or 'nothing'}, {wanted}; "
                "take a run whose model predicts pictures (uint8, H x W), by its state or by decode()"
            )
        return rgb(picture[0])


@dataclass(slots=True)
class Beside:
    """What the real game did in a step of a dream. A PSNR, in dB, is None where the pictures are the same."""

    reward: float
    ended: bool
    cut: bool
    mse: float  # of the imagined picture against the real one, bytes squared
    mse_copy_last: float  # the same of the last picture that the model was shown, before the dream
    psnr: float | None = field(init=False)
    psnr_copy_last: float | None = field(init=False)

    def __post_init__(self) -> None:
        self.psnr, self.psnr_copy_last = psnr(self.mse), psnr(self.mse_copy_last)


@dataclass(slots=True)
class Moment:
    """One imagined step."""

    dream: int  # which dream, counted from 0
    step: int  # of this dream, counted from 1
    action: Any  # a number, or a list of them
    reward: float
    ended: bool
    real: Beside | None = None


class Dream:
    """A game of one row that only the world model plays, from real situations on; ``moments`` tells all its steps.

    A dream is over when the model says so, or when the real game beside it stops; then the next one begins.
    """

    Config: ClassVar[type[BaseConfig]] = BaseConfig
    flow: Flow
    picture: Array  # of the last step

    def __init__(self, awake: Awake, start: Act, start_steps: int, *, beside_real: bool) -> None:
        """Each dream begins after ``start`` has acted ``start_steps`` times in the real game.

        Raises NotReadyError when the model shows no pictures.
        """
        self._real, self._start, self._start_steps, self._beside_real = awake, start, start_steps, beside_real
        self.action_space, self.clock = awake.action_space, awake.clock
        self._screen = Screen(awake.space, awake.world_model)
        self._screen.show(imagined := glimpse(awake))
        self.observation_space = spaces.Dict({name: awake.space[name] for name in imagined})
        self.moments: list[Moment] = []
        self.seconds: list[float] = []  # that the model took for each step, with its picture

    @property
    def keys(self) -> Combinations:
        return self._real.keys

    @property
    def fps(self) -> float:
        return self._real.fps

    def reset(self, seed: int) -> Arrays:
        self._seed, self._dreams, self._age = seed, 0, 0
        self.moments.clear()
        self.seconds.clear()
        self._begin()
        return self.state

    @property
    def state(self) -> Arrays:
        """What the model imagines, or sees where a dream begins: without what it only passes on."""
        return {name: self._state[name] for name in self.observation_space.spaces}

    def step(self, action: Array) -> Step:
        """Imagine one step. ``picture`` is what came of it, uint8 (H, W, 3), also when the next dream has begun."""
        imagined, picture = self._imagine(action)
        self._age += 1
        moment = Moment(self._dreams, self._age, action[0].tolist(), float(imagined.reward[0]), bool(imagined.ended[0]))
        over, shown = moment.ended, picture
        if self._beside_real:
            moment.real, real = self._compare(action, picture)
            over, shown = over or moment.real.ended or moment.real.cut, side_by_side(real, picture)
        self.moments.append(moment)
        self.picture = self._now = shown
        self.flow, self._state = Flow(self.flow.time + 1, imagined.carry, self.flow.policy), imagined.state
        final = Final(np.zeros(1, np.int64), self.state) if over else None
        if over:
            self._dreams += 1
            self._begin()
        return Step(self.state, imagined.reward, imagined.ended, ~imagined.ended & over, final)

    def frame(self) -> Array:
        return self._now

    def save(self) -> None:
        """None: a dream is not gone on with."""

    def load(self, snapshot: Snapshot) -> None:
        raise RuntimeError("a dream has no saved state to load; reset(seed) begins it anew")

    def close(self) -> None:
        self._real.close()

    def _begin(self) -> None:
        """Play the real game for a while, and fall asleep."""
        real = self._real
        real.reset(seed_of(self._seed, self._dreams))
        for _ in range(self._start_steps):
            decision = self._start(real.flow, real.state)
            real.flow.policy = decision.carry
            real.step(decision.action)
        self.flow, self._state = Flow(real.flow.time, real.flow.world, real.flow.policy), real.state
        self._age = 0
        self._last = self._screen.show(real.state)
        self._now = side_by_side(self._last, self._last) if self._beside_real else self._last

    def _imagine(self, action: Array) -> tuple[Imagined, Array]:
        """One step and its picture, and take the time."""
        began = time.perf_counter()
        imagined = self._real.world_model.imagine(self.flow.world, self._state, action)
        picture = self._screen.show({name: imagined.state[name] for name in self.observation_space.spaces})
        self.seconds.append(time.perf_counter() - began)
        return imagined, picture

    def _compare(self, action: Array, picture: Array) -> tuple[Beside, Array]:
        """The same action in the real game; returns its picture too."""
        step = self._real.step(action)
        real = self._screen.show(step.observation if step.final is None else step.final.arrays)
        errors = mean_squared_error(picture, real), mean_squared_error(self._last, real)
        return Beside(float(step.reward[0]), bool(step.ended[0]), bool(step.cut[0]), *errors), real


def seed_of(seed: int, number: int) -> int:
    """The real game's seed for the dream of that number: neighbouring seeds share none."""
    return int(np.random.SeedSequence((seed, number)).generate_state(1)[0] >> 1)


def is_image(space: spaces.Space[Any]) -> bool:
    """Whether a space holds bytes as (H, W), (H, W, 3), (S, H, W) or (S, H, W, 3)."""
    shape = space.shape or ()
    return isinstance(space, spaces.Box) and space.dtype == np.uint8 and (len(shape) in (2, 3) or shape[3:] == (3,))


def rgb(image: Array) -> Array:
    """The newest picture of one row's image, in colour: uint8 (H, W, 3)."""
    if image.shape[-1] == 1:
        image = image[..., 0]
    coloured = image.ndim > 2 and image.shape[-1] == 3
    newest = image if image.ndim == 2 + coloured else image[-1]
    return newest if coloured else np.repeat(newest[..., None], 3, axis=-1)


def side_by_side(left: Array, right: Array) -> Array:
    """Two pictures of one height in one."""
    gap = np.full((len(left), GAP, 3), BRIGHTEST, np.uint8)
    return np.concatenate([left, gap, right], axis=1)


def mean_squared_error(one: Array, other: Array) -> float:
    """Of two pictures, uint8."""
    return float(np.square(one.astype(np.int32) - other).mean())


def psnr(mse: float) -> float | None:
    """Peak signal to noise, in dB, of a mean squared error of bytes; None for none at all, whose PSNR is infinite."""
    return 10 * math.log10(BRIGHTEST**2 / mse) if mse else None
