"""What benchmarks say of dreams, on dreams whose error is known."""

import importlib
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

BENCHMARKS = Path(__file__).resolve().parent.parent / "benchmarks"


@pytest.fixture
def worlds(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("_worlds")


def test_drift_is_told_of_changed_pixels_of_games_that_go_on(worlds: ModuleType) -> None:
    """Two games of three steps: one pixel of four changes, and the dream shows it 51 (a fifth of 255) too dark.

    The second game stops after its first step; what was dreamt of it afterwards is far off and must not count, nor
    must pixels that stayed as they were.
    """
    start = np.zeros((2, 2, 2, 1), np.uint8)
    real = np.broadcast_to(start, (3, *start.shape)).copy()
    real[:, :, 0, 0] = 200
    dreamt = real.copy()
    dreamt[:, :, 0, 0] = 149
    dreamt[:, :, 1, 1] = 90
    dreamt[1:, 1] = 0
    going = np.array([[True, True], [True, False], [True, False]])
    found = worlds.psnr_by_step(worlds.Rollout(start, real, dreamt, going), dreamt)
    assert found == [(step, pytest.approx(20 * np.log10(5), abs=0.01)) for step in (1, 2, 3)]


def test_where_no_game_goes_on_nothing_is_told(worlds: ModuleType) -> None:
    frames = np.zeros((2, 1, 2, 2, 1), np.uint8)
    frames[1] = 9
    going = np.array([[True], [False]])
    rollout = worlds.Rollout(np.full((1, 2, 2, 1), 5, np.uint8), frames, frames, going)
    assert [step for step, _ in worlds.psnr_by_step(rollout, frames)] == [1]
