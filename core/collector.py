"""Plays the games of one assembly in this process, step by step, and learns from every batch that is due."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from agentctl.core.assembly import Assembly
from agentctl.core.audience import Audience
from agentctl.core.guard import Guard
from agentctl.core.pipeline import cut_everywhere
from agentctl.core.protocols import PrioritisedReplay
from agentctl.core.standing import Standing, load_part
from agentctl.core.types import Decision, Metrics, Snapshot, Transition


class Collector:
    """All that changes is in the assembly's parts and in ``at``; ``learned`` hears of every learning step."""

    def __init__(
        self,
        assembly: Assembly,
        at: Standing,
        audience: Audience,
        learned: Callable[[Metrics], None],
        stopped: Callable[[], bool] = lambda: False,
    ) -> None:
        self.assembly, self.at, self.audience = assembly, at, audience
        self._learned, self._stopped = learned, stopped
        self._seed = assembly.composition.settings.run.seed
        guarded = isinstance(assembly.policy, Guard) and assembly.replay is not None
        self._empty_replay: Snapshot | None = assembly.replay.save() if guarded else None  # type: ignore[union-attr]

    def begin(self) -> None:
        """Start all games, and with them all episodes."""
        parts, at = self.assembly, self.at
        observation = parts.game.reset(self._game_seed())
        at.flow, at.state = parts.pipeline.begin(observation, parts.batch, parts.policy.initial(parts.batch))

    def restore(self, checkpoint: Path) -> None:
        """Put the games back where ``checkpoint`` holds them, if it does."""
        if self.at.game is not None:
            self.assembly.game.reset(self._game_seed())
            load_part(self.assembly.game, self.at.game, f"{checkpoint}: game")

    def collect(self, target: int) -> None:
        """Explore and learn up to ``target`` steps, or to the step after which a stop was asked for; then pause."""
        at, last = self.at, False
        while not last:
            last = self._stopped() or at.step + self.assembly.batch >= target
            seen = self.explore()
            if last:
                self.pause()
                if at.game is None:
                    cut_everywhere(seen)
            self.take_in(seen)

    def pause(self) -> None:
        """Take the games' state for a checkpoint; where they cannot give it, they stop here and are started anew."""
        self.at.game = self.assembly.game.save()
        if self.at.game is None:
            self.at.restarts += 1
            self.at.tally.abandon()

    def go_on(self) -> None:
        """After a checkpoint, written or read."""
        if self.at.game is None:
            self.begin()
        self.at.game = None

    def close(self) -> None:
        self.assembly.game.close()

    def explore(self) -> Transition:
        """One step of every row, to learn from."""
        flow = self.at.flow
        return self.advance(self.assembly.policy.explore(flow.policy, self.at.state, flow.first))

    def advance(self, decision: Decision) -> Transition:
        """One step of every row."""
        parts, at = self.assembly, self.at
        seen = parts.pipeline.advance(at.flow, at.state, decision, parts.game.step(decision.action))
        at.state = seen.next_state
        return seen

    def take_in(self, seen: Transition) -> None:
        """Score, keep and count a step, and learn when it is time."""
        self.assembly.rewards.score(seen)
        self._remember(seen)
        self.count(seen)
        self._learn()

    def count(self, seen: Transition) -> None:
        self.at.step += len(seen.reward)
        self.at.tally.count(seen)
        self.audience.stepped(seen)

    def _remember(self, seen: Transition) -> None:
        """Give the replay a step. It never mixes what a policy and its fallback leave for their learning."""
        replay, at = self.assembly.replay, self.at
        assert replay is not None, "training needs a replay"
        if self._empty_replay is not None:
            names = [*seen.decision.extras, *seen.carry]
            if at.learns_from not in ([], names):
                replay.load(self._empty_replay)
                self.audience.notify("replay", "emptied: another policy acts now, which learns from other figures")
            at.learns_from = names
        replay.add(seen)

    def _learn(self) -> None:
        """From every batch that is due."""
        replay = self.assembly.replay
        while replay is not None and replay.ready():
            batch = replay.sample()
            self._learned(self.assembly.learn(batch))
            if batch.error is not None and isinstance(replay, PrioritisedReplay):
                replay.reprioritise(batch)

    def _game_seed(self) -> int:
        """The seed of the games after this many restarts: the same in a run that never stopped and a resumed one."""
        return int(np.random.SeedSequence((self._seed, self.at.restarts)).generate_state(1)[0] % 2**31)
