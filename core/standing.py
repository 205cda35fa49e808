"""Where a run stands: everything the loop itself must remember, and how a checkpoint keeps it."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from agentctl.core.errors import AgentctlError
from agentctl.core.pipeline import Flow
from agentctl.core.run import Evaluation
from agentctl.core.tally import Tally
from agentctl.core.types import Array, Arrays, Metrics, Snapshot


@dataclass(slots=True)
class Standing:
    """The loop's own state. ``game`` is the games' at a checkpoint; while they run, and where they have none, None."""

    tally: Tally
    flow: Flow
    state: Arrays = field(default_factory=dict)
    game: Snapshot | None = None
    step: int = 0
    cycle: int = 0
    restarts: int = 0  # how often games that cannot save their state were started anew
    metrics: Metrics = field(default_factory=dict)
    learns_from: list[str] = field(default_factory=list)  # names of what the policy in charge leaves for its learning
    evaluations: list[Evaluation] = field(default_factory=list)

    @classmethod
    def before_the_first_step(cls, batch: int) -> Standing:
        return cls(Tally(np.zeros(batch)), Flow(np.zeros(batch, np.int64)))

    def save(self) -> Snapshot:
        """Only the last evaluation is kept; without a ``game`` what flows begins anew and is left out."""
        tally = self.tally.save()
        arrays = prefixed("tally", tally.arrays)
        if self.game is not None:
            arrays |= prefixed("state", self.state) | {"time": self.flow.time}
            arrays |= prefixed("world", self.flow.world) | prefixed("policy", self.flow.policy)
        names = ("step", "cycle", "restarts", "metrics", "learns_from")
        data = {name: getattr(self, name) for name in names} | {"tally": tally.data}
        data["evaluations"] = [
            {**asdict(evaluation), "video": None, "tables": {}} for evaluation in self.evaluations[-1:]
        ]
        return Snapshot(arrays, data)

    @classmethod
    def of(cls, snapshot: Snapshot, game: Snapshot | None) -> Standing:
        """What ``save`` kept, and the games' state beside it."""
        arrays, data = snapshot.arrays, snapshot.data
        standing = cls.before_the_first_step(len(arrays["tally.running"]))
        standing.game = game
        standing.tally.load(Snapshot(named(arrays, "tally"), data["tally"]))
        if game is not None:
            standing.state = named(arrays, "state")
            standing.flow = Flow(arrays["time"], named(arrays, "world"), named(arrays, "policy"))
        standing.step, standing.cycle, standing.restarts = data["step"], data["cycle"], data["restarts"]
        standing.metrics, standing.learns_from = data["metrics"], data["learns_from"]
        standing.evaluations = [Evaluation(**evaluation) for evaluation in data["evaluations"]]
        return standing

    def go_back_to(self, snapshot: Snapshot) -> Snapshot:
        """``snapshot``, an earlier one, with what counts up as it is now: half a step fits no game and no replay."""
        now = self.save().data
        if "time" not in snapshot.arrays:  # the games start anew, and not as they did the last time
            now["restarts"] += 1
        return Snapshot(snapshot.arrays, {**now, **{name: snapshot.data[name] for name in ("tally", "learns_from")}})

    @property
    def evaluated(self) -> bool:
        """Whether the last evaluation was made here."""
        return any(evaluation.step == self.step for evaluation in self.evaluations[-1:])


def load_part(part: Any, snapshot: Snapshot, what: str) -> None:
    """Load a component's state. Raises AgentctlError when ``what`` does not fit it."""
    try:
        part.load(snapshot)
    except Exception as error:
        raise AgentctlError(
            f"{what} does not fit this run: {type(error).__name__}: {error}; resume with what it was made with"
        ) from error


def check_numbers(parts: dict[str, Snapshot]) -> None:
    """Raise ValueError when an array of ``parts`` holds a NaN."""
    for name, snapshot in parts.items():
        for key, array in snapshot.arrays.items():
            if array.dtype.kind == "f" and np.isnan(array).any():
                raise ValueError(f"{name}: {key} holds NaN")


def prefixed(prefix: str, arrays: Arrays) -> dict[str, Array]:
    return {f"{prefix}.{key}": value for key, value in arrays.items()}


def named(arrays: Arrays, prefix: str) -> dict[str, Array]:
    return {key[len(prefix) + 1 :]: value for key, value in arrays.items() if key.startswith(f"{prefix}.")}
