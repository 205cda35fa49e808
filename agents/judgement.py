"""How well a clone does what was demonstrated, beside what a policy would reach that does not look at all.

Accuracy alone flatters: where an action lasts, repeating the last one is nearly always right, and says nothing about
playing. So ``changed_accuracy`` counts only the steps at which the demonstrator did something new.

Shape key: N steps in the order of time, P choices per step, A alternatives of a choice.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from agentctl.core.types import Array, Metrics, Table

BINS = 10
MOST_ACTIONS = 32
"""Alternatives that a confusion matrix still shows."""


@dataclass(slots=True)
class Judgement:
    """What a clone makes of held-out steps with discrete actions."""

    demonstrated: Array  # int64 (N, P)
    predicted: Array  # int64 (N, P): the likeliest
    confidence: Array  # float32 (N, P): its probability
    follows: Array  # bool (N,): the step before is the one that came before it in its episode

    def metrics(self, habit: Array) -> Metrics:
        """``habit``, int64 (P,): the most frequent choice of what was learnt from."""
        right = self.predicted == self.demonstrated
        before = np.roll(self.demonstrated, 1, axis=0)
        repeated = (before == self.demonstrated).all(axis=1)
        changed = self.follows & ~repeated
        return {
            "held_out_accuracy": float(right.all(axis=1).mean()),
            "majority_accuracy": float((self.demonstrated == habit).all(axis=1).mean()),
            "repeat_accuracy": mean_of(repeated, self.follows),
            "changed_accuracy": mean_of(right.all(axis=1), changed),
            "calibration_error": calibration_error(self.confidence.ravel(), right.ravel()),
        }

    def tables(self, sizes: Sequence[int]) -> dict[str, Table]:
        """Confusion, precision and recall of each choice that has ``sizes`` alternatives, and the calibration."""
        found: dict[str, Table] = {}
        for part, size in enumerate(sizes):
            of = f" of choice {part}" if len(sizes) > 1 else ""
            counts = confusion(self.demonstrated[:, part], self.predicted[:, part], size)
            found[f"Actions{of} on held-out episodes"] = action_table(counts)
            if size <= MOST_ACTIONS:
                found[f"Confusion{of}: demonstrated by row, the clone's by column"] = confusion_table(counts)
        right = (self.predicted == self.demonstrated).ravel()
        found["Calibration on held-out episodes"] = calibration_table(self.confidence.ravel(), right)
        return found


def mean_of(values: Array, where: Array) -> float:
    """NaN where there are none."""
    return float(values[where].mean()) if where.any() else float("nan")


def confusion(demonstrated: Array, predicted: Array, size: int) -> Array:
    """How often each choice (row) was taken for each (column), int64 (A, A)."""
    return np.bincount(demonstrated * size + predicted, minlength=size * size).reshape(size, size)


def precision_recall(counts: Array) -> tuple[Array, Array]:
    """Of each alternative, float64 (A,): how often it was right when predicted, and predicted when right; else NaN."""
    hits = np.diag(counts).astype(float)
    with np.errstate(invalid="ignore"):
        return hits / counts.sum(axis=0), hits / counts.sum(axis=1)


def action_table(counts: Array) -> Table:
    precision, recall = precision_recall(counts)
    columns = zip(precision.tolist(), recall.tolist(), counts.sum(1).tolist(), counts.sum(0).tolist(), strict=True)
    return Table(
        ["precision", "recall", "demonstrated", "predicted"], {str(a): list(row) for a, row in enumerate(columns)}
    )


def confusion_table(counts: Array) -> Table:
    """Shares of each row."""
    with np.errstate(invalid="ignore"):
        shares = counts / counts.sum(axis=1, keepdims=True)
    return Table([str(a) for a in range(len(counts))], {str(a): row.tolist() for a, row in enumerate(shares)}, True)


def calibration(confidence: Array, right: Array) -> Array:
    """Mean confidence, accuracy and count by bin of confidence, float64 (BINS, 3); NaN where a bin is empty."""
    bins = np.minimum((confidence * BINS).astype(int), BINS - 1)
    counts = np.bincount(bins, minlength=BINS).astype(float)
    with np.errstate(invalid="ignore"):
        sure = np.bincount(bins, confidence, minlength=BINS) / counts
        true = np.bincount(bins, right.astype(float), minlength=BINS) / counts
    return np.stack([sure, true, counts], axis=1)


def calibration_error(confidence: Array, right: Array) -> float:
    """The mean distance of confidence and accuracy over the bins, by their counts (Guo et al. 2017)."""
    sure, true, counts = calibration(confidence, right).T
    return float(np.nansum(np.abs(sure - true) * counts) / counts.sum())


def calibration_table(confidence: Array, right: Array) -> Table:
    rows = {
        f"{k / BINS:.1f} to {(k + 1) / BINS:.1f}": row.tolist() for k, row in enumerate(calibration(confidence, right))
    }
    return Table(["mean confidence", "accuracy", "choices"], rows)
