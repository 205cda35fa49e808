"""How well tokens are foreseen, always beside what knows nothing: copying the last frame, and the codes' frequencies.

Most of a frame stays as it was, so that copying alone scores high: what counts is the accuracy where something changed.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from agentctl.core.types import Array, Metrics


@dataclass(slots=True)
class TokenScore:
    """Adds up over batches. Shapes: N frames, P tokens of each, K codes."""

    codes: int
    tokens: int = 0
    right: int = 0
    copied: int = 0  # right if nothing had changed
    changed: int = 0
    changed_right: int = 0
    nats: float = 0.0
    _counts: Array = field(init=False)
    _rewards: list[Array] = field(default_factory=list)
    _ends: list[Array] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._counts = np.zeros(self.codes, np.int64)

    def add_tokens(self, foreseen: Array, target: Array, last: Array) -> None:
        """Whole numbers (N, P) each: what was foreseen, what came, and what was there before."""
        right, changed = foreseen == target, target != last
        self.tokens += target.size
        self.right += int(right.sum())
        self.copied += int((~changed).sum())
        self.changed += int(changed.sum())
        self.changed_right += int((right & changed).sum())
        self._counts += np.bincount(target.ravel(), minlength=self.codes)

    def add_nats(self, nats: float) -> None:
        """The summed negative log-likelihood of the tokens, where the model gives one."""
        self.nats += nats

    def add_outcomes(self, reward: Array, true_reward: Array, ended: Array, true_ended: Array) -> None:
        """(N,) each: the foreseen sign of the reward and the true one; the chance of an end and whether it came."""
        self._rewards.append(np.stack([reward, np.sign(true_reward)]))
        self._ends.append(np.stack([ended, true_ended.astype(float)]))

    def metrics(self) -> Metrics:
        """``accuracy`` beside ``copy_accuracy``; ``changed_accuracy`` (copying: 0); ``bits`` and ``unigram_bits``."""
        found = {
            "accuracy": self.right / max(self.tokens, 1),
            "copy_accuracy": self.copied / max(self.tokens, 1),
            "changed_accuracy": self.changed_right / max(self.changed, 1),
            "changed_share": self.changed / max(self.tokens, 1),
            "bits": self.nats / np.log(2) / max(self.tokens, 1),
            "unigram_bits": entropy_bits(self._counts),
        }
        if self._rewards:
            foreseen, true = np.concatenate(self._rewards, axis=1)
            found["reward_f1"] = f1(foreseen, true)
            chance, ended = np.concatenate(self._ends, axis=1)
            found["ended_auc"] = auc(chance, ended > 0)
        return {name: float(value) for name, value in found.items()}


def entropy_bits(counts: Array) -> float:
    """Bits per token of a code that knows only how frequent each is."""
    shares = counts[counts > 0] / max(counts.sum(), 1)
    return float(-(shares * np.log2(shares)).sum())


def f1(foreseen: Array, true: Array) -> float:
    """Of rewards that are not 0; one of the wrong sign is both a false alarm and a miss. nan where there is none."""
    hits = float(((foreseen == true) & (true != 0)).sum())
    named = float((foreseen != 0).sum() + (true != 0).sum())
    return 2 * hits / named if named else float("nan")


def auc(score: Array, positive: Array) -> float:
    """The chance that a positive scores above a negative, ties half (Mann-Whitney); nan where one is missing."""
    few, many = score[positive], np.sort(score[~positive])
    if not few.size or not many.size:
        return float("nan")
    below, not_above = np.searchsorted(many, few, "left"), np.searchsorted(many, few, "right")
    return float((below + not_above).mean() / 2 / many.size)
