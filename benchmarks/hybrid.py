"""The hybrid eye beside the other two: sizes, times, exactness, and a lantern that a clone must look at.

agentctl bench hybrid                          # all of it: ten minutes; needs game-agentctl[timm,record,replay]
agentctl bench hybrid --picture heat.png       # also the picture with its heatmap
"""

from __future__ import annotations

import argparse
import copy
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import yaml
from _results import ROOT, Figure, Report, over_seeds, run_agentctl
from PIL import Image
from torch import Tensor, nn

from agentctl.agents.blocks import eye_for
from agentctl.agents.hybrid import Hybrid, HybridVision, overlay
from agentctl.core import load, make

CONFIG = str(ROOT / "configs" / "toy" / "doors-hybrid.yaml")
SEEDS = (0, 1, 2)
ROUNDS, FRAMES = 7, 32
SHAPE = (4, 84, 84)
IN_TURN = "CPU-seconds of one core, the networks measured in turn (A B A B) on a machine that others used too"


def main() -> None:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--picture", type=Path, help="where to write a frame with its heatmap")
    picture = made.parse_args().picture
    report = Report("hybrid")
    torch.manual_seed(0)
    torch.set_num_threads(1)
    add_sizes_and_times(report)
    add_exactness(report)
    add_learning(report, picture)
    report.write()


def networks() -> dict[str, nn.Module]:
    """On 4 gray frames of 84 x 84."""

    def hybrid(backbone: str) -> nn.Module:
        return eye_for(SHAPE, HybridVision.model_validate({"backbone": backbone}), 1.0)

    found: dict[str, nn.Module] = {name: eye_for(SHAPE, name, 1.0) for name in ("nature", "impala")}
    default = hybrid("tf_efficientnetv2_b0")
    found |= {"hybrid": default, "hybrid in bf16": copy.deepcopy(default).bfloat16()}
    return found | {f"hybrid, {name}": hybrid(name) for name in ("tf_efficientnetv2_s", "resnet50")}


def add_sizes_and_times(report: Report) -> None:
    nets = networks()
    for name, net in nets.items():
        if "bf16" not in name:
            report.add(Figure(f"{name}: weights", sum(p.numel() for p in net.parameters()) / 1e6, "million"))
    frames = torch.randint(0, 256, (FRAMES, *SHAPE), dtype=torch.uint8)
    for title, work in (("forward", forward), ("forward and backward", backward)):
        taken: dict[str, list[float]] = {name: [] for name in nets}
        for turn in range(1 + ROUNDS):  # the first turn warms up
            for name, net in nets.items():
                seconds = cpu_seconds(work, net, frames)
                taken[name] += [1000 * seconds] if turn else []
        beside = statistics.median(taken["nature"])
        for name, times in taken.items():
            report.add(
                Figure(
                    f"{name}: {title}, {FRAMES} frames", statistics.median(times), "ms", baseline=("nature", beside),
                    interval=(min(times), max(times)), notes=IN_TURN,
                )
            )  # fmt: skip


def forward(net: nn.Module, frames: Tensor) -> None:
    with torch.no_grad():
        net(frames)


def backward(net: nn.Module, frames: Tensor) -> None:
    torch.autograd.grad(net(frames).sum(), list(net.parameters()))


def cpu_seconds(work: Callable[[nn.Module, Tensor], None], net: nn.Module, frames: Tensor) -> float:
    began = time.process_time()
    work(net, frames)
    return time.process_time() - began


def add_exactness(report: Report) -> None:
    """Of a fresh default network on noise: beside torch's attention, a rollout by hand, and itself in bfloat16."""
    eye = Hybrid(SHAPE, HybridVision.model_validate({}))
    frames = torch.randint(0, 256, (4, *SHAPE), dtype=torch.uint8)
    with torch.no_grad():
        weights = eye.weights(frames)
        report.add(Figure("attention beside torch's, largest difference", beside_torch(eye, frames, weights), ""))
        report.add(Figure("rollout beside one by hand, largest difference", beside_hand(eye, frames, weights), ""))
        features, low = eye(frames), copy.deepcopy(eye).bfloat16()(frames)
        report.add(Figure("bf16 beside fp32, largest difference of a feature", float((low - features).abs().max()), ""))
        alone = torch.cat([eye(frame[None]) for frame in frames])
        report.add(
            Figure(
                "alone beside in a batch, largest difference of a feature", float((alone - features).abs().max()), ""
            )
        )


def beside_torch(eye: Hybrid, frames: Tensor, weights: Tensor) -> float:
    """The first layer's attention by ``nn.MultiheadAttention`` with the same weights."""
    layer, tokens = eye.layers[0], eye._tokens(frames)
    heads = weights.shape[2]
    theirs = nn.MultiheadAttention(eye.features, heads, batch_first=True)
    ours = layer.attention
    theirs.load_state_dict(
        {"in_proj_weight": ours.qkv.weight, "in_proj_bias": ours.qkv.bias}
        | {f"out_proj.{name}": value for name, value in ours.out.state_dict().items()}
    )
    x = layer.norm(tokens)
    mixed, expected = theirs(x, x, x, average_attn_weights=False)
    return float(max((weights[0] - expected).abs().max(), (ours(x) - mixed).abs().max()))


def beside_hand(eye: Hybrid, frames: Tensor, weights: Tensor) -> float:
    """The heatmap by numpy in float64: layers multiplied, each token's share spread over its pixels."""
    flow = np.eye(weights.shape[-1])
    for layer in weights.double().mean(2).numpy():
        flow = (layer / 2 + np.eye(layer.shape[-1]) / 2) @ flow
    shares, maps, begin = flow[:, 0, 1:], [], 0
    for h, w in eye.grids:
        grid = torch.from_numpy(shares[:, begin : begin + h * w].reshape(-1, 1, h, w) * h * w)
        maps.append(nn.functional.interpolate(grid, SHAPE[1:], mode="bilinear")[:, 0])
        begin += h * w
    total = torch.stack(maps).sum(0)
    return float((eye.heatmap(frames) - total / total.amax((1, 2), keepdim=True)).abs().max())


def add_learning(report: Report, picture: Path | None) -> None:
    """A clone of the toy's expert, which must see the lantern: three seeds, beside the random policy and nature."""
    with tempfile.TemporaryDirectory() as folder:
        games = Path(folder) / "doors"
        record(games)
        for vision in ("hybrid", "nature"):
            done = [train(vision, seed, games, Path(folder) / f"{vision}-{seed}") for seed in SEEDS]
            returns = [run["return_mean"] for run in done]
            beside = ("random policy", sum(run["return_random"] for run in done) / len(done))
            title = f"doors by {vision}: return after {int(done[0]['steps']):,} samples"
            report.add(over_seeds(title, returns, SEEDS, "points", baseline=beside))
        if picture is not None:
            picture.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(heat_picture(Path(folder) / "hybrid-0")).save(picture, optimize=True)


def record(out: Path) -> None:
    """200 games of the expert, who reads the picture by the toy's own perception."""
    words = ["record", CONFIG, "--agent", "expert", "--games", "200", "-s", "perception=toy_cells", "--out", str(out)]
    subprocess.run([sys.executable, "-m", "agentctl.core.cli", *words], check=True, stdout=subprocess.DEVNULL)


def train(vision: str, seed: int, games: Path, out: Path) -> dict[str, float]:
    settings = [f"run.seed={seed}", f"replay.recordings=[{games}]"]
    settings += ["policy.vision=nature"] if vision == "nature" else []
    return run_agentctl(CONFIG, *(part for setting in settings for part in ("-s", setting)), out=out)


def heat_picture(run: Path) -> np.ndarray:
    """The first picture of an episode, and the same with the trained bot's heatmap: uint8 (H, 2 W, 3)."""
    bot = load(run)
    game = yaml.safe_load(Path(CONFIG).read_text(encoding="utf-8"))["game"]
    env = make(game["name"], maze=tuple(game["maze"]))
    picture, _ = env.reset(seed=1)
    bot.act(picture)
    heat = bot.policy.heatmaps(bot.state)["picture"][0]
    plain = np.asarray(picture).repeat(6, 0).repeat(6, 1)
    return np.concatenate([plain, overlay(plain, heat)], axis=1)


if __name__ == "__main__":
    main()
