"""Any Gymnasium environment as a game: B copies stepped one after another (`gymnasium.vector.SyncVectorEnv`).

Observations become named arrays, see `observations.py`. A mask of legal actions that the environment puts into its
``info``, as Taxi does, joins them as ``action_mask``.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any, ClassVar

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from gymnasium.wrappers import FlattenObservation
from pydantic import ConfigDict, Field, field_validator

from agentctl.core.errors import NotReadyError, did_you_mean
from agentctl.core.keys import Combinations
from agentctl.core.protocols import BaseConfig, Clock, Setup
from agentctl.core.types import Array, Arrays, Final, Snapshot, Step
from agentctl.games.gym.keys import keys_of_env
from agentctl.games.gym.observations import has_named_arrays, named_parts

MASK = "action_mask"
FPS = 30  # gymnasium.utils.play's, for environments that name none


class GymGame:
    """B copies of one environment, each with a seed of its own."""

    class Config(BaseConfig):
        model_config = ConfigDict(json_schema_extra={"examples": [{"id": "CartPole-v1"}]})

        id: str = Field(description="The environment: `CartPole-v1`, or `package:Name-v0` to import what registers it.")
        options: dict[str, Any] = Field(
            default_factory=dict, description="Arguments of `gymnasium.make`, e.g. `{max_episode_steps: 200}`."
        )

        @field_validator("id")
        @classmethod
        def _registered(cls, value: str) -> str:
            check_registered(value)
            return value

    clock: ClassVar[Clock] = Clock("pausable")

    def __init__(self, config: Config, setup: Setup) -> None:
        self.config = config
        self.batch = setup.batch
        self._rows: SyncVectorEnv | None = None
        probe = make_row(config)
        _, info = probe.reset(seed=0)
        probe.close()
        self._parts = named_parts(probe.observation_space)
        self._name = "" if isinstance(probe.observation_space, spaces.Dict) else next(iter(self._parts))
        self._renders = "rgb_array" in probe.metadata.get("render_modes", ())
        self.fps = float(probe.metadata.get("render_fps") or FPS)
        shown = {name: part.space for name, part in self._parts.items()}
        mask = info.get(MASK)
        self._mask_shape = mask.shape if isinstance(mask, np.ndarray) and MASK not in shown else None
        if self._mask_shape is not None:
            shown[MASK] = spaces.Box(0, 1, self._mask_shape, np.int8)
        self.observation_space = spaces.Dict(shown)
        self.action_space: spaces.Space[Any] = probe.action_space

    @property
    def keys(self) -> Combinations:
        """The environment's own, else those that are known for it, else its actions by number."""
        env = make_row(self.config)
        try:
            return keys_of_env(env)
        finally:
            env.close()

    def reset(self, seed: int) -> Arrays:
        """Start B episodes. Returns the arrays of ``observation_space``, each (B, ...)."""
        if self._rows is None:
            mode = "rgb_array" if self._renders else None
            makers = [lambda: make_row(self.config, mode)] * self.batch
            self._rows = SyncVectorEnv(makers, autoreset_mode=AutoresetMode.SAME_STEP)
        seeds = np.random.SeedSequence(seed).generate_state(self.batch) >> 1  # neighbouring seeds share no episode
        observation, info = self._rows.reset(seed=seeds.tolist())
        return self._named(self._split(observation)) | self._mask(info)

    def step(self, action: Array) -> Step:
        """Act: (B,) for Discrete, (B, n) otherwise. The reward is the environment's own."""
        if self._rows is None:
            raise RuntimeError("reset(seed) must come before the first step")
        observation, reward, ended, cut, info = self._rows.step(action)
        rows = np.flatnonzero(ended | cut)
        final = self._final(info, rows) if rows.size else None
        observation = self._named(self._split(observation)) | self._mask(info)
        return Step(observation, reward.astype(np.float32), ended, cut & ~ended, final)

    def frame(self) -> Array:
        """Row 0 as the environment draws it: uint8 (H, W, 3), RGB. Raises NotReadyError when it cannot draw."""
        if self._rows is None:
            raise RuntimeError("reset(seed) must come before the first frame")
        if not self._renders:
            raise NotReadyError(
                f"{self.config.id} draws no pictures (it has no render mode `rgb_array`): there is nothing to show"
            )
        try:
            return np.asarray(self._rows.envs[0].render(), np.uint8)
        except gymnasium.error.DependencyNotInstalled as error:
            raise NotReadyError(f"{self.config.id} cannot be drawn: {error}") from error

    def save(self) -> None:
        """None: Gymnasium has no way to save an environment."""

    def load(self, snapshot: Snapshot) -> None:
        raise RuntimeError("a Gymnasium environment has no saved state to load; reset(seed) starts it anew")

    def close(self) -> None:
        if self._rows is not None:
            self._rows.close()
            self._rows = None

    def _split(self, observation: Any) -> Mapping[str, Any]:
        return {self._name: observation} if self._name else observation

    def _named(self, parts: Mapping[str, Array]) -> dict[str, Array]:
        return {name: part.convert(parts[name]) for name, part in self._parts.items()}

    def _mask(self, info: Mapping[str, Any]) -> dict[str, Array]:
        """``action_mask``: int8 (B, n), if the environment gives one; a row without it may do anything."""
        if self._mask_shape is None:
            return {}
        mask = np.ones((self.batch, *self._mask_shape), np.int8)
        if MASK in info:
            given = info[f"_{MASK}"]
            mask[given] = info[MASK][given]
        return {MASK: mask}

    def _final(self, info: Mapping[str, Any], rows: Array) -> Final:
        """What ``rows`` saw at the end of their episode, each (K, ...)."""
        seen = [self._split(last) for last in info["final_obs"][rows]]
        arrays = self._named({name: np.stack([last[name] for last in seen]) for name in self._parts})
        masks = {name: mask[rows] for name, mask in self._mask(info["final_info"]).items()}
        return Final(rows, arrays | masks)


def check_registered(env_id: str) -> None:
    """Raise ValueError with a suggestion when Gymnasium knows no environment ``env_id``."""
    module, _, name = env_id.rpartition(":")
    try:
        if module:
            importlib.import_module(module)
        gymnasium.spec(name)
    except ImportError as error:
        raise ValueError(f"{env_id!r} wants the package {module!r}, which does not import: {error}") from error
    except gymnasium.error.Error as error:
        hint = did_you_mean(name, gymnasium.registry)
        raise ValueError(
            f"Gymnasium has no environment {name!r}{hint} (if a package brings it, write `package:{name}`)"
        ) from error


def make_row(config: GymGame.Config, render_mode: str | None = None) -> gymnasium.Env[Any, Any]:
    """One environment whose observation is an array or a flat Dict of arrays."""
    options = config.options | ({"render_mode": render_mode} if render_mode else {})
    try:
        env = gymnasium.make(config.id, disable_env_checker=True, **options)
    except gymnasium.error.DependencyNotInstalled as error:
        raise NotReadyError(f"{config.id} cannot start: {error}") from error
    except TypeError as error:
        raise ValueError(f"{config.id} does not take the options {config.options}: {error}") from error
    if has_named_arrays(env.observation_space):
        return env
    if not env.observation_space.is_np_flattenable:
        raise ValueError(
            f"{config.id} observes {env.observation_space}, which has no fixed size: wrap it to give arrays"
        )
    return FlattenObservation(env)
