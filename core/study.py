"""Learns from what was recorded, where the loop would otherwise have games played."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from agentctl.core.assembly import Assembly
from agentctl.core.audience import Audience
from agentctl.core.playback import playback
from agentctl.core.protocols import JudgedPolicy, OfflineReplay
from agentctl.core.recording import Recording
from agentctl.core.standing import Standing
from agentctl.core.types import Metrics


class Study:
    """Stands in for a `Collector` where the replay was recorded before. Steps are counted as they are learnt from."""

    def __init__(
        self,
        assembly: Assembly,
        at: Standing,
        audience: Audience,
        learned: Callable[[Metrics], None],
        stopped: Callable[[], bool],
    ) -> None:
        assert isinstance(assembly.replay, OfflineReplay)
        self.assembly, self.at, self.audience, self._replay = assembly, at, audience, assembly.replay
        self._learned, self._stopped = learned, stopped

    def begin(self) -> None:
        """Show the replay what was recorded, as this run sees it."""
        for folder in self._replay.recordings:
            recording = Recording(folder)
            for number, why in recording.damaged.items():
                self.audience.notify("recording", f"{folder}: episode {number} is damaged and left out: {why}")
            for seen in playback(recording, self.assembly):
                self._replay.add(seen)

    def restore(self, checkpoint: Path) -> None:
        """A checkpoint does not hold what was recorded."""
        self.begin()

    def collect(self, target: int) -> None:
        """Learn from ``target`` steps in all, or until the policy is finished or a stop is asked for."""
        while self.at.step < target and not finished(self.assembly) and not self._stopped():
            batch = self._replay.sample()
            if batch.held_out:
                policy = self.assembly.policy
                self._learned(dict(policy.judge(batch)) if isinstance(policy, JudgedPolicy) else {})
                continue
            self.at.step += batch.reward.size
            self._learned(self.assembly.learn(batch))

    def pause(self) -> None:
        """No game is running."""

    def go_on(self) -> None:
        """There is nothing to start."""

    def close(self) -> None:
        self.assembly.game.close()


def finished(assembly: Assembly) -> bool:
    """Whether the policy has learnt all it can."""
    return isinstance(assembly.policy, JudgedPolicy) and assembly.policy.finished
