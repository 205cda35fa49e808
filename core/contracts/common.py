"""The checks that every kind of component must pass. Each returns what it saw, or raises Breach or NotApplicable."""

from __future__ import annotations

import json
import statistics
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel, ValidationError

from agentctl.core import protocols
from agentctl.core.checkpoint import read_checkpoint, write_checkpoint
from agentctl.core.contracts.drivers import DRIVERS, LEARN_EVERY, Driver, steps_until_ready
from agentctl.core.contracts.finding import Breach, NotApplicable
from agentctl.core.contracts.outputs import Outputs
from agentctl.core.contracts.samples import Script, copies, same
from agentctl.core.contracts.subject import BATCH, Subject, close
from agentctl.core.pipeline import describe
from agentctl.core.types import Snapshot

BATCHES = (1, 3, BATCH)
STEPS = LEARN_EVERY + 4
"""Steps of one run: what learns has then learnt once."""

STEP_BUDGET = 50.0
"""Milliseconds that one step may take at B = 8 on a CPU: the median, so that a first, slow call does not count."""

PROTOCOLS = {
    "game": protocols.Game,
    "perception": protocols.Perception,
    "world_model": protocols.WorldModel,
    "memory": protocols.Memory,
    "reward": protocols.Reward,
    "policy": protocols.Policy,
    "replay": protocols.Replay,
}
"""What a component of each kind must have."""


@contextmanager
def driving(subject: Subject, batch: int = BATCH, rows: int | None = None) -> Iterator[Driver]:
    """A driver around a component that is built fresh for ``batch`` and fed ``rows`` rows."""
    part = subject.build(batch)
    try:
        yield DRIVERS[subject.kind](part, Script(subject.setup, rows or batch))
    finally:
        close(part)


def run(driver: Driver, start: int, stop: int) -> list[Outputs]:
    """What the component gives at each step, copied."""
    return [copies(driver.step(t)) for t in range(start, stop)]


def steps_for(subject: Subject) -> int:
    """STEPS, or enough that a replay has been sampled and has begun to fill again."""
    if subject.kind != "replay":
        return STEPS
    return 1 + steps_until_ready(subject.build(), Script(subject.setup, BATCH)) * 3 // 2


def members(subject: Subject) -> str:
    """It has every attribute and method of its kind's protocol."""
    protocol = PROTOCOLS[subject.kind]
    with driving(subject) as driver:
        missing = [name for name in names_of(protocol) if not hasattr(driver.part, name)]
        before = getattr(driver.part, "observation_space", subject.setup.space)
        action = getattr(driver.part, "action_space", subject.setup.action_space)
    if missing:
        where = f"agentctl.core.protocols.{protocol.__name__}"
        raise Breach(f"lacks {', '.join(missing)}", f"add what {where} names; `agentctl plugins docs` prints it")
    return f"{describe(before)} -> {describe(action)}"


def names_of(protocol: type[Any]) -> list[str]:
    """The attributes and methods that a protocol asks for, in its order."""
    names = dict.fromkeys([*protocol.__annotations__, *vars(protocol)])
    return [name for name in names if not name.startswith("_")]


def config(subject: Subject) -> str:
    """Its Config refuses unknown keys, cannot be changed, says what each option means, and exports a JSON Schema."""
    model: type[BaseModel] = subject.component_class.Config
    given = subject.config.model_dump(mode="json")
    try:
        model.model_validate({**given, "no_such_option": 1})
    except ValidationError:
        pass
    else:
        raise Breach("an unknown key is accepted", "derive Config from agentctl.core.protocols.BaseConfig")
    if not model.model_config.get("frozen"):
        raise Breach(
            "the values can be changed after building", "derive Config from agentctl.core.protocols.BaseConfig"
        )
    properties = model.model_json_schema().get("properties", {})
    mute = sorted(name for name, option in properties.items() if not option.get("description"))
    if mute:
        raise Breach(f"no description for {', '.join(mute)}", "say what it means: Field(default, description=...)")
    if model.model_validate_json(json.dumps(given), strict=True) != subject.config:
        raise Breach("the values do not survive JSON", "use numbers, words, lists and nested Configs")
    return f"{len(properties)} options: {', '.join(properties) or 'nothing to choose'}"


def batching(subject: Subject) -> str:
    """At B = 1, 3 and 8 its outputs have B rows, lie in the declared space and leave what was passed in alone."""
    seen: Outputs = {}
    for batch in BATCHES:
        with driving(subject, batch) as driver:
            seen |= driver.begin()
            for outputs in run(driver, 0, STEPS):
                seen |= outputs
    shown = {key: value for key, value in seen.items() if not key.startswith(("metric", "carry"))}
    return ", ".join(f"{key} {value.dtype} {value.shape}" for key, value in shown.items()) or "nothing returned"


def other_rows(subject: Subject) -> str:
    """Built for one B, it serves another: evaluation and embedding share it."""
    for rows in (1, BATCH + 3):
        with driving(subject, BATCH, rows) as driver:
            driver.begin()
            run(driver, 0, STEPS)
    return f"built for {BATCH} rows, it served 1 and {BATCH + 3}"


def fresh_arrays(subject: Subject) -> str:
    """What it returned stays as it was: a later step never writes into it."""
    if subject.kind == "replay":
        raise NotApplicable("a batch may be the replay's own memory")
    with driving(subject) as driver:
        held = [driver.begin(), *(driver.step(t) for t in range(STEPS))]
        before = [copies(outputs) for outputs in held]
        run(driver, STEPS, 2 * STEPS)
    for ours, theirs in zip(before, held, strict=True):
        if changed := same(ours, theirs):
            raise Breach(
                f"{changed} changed after it was returned", "return a copy of an array that you keep writing to"
            )
    return f"{len(held)} outputs unchanged {STEPS} steps later"


def determinism(subject: Subject) -> str:
    """The same seed and the same inputs give the same outputs, to the bit."""
    refuse_real_time(subject)
    runs, steps = [], 2 * steps_for(subject)
    for _ in range(2):
        with driving(subject) as driver:
            runs.append([copies(driver.begin()), *run(driver, 0, steps)])
    remedy = "draw everything random from np.random.default_rng(setup.seed); iterate over no set"
    compare(runs[0], runs[1], "two fresh builds", remedy)
    return f"two builds agree over {steps} steps"


def snapshot(subject: Subject) -> str:
    """save, a real file, a fresh build and load: it continues as if nothing had happened, to the bit."""
    refuse_real_time(subject)
    if not hasattr(subject.component_class, "save"):
        raise NotApplicable(f"a {subject.kind} keeps nothing between steps")
    steps = steps_for(subject)
    with driving(subject) as driver, driving(subject) as unsaved, driving(subject) as fresh:
        for each in (driver, unsaved, fresh):
            each.begin()
        run(driver, 0, steps)
        run(unsaved, 0, steps)
        state = saved(driver.part)
        twin = driver.twin(fresh.part)
        twin.part.load(through_files(state))
        expected = run(unsaved, steps, 2 * steps)
        compare(expected, run(driver, steps, 2 * steps), "runs with and without save()", "save() must change nothing")
        remedy = "put all that a later step depends on, also random generators, into the Snapshot"
        compare(expected, run(twin, steps, 2 * steps), "the original and what was loaded", remedy)
    arrays = sum(array.nbytes for array in state.arrays.values())
    return f"continues exactly; {len(state.arrays)} arrays, {arrays:,} bytes"


def saved(part: Any) -> Snapshot:
    state = part.save()
    if state is None:
        raise NotApplicable("save() gives None: the loop restarts the game at each checkpoint")
    if not isinstance(state, Snapshot):
        raise Breach(f"save() returned {type(state).__name__}", "return agentctl.core.types.Snapshot(arrays, data)")
    return state


def through_files(state: Snapshot) -> Snapshot:
    """What is left of a snapshot after safetensors and JSON. Raises Breach when it cannot be written."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            return read_checkpoint(write_checkpoint(Path(folder), 0, {"part": state}, keep=1))["part"]
        except (TypeError, ValueError, AttributeError) as error:
            remedy = "Snapshot.arrays holds numpy arrays, Snapshot.data what JSON knows (int, float, str, list, dict)"
            raise Breach(f"the snapshot cannot be written: {error}", remedy) from error


def budget(subject: Subject) -> str:
    """One step at B = 8 takes at most 50 ms on a CPU."""
    with driving(subject) as driver:
        driver.begin()
        run(driver, 0, 2 * STEPS)
        milliseconds = 1000 * statistics.median(driver.seconds)
        told = f"{driver.verb}() takes {milliseconds:.3g} ms at B = {BATCH} (budget {STEP_BUDGET:g} ms)"
        if milliseconds > STEP_BUDGET and not in_real_time(driver.part):
            raise Breach(told, "profile it; work on whole arrays, not row by row")
    return told


def compare(ours: list[Outputs], theirs: list[Outputs], who: str, remedy: str) -> None:
    """Raise Breach at the first step where two runs differ."""
    for t, (a, b) in enumerate(zip(ours, theirs, strict=True)):
        if different := same(a, b):
            raise Breach(f"{who} differ {t} steps on in {different!r}", remedy)


def in_real_time(part: Any) -> bool:
    """Whether the part is a game that does not wait."""
    return bool(getattr(getattr(part, "clock", None), "kind", "pausable") != "pausable")


def refuse_real_time(subject: Subject) -> None:
    if subject.kind != "game":
        return
    with driving(subject) as driver:
        if in_real_time(driver.part):
            raise NotApplicable(f"a {driver.part.clock.kind} game depends on the clock on the wall")


def is_uint8_picture(frame: Any) -> bool:
    """Whether ``frame`` is uint8 (H, W, 3)."""
    return isinstance(frame, np.ndarray) and frame.dtype == np.uint8 and frame.ndim == 3 and frame.shape[2] == 3
