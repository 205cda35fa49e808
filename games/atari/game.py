"""Atari 2600 games on ale-py's C++ `AtariVectorEnv`: rows are emulated, resized and stacked in threads, without Python.

Protocols: `100k` as in Kaiser et al. 2019 (arXiv:1903.00374) and its followers, `200m` as in Machado et al. 2018
(arXiv:1709.06009). Where ale-py deviates: an episode's first stack is padded with black, not with its first frame; the
step that ends an episode shows the picture before the end; lost lives end an episode only here, in Python, so that
the game itself goes on and its return stays whole.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any, ClassVar, Literal

import numpy as np
from ale_py.vector_env import AtariVectorEnv
from gymnasium import spaces
from gymnasium.vector import AutoresetMode
from pydantic import Field, field_validator, model_validator

from agentctl.core.errors import did_you_mean
from agentctl.core.protocols import BaseConfig, Clock, Setup
from agentctl.core.types import Array, Arrays, Final, Snapshot, Step
from agentctl.games.atari.roms import ROMS
from agentctl.games.atari.spectator import Spectator, action_set, open_rom

PROTOCOLS: Mapping[str, Mapping[str, Any]] = {
    "none": {},
    "100k": {
        "sticky": 0.0,
        "noop_max": 30,
        "fire_reset": False,
        "life_loss": "end",
        "full_action_space": False,
        "max_frames": 108_000,
    },
    "200m": {
        "sticky": 0.25,
        "noop_max": 0,
        "fire_reset": False,
        "life_loss": "ignore",
        "full_action_space": True,
        "max_frames": 108_000,
    },
}
"""What each named protocol fixes; picture size, stack and frame skip have its values (84, 84, 4, 4) by default."""

FRAMES_PER_SECOND = 60
KEYS = {"UP": "up", "DOWN": "down", "LEFT": "left", "RIGHT": "right", "FIRE": "space"}
"""What the names of actions are made of (`UPRIGHTFIRE`; `NOOP` of nothing), and the key for each."""


class AtariGame:
    """B copies of one game, each with a seed of its own."""

    class Config(BaseConfig):
        rom: str = Field(description="The game, by its name in ale-py: `ms_pacman`. The names `atari/...` imply it.")
        protocol: Literal["none", "100k", "200m"] = Field(
            "none", description="A published protocol that fills in what is not given here; see docs/games.md."
        )
        height: int = Field(84, gt=0, description="Rows of the picture.")
        width: int = Field(84, gt=0, description="Columns of the picture.")
        colour: Literal["gray", "rgb"] = Field("gray", description="Pixels of one byte, or of three.")
        stack: int = Field(4, gt=0, description="How many of the latest pictures an observation holds, oldest first.")
        frame_skip: int = Field(4, gt=0, description="Emulator frames (1/60 s) per step; the action is held.")
        max_pool: bool = Field(True, description="Show the brighter of a step's last two frames: some games flicker.")
        sticky: float = Field(0.0, ge=0, le=1, description="Chance per frame that the last action is repeated instead.")
        life_loss: Literal["ignore", "end"] = Field(
            "ignore", description="`end`: a lost life ends the episode for the learner; the game itself goes on."
        )
        noop_max: int = Field(30, ge=0, description="A game begins with 0 to this many frames without action.")
        fire_reset: bool = Field(True, description="Begin with FIRE where the game has it; some wait for it.")
        max_frames: int = Field(108_000, gt=0, description="Frames after which a game is cut; 108 000 are 30 minutes.")
        full_action_space: bool = Field(False, description="All 18 actions, not just those that the game reacts to.")
        reward_clipping: bool = Field(
            False, description="Reward -1, 0 or 1, for learners of others; the reward `clip` keeps the return whole."
        )
        threads: int = Field(0, ge=0, description="Emulation threads; 0: one per core, at most one per row.")

        @model_validator(mode="before")
        @classmethod
        def _fill_in_protocol(cls, given: Any) -> Any:
            if not isinstance(given, Mapping):
                return given
            return {**PROTOCOLS.get(str(given.get("protocol")), {}), **given}

        @field_validator("rom")
        @classmethod
        def _known_rom(cls, rom: str) -> str:
            if rom not in ROMS:
                raise ValueError(f"ale-py ships no single-player ROM {rom!r}{did_you_mean(rom, ROMS)}")
            return rom

    clock: ClassVar[Clock] = Clock("pausable")

    def __init__(self, config: Config, setup: Setup) -> None:
        self.config = config
        self.batch = setup.batch
        shape: tuple[int, ...] = (config.stack, config.height, config.width)
        if config.colour == "rgb":
            shape = (*(shape if config.stack > 1 else shape[1:]), 3)
        self.observation_space = spaces.Dict({"pixels": spaces.Box(0, 255, shape, np.uint8)})
        self.action_space: spaces.Space[Any] = spaces.Discrete(len(action_names(config.rom, config.full_action_space)))
        self._shape = (self.batch, *shape)
        self._emulators: AtariVectorEnv | None = None

    @property
    def keys(self) -> dict[tuple[str, ...], int]:
        """The arrows and space, together where the game has an action for it."""
        names = action_names(self.config.rom, self.config.full_action_space)
        return {tuple(KEYS[word] for word in KEYS if word in name): action for action, name in enumerate(names)}

    @property
    def fps(self) -> float:
        """The console's own speed."""
        return FRAMES_PER_SECOND / self.config.frame_skip

    def reset(self, seed: int) -> Arrays:
        """Start B games. Returns ``pixels``, uint8.

        gray: (B, stack, H, W); rgb: (B, stack, H, W, 3), or (B, H, W, 3) when ``stack`` is 1.
        """
        if self._emulators is None:
            self._emulators = emulators(self.config, self.batch)
        seeds = row_seeds(seed, self.batch)
        pixels, info = self._emulators.reset(seed=seeds)
        self._lives = info["lives"]
        self._spectator = Spectator(self.config, int(seeds[0]))
        self._spectator.restarted(info["episode_frame_number"][0])
        return {"pixels": pixels.reshape(self._shape)}

    def step(self, action: Array) -> Step:
        """Hold ``action``, int (B,), for ``frame_skip`` frames. The reward is the raw score.

        With ``life_loss: end``, ``ended`` also marks lost lives; ``over`` marks whole games, and only those restart.
        """
        if self._emulators is None:
            raise RuntimeError("reset(seed) must come before the first step")
        action = self._checked(action)
        pixels, score, terminated, truncated, info = self._emulators.step(action)
        self._spectator.acted(action[0])
        over = terminated | truncated
        final = self._final(over, info) if over.any() else None
        step = Step({"pixels": pixels.reshape(self._shape)}, score.astype(np.float32), terminated, truncated, final)
        if self.config.life_loss == "end":
            lives = info["lives"]
            lost = (lives < self._lives) & (lives > 0) & ~over  # some games show 0 lives for a while before the end
            step.ended, step.over, self._lives = terminated | lost, over, lives
        return step

    def frame(self) -> Array:
        """Row 0's screen in colour: uint8 (210, 160, 3); some games are up to 250 high.

        The first look after `reset` takes as long as emulating all of row 0's steps since; the next, one step each.
        """
        return self._spectator.frame()

    def save(self) -> None:
        """None: ale-py's vector emulator cannot give its state."""

    def load(self, snapshot: Snapshot) -> None:
        raise RuntimeError("an Atari game has no saved state to load; reset(seed) starts it anew")

    def close(self) -> None:
        self._emulators = None  # its threads end with it

    def _checked(self, action: Array) -> Array:
        """``action`` as the emulators need it; an impossible one would make them wait for ever."""
        action = np.asarray(action, np.int64)
        if action.min() < 0 or action.max() >= self.action_space.n:  # type: ignore[attr-defined]
            raise ValueError(f"action {action} is outside {self.action_space} of {self.config.rom}")
        return action

    def _final(self, over: Array, info: Mapping[str, Array]) -> Final:
        if over[0]:
            self._spectator.restarted(info["episode_frame_number"][0])
        rows = np.flatnonzero(over)
        return Final(rows, {"pixels": info["final_obs"].reshape(self._shape)[rows]})


def emulators(config: AtariGame.Config, batch: int) -> AtariVectorEnv:
    """``batch`` emulators and their threads."""
    return AtariVectorEnv(
        config.rom,
        batch,
        num_threads=config.threads,
        max_num_frames_per_episode=config.max_frames,
        repeat_action_probability=config.sticky,
        full_action_space=config.full_action_space,
        autoreset_mode=AutoresetMode.SAME_STEP,
        img_height=config.height,
        img_width=config.width,
        grayscale=config.colour == "gray",
        stack_num=config.stack,
        frameskip=config.frame_skip,
        maxpool=config.max_pool,
        noop_max=config.noop_max + 1,  # ale-py draws below it
        reward_clipping=config.reward_clipping,
        use_fire_reset=config.fire_reset,
    )


def row_seeds(seed: int, batch: int) -> Array:
    """One emulator seed per row, int64 (B,), below 2**31. Unlike seed, seed + 1 ..., neighbouring seeds share none."""
    return (np.random.SeedSequence(seed).generate_state(batch) >> 1).astype(np.int64)


@cache
def action_names(rom: str, full: bool) -> tuple[str, ...]:
    """In the order of the actions: `NOOP`, `UPRIGHTFIRE` ..."""
    return tuple(action.name for action in action_set(open_rom(rom, sticky=0.0, seed=0), full))
