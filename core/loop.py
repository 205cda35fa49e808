"""The one place where it happens: collect -> learn policy -> learn world model -> evaluate -> save -> repeat.

Every cycle ends with a checkpoint, and the first one is written before the first step. A run that is resumed from one
goes on as the run that wrote it did, to the bit: whatever a checkpoint does to a run, such as starting games anew that
cannot save their state, it does to both.
"""

from __future__ import annotations

import time
from pathlib import Path

from agentctl.core.assembly import Assembly
from agentctl.core.audience import Audience
from agentctl.core.checkpoint import latest_checkpoint, read_checkpoint, write_checkpoint
from agentctl.core.collector import Collector
from agentctl.core.crew import Crew
from agentctl.core.errors import ConfigError
from agentctl.core.evaluate import Evaluator, by_game
from agentctl.core.protocols import ExplainedPolicy, OfflineReplay, SharedPolicy
from agentctl.core.run import Evaluation, Progress, Run
from agentctl.core.standing import Standing, check_numbers, load_part
from agentctl.core.study import Study, finished
from agentctl.core.types import Metrics, Snapshot

LEARNT = ("policy", "world_model", "reward")
"""The parts that a failure leaves as they are; the others go back to the last checkpoint."""


class Loop:
    """Trains one assembly. All that changes is in the assembly's parts and in ``at``; a checkpoint holds both."""

    def __init__(self, assembly: Assembly, run: Run, step: int = 0) -> None:
        self.assembly, self.run = assembly, run
        self.settings = assembly.composition.settings.run
        self.audience = Audience(run, assembly.composition.registry)
        self.evaluator = Evaluator(assembly, assembly.composition.settings.evaluation, lambda: self.stop_asked)
        self.at = Standing.before_the_first_step(assembly.batch)
        self.at.evaluations, self.at.step = run.evaluations, step
        self.stop_asked = False
        self._resumed_from: Path | None = None
        self._notes: list[str] = []  # what a resumed run's user should know
        self._began = time.perf_counter()
        self._began_step = step
        self._evaluating = 0.0  # seconds, not counted in steps per second
        self._games = self._players()
        for guard in assembly.guards().values():
            guard.notify = self.audience.notify

    def train(self) -> None:
        """Run all cycles. Every cycle ends with a checkpoint, also when it is stopped."""
        try:
            self._start()
            while not self._done and not self.stop_asked:
                self._one_cycle()
            if not self.stop_asked and not self.at.evaluated:  # a resumed run whose last evaluation was stopped
                self.evaluate()
                self._games.pause()
                self._save()
            if self.stop_asked:
                self.audience.notify("stop", f"stopped by the user at step {self.at.step:,}; everything is saved")
        finally:
            self._games.close()

    def play(self) -> None:
        """Act for ``run.steps`` steps or until stopped, with the policy's best actions and without learning."""
        policy, at, games = self.assembly.policy, self.at, self._collector()
        self.audience.open()
        try:
            games.begin()
            self._began = time.perf_counter()
            while at.step < self.settings.steps and not self.stop_asked:
                seen = games.advance(policy.act(at.flow.policy, at.state, at.flow.first))
                self.assembly.rewards.score(seen)
                games.count(seen)
        finally:
            games.close()

    def ask_to_stop(self) -> None:
        """End the cycle after the current step, then save (the first Ctrl-C). Safe in a signal handler."""
        self.stop_asked = True

    def resume(self, path: Path) -> None:
        """Stand where a checkpoint stands; ``train`` then goes on. Raises AgentctlError when it does not fit."""
        found = read_checkpoint(path)
        for name, part in self.assembly.stateful().items():
            if name in found:
                load_part(part, found.pop(name), f"{path}: {name}")
            else:
                self._notes.append(f"{path} holds no {name}: it starts anew")
        guards = found["loop"].data.pop("guards")
        for name, guard in self.assembly.guards().items():
            guard.errors = guards.get(name, 0)
        self.at = self._games.at = Standing.of(found["loop"], found.get("game"))
        self.run.evaluations = self.at.evaluations
        self._check_fit()
        self._resumed_from, self._began_step = path, self.at.step
        self.progress()

    def progress(self) -> Progress:
        """Where the run stands now."""
        at, seconds = self.at, time.perf_counter() - self._began
        rate = (at.step - self._began_step) / max(seconds - self._evaluating, 1e-9)
        progress = Progress(
            at.step, self.settings.steps, at.cycle, seconds, rate, at.tally.episodes, at.tally.return_mean,
            dict(at.metrics), at.tally.report(),
        )  # fmt: skip
        self.run.progress = progress
        return progress

    def evaluate(self) -> None:
        """Play the evaluation episodes and tell everyone, unless a stop is asked for meanwhile."""
        began = time.perf_counter()
        watchers = self.audience.who_see("frames")
        random_returns = self.evaluator.random_returns()
        played = self.evaluator.policy_episodes(frames=bool(watchers)) if random_returns is not None else None
        self._evaluating += time.perf_counter() - began
        if played is None or random_returns is None:
            return
        evaluation = Evaluation(self.at.step, played.returns, played.lengths, random_returns, played.terms)
        if isinstance(self.assembly.policy, ExplainedPolicy):
            evaluation.tables = self.assembly.policy.tables()
        if played.games:
            evaluation.tables["returns by game"] = by_game(played.games, played.returns, random_returns)
        if played.unseen:
            self.audience.notify("video", f"no video: {played.unseen}")
        for observer in watchers if played.frames else ():
            self.audience.tell(observer, "frames", played.frames, evaluation)
        self.run.evaluations.append(evaluation)
        self.audience.tell_all("evaluated", evaluation)

    @property
    def _done(self) -> bool:
        return self.at.step >= self.settings.steps or finished(self.assembly)

    def _players(self) -> Collector | Crew | Study:
        """Who plays the games: this process, worker processes that train together, or nobody: they were recorded."""
        rest = (self.assembly, self.at, self.audience, self._learned, lambda: self.stop_asked)
        if isinstance(self.assembly.policy, SharedPolicy):
            return Crew(*rest)
        return Study(*rest) if isinstance(self.assembly.replay, OfflineReplay) else Collector(*rest)

    def _collector(self) -> Collector:
        return Collector(self.assembly, self.at, self.audience, self._learned, lambda: self.stop_asked)

    def _learned(self, metrics: Metrics) -> None:
        """After every learning step."""
        self.at.metrics |= metrics
        self.audience.tell_all("learned", self.progress())
        self.at.tally.reported()

    def _start(self) -> None:
        """Begin with a checkpoint, or go on from one."""
        self.audience.open()
        for text in self._notes:
            self.audience.notify("resume", text)
        if self._resumed_from is None:
            self._games.begin()
            self._games.pause()
            self._write()
        else:
            self._games.restore(self._resumed_from)
        self._games.go_on()
        self._began = time.perf_counter()

    def _one_cycle(self) -> None:
        at, cycle = self.at, self.settings.cycle_steps
        target = min(at.step - at.step % cycle + cycle, self.settings.steps)
        try:
            self._games.collect(target)
        except Exception:
            self._keep_what_was_learnt()
            raise
        try:
            if at.step >= target or self._done:
                at.cycle += 1
                self._evaluate_when_due()
        except Exception:
            self._save()
            raise
        self._save()

    def _evaluate_when_due(self) -> None:
        every = self.assembly.composition.settings.evaluation.every
        if self.at.cycle % every == 0 or self._done:
            self.evaluate()

    def _save(self) -> None:
        path = self._write()
        if path is not None:
            self.audience.tell_all("saved", path, self.progress())
        if not self._done and not self.stop_asked:
            self._games.go_on()

    def _write(self) -> Path | None:
        if self.run.folder is None:
            return None
        parts = {name: part.save() for name, part in self.assembly.stateful().items()}
        parts |= {"loop": self._snapshot()} | ({} if self.at.game is None else {"game": self.at.game})
        return write_checkpoint(self.run.folder / "checkpoints", self.at.step, parts, self.settings.keep_checkpoints)

    def _snapshot(self) -> Snapshot:
        snapshot = self.at.save()
        snapshot.data["guards"] = {name: guard.errors for name, guard in self.assembly.guards().items()}
        return snapshot

    def _keep_what_was_learnt(self) -> None:
        """After a failure: save what learns as it is, and all else as in the last checkpoint."""
        if self.run.folder is None:
            return
        try:
            path = latest_checkpoint(self.run.folder)
            parts = read_checkpoint(path)
            then, now = parts["loop"], self._snapshot()
            if then.data["step"] == self.at.step:
                return
            parts |= {n: part.save() for n, part in self.assembly.stateful().items() if n.startswith(LEARNT)}
            check_numbers(parts)
            parts["loop"] = self.at.go_back_to(then)
            parts["loop"].data["guards"] = now.data["guards"]
            write_checkpoint(path.parent, self.at.step, parts, self.settings.keep_checkpoints)
            text = f"what was learnt is saved; the games go on where they were at step {then.data['step']:,}"
        except Exception as error:
            text = f"nothing saved at the failure ({error}); the last good checkpoint stays"
        self.audience.notify("checkpoint", text)

    def _check_fit(self) -> None:
        """Raise ConfigError when a changed configuration leaves a checkpoint nothing to go on with."""
        rows, batch = len(self.at.tally.running), self.assembly.batch
        if rows != batch:
            raise ConfigError(f"the checkpoint is of {rows} rows, game.batch is {batch}: set it back to {rows}")
        gives = self.assembly.setup.space.spaces.keys()
        if self.at.game is not None and self.at.state.keys() != gives:
            raise ConfigError(
                f"the checkpoint's state holds {sorted(self.at.state)}, the stages now give {sorted(gives)}: "
                "switch on and off what was on and off before"
            )
