"""The one place where it happens: collect -> learn policy -> learn world model -> evaluate -> save -> repeat."""

from __future__ import annotations

import math
import time
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from agentctl.core.assembly import Assembly
from agentctl.core.checkpoint import read_checkpoint, write_checkpoint
from agentctl.core.evaluate import Evaluator
from agentctl.core.guard import Guard
from agentctl.core.pipeline import Flow
from agentctl.core.run import Evaluation, Observer, Progress, Run
from agentctl.core.types import Array, Arrays, Decision, Final, Metrics, Snapshot, Step, Transition


@dataclass(slots=True)
class Returns:
    """The returns of training episodes: the game's own reward, over whole games, lost lives included."""

    running: Array  # float64 (B,)
    recent: deque[float] = field(default_factory=lambda: deque(maxlen=100))
    episodes: int = 0

    def count(self, reward: Array, over: Array) -> None:
        self.running += reward
        if over.any():
            self.recent.extend(self.running[over].tolist())
            self.episodes += int(over.sum())
            self.running[over] = 0.0

    @property
    def mean(self) -> float:
        return sum(self.recent) / len(self.recent) if self.recent else math.nan


class Loop:
    """Trains one assembly. Its whole state is in its parts, ``flow``, ``state`` and a few counters, all saved."""

    def __init__(self, assembly: Assembly, run: Run) -> None:
        self.assembly, self.run = assembly, run
        self.settings = assembly.composition.settings.run
        self.evaluator = Evaluator(assembly, assembly.composition.settings.evaluation)
        self.step = self.cycle = 0
        self.checkpoints = 0
        self.returns = Returns(np.zeros(assembly.batch))
        self.flow = Flow(np.zeros(assembly.batch, np.int64))
        self.state: Arrays = {}
        self.metrics: Metrics = {}
        self.term_sums: dict[str, float] = {}
        self.term_steps = 0
        self.stop_asked = False
        self._began = time.perf_counter()
        self._began_step = 0
        self._evaluating = 0.0  # seconds, not counted in steps per second
        self._watch_steps: list[Observer] = []

    def train(self, resume: Path | None = None) -> None:
        """Run all cycles, from a checkpoint if one is given. Every cycle ends with a checkpoint, also when stopped."""
        self._announce_guards()
        self._watch_steps = [o for o in self.run.observers if type(o).stepped is not Observer.stepped]
        if resume is None:
            self._begin()
        else:
            self._resume(resume)
        self._began, self._began_step = time.perf_counter(), self.step
        try:
            while self.step < self.settings.steps and not self.stop_asked:
                self._one_cycle()
        finally:
            self.assembly.game.close()

    def play(self) -> None:
        """Act for ``run.steps`` steps or until stopped, with the policy's best actions and without learning."""
        parts = self.assembly
        self._announce_guards()
        self._watch_steps = [o for o in self.run.observers if type(o).stepped is not Observer.stepped]
        self._begin()
        self._began = time.perf_counter()
        while self.step < self.settings.steps and not self.stop_asked:
            self._advance(parts.policy.act(self.flow.policy, self.state, self.flow.first), last=False)
        parts.game.close()

    def ask_to_stop(self) -> None:
        """End the cycle after the current step, then save (the first Ctrl-C)."""
        self.stop_asked = True
        self.notify("stop", "stopping: this cycle ends here and is saved")

    def notify(self, kind: str, text: str) -> None:
        """Tell every observer of an event."""
        for observer in list(self.run.observers):
            self._tell(observer, "event", kind, text)

    def _one_cycle(self) -> None:
        target = min(self.step - self.step % self.settings.cycle_steps + self.settings.cycle_steps, self.settings.steps)
        try:
            last, policy = self.step >= target, self.assembly.policy
            while not last:
                last = self.stop_asked or self.step + self.assembly.batch >= target
                self._advance(policy.explore(self.flow.policy, self.state, self.flow.first), last=last)
                self._learn()
        except Exception:
            self._save_after_failure()
            raise
        self.cycle += 1
        every = self.assembly.composition.settings.evaluation.every
        if not self.stop_asked and (self.cycle % every == 0 or self.step >= self.settings.steps):
            self.evaluate()
        self._save()

    def _advance(self, decision: Decision, *, last: bool) -> None:
        """One step of every row. The ``last`` step of a cycle cuts all episodes when the game cannot save its state."""
        parts, flow = self.assembly, self.flow
        first, carry = flow.first, flow.policy
        flow.policy = decision.carry
        step = parts.game.step(decision.action)
        ended, cut = step.ended, step.cut
        final = self._final(step, decision.action)
        next_state = parts.pipeline.see(flow, step.observation, decision.action, ended | cut)
        if last and self._restarts:
            cut, final = _cut_all(ended, cut, final, next_state)
        transition = Transition(
            self.state, first, carry, decision, step.reward, ended, cut, step.finished, next_state, final
        )
        parts.rewards.score(transition)
        if parts.replay is not None:
            parts.replay.add(transition)
        self.state = next_state
        self._count(transition)

    def _final(self, step: Step, action: Array) -> Final | None:
        if step.final is None:
            return None
        return self.assembly.pipeline.peek(self.flow, step.observation, step.final, action)

    def _count(self, transition: Transition) -> None:
        self.step += len(transition.reward)
        self.term_steps += len(transition.reward)
        self.returns.count(transition.reward, transition.over)
        for name, term in transition.terms.items():
            self.term_sums[name] = self.term_sums.get(name, 0.0) + float(term.sum())
        for observer in self._watch_steps:
            self._tell(observer, "stepped", transition)

    def _learn(self) -> None:
        parts = self.assembly
        if parts.replay is None or not parts.replay.ready():
            return
        batch = parts.replay.sample()
        self.metrics |= parts.policy.learn(batch)
        if parts.pipeline.world_model is not None:
            self.metrics |= {f"world_model/{k}": v for k, v in parts.pipeline.world_model.learn(batch).items()}
        for observer in list(self.run.observers):
            self._tell(observer, "learned", self.progress())
        self.term_sums, self.term_steps = {}, 0

    def progress(self) -> Progress:
        """Where the run stands now."""
        seconds = time.perf_counter() - self._began
        terms = {name: total / max(self.term_steps, 1) for name, total in self.term_sums.items()}
        rate = (self.step - self._began_step) / max(seconds - self._evaluating, 1e-9)
        progress = Progress(
            self.step, self.settings.steps, self.cycle, seconds, rate, self.returns.episodes, self.returns.mean,
            dict(self.metrics), terms,
        )  # fmt: skip
        self.run.progress = progress
        return progress

    def evaluate(self) -> Evaluation:
        """Play the evaluation episodes and tell everyone."""
        began = time.perf_counter()
        watchers = [o for o in self.run.observers if type(o).frames is not Observer.frames]
        random_returns = self.evaluator.random_returns()
        played = self.evaluator.policy_episodes(frames=bool(watchers))
        evaluation = Evaluation(self.step, played.returns, played.lengths, random_returns, played.terms)
        if played.unseen:
            self.notify("video", f"no video: {played.unseen}")
        for observer in watchers if played.frames else ():
            self._tell(observer, "frames", played.frames, evaluation)
        self.run.evaluations.append(evaluation)
        self._evaluating += time.perf_counter() - began
        for observer in list(self.run.observers):
            self._tell(observer, "evaluated", evaluation)
        return evaluation

    def _begin(self) -> None:
        parts = self.assembly
        observation = parts.game.reset(self._game_seed())
        self.flow, self.state = parts.pipeline.begin(observation, parts.batch, parts.policy.initial(parts.batch))

    @property
    def _restarts(self) -> bool:
        """Whether the game cannot give its state, so that each checkpoint cuts all episodes and restarts it."""
        return self.assembly.game.save() is None

    def _game_seed(self) -> int:
        """The seed of the games after this many checkpoints: the same in a run that never stopped and a resumed one."""
        return int(np.random.SeedSequence((self.settings.seed, self.checkpoints)).generate_state(1)[0] % 2**31)

    def _save(self) -> None:
        self.checkpoints += 1
        game = self.assembly.game.save()
        if game is None:
            self.returns.running[:] = 0.0
            self._begin()
        if self.run.folder is None:
            return
        parts = {name: part.save() for name, part in self.assembly.stateful().items()}
        parts |= {"loop": self._snapshot()} | ({} if game is None else {"game": game})
        path = write_checkpoint(self.run.folder / "checkpoints", self.step, parts, self.settings.keep_checkpoints)
        for observer in list(self.run.observers):
            self._tell(observer, "saved", path, self.progress())

    def _save_after_failure(self) -> None:
        """Keep what was learnt when a plugin fails: a checkpoint at the last whole step, if parts can still save."""
        try:
            self._save()
        except Exception as error:
            self.notify("checkpoint", f"no checkpoint at the failure ({error}); the last good one stays")

    def _resume(self, path: Path) -> None:
        found = read_checkpoint(path)
        for name, part in self.assembly.stateful().items():
            part.load(found[name])
        self._restore(found["loop"])
        if "game" in found:
            self.assembly.game.reset(self._game_seed())
            self.assembly.game.load(found["game"])
        else:
            self._begin()

    def _snapshot(self) -> Snapshot:
        arrays = {f"state.{key}": value for key, value in self.state.items()}
        arrays |= {f"world.{key}": value for key, value in self.flow.world.items()}
        arrays |= {f"policy.{key}": value for key, value in self.flow.policy.items()}
        arrays |= {"time": self.flow.time, "running": self.returns.running}
        data: dict[str, Any] = {"step": self.step, "cycle": self.cycle, "checkpoints": self.checkpoints}
        data |= {"recent": list(self.returns.recent), "episodes": self.returns.episodes, "metrics": self.metrics}
        data |= {"term_sums": self.term_sums, "term_steps": self.term_steps}
        data["guards"] = {name: guard.errors for name, guard in self._guards().items()}
        return Snapshot(arrays, data)

    def _restore(self, snapshot: Snapshot) -> None:
        arrays, data = snapshot.arrays, snapshot.data
        self.state = _prefixed(arrays, "state.")
        self.flow = Flow(arrays["time"], _prefixed(arrays, "world."), _prefixed(arrays, "policy."))
        self.returns = Returns(arrays["running"], deque(data["recent"], maxlen=100), data["episodes"])
        self.step, self.cycle, self.checkpoints = data["step"], data["cycle"], data["checkpoints"]
        self.metrics, self.term_sums, self.term_steps = data["metrics"], data["term_sums"], data["term_steps"]
        for name, guard in self._guards().items():
            guard.errors = data["guards"].get(name, 0)

    def _guards(self) -> dict[str, Guard]:
        parts = self.assembly
        everyone: list[Any] = [
            *parts.pipeline.perceptions,
            parts.pipeline.world_model,
            parts.pipeline.memory,
            parts.policy,
        ]
        everyone += [reward for _, reward in parts.rewards.parts]
        return {".".join(map(str, part.chosen.loc)): part for part in everyone if isinstance(part, Guard)}

    def _announce_guards(self) -> None:
        for guard in self._guards().values():
            guard.notify = self.notify

    def _tell(self, observer: Observer, what: str, *args: Any) -> None:
        """Call an observer; one that fails is switched off, the run goes on."""
        try:
            getattr(observer, what)(*args)
        except Exception as error:
            self.run.observers = [other for other in self.run.observers if other is not observer]
            self._watch_steps = [other for other in self._watch_steps if other is not observer]
            self.notify("observer", f"{type(observer).__name__} failed and is off: {type(error).__name__}: {error}")


def _cut_all(ended: Array, cut: Array, final: Final | None, state: Arrays) -> tuple[Array, Final]:
    """Every row that did not just finish is cut where it stands."""
    finished = ended | cut
    stopped = {} if final is None else {int(row): index for index, row in enumerate(final.rows)}
    rows = np.array([row for row in range(len(ended)) if row in stopped or not finished[row]], np.int64)
    arrays = {key: value[rows].copy() for key, value in state.items()}
    if final is not None:
        for key, value in final.arrays.items():
            arrays[key][np.isin(rows, final.rows)] = value
    return ~ended, Final(rows, arrays)


def _prefixed(arrays: Arrays, prefix: str) -> dict[str, Array]:
    return {key[len(prefix) :]: value for key, value in arrays.items() if key.startswith(prefix)}
