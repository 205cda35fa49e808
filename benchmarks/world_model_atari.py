"""World models of Pong, Breakout and Ms. Pac-Man: what four generations foresee, and how far their dreams drift.

agentctl bench world-model-atari [--on pong] [--work FOLDER] [--updates N] [--tokenizer-updates N]

Every game has one tokenizer, and on its tokens the generations learn side by side: of the same random play, in as many
updates. They have two layers of width 64 (of four to six of 256), so that one core will do; of one size, v1.2 and v3
learn the same, and differ in how they decode alone. They are measured on games that none has seen, beside copying the
last frame. Each game has a result file of its own. With `--work` what has learnt is kept there: a benchmark that was
stopped goes on with the runs that are missing.

The issue asks for an accuracy "above copy-last by a clear margin"; here that is one point, and of 336 tokens any. An
end is a lost life, in Pong a lost game.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from _results import Figure, Report, run_agentctl
from _worlds import Rollout, World, changed_psnr, held_out, psnr_by_step, rollout

from agentctl.core.types import Array, Arrays, Batch, Metrics
from agentctl.world_models.token_metrics import TokenScore

OWN = {"v1.0": "parallel", "v1.1": "parallel", "v1.2": "maskgit", "v3": "autoregressive"}
"""How each generation decodes a frame, unless told otherwise."""

RATIOS = (("v1.1", "v1.0", 1.3), ("v1.2", "v1.1", 1.0), ("v3", "v1.1", 1.0))
"""Of accuracies of changed tokens, with their goals."""

HORIZONS = (1, 8, 32)
PLAYED, SAMPLES, HISTORY = 12_000, 4_096, 4
DREAMERS, DREAMT, AWAKE = 32, 779_000, 100
"""Rows that are dreamt of, their seed, and steps before it: Ms. Pac-Man moves only after 65."""

HELD = "the frame at the start"


@dataclass(frozen=True, slots=True)
class Setting:
    """What is learnt, and how its frames are cut."""

    game: str
    height: int = 64  # pixels; the width is 64
    downsample: int = 8
    generations: tuple[str, ...] = tuple(OWN)
    batch_size: int = 16
    samples: int = SAMPLES
    margin: float = 0.01  # of accuracy above copying: the goal


SETTINGS = {
    "pong": Setting("pong"),
    "breakout": Setting("breakout"),
    "ms-pacman": Setting("ms_pacman"),
    "ms-pacman-336": Setting("ms_pacman", 84, 4, ("v1.1",), batch_size=4, samples=512, margin=0),  # 21 x 16 tokens
}


@dataclass(frozen=True, slots=True)
class Budget:
    """Updates."""

    tokenizer: int
    model: int


def main() -> None:
    given = arguments()
    budget = Budget(given.tokenizer_updates, given.updates)
    with tempfile.TemporaryDirectory() as scratch:
        for name in given.on:
            measure(name, SETTINGS[name], budget, (given.work or Path(scratch)) / name)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="agentctl bench world-model-atari")
    parser.add_argument("--on", nargs="+", choices=SETTINGS, default=tuple(SETTINGS))
    parser.add_argument("--work", type=Path, help="keep what has learnt here, and go on with it")
    parser.add_argument("--tokenizer-updates", type=int, default=1_600)
    parser.add_argument("--updates", type=int, default=2_000, help="of each generation")
    return parser.parse_args()


def measure(name: str, setting: Setting, budget: Budget, folder: Path) -> None:
    """Learn, score and dream; write the result file."""
    report = Report(f"world-model-atari-{name}")
    learn(tokenizer(setting, budget), folder / "tokenizer")
    for generation in setting.generations:
        learn(model(setting, generation, folder / "tokenizer", budget), folder / generation)
    foresight(report, {generation: World.of(folder / generation, 8) for generation in setting.generations}, setting)
    drift(report, {generation: World.of(folder / generation, DREAMERS, DREAMT) for generation in setting.generations})
    report.write()


# --- what learns --------------------------------------------------------------------------------------------------


def tokenizer(setting: Setting, budget: Budget) -> dict[str, Any]:
    eyes = {"name": "vqvae", **layout(setting), "lr": 2e-3, "frozen_after": budget.tokenizer}
    replay = {"name": "uniform", "capacity": 40_000, "warmup": 2_000, "every": 16, "batch_size": 32}
    return {"game": shown(setting), "world_model": eyes, "replay": replay, "steps": 2_000 + 16 * budget.tokenizer}


def model(setting: Setting, generation: str, eyes: Path, budget: Budget) -> dict[str, Any]:
    """It reads frames as tokens from the replay, so that no frame is tokenised twice."""
    size = {"layers": 2, "dim": 64, "heads": 2, "lr": 3e-3, "threads": 1, "precision": "fp32"}
    taken = {**layout(setting), "from": str(eyes), "frozen_after": 0}
    world_model = {"name": "token_transformer", "generation": generation, **size, "temperature": 0, "tokenizer": taken}
    replay = {"name": "tokens", "capacity": 40_000, "warmup": 4_000, "every": 8, "length": HISTORY}
    replay |= {"batch_size": setting.batch_size, "history": 1, "priority": False}
    return {"game": shown(setting), "world_model": world_model, "replay": replay, "steps": 4_000 + 8 * budget.model}


def layout(setting: Setting) -> dict[str, Any]:
    """Of the tokenizer."""
    return {"codes": 512, "downsample": setting.downsample, "receptive_field": "patch", "width": 32, "threads": 1}


def shown(setting: Setting) -> dict[str, Any]:
    size = {"height": setting.height, "width": 64, "colour": "rgb", "stack": 1}
    return {"name": f"atari/{setting.game}", "batch": 8, **size, "life_loss": "end", "threads": 1}


def learn(told: dict[str, Any], run: Path) -> None:
    """What has learnt already does not learn again."""
    done = run.with_name(f"{run.name}.json")
    if not done.exists():
        shutil.rmtree(run, ignore_errors=True)  # a run that was stopped
        words = [word for key in ("game", "world_model", "replay") for word in ("-s", f"{key}={json.dumps(told[key])}")]
        short = {"run.steps": told["steps"], "run.cycle_steps": told["steps"], "evaluation.max_steps": 50}
        words += [word for key, value in short.items() for word in ("-s", f"{key}={value}")]
        done.write_text(json.dumps(run_agentctl("configs/atari/pong-model.yaml", *words, out=run)), encoding="utf-8")


# --- one step ahead -----------------------------------------------------------------------------------------------


def foresight(report: Report, worlds: dict[str, World], setting: Setting) -> None:
    """All score the same samples of new games: their tokens mean the same."""
    first = next(iter(worlds.values()))
    batches = [tokens_alone(batch) for batch in held_out(first, PLAYED, setting.samples, HISTORY)]
    changed = {}
    for generation, world in worlds.items():
        found = scored(world, batches, OWN[generation])
        tell(report, found, generation, setting.margin)
        outcomes(report, found, generation, batches)
        changed[generation] = found["changed_accuracy"]
        if OWN[generation] != "parallel":
            at_once = scored(world, batches, "parallel")["changed_accuracy"]
            beside = (OWN[generation], changed[generation])
            report.add(
                Figure(
                    f"{generation}: accuracy of changed tokens, decoded all at once", at_once, "share", baseline=beside
                )
            )
    for one, other, goal in RATIOS if len(changed) > 1 else ():
        ratio = changed[one] / max(changed[other], 1e-9)
        report.add(Figure(f"{one} / {other}, changed tokens", ratio, "ratio", goal=(">=", goal)))


def scored(world: World, batches: Sequence[Batch], decoding: str) -> Metrics:
    score = TokenScore(world.model.sizes.codes)
    for batch in batches:
        world.model.measure(batch, score, decoding)
    return score.metrics()


def tell(report: Report, found: Metrics, name: str, margin: float) -> None:
    copied = found["copy_accuracy"]
    copying, nothing = ("copying the last frame", copied), ("copying the last frame", 0.0)
    goal = (">=", round(max(0.75, copied + margin), 4))
    report.add(Figure(f"{name}: token accuracy", found["accuracy"], "share", baseline=copying, goal=goal))
    changed, share = found["changed_accuracy"], f"{found['changed_share']:.1%} of all"
    report.add(Figure(f"{name}: accuracy of changed tokens", changed, "share", baseline=nothing, notes=share))
    unigram = ("the tokens' frequencies", found["unigram_bits"])
    report.add(Figure(f"{name}: bits per token", found["bits"], "bits", baseline=unigram))


def outcomes(report: Report, found: Metrics, name: str, batches: Sequence[Batch]) -> None:
    """Figures that nothing was there for are left out: JSON has no nan."""
    rewards, ends = (
        sum(int(np.count_nonzero(getattr(b, field)[-1])) for b in batches) for field in ("reward", "ended")
    )
    if rewards:
        notes, beside = f"{rewards} rewards", ("no reward foreseen", 0.0)
        report.add(Figure(f"{name}: F1 of rewards", found["reward_f1"], "share", baseline=beside, notes=notes))
    if ends:
        notes, beside = f"{ends} ends", ("chance", 0.5)
        report.add(Figure(f"{name}: AUC of ends", found["ended_auc"], "share", baseline=beside, notes=notes))


def tokens_alone(batch: Batch) -> Batch:
    """Without pictures: nothing is tokenised again for every model."""

    def kept(state: Arrays) -> dict[str, Array]:
        return {"tokens": state["tokens"]}

    states = {name: kept(getattr(batch, name)) for name in ("state", "next_state", "final_state")}
    return replace(batch, **states)


# --- many steps ahead ---------------------------------------------------------------------------------------------


def drift(report: Report, worlds: dict[str, World]) -> None:
    """On their own imagination, without chance, with the actions that were taken in the real game."""
    for generation, world in worlds.items():
        for _ in range(AWAKE):
            world.step()
        found = rollout(world, max(HORIZONS))
        still = np.broadcast_to(found.start, found.real.shape)
        dreamt, held = psnr_by_step(found, found.imagined), psnr_by_step(found, still)
        if HELD not in report.curves:  # the games and the tokens are the same for all
            report.curves[HELD] = held
            redrawn(report, world, found)
        report.curves[f"{generation}: PSNR of changed pixels by steps ahead"] = dreamt
        for horizon in HORIZONS:
            beside = (HELD, dict(held)[horizon])
            name = f"{generation}: PSNR of changed pixels, {horizon} ahead"
            report.add(Figure(name, dict(dreamt)[horizon], "dB", baseline=beside))


def redrawn(report: Report, world: World, found: Rollout) -> None:
    """What the tokenizer makes of the true frame: as near as a model of its tokens comes."""
    real, rows = found.real[0], np.zeros(len(found.start), bool)
    latent = world.model.observe(world.model.initial(len(rows)), {world.image: real}, None, ~rows).latent
    psnr = changed_psnr(world.model.decode(latent)[world.image], real, found.start)
    beside = (HELD, changed_psnr(found.start, real, found.start))
    report.add(Figure("PSNR of changed pixels, 1 ahead, as its tokens show them", psnr, "dB", baseline=beside))


if __name__ == "__main__":
    main()
