"""Experience as tokens: of each step one frame of what a tokenizer named, two bytes a token, and no pictures.

A policy that sees several frames together carries those before the newest from step to step. Here they are not stored
with every step but taken from the steps before it: a batch's ``carry`` holds, under the name of a field, the frames
that the policy carried. In the place of frames before an episode's start stands its first one, as in a frame stack.

Tokens mean something only to the tokenizer that made them. It counts in ``version`` how often it changed; when that
moves, all steps from before are stale: they are counted, said in a warning, and never sampled again. What learns from
these steps must do without pictures: the tokenizer learns before, in a run of its own (docs/agents.md).

Sampling, priorities and files are those of ``uniform`` and ``prioritized``. 1 000 000 steps of 336 tokens are 0.76 GB.

Shape key: T steps of B samples, S = history frames.
"""

from __future__ import annotations

import logging
from dataclasses import replace

import numpy as np
from gymnasium import spaces
from pydantic import ConfigDict, Field

from agentctl.core.guard import Guard
from agentctl.core.protocols import BaseConfig, Setup
from agentctl.core.types import Array, Arrays, Batch, Carry, Final, Snapshot, Transition
from agentctl.plugins.replay.history import History
from agentctl.plugins.replay.prioritized import Prioritized
from agentctl.plugins.replay.schedule import Schedule
from agentctl.plugins.replay.uniform import Uniform

log = logging.getLogger("agentctl")

CARRIED = "carry/"  # before the name of what a policy carries beside frames, among the extras where it is stored


class Tokens:
    class Config(BaseConfig):
        model_config = ConfigDict(json_schema_extra={"examples": [{"capacity": 1000, "warmup": 100, "length": 2}]})

        keep: tuple[str, ...] = Field(
            ("tokens", "action_mask"), min_length=1, description="parts of the state that are kept, those that it has"
        )
        history: int = Field(4, gt=0, description="frames that the policy sees together (S): its own `history`")
        capacity: int = Field(1_000_000, gt=0, description="steps that are kept, over all rows")
        warmup: int = Field(1_000, ge=0, description="steps before the first batch, and after each new tokenizer")
        every: int = Field(4, gt=0, description="steps between two batches")
        batch_size: int = Field(32, gt=0, description="samples in a batch (B)")
        length: int = Field(1, gt=0, description="steps in a row of each sample (T): n for n-step returns")
        priority: bool = Field(True, description="draw by error, as `prioritized` does; false: all equally likely")
        alpha: float = Field(0.5, ge=0, description="priority: how much the error counts; 0: all steps alike")
        beta: float = Field(0.4, ge=0, le=1, description="priority: how far weights make up for it, at first ...")
        beta_steps: int = Field(1_000_000, gt=0, description="... and wholly after this many steps")
        eps: float = Field(1e-6, gt=0, description="priority: added to every error, so that no step is lost for ever")

    def __init__(self, config: Config, setup: Setup) -> None:
        self._config, self._world_model = config, setup.world_model
        if isinstance(setup.world_model, Guard):
            raise ValueError("replay tokens: a fallback of the world model would name other tokens: remove `fallback`")
        self._whole = {key: part for key, part in setup.space.spaces.items() if key in config.keep}
        if not any(isinstance(part, spaces.MultiDiscrete) for part in self._whole.values()):
            raise ValueError(
                f"replay tokens keeps {list(config.keep)}, and the state {sorted(setup.space.spaces)} has no tokens "
                "among them: put a tokenizer before it, such as world_model: vqvae, or name its latent in `keep`"
            )
        self._kept = {key: narrowed(part) for key, part in self._whole.items()}
        self._before = config.history - 1  # steps that a sample begins earlier, for its first history
        self._inner = self._replay(setup.after(spaces.Dict(self._kept)))
        self._empty = self._inner.save()
        first = max(config.warmup, (self._before + config.length) * setup.batch)
        self._schedule = Schedule(first, config.every)
        self._version: int | None = None  # of the tokenizer that made what is here; None: nothing is here yet
        self._fresh = 0  # steps of this version
        self._frames: list[str] = []  # what the policy carries that is taken from the steps before
        self.stale = 0  # steps that were forgotten because the tokenizer changed
        self.nbytes = self._inner.nbytes

    @classmethod
    def example_setup(cls) -> Setup:
        tokens = spaces.MultiDiscrete(np.full((5, 4), 512), dtype=np.uint16)
        return Setup(spaces.Dict({"tokens": tokens}), spaces.Discrete(4))

    def add(self, transition: Transition) -> None:
        rows = len(transition.reward)
        if self._changed():
            self._forget(rows)
            return
        self._version = self._version_now()
        self._frames = [key for key in transition.carry if key in self._kept]
        self._check_history(transition.carry)
        self._inner.add(self._lean(transition))
        self._fresh += rows
        self._schedule.passed(rows, self._fresh)

    def ready(self) -> bool:
        return not self._changed() and self._schedule.due and self._inner.ready()

    def sample(self) -> Batch:
        """``length`` steps of ``batch_size`` samples; with ``priority`` also their ``number`` and ``weight``."""
        if self._changed():
            raise RuntimeError("the tokenizer changed since the last step: sample() only when ready()")
        self._schedule.take()
        return self._without_context(self._inner.sample())

    def reprioritise(self, batch: Batch) -> None:
        """Take note of ``batch.error``, float32 (B,), which the learner left there."""
        if isinstance(self._inner, Prioritized):
            self._inner.reprioritise(batch)

    def save(self) -> Snapshot:
        inner = self._inner.save()
        own = {"version": self._version, "fresh": self._fresh, "frames": self._frames, "stale": self.stale}
        return Snapshot(inner.arrays, {"inner": inner.data, "owed": self._schedule.owed, **own})

    def load(self, snapshot: Snapshot) -> None:
        data = snapshot.data
        self._inner.load(Snapshot(snapshot.arrays, data["inner"]))
        self._version, self._frames = data["version"], list(data["frames"])
        self._fresh, self.stale = int(data["fresh"]), int(data["stale"])
        self._schedule.owed = int(data["owed"])

    def _replay(self, setup: Setup) -> Uniform | Prioritized:
        """What draws samples, their context before them. It is due at every step: when to learn is decided here."""
        config = self._config
        ends = config.capacity // 32 + 8 * setup.batch
        history = History(config.capacity, setup, compress=False, ends=ends)
        names = ("capacity", "batch_size", *(("alpha", "beta", "beta_steps", "eps") if config.priority else ()))
        options = {name: getattr(config, name) for name in names}
        options |= {"warmup": 0, "every": 1, "length": self._before + config.length}
        if config.priority:
            return Prioritized(Prioritized.Config.model_validate(options), setup, history)
        return Uniform(Uniform.Config.model_validate(options), setup, history)

    def _version_now(self) -> int:
        """Of the tokenizer; one that never says so never changes."""
        return int(getattr(self._world_model, "version", 0))

    def _changed(self) -> bool:
        return self._version is not None and self._version != self._version_now()

    def _forget(self, rows: int) -> None:
        """Begin anew. The step that came is stale too, for its state was seen before the change."""
        log.warning(
            "replay tokens: the tokenizer changed (version %s, now %d): %d steps are stale and forgotten",
            self._version, self._version_now(), self._fresh + rows,
        )  # fmt: skip
        self.stale += self._fresh + rows
        self._inner.load(self._empty)
        self._version, self._fresh, self._schedule.owed = self._version_now(), 0, 0

    def _check_history(self, carry: Carry) -> None:
        """Raise ValueError when the policy sees another number of frames than a batch would give it."""
        for key in self._frames:
            if carry[key].shape[1] != self._before:
                seen = carry[key].shape[1] + 1
                raise ValueError(f"the policy sees {seen} frames of {key!r} together: set replay.history to {seen}")

    def _lean(self, transition: Transition) -> Transition:
        """What is stored of it: what is kept, as small as it goes; frames that the policy carries are not."""
        carried = {CARRIED + key: array for key, array in transition.carry.items() if key not in self._kept}
        final = transition.final
        return replace(
            transition,
            state=self._as(transition.state, self._kept),
            next_state=self._as(transition.next_state, self._kept),
            final=final and Final(final.rows, self._as(final.arrays, self._kept)),
            carry={},
            decision=replace(transition.decision, extras={**transition.decision.extras, **carried}),
        )

    def _without_context(self, batch: Batch) -> Batch:
        """The samples alone, (T, B, ...), with what was carried into their first step."""
        begin = self._before
        state, ends = self._as(batch.state, self._whole), batch.final_index[:, 0] >= begin
        carry = {key: frames_before(state[key], batch.first, begin) for key in self._frames}
        carry |= {key.removeprefix(CARRIED): a[begin] for key, a in batch.extras.items() if key.startswith(CARRIED)}
        return replace(
            batch,
            state={key: array[begin:] for key, array in state.items()},
            first=batch.first[begin:],
            action=batch.action[begin:],
            reward=batch.reward[begin:],
            ended=batch.ended[begin:],
            cut=batch.cut[begin:],
            extras={key: array[begin:] for key, array in batch.extras.items() if not key.startswith(CARRIED)},
            carry=carry,
            next_state=self._as(batch.next_state, self._whole),
            final_index=batch.final_index[ends] - [begin, 0],
            final_state={key: a[ends] for key, a in self._as(batch.final_state, self._whole).items()},
        )

    def _as(self, arrays: Arrays, parts: dict[str, spaces.Space[object]]) -> dict[str, Array]:
        """What is kept of a state, in the formats of ``parts``."""
        return {key: arrays[key].astype(part.dtype, copy=False) for key, part in parts.items()}


def narrowed(space: spaces.Space[object]) -> spaces.Space[object]:
    """The space in the smallest format that holds its whole numbers; any other as it is."""
    if not isinstance(space, spaces.MultiDiscrete):
        return space
    low, high = space.start.min(), (space.start + space.nvec - 1).max()
    dtype = np.result_type(np.min_scalar_type(low), np.min_scalar_type(high))
    return spaces.MultiDiscrete(space.nvec, dtype=dtype, start=space.start)


def frames_before(frames: Array, first: Array, count: int) -> Array:
    """The ``count`` frames before step ``count``, (B, count, ...), of ``frames`` (T, B, ...); ``first``: bool (T, B).

    What lies before the start of that step's episode is replaced by its first frame.
    """
    steps = np.arange(count + 1)[:, None]
    start = np.where(first[: count + 1], steps, 0).max(0)  # of the episode, as far as it is here
    found: Array = frames[np.maximum(steps[:-1], start), np.arange(frames.shape[1])]
    return np.ascontiguousarray(np.moveaxis(found, 0, 1))
