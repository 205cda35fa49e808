"""Real colour for videos: the vector emulator gives only what the agent sees, so a second emulator plays row 0 again.

An ALE game is a function of its seed and of the actions since. `Spectator` notes the actions, and when somebody looks,
a `Replica` plays those that it has not played yet. As long as nobody looks, a step costs four bytes.
"""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING

import numpy as np
from ale_py import Action, ALEInterface, LoggerMode, roms

from agentctl.core.types import Array

if TYPE_CHECKING:
    from agentctl.games.atari.game import AtariGame


class Spectator:
    """Follows one row of a vector emulator, from its seed on."""

    def __init__(self, config: AtariGame.Config, seed: int) -> None:
        self._config = config
        self._seed = seed
        self._replica: Replica | None = None
        self._unplayed = array("i")  # an action, or ~frames for a restart

    def acted(self, action: int) -> None:
        """Note the row's action."""
        self._unplayed.append(action)

    def restarted(self, frames: int) -> None:
        """Note that the row began an episode, which ran ``frames`` emulator frames before the agent's first action."""
        self._unplayed.append(~frames)

    def frame(self) -> Array:
        """The row's screen now: uint8 (210, 160, 3), RGB; some ROMs are up to 250 high."""
        if self._replica is None:
            self._replica = Replica(self._config, self._seed)
        for entry in self._unplayed:
            if entry >= 0:
                self._replica.act(entry)
            else:
                self._replica.restart(~entry)
        del self._unplayed[:]
        return self._replica.screen()


class Replica:
    """One emulator that does exactly what a row of `ale_py.AtariVectorEnv` does."""

    def __init__(self, config: AtariGame.Config, seed: int) -> None:
        self._config = config
        self._ale = open_rom(config.rom, config.sticky, seed)
        self._actions = action_set(self._ale, config.full_action_space)
        self._fires = config.fire_reset and Action.FIRE in self._actions
        self._started = 0  # the frame at which the agent took over
        self._screens = np.zeros((2, *self._ale.getScreenDims(), 3), np.uint8)  # a step's last frame, the one before

    def restart(self, frames: int) -> None:
        """Begin an episode and let it run ``frames`` frames: FIRE if the game wants it, then no-ops."""
        self._ale.reset_game()
        if self._fires:
            self._ale.act(Action.FIRE)
        while self._ale.getEpisodeFrameNumber() < frames:
            self._ale.act(Action.NOOP)
            if self._ale.game_over():
                self._ale.reset_game()
        self._started = frames
        self._ale.getScreenRGB(self._screens[0])
        self._screens[1] = 0

    def act(self, action: int) -> None:
        """One step of ``frame_skip`` frames. After a step that ends the episode only `restart` makes sense."""
        pooled = 2 if self._config.max_pool else 1
        for left in range(self._config.frame_skip, 0, -1):
            self._ale.act(self._actions[action])
            if self._ale.game_over() or self._ale.getEpisodeFrameNumber() - self._started >= self._config.max_frames:
                return
            if left <= pooled:
                self._ale.getScreenRGB(self._screens[left - 1])

    def screen(self) -> Array:
        """uint8 (H, W, 3), RGB; with ``max_pool`` the brighter of the last two frames, as some games flicker."""
        brighter: Array = np.maximum(self._screens[0], self._screens[1])
        return brighter


def open_rom(rom: str, sticky: float, seed: int) -> ALEInterface:
    """An emulator about to play ``rom`` (one of `ROMS`), repeating actions with probability ``sticky``."""
    ALEInterface.setLoggerMode(LoggerMode.Error)  # else it greets on stderr
    path = roms.get_rom_path(rom)
    assert path is not None, rom
    ale = ALEInterface()
    ale.setFloat("repeat_action_probability", sticky)
    ale.setInt("random_seed", seed)
    ale.loadROM(path)
    return ale


def action_set(ale: ALEInterface, full: bool) -> list[Action]:
    """All 18 actions, or those that do something in the game that ``ale`` plays."""
    return ale.getLegalActionSet() if full else ale.getMinimalActionSet()
