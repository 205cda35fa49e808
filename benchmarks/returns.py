"""Whether A2C and DQN learn as well as Stable-Baselines3's with the same settings: CartPole, in turn, on several seeds.

agentctl bench returns

The settings are rl-baselines3-zoo's for CartPole; the returns are means of 100 episodes after training. The zoo's DQN
learns 128 times after every 256 steps, and its target moves between, though it is said to move every 10 steps: here it
moves every 256. Every 10 it does diverge, for then it moves after every fifth batch.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from _results import Report, over_seeds, run_agentctl

SEEDS = {"A2C": range(3), "DQN": range(8)}  # DQN's returns depend on the seed more than on anything else
A2C = ("configs/gym/cartpole-a2c.yaml",)
DQN = (
    "configs/gym/cartpole-dqn.yaml", "-s", "policy={name: dqn, double: false, lr: 2.3e-3, adam_eps: 1.0e-8, "
    "hidden: [256, 256], epsilon_steps: 8_000, epsilon_end: 0.04, epsilon_act: 0.0, target_every: 256}", "-s",
    "replay={name: uniform, capacity: 50_000, warmup: 1_000, every: 2, batch_size: 64}", "-s", "game.batch=1",
    "-s", "run.steps=50_000", "-s", "run.cycle_steps=50_000",
)  # fmt: skip
OURS = {"A2C": A2C, "DQN": DQN}


def main() -> None:
    report = Report("returns")
    for name, words in OURS.items():
        seeds = SEEDS[name]
        with tempfile.TemporaryDirectory() as folder:
            runs = [run_agentctl(*words, "-s", f"run.seed={seed}", out=Path(folder) / str(seed)) for seed in seeds]
        beside = ("random policy", runs[0]["return_random"])
        mine, theirs = [run["return_mean"] for run in runs], [sb3_return(name, seed) for seed in seeds]
        report.add(over_seeds(f"{name}: agentctl", mine, seeds, "points", baseline=beside))
        report.add(over_seeds(f"{name}: Stable-Baselines3", theirs, seeds, "points", baseline=beside))
    report.write()


def sb3_return(name: str, seed: int) -> float:
    import stable_baselines3
    import torch
    from stable_baselines3.common.env_util import make_vec_env
    from stable_baselines3.common.evaluation import evaluate_policy

    torch.set_num_threads(1)
    settings, rows, steps = SB3[name]
    model = getattr(stable_baselines3, name)(
        "MlpPolicy", make_vec_env("CartPole-v1", rows, seed=seed), seed=seed, device="cpu", **settings
    )
    model.learn(steps)
    mean, _ = evaluate_policy(model, make_vec_env("CartPole-v1", 1, seed=1_000 + seed), 100)
    return float(mean)  # type: ignore[arg-type]  # not a list, unless it is asked for


SB3: dict[str, tuple[dict[str, Any], int, int]] = {
    "A2C": ({"ent_coef": 0.0, "learning_rate": lambda left: 7e-4 * left}, 8, 400_000),
    "DQN": (
        {
            "learning_rate": 2.3e-3, "batch_size": 64, "buffer_size": 100_000, "learning_starts": 1_000, "gamma": 0.99,
            "target_update_interval": 10, "train_freq": 256, "gradient_steps": 128, "exploration_fraction": 0.16,
            "exploration_final_eps": 0.04, "policy_kwargs": {"net_arch": [256, 256]},
        },
        1,
        50_000,
    ),
}  # fmt: skip

if __name__ == "__main__":
    main()
