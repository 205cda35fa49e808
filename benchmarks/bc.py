"""Behaviour cloning: from 20 recorded games of CartPole, and of Atari from those of the trained default run.

agentctl bench bc                           # both; the Atari part trains its expert first: a quarter of an hour
agentctl bench bc --peer imitation          # and the library imitation's BC on the same recording of CartPole
agentctl bench bc --expert runs/climber     # an expert of configs/atari/default.yaml that is trained already

Beside the clone's accuracy stand those of the most frequent action and of repeating the last one, beside its return
those of the expert and the random policy. IMITATION_PYTHON runs imitation in an environment of its own.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from _results import Figure, Report, over_seeds, run_agentctl

SEEDS = (0, 1, 2)
EPOCHS = 40  # of the peer, over all steps; ours stops by itself
ATARI_GAMES = 8


def main() -> None:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--peer", choices=["imitation"], help="measure this too")
    made.add_argument("--expert", type=Path, help="a trained run of configs/atari/default.yaml")
    options = made.parse_args()
    report = Report("bc")
    with tempfile.TemporaryDirectory() as folder:
        cartpole(report, Path(folder), options.peer)
        atari(report, Path(folder), options.expert)
    report.write()


def cartpole(report: Report, folder: Path, peer: str | None) -> None:
    run_agentctl("configs/gym/cartpole.yaml", out=folder / "ppo")
    expert = record("configs/gym/cartpole.yaml", folder / "ppo", 20, folder / "games")
    given = ("-s", f"replay.recordings=[{folder / 'games'}]")
    runs = [
        run_agentctl("configs/gym/cartpole-bc.yaml", *given, "-s", f"run.seed={seed}", out=folder / f"bc-{seed}")
        for seed in SEEDS
    ]
    beside = ("random policy", runs[0]["return_random"])
    report.add(Figure("CartPole: the expert", expert["return_mean"], "points", baseline=beside))
    returns = [run["return_mean"] for run in runs]
    lowest = {"unit": "points", "baseline": beside, "goal": (">=", 475)}
    report.add(over_seeds("CartPole: the clone of 20 games", returns, SEEDS, **lowest))  # type: ignore[arg-type]
    report.add(over_seeds("CartPole: lowest clone of the seeds", [min(returns)], SEEDS, **lowest))  # type: ignore[arg-type]
    report.add(over_seeds("CartPole: time of a run", [run["seconds"] for run in runs], SEEDS, "s"))
    accuracies(report, "CartPole", [folder / f"bc-{seed}" for seed in SEEDS])
    if peer:
        found = [imitation(folder / "games", folder / f"steps-{seed}.npz", seed) for seed in SEEDS]
        theirs = [one["return"] for one in found]
        report.add(
            over_seeds("CartPole: imitation's clone of the same games", theirs, SEEDS, "points", baseline=beside)
        )
        report.add(over_seeds("CartPole: imitation's time to learn", [one["seconds"] for one in found], SEEDS, "s"))


def atari(report: Report, folder: Path, expert: Path | None) -> None:
    """Crazy Climber, by the policy that `agentctl run` trains in five minutes. Both play the same ten games."""
    if expert is None:
        expert = folder / "climber"
        run_agentctl("configs/atari/default.yaml", out=expert)
    games = record("configs/atari/default.yaml", expert, ATARI_GAMES, folder / "climbs")
    taught = agentctl("eval", str(expert), "--json")["return_mean"]
    given = ("-s", f"replay.recordings=[{folder / 'climbs'}]")
    run = run_agentctl("configs/atari/climber-bc.yaml", *given, out=folder / "clone")
    beside = ("random policy", run["return_random"])
    report.add(Figure("Crazy Climber: the expert", taught, "points", baseline=beside))
    report.add(Figure("Crazy Climber: recorded steps", games["steps"], "steps"))
    report.add(Figure("Crazy Climber: the clone", run["return_mean"], "points", baseline=beside))
    report.add(Figure("Crazy Climber: the clone / the expert", run["return_mean"] / taught, "ratio"))
    report.add(Figure("Crazy Climber: time of the clone's run", run["seconds"], "s"))
    accuracies(report, "Crazy Climber", [folder / "clone"])


def accuracies(report: Report, game: str, runs: list[Path]) -> None:
    """As judged best, on held-out episodes."""
    judged = [best_judgement(run) for run in runs]
    seeds = SEEDS[: len(runs)]

    def mean(name: str) -> float:
        return float(np.mean([figures[name] for figures in judged]))

    majority = ("majority action", mean("majority_accuracy"))
    repeating = ("repeating the last action", mean("repeat_accuracy"))
    names = {
        "held_out_accuracy": ("accuracy", majority),
        "changed_accuracy": ("accuracy where the action changes", None),
    }
    for name, (title, beside) in names.items():
        values = [figures[name] for figures in judged]
        report.add(over_seeds(f"{game}: {title}", values, seeds, "share", baseline=beside))
    report.add(Figure(f"{game}: accuracy of {repeating[0]}", repeating[1], "share"))
    report.add(over_seeds(f"{game}: calibration error", [f["calibration_error"] for f in judged], seeds, "share"))


def best_judgement(run: Path) -> dict[str, float]:
    """Of the weights that play, as the report shows it."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    (*_, last) = (line for line in lines if line["event"] == "evaluation")
    return {name: value for name, (value,) in last["tables"]["Judged on held-out episodes"]["rows"].items()}


def record(config: str, run: Path, games: int, out: Path) -> dict[str, Any]:
    """`agentctl record`; returns what it prints."""
    return agentctl("record", config, "--agent", str(run), "--games", str(games), "--out", str(out), "--json")


def agentctl(*words: str) -> dict[str, Any]:
    """The last line that a command prints, read as JSON."""
    command = [sys.executable, "-m", "agentctl.core.cli", *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(words)} failed with {done.returncode}:\n{done.stderr}")
    return dict(json.loads(done.stdout.splitlines()[-1]))


def imitation(games: Path, file: Path, seed: int) -> dict[str, float]:
    """What imitation's BC makes of the same steps, and its return in 100 games."""
    from agentctl.core.recording import Recording

    episodes = list(Recording(games).episodes())
    seen = [(e.observations["vector"][:-1], e.observations["vector"][1:], e.actions) for e in episodes]
    before, after, actions = (np.concatenate(part) for part in zip(*seen, strict=True))
    dones = np.concatenate([np.arange(e.length) == e.length - 1 for e in episodes])
    np.savez(file, before=before, after=after, actions=actions, dones=dones)
    python = os.environ.get("IMITATION_PYTHON", sys.executable)
    command = [python, "-c", IMITATION, str(file), str(seed), str(EPOCHS)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return dict(json.loads(done.stdout.splitlines()[-1]))


IMITATION = """
import json, sys, time
import gymnasium, numpy as np
from imitation.algorithms.bc import BC
from imitation.data.types import Transitions
from stable_baselines3.common.evaluation import evaluate_policy

file, seed, epochs = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
steps = np.load(file)
env = gymnasium.make("CartPole-v1")
infos = np.array([{}] * len(steps["actions"]))
shown = Transitions(steps["before"], steps["actions"], infos, steps["after"], steps["dones"])
learner = BC(observation_space=env.observation_space, action_space=env.action_space, demonstrations=shown,
             batch_size=64, rng=np.random.default_rng(seed))
began = time.perf_counter()
learner.train(n_epochs=epochs, progress_bar=False, log_interval=10**9)
seconds = time.perf_counter() - began
env.reset(seed=seed)
print(json.dumps({"return": evaluate_policy(learner.policy, env, 100)[0], "seconds": seconds}))
"""

if __name__ == "__main__":
    main()
