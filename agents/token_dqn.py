"""Token DQN: double DQN with dueling streams on what a tokenizer names, by a transformer over the last frames' tokens.

It is DQN (dqn.py) with another eye and with a history. A frame of tokens stands still: to see motion the policy carries
the frames before it, and forgets them where an episode begins. Frames before an episode's start are taken to be like
its first one, as a frame stack does. Learning sees the same: a batch's carry and its steps are stacked by what stacks
frames while acting. Any replay that hands carries back will do; ``tokens`` rebuilds them, where others keep S - 1
frames more with every step.

The slower copy follows at every update by ``tau``, and a sample's loss is its priority, as in DQN.

Shape key: B rows, T steps, K ends, S = history, h x w tokens of a frame.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from gymnasium import spaces
from pydantic import ConfigDict, Field, PositiveInt

from agentctl.agents.blocks import MASK
from agentctl.agents.dqn import DQN, LearningConfig
from agentctl.agents.q_network import QNetwork
from agentctl.agents.token_network import TokenEye, TokenVision
from agentctl.core.protocols import Setup
from agentctl.core.types import Array, Arrays, Batch, Carry, Decision, Metrics


class TokenDQN:
    class Config(LearningConfig):
        model_config = ConfigDict(
            json_schema_extra={
                "examples": [{"vision": {"dim": 16, "embedding": 8, "layers": 1, "heads": 2}, "hidden": 16}]
            }
        )
        field: str = Field("tokens", description="the part of the state that is read; a mask is obeyed")
        history: int = Field(4, gt=0, description="frames that are seen together (S)")
        vision: TokenVision = Field(TokenVision.model_validate({}), description="the transformer that reads them")
        hidden: PositiveInt = Field(256, description="the layer of each stream")
        dueling: bool = Field(True, description="separate streams for the state's value and the actions' advantages")
        epsilon_steps: int = Field(1_000_000, gt=0, description="steps from the first to the last chance")
        target_every: int = Field(0, ge=0, description="steps between two updates of the slower copy; 0: at each")
        tau: float = Field(0.001, gt=0, le=1, description="how far the slower copy then moves; 1 copies it")

    def __init__(self, config: Config, setup: Setup) -> None:
        tokens = setup.space.spaces.get(config.field)
        if not isinstance(tokens, spaces.MultiDiscrete) or len(tokens.shape) > 2:
            raise ValueError(
                f"token_dqn reads a grid of tokens, and the state's {config.field!r} is {tokens}, of "
                f"{sorted(setup.space.spaces)}: put a tokenizer before it, such as world_model: vqvae, or set `field`"
            )
        self._field, self._frame = config.field, tokens
        self._shape = (config.history, *(1, *tokens.shape)[-2:])  # S, h, w
        codes = int((tokens.start + tokens.nvec).max())
        mask = {key: part for key, part in setup.space.spaces.items() if key == MASK}
        history = spaces.MultiDiscrete(np.full(self._shape, codes), dtype=np.int32)
        seen = spaces.Dict({config.field: history, **mask})
        eye = partial(TokenEye, codes=codes, options=config.vision)

        def network(sizes: tuple[int, int]) -> QNetwork:
            return TokenNetwork(seen, sizes, (config.hidden,), eye, dueling=config.dueling, noise=config.noisy)

        learning: dict[str, Any] = {name: getattr(config, name) for name in LearningConfig.model_fields}
        self._dqn = DQN(DQN.Config(**learning), setup.after(seen), network)
        self.save, self.load, self.nbytes = self._dqn.save, self._dqn.load, self._dqn.nbytes
        self.export_onnx = self._dqn.export_onnx  # its input is the history, int32 (B, S, h, w)

    @classmethod
    def example_setup(cls) -> Setup:
        tokens = spaces.MultiDiscrete(np.full((5, 4), 16), dtype=np.uint16)
        return Setup(spaces.Dict({"tokens": tokens}), spaces.Discrete(4))

    def initial(self, batch: int) -> Carry:
        """The S - 1 frames before the next one, (B, S - 1, ...)."""
        before = self._shape[0] - 1
        return {self._field: np.zeros((batch, before, *self._frame.shape), self._frame.dtype)} if before else {}

    def act(self, carry: Carry, state: Arrays, first: Array) -> Decision:
        frames = self._stack(carry, state, first)
        return self._after(frames, self._dqn.act({}, self._seen(state, frames), first))

    def explore(self, carry: Carry, state: Arrays, first: Array) -> Decision:
        frames = self._stack(carry, state, first)
        return self._after(frames, self._dqn.explore({}, self._seen(state, frames), first))

    def learn(self, batch: Batch) -> Metrics:
        """Fills in ``batch.error``, as DQN does."""
        learnt_from = self.with_histories(batch)
        metrics = self._dqn.learn(learnt_from)
        batch.error = learnt_from.error
        return metrics

    def with_histories(self, batch: Batch) -> Batch:
        """The batch with histories in place of frames, as acting saw them; what is not seen is left out."""
        carry, stacks = self._carried(batch), []
        for t, first in enumerate(batch.first):
            stacks.append(self._stack(carry, {self._field: batch.state[self._field][t]}, first))
            carry = self._kept(stacks[-1])
        frames, (t, b) = np.stack(stacks), batch.final_index.T
        following = self._stack(carry, batch.next_state, batch.ended[-1] | batch.cut[-1])
        final = np.concatenate([frames[t, b][:, 1:], batch.final_state[self._field][:, None]], axis=1)
        return replace(
            batch,
            state=self._seen(batch.state, frames),
            next_state=self._seen(batch.next_state, following),
            final_state=self._seen(batch.final_state, final),
            carry={},
        )

    def _carried(self, batch: Batch) -> Carry:
        """The frames before the batch. Raises ValueError when the replay kept none."""
        if self._shape[0] > 1 and self._field not in batch.carry:
            raise ValueError(
                f"token_dqn: the batch holds no {self._field!r} from before its first step: use replay: tokens, or "
                "history: 1"
            )
        return batch.carry

    def _stack(self, carry: Carry, state: Arrays, first: Array) -> Array:
        """The last S frames of each row, (B, S, ...)."""
        frame = state[self._field]
        return stacked(carry[self._field], frame, first) if self._shape[0] > 1 else frame[:, None]

    def _kept(self, frames: Array) -> Carry:
        """What to carry on of the last S frames."""
        return {self._field: frames[:, 1:].copy()} if self._shape[0] > 1 else {}

    def _after(self, frames: Array, decision: Decision) -> Decision:
        return replace(decision, carry=self._kept(frames))

    def _seen(self, state: Arrays, frames: Array) -> dict[str, Array]:
        """What the network sees of a state (..., h, w) whose last frames are (..., S, h, w)."""
        lead = frames.shape[: frames.ndim - 1 - len(self._frame.shape)]
        grid = frames.reshape(*lead, *self._shape).astype(np.int32)
        return {self._field: grid} | ({MASK: state[MASK]} if MASK in state else {})


def is_history(space: spaces.Space[object]) -> bool:
    """Whole numbers in three axes: frames, rows, columns."""
    return isinstance(space, spaces.MultiDiscrete) and len(space.shape) == 3


class TokenNetwork(QNetwork):
    """A Q-network with an eye for tokens."""

    has_eye = staticmethod(is_history)


def stacked(past: Array, frame: Array, first: Array) -> Array:
    """``past`` (B, S - 1, ...), then ``frame`` (B, ...): (B, S, ...). Where it is ``first`` there is no other."""
    fresh = first.reshape(-1, *[1] * frame.ndim)
    return np.concatenate([np.where(fresh, frame[:, None], past), frame[:, None]], axis=1)
