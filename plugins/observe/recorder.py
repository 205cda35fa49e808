"""``videos/step-00001234.mp4``: the first episode of each evaluation, in a format that every browser plays.

H.264 in yuv420p at 30 frames a second; episodes of a few frames play slower, so that the eye can follow. Small frames
are enlarged by whole factors without smoothing, so that pixels stay pixels; long episodes are cut after a minute, and
an event says so.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from agentctl.core.hooks import hookimpl
from agentctl.core.run import Evaluation, Observer, Run
from agentctl.core.types import Array
from agentctl.plugins.observe import announce

FOLDER = "videos"
FPS = 30
SLOWEST_FPS = 5
SHORTEST, LONGEST = 5, 60  # s
NARROWEST = 320  # px


@hookimpl
def agentctl_run_started(run: Run) -> None:
    if run.folder is None:
        return
    if any(importlib.util.find_spec(module) is None for module in ("imageio", "imageio_ffmpeg")):
        announce(run, "recorder", "videos are off: pip install 'game-agentctl[video]'")
        return
    run.observers.append(Recorder(run))


class Recorder(Observer):
    """Writes a video per evaluation. While it is attached, the loop collects the frames of an episode."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._said_cut = False

    def frames(self, frames: list[Any], evaluation: Evaluation) -> None:
        if self._run.folder is None or not frames:
            return
        path = video_path(self._run.folder, evaluation.step)
        write_video(path, frames[: LONGEST * FPS])
        evaluation.video = path
        if len(frames) > LONGEST * FPS and not self._said_cut:
            self._said_cut = True
            text = (
                f"the episode has {len(frames):,} frames; videos show the first {LONGEST} s ({LONGEST * FPS:,} frames)"
            )
            announce(self._run, "recorder", text)


def video_path(folder: Path, step: int) -> Path:
    """Where the video of the evaluation at ``step`` lies in a run's folder."""
    return folder / FOLDER / f"step-{step:08d}.mp4"


def write_video(path: Path, frames: Sequence[Array]) -> None:
    """Write RGB frames, uint8 (H, W, 3) each and all of one size; ``path`` appears only when it is complete."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.stem}.partial.mp4")
    try:
        with open_video(partial, frame_rate(len(frames))) as video:
            for frame in frames:
                video.append_data(presentable(frame))
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def frame_rate(frames: int) -> float:
    """Frames a second: 30, or as few as it takes to fill five seconds, though not below 5."""
    return min(FPS, max(SLOWEST_FPS, frames / SHORTEST))


def open_video(path: Path, fps: float) -> Any:
    """imageio's writer; with ``faststart`` a browser plays before it has read to the end."""
    import imageio.v2 as imageio

    return imageio.get_writer(
        path,
        format="FFMPEG",
        mode="I",
        fps=fps,
        codec="libx264",
        pixelformat="yuv420p",
        macro_block_size=2,  # the sizes are even already
        output_params=["-preset", "veryfast", "-movflags", "+faststart"],
    )


def presentable(frame: Array) -> Array:
    """Enlarge uint8 (H, W, 3) by a whole factor to at least 320 px wide; repeat the last row or column of odd sizes."""
    height, width = frame.shape[:2]
    factor = -(-NARROWEST // width)
    large = np.repeat(np.repeat(frame, factor, axis=0), factor, axis=1)
    odd_rows, odd_columns = large.shape[0] % 2, large.shape[1] % 2
    return np.ascontiguousarray(np.pad(large, ((0, odd_rows), (0, odd_columns), (0, 0)), mode="edge"))
