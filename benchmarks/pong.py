"""The curve of a long Pong run with the published settings, beside the random policy and CleanRL's published end point.

agentctl run configs/atari/pong.yaml --out runs/pong        # hours; stop it with Ctrl-C whenever you like
agentctl bench pong runs/pong                               # reads its metrics.jsonl
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from _results import Figure, Report

CLEANRL = 20.36  # PPO, 10 M steps, 3 seeds: docs.cleanrl.dev/rl-algorithms/ppo, table of ppo_atari.py


def main() -> None:
    if len(sys.argv) != 2:
        raise SystemExit(__doc__)
    lines = [json.loads(line) for line in (Path(sys.argv[1]) / "metrics.jsonl").read_text().splitlines()]
    learnt = [line for line in lines if line["event"] == "learn" and line["return_mean"] is not None]
    played = [line for line in lines if line["event"] == "evaluation"]
    report = Report("pong")
    report.curves = {
        "training return, last 100 games": thin([(line["step"], line["return_mean"]) for line in learnt]),
        "evaluation return": [(line["step"], line["return_mean"]) for line in played],
    }
    beside = ("random policy", played[-1]["return_random"])
    report.add(Figure("steps", learnt[-1]["step"], "steps"))
    report.add(Figure("training return", learnt[-1]["return_mean"], "points", baseline=beside))
    report.add(Figure("evaluation return", played[-1]["return_mean"], "points", baseline=beside, goal=(">=", CLEANRL)))
    report.add(Figure("CleanRL's, published, after 10 000 000 steps", CLEANRL, "points"))
    report.write()


def thin(points: list[tuple[float, float]], most: int = 120) -> list[tuple[float, float]]:
    """At most ``most`` of the points, evenly, the last one always."""
    stride = -(-len(points) // most)
    return points[::-1][::stride][::-1]


if __name__ == "__main__":
    main()
