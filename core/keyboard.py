"""A person at the keyboard: a window that shows a game, and held keys that become its actions.

`gymnasium.utils.play` gives the window, draws in it, and knows which keys are down. Its loop, `play`, does not fit: it
steps an environment by itself, seeds every game alike, misses a key that is pressed and released between two steps, and
does nothing when one key too many is held. So the loop stays the recording's, and this is who decides in it.
Nothing here imports pygame before it is needed.
"""

from __future__ import annotations

import os
import warnings
from typing import TYPE_CHECKING

import numpy as np

from agentctl.core.errors import ConfigError, NotReadyError
from agentctl.core.gym_env import GameEnv
from agentctl.core.keys import Keys, keys_of, steps_per_second
from agentctl.core.pipeline import Flow
from agentctl.core.tape import Tape
from agentctl.core.types import Array, Arrays, Decision

if TYPE_CHECKING:
    from gymnasium.utils.play import PlayableGame
    from pygame.event import Event

    from agentctl.core.runner import Stoppable

LOOKS = 60.0  # a second, while a game waits
REPEAT_AFTER = 0.5  # seconds: where a game waits, a key held for longer is pressed again and again
COMFORTABLE = (1280, 900)  # pixels
PART_OF_SCREEN = 0.8
UNSEEN = ("dummy", "offscreen")
"""SDL's drivers without a screen; it falls back to the second by itself."""


class Keyboard:
    """Plays a game of one row. The game must have been reset, and nobody else may open windows meanwhile."""

    def __init__(self, tape: Tape, title: str, fps: float | None, stop: Stoppable) -> None:
        """``title``: of the window, with the score behind it; ``stop`` is asked to when the person ends it.

        Raises NotReadyError when pygame or a screen is missing, ConfigError when no keys are known for the game.
        """
        self.keys = Keys(keys_of(tape.game))
        self.fps = fps or steps_per_second(tape.game)
        self._tape, self._title, self._stop = tape, title, stop
        open_display()
        import pygame

        self._names = {key_code(name): name for name in self.keys.names}
        self._window = open_window(tape, list(self._names))
        self._clock = pygame.time.Clock()
        self._latest: list[str] = []  # every key that was ever pressed, in the order of its latest press
        self._tapped: set[str] = set()  # pressed since the last step, whether or not still held
        self._decided: list[int] = []  # where the game waits: the steps still to do
        self._paused, self._stale = False, True  # stale: what is shown is not what there is
        if self.keys.waits:
            pygame.key.set_repeat(round(1000 * REPEAT_AFTER), max(1, round(1000 / self.fps)))

    def ended(self) -> bool:
        """Show the game and wait until its next step is due. True when instead the person, or Ctrl-C, ended it."""
        import pygame

        while True:
            self._show()
            self._clock.tick(LOOKS if self._paused or self.keys.waits else self.fps)
            for event in pygame.event.get():
                self._take_in(event)
                self._stale = True
            if not self._window.running:
                self._stop.ask_to_stop()
            if self._stop.stop_asked or not (self._paused or (self.keys.waits and not self._decided)):
                return self._stop.stop_asked

    def act(self, flow: Flow, state: Arrays) -> Decision:
        """What the keys say now."""
        action = self._decided.pop(0) if self.keys.waits else self.keys.action(self._held())
        self._tapped.clear()
        self._stale = True
        return Decision(np.asarray([action]))

    def close(self) -> None:
        """Close the window."""
        import pygame

        pygame.display.quit()

    def _take_in(self, event: Event) -> None:
        import pygame

        if event.type == pygame.KEYDOWN:
            if event.key in self._names:
                self._press(event, self._names[event.key])
                return
            if event.key == pygame.K_p:
                self._paused = not self._paused
        self._window.process_event(event)

    def _press(self, event: Event, name: str) -> None:
        if event.key not in self._window.pressed_keys:  # else it is held for long, and counts again
            self._window.process_event(event)
        self._latest = [other for other in self._latest if other != name] + [name]
        if self._paused:
            return
        if not self.keys.waits:
            self._tapped.add(name)
        elif (action := self.keys.action(self._held(), (name,))) is not None:
            self._decided.append(action)

    def _held(self) -> list[str]:
        """The keys that count for the next step, in the order of their pressing."""
        held = self._tapped | {self._names[code] for code in self._window.pressed_keys}
        return [name for name in self._latest if name in held]

    def _show(self) -> None:
        import pygame
        from gymnasium.utils.play import display_arr

        if not self._stale:
            return
        frame, screen = self._tape.frame(), self._window.screen
        display_arr(screen, frame, picture_size(frame, screen.get_size()), transpose=True)
        pygame.display.set_caption(self._caption())
        pygame.display.flip()
        self._stale = False

    def _caption(self) -> str:
        tape, before = self._tape, self._tape.returns[0]
        words = [f"game {len(before) + 1}", f"score {tape.score[0]:g}", f"step {tape.time[0]}"]
        words += [f"last game {before[-1]:g}"] if before else []
        return f"{self._title}: {', '.join(words)} | {'PAUSED' if self._paused else 'P pauses'}, Esc ends"


def open_display() -> None:
    """Make SDL ready for windows. Raises NotReadyError, naming the remedy, where nobody would see them."""
    try:
        import pygame
    except ImportError as error:
        raise NotReadyError(f"a window needs pygame: {error}; pip install 'game-agentctl[window]'") from error
    try:
        pygame.display.init()
        driver = pygame.display.get_driver()
        why = f"SDL found only its {driver} driver" if driver in UNSEEN else ""
    except pygame.error as error:
        why = str(error)
    if why and not os.environ.get("SDL_VIDEODRIVER"):  # who names a driver wants it
        pygame.display.quit()
        raise NotReadyError(
            f"no window can be opened here: {why}. Play where there is a screen: in a desktop's terminal, "
            "through `ssh -X`, or with DISPLAY set; --agent records without one"
        )


def key_code(name: str) -> int:
    """Raises ConfigError when pygame knows no such key."""
    import pygame

    try:
        return pygame.key.key_code(name)
    except ValueError as error:
        raise ConfigError(f"the game's keys hold {name!r}, which is none: use names as `left`, `space`, `a`") from error


def open_window(tape: Tape, codes: list[int]) -> PlayableGame:
    """Gymnasium's window, as large as is comfortable; it keeps track of which of the keys ``codes`` are held."""
    import pygame

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that matplotlib is missing, for plots that are not made here
        from gymnasium.utils.play import PlayableGame
    desktop, frame = pygame.display.get_desktop_sizes()[0], tape.frame()
    room = [min(int(PART_OF_SCREEN * size), most) for size, most in zip(desktop, COMFORTABLE, strict=True)]
    zoom = picture_size(frame, (room[0], room[1]))[0] / frame.shape[1]
    return PlayableGame(GameEnv(tape.game, "rgb_array"), {(code,): 0 for code in codes}, zoom)


def picture_size(frame: Array, room: tuple[int, int]) -> tuple[int, int]:
    """Width and height of a ``frame``, uint8 (H, W, 3), enlarged by the largest whole number that fits ``room``."""
    height, width = frame.shape[:2]
    times = max(1, min(room[0] // width, room[1] // height))
    return width * times, height * times
