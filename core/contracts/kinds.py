"""The checks that belong to one kind of component."""

from __future__ import annotations

import time
import warnings

import numpy as np
from gymnasium import spaces
from gymnasium.utils.env_checker import check_env

from agentctl.core.contracts.common import STEPS, compare, driving, in_real_time, is_uint8_picture, run
from agentctl.core.contracts.drivers import (
    GameDriver,
    MemoryDriver,
    ReplayDriver,
    WorldModelDriver,
    steps_until_ready,
    with_latents,
)
from agentctl.core.contracts.finding import Breach, NotApplicable
from agentctl.core.contracts.outputs import rows_of
from agentctl.core.contracts.samples import MASK, Script, allowed, choices, copies, misfit, same
from agentctl.core.contracts.subject import BATCH, Subject, close
from agentctl.core.gym_env import GameEnv
from agentctl.core.types import Array, Batch, Decision, Step, Transition

EPISODE_STEPS = 3_000
EPISODE_SECONDS = 5.0
"""How long a game has to end an episode under random actions."""


def episodes(subject: Subject) -> str:
    """A row that finishes restarts at once, and its last observation stands in Step.final."""
    began, finished = time.monotonic(), 0
    with driving(subject) as driver:
        assert isinstance(driver, GameDriver)
        driver.begin()
        for t in range(EPISODE_STEPS):
            finished += finished_rows(driver.play(t))
            if finished >= 2 * BATCH or time.monotonic() - began > EPISODE_SECONDS:
                break
    if not finished:
        raise NotApplicable(f"no episode ended in {t + 1} random steps of {BATCH} rows")
    return f"{finished} episodes ended in {t + 1} steps of {BATCH} rows"


def finished_rows(step: Step) -> int:
    """How many rows restarted, checked against ``Step.final``."""
    stopped = step.ended | step.cut
    restarted = stopped if step.over is None else step.over | step.cut
    rows = np.zeros(0, np.int64) if step.final is None else step.final.rows
    if rows.dtype != np.int64 or (np.diff(rows) <= 0).any():
        raise Breach(
            f"Step.final.rows is {rows!r}", "give the finished rows as ascending int64: np.flatnonzero(finished)"
        )
    without = np.setdiff1d(np.flatnonzero(restarted), rows)
    if without.size:
        raise Breach(
            f"rows {without} finished and Step.final lacks them", "return their last observation in Step.final"
        )
    beyond = np.setdiff1d(rows, np.flatnonzero(stopped | restarted))
    if beyond.size:
        raise Breach(f"Step.final holds rows {beyond}, which did not finish", "name only rows that ended or were cut")
    return len(rows)


def reset(subject: Subject) -> str:
    """reset with the same seed gives the same game again, whatever was played before."""
    with driving(subject) as driver:
        if in_real_time(driver.part):
            raise NotApplicable("the game does not wait")
        first = [copies(driver.begin()), *run(driver, 0, STEPS)]
        again = [copies(driver.begin()), *run(driver, 0, STEPS)]
    compare(first, again, "two games of one seed", "reset() must forget everything and draw only from its seed")
    return f"the same {STEPS} steps twice"


def frame(subject: Subject) -> str:
    """frame() is what a spectator sees: uint8 (H, W, 3)."""
    with driving(subject) as driver:
        driver.begin()
        run(driver, 0, 2)
        shown = driver.part.frame()
        if not is_uint8_picture(shown):
            found = f"{getattr(shown, 'dtype', type(shown).__name__)} {np.shape(shown)}"
            raise Breach(f"frame() is {found}, not uint8 (H, W, 3)", "return an RGB picture of row 0")
        return f"{shown.shape[1]} x {shown.shape[0]} pixels"


def gymnasium(subject: Subject) -> str:
    """As a Gymnasium environment it passes Gymnasium's own env_checker."""
    game = subject.build(1)
    try:
        if in_real_time(game):
            raise NotApplicable("the game does not wait")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            check_env(GameEnv(game), skip_render_check=True)
    finally:
        close(game)
    return "check_env passes"


def pure(subject: Subject) -> str:
    """The same observation gives the same percept, whatever was seen in between, and each row is seen by itself."""
    with driving(subject) as driver:
        first = copies(driver.step(0))
        run(driver, 1, 5)
        compare([first], [copies(driver.step(0))], "percepts of one observation", "keep nothing between steps")
        observation = Script(subject.setup, BATCH).state(0)
        some = {key: value[2:5] for key, value in observation.items()}
        alone = rows_of(driver.part.perceive(some), driver.part.space, 3, "perceive()")
    selected = {key: value[2:5] for key, value in first.items()}
    if different := same({key: np.ascontiguousarray(value) for key, value in selected.items()}, alone):
        raise Breach(f"{different!r} of a row depends on the other rows", "treat every row by itself")
    return "a function of each row of the observation"


def forgets(subject: Subject) -> str:
    """time 0 forgets what the row held, and recall alone changes nothing."""
    with driving(subject) as driver, driving(subject) as fresh:
        assert isinstance(driver, MemoryDriver)
        run(driver, 0, STEPS)
        state, moment = driver.script.state(STEPS), driver.script.time(STEPS)
        twice = [copies(driver.part.recall(state, moment)) for _ in range(2)]
        compare(twice[:1], twice[1:], "two recalls of one step", "only write() may change what is held")
        start = np.zeros(BATCH, np.int64)
        begun, new = (copies(part.recall(state, start)) for part in (driver.part, fresh.part))
    compare([new], [begun], "a new memory and a row whose episode begins", "forget a row's past where time is 0")
    return "an episode begins with an empty memory"


def imagination(subject: Subject) -> str:
    """Its loss is finite, decode gives percepts, and neither it nor imagine needs the game."""
    with driving(subject) as driver:
        assert isinstance(driver, WorldModelDriver)
        driver.begin()
        run(driver, 0, STEPS)
        script = driver.script
        led, first = script.action(STEPS - 1), script.first(STEPS)
        belief = driver.part.observe(driver.carry, script.state(STEPS), led, first)
        percept = driver.part.decode(belief.latent)
        steps = [script.transition(t, Decision(script.action(t)), {}) for t in range(STEPS)]
        loss = float(driver.part.loss(with_latents(steps, driver.part.space)).total)
    for key, value in percept.items():
        space = subject.setup.space.spaces.get(key)
        if space is not None and (problem := misfit(value, space, BATCH)):
            raise Breach(f"decode()[{key!r}] {problem}", f"return percepts that lie in {space}")
    if not np.isfinite(loss):
        raise Breach(f"loss() is {loss}", "find the division or the logarithm that goes wrong")
    return f"loss {loss:.4g} on random experience; decode gives {', '.join(sorted(percept)) or 'nothing'}"


def action_mask(subject: Subject) -> str:
    """An action that the percept's action_mask forbids is never chosen, exploring or acting."""
    parts = choices(subject.setup.action_space)
    if not parts:
        raise NotApplicable(f"{subject.setup.action_space} cannot be masked")
    mask = spaces.Dict({**subject.setup.space.spaces, MASK: spaces.MultiBinary(sum(parts))})
    masked = Subject(subject.kind, subject.name, subject.component_class, subject.config, subject.setup.after(mask))
    with driving(masked) as driver:
        driver.begin()
        for t in range(2 * STEPS):
            outputs, state = driver.step(t), driver.script.state(t)
            for verb in ("explore()", "act()"):
                legal = allowed(outputs[f"{verb}.action"], state[MASK], masked.setup.action_space)
                if not legal.all():
                    raise Breach(f"{verb} chose a masked action", "leave out actions whose state['action_mask'] is 0")
    return f"{2 * 2 * STEPS * BATCH} choices, all legal"


def experience(subject: Subject) -> str:
    """What goes in comes out: rewards, flags, states, final states, in the order of their rows."""
    for rows in (3, BATCH):
        with driving(subject, rows) as driver:
            assert isinstance(driver, ReplayDriver)
            needed = steps_until_ready(subject.build(rows), driver.script)
            added = [driver.add(t) for t in range(needed)]
            batch = driver.part.sample()
            compare_batch(batch, added)
    length, width = batch.reward.shape
    held = f"{driver.part.nbytes:,} bytes when full"
    return f"ready after {needed} steps of {BATCH} rows; a batch is {length} steps x {width} rows; {held}"


def compare_batch(batch: Batch, added: list[Transition]) -> None:
    """Find every step of the batch among those added, by its reward (no two are alike), and compare the rest."""
    remedy = "return each step with the row, the order and the episode bounds that it had when it was added"
    known = {float(total): (t, row) for t, step in enumerate(added) for row, total in enumerate(step.total)}
    after = batch.successors()
    places = [[known.get(float(reward)) for reward in line] for line in batch.reward]
    for t, line in enumerate(places):
        for row, place in enumerate(line):
            if place is None:
                raise Breach(f"the batch holds the reward {batch.reward[t, row]}, which was never added", remedy)
            before = places[t - 1][row] if t else None
            if before is not None and place != (before[0] + 1, before[1]):
                raise Breach(f"step {t} of row {row} does not follow step {t - 1}", remedy)
            if wrong := different_fields(batch, after, (t, row), added[place[0]], place[1]):
                raise Breach(f"{wrong} of a step is not what was added with it", remedy)


def different_fields(batch: Batch, after: dict[str, Array], at: tuple[int, int], step: Transition, row: int) -> str:
    """The first field in which a step of the batch differs from the one that was added."""
    mine = {"first": batch.first[at], "ended": batch.ended[at], "cut": batch.cut[at], "action": batch.action[at]}
    theirs = {
        "first": step.first[row],
        "ended": step.ended[row],
        "cut": step.cut[row],
        "action": step.decision.action[row],
    }
    mine |= {f"extra {key}": batch.extras[key][at] for key in step.decision.extras}
    theirs |= {f"extra {key}": value[row] for key, value in step.decision.extras.items()}
    if at[0] == 0:
        mine |= {f"carry {key}": value[at[1]] for key, value in batch.carry.items()}
        theirs |= {f"carry {key}": value[row] for key, value in step.carry.items()}
    mine |= {f"state {key}": batch.state[key][at] for key in step.state}
    theirs |= {f"state {key}": value[row] for key, value in step.state.items()}
    mine |= {f"next state {key}": after[key][at] for key in step.state}
    theirs |= {f"next state {key}": value for key, value in successor(step, row).items()}
    return next((name for name, value in mine.items() if not np.array_equal(value, theirs[name])), "")


def successor(step: Transition, row: int) -> dict[str, Array]:
    """The state that a row's step led to: the one in which the episode stopped, where it did."""
    if step.final is not None and row in step.final.rows:
        place = int(np.searchsorted(step.final.rows, row))
        return {key: value[place] for key, value in step.final.arrays.items()}
    return {key: value[row] for key, value in step.next_state.items()}
