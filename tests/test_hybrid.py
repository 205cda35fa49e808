"""The hybrid eye: attention as torch has it, heatmaps by brute force, and agents that learn and act alike with it.

Where timm loads, backbones are its own. Elsewhere (it needs torchvision, which no CPU build of torch here has) a small
pyramid stands in for them, so that all but the backbones is tested for real.
"""

from __future__ import annotations

import copy
import math
import re
import sys
from types import SimpleNamespace

import numpy as np
import onnxruntime
import pytest
import torch
from gymnasium import spaces
from running import ROOT, call, composed
from torch import nn

from agentctl.agents import backbones
from agentctl.agents.a2c import A2C
from agentctl.agents.dqn import DQN
from agentctl.agents.hybrid import Attention, Hybrid, HybridVision, Layer, overlay, places, rollout, spread
from agentctl.agents.ppo import PPO
from agentctl.core.errors import ConfigError, NotReadyError
from agentctl.core.protocols import Setup
from agentctl.core.types import Batch

try:
    import timm
except (ImportError, RuntimeError):
    timm = None

needs_timm = pytest.mark.skipif(timm is None, reason="timm does not load here: pip install 'game-agentctl[timm]'")
NAMES = [pytest.param(name, marks=needs_timm) for name in ("tf_efficientnetv2_b0", "resnet18")]
PIXELS = spaces.Dict({"pixels": spaces.Box(0, 255, (4, 44, 40), np.uint8)})
SMALL = {"name": "hybrid", "backbone": "resnet18", "dim": 32, "heads": 4, "layers": 2}


class Pyramid(nn.Module):
    """What a feature network of timm is, in little: halves again and again, BatchNorm, maps at some of the scales."""

    pretrained_cfg = {"mean": (0.4, 0.5, 0.6), "std": (0.2, 0.2, 0.2)}
    feature_info = SimpleNamespace(reduction=lambda: [2, 4, 8, 16])

    def __init__(self, channels, indices):
        super().__init__()
        widths = [channels, 8, 16, 24, 32][: max(indices) + 2]
        self.indices = indices
        self.stages = nn.ModuleList(
            nn.Sequential(nn.Conv2d(a, b, 3, 2, 1, bias=False), nn.BatchNorm2d(b), nn.ReLU())
            for a, b in zip(widths, widths[1:], strict=False)
        )

    def forward(self, x):
        maps = []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        return [maps[index] for index in self.indices]


def pyramid(name, *, features_only, in_chans=3, out_indices=(0, 1, 2, 3), feature_cls="", pretrained=False):
    if pretrained:
        raise OSError("no route to the hub")
    return Pyramid(in_chans, out_indices)


@pytest.fixture(autouse=True)
def backbone(monkeypatch):
    if timm is None:
        stand_in = SimpleNamespace(is_model=lambda name: name == "resnet18", create_model=pyramid)
        monkeypatch.setattr(backbones, "load_timm", lambda: stand_in)


def eye(shape=(4, 44, 40), **options):
    torch.manual_seed(0)
    return Hybrid(shape, HybridVision.model_validate({**SMALL, **options}))


def noise(*shape):
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


# --- what it computes -------------------------------------------------------------------------------------------------


def test_attention_is_torchs_multi_head_attention():
    torch.manual_seed(0)
    ours, x = Attention(24, 3), torch.randn(5, 7, 24)
    theirs = nn.MultiheadAttention(24, 3, batch_first=True)
    theirs.load_state_dict(
        {"in_proj_weight": ours.qkv.weight, "in_proj_bias": ours.qkv.bias}
        | {"out_proj.weight": ours.out.weight, "out_proj.bias": ours.out.bias}
    )
    mixed, weights = theirs(x, x, x, average_attn_weights=False)
    torch.testing.assert_close(ours(x), mixed)
    torch.testing.assert_close(ours.weights(x), weights)


def test_a_layer_is_torchs_pre_norm_encoder_layer():
    torch.manual_seed(0)
    ours, x = Layer(24, 3), torch.randn(5, 7, 24)
    theirs = nn.TransformerEncoderLayer(24, 3, 96, 0.0, nn.functional.gelu, batch_first=True, norm_first=True)
    attention, norm, first, last = ours.attention, ours.mlp[0], ours.mlp[1], ours.mlp[3]
    pairs = {
        "self_attn.in_proj_": attention.qkv, "self_attn.out_proj.": attention.out,
        "linear1.": first, "linear2.": last, "norm1.": ours.norm, "norm2.": norm,
    }  # fmt: skip
    theirs.load_state_dict({k + n: value for k, part in pairs.items() for n, value in part.state_dict().items()})
    torch.testing.assert_close(ours(x), theirs(x))


@pytest.mark.parametrize("shape", [(44, 40), (4, 44, 40), (44, 40, 3), (2, 44, 40, 3), (84, 84)])
def test_every_layout_of_images_is_read(shape):
    net = eye(shape)
    assert net(noise(3, *shape)).shape == (3, 32)
    height, width = [side for side in shape if side > 4]
    assert net.grids == [(math.ceil(height / stride), math.ceil(width / stride)) for stride in (8, 16)]


def test_every_weight_has_a_share_in_the_features():
    net = eye()
    gradients = torch.autograd.grad(net(noise(2, 4, 44, 40)).square().sum(), list(net.parameters()))
    assert all(gradient.isfinite().all() for gradient in gradients)


def test_attention_begins_with_a_preference():
    """Were it a plain mean, what is small in the picture would be lost in it: no token has twice its share, or few."""
    net = eye((4, 84, 84), dim=128)
    weights = net.weights(noise(4, 4, 84, 84))
    assert (weights > 2 / weights.shape[-1]).float().mean() > 0.02


def test_places_are_alike_at_every_scale_and_told_apart():
    coarse, fine = places(1, 1, 32), places(3, 3, 32)
    torch.testing.assert_close(coarse[0], fine[4])  # the middle of the picture
    assert torch.cdist(fine, fine).fill_diagonal_(9).min() > 0.5


def test_an_image_gives_the_same_alone_and_in_a_batch():
    net, frames = eye(), noise(6, 4, 44, 40)
    alone = torch.cat([net(frame[None]) for frame in frames])
    torch.testing.assert_close(alone, net(frames), rtol=1e-4, atol=1e-5)
    assert not [module for module in net.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    assert not list(net.buffers())  # nothing that moves without a gradient


def test_bfloat16_is_close_to_float32():
    net, frames = eye(), noise(4, 4, 44, 40)
    features, low = net(frames), copy.deepcopy(net).to(torch.bfloat16)(frames)
    assert low.dtype == torch.float32
    assert (low - features).abs().max() < 0.1 * features.std()
    assert (low - features).abs().max() > 0


# --- what it looks at -------------------------------------------------------------------------------------------------


def test_attention_is_read_out_by_layer_head_and_scale():
    net, frames = eye(), noise(2, 4, 44, 40)
    maps = net.attention(frames)
    assert [[tuple(part.shape) for part in layer] for layer in maps] == [[(2, 4, 6, 5), (2, 4, 3, 3)]] * 2
    whole = net.weights(frames)
    torch.testing.assert_close(whole.sum(-1), torch.ones(2, 2, 4, 40))
    for layer in range(2):
        to_itself = whole[layer, :, :, 0, 0]
        seen = sum(part.sum((2, 3)) for part in maps[layer])
        torch.testing.assert_close(seen + to_itself, torch.ones(2, 4))
        assert maps[layer][0][1, 2, 3, 4] == whole[layer, 1, 2, 0, 1 + 3 * 5 + 4]
        assert maps[layer][1][0, 3, 2, 1] == whole[layer, 0, 3, 0, 1 + 6 * 5 + 2 * 3 + 1]


def test_rollout_is_the_sum_over_all_paths():
    """Abnar and Zuidema (2020): the weight of a path is the product of its edges, half of each past the attention."""
    weights = torch.rand(3, 1, 4, 4, dtype=torch.float64).softmax(-1)
    edges = [[[0.5 * float(layer[0, i, j]) + 0.5 * (i == j) for j in range(4)] for i in range(4)] for layer in weights]
    flow = rollout(weights)[0]
    for out in range(4):
        for source in range(4):
            paths = [edges[2][out][b] * edges[1][b][a] * edges[0][a][source] for a in range(4) for b in range(4)]
            assert float(flow[out, source]) == pytest.approx(sum(paths))


def test_a_share_is_spread_over_its_pixels():
    """Grids that divide the picture: far from other cells a pixel has its cell's density, and sums are kept."""
    fine, coarse = torch.zeros(1, 1, 4, 4), torch.zeros(1, 1, 2, 2)
    fine[0, 0, 1, 2], coarse[0, 0, 0, 0] = 0.5, 0.25
    heat = spread([fine, coarse], (64, 64))[0]
    assert heat.max() == 1
    (row, column) = divmod(int(heat.argmax()), 64)
    assert 16 <= row < 32 and 32 <= column < 48
    assert float(heat[0, 0] / heat[row, column]) == pytest.approx(0.25 * 4 / (0.5 * 16), abs=0.05)
    assert heat[-1, -1] == 0


def test_a_heatmap_is_that_by_numpy():
    net, frames = eye(), noise(2, 4, 44, 40)
    weights = net.weights(frames).detach().double().numpy().mean(2)
    tokens = np.eye(weights.shape[-1])
    flow = [np.linalg.multi_dot([(w[n] + tokens) / 2 for w in weights[::-1]])[0, 1:] for n in range(2)]
    heat = net.heatmap(frames)
    assert heat.shape == (2, 44, 40) and heat.dtype == torch.float32
    for n in range(2):
        parts = flow[n][:30].reshape(1, 1, 6, 5) * 30, flow[n][30:].reshape(1, 1, 3, 3) * 9
        wide = sum(nn.functional.interpolate(torch.from_numpy(part), (44, 40), mode="bilinear") for part in parts)
        torch.testing.assert_close(heat[n], (wide / wide.max())[0, 0].float(), rtol=1e-4, atol=1e-5)


def test_even_attention_makes_an_even_heatmap():
    net = eye(layers=1, heads=1)
    with torch.no_grad():
        for parameter in net.layers[0].attention.qkv.parameters():
            parameter.zero_()
    even = net.heatmap(noise(1, 4, 44, 40))[0]
    assert even.min() > 0.8


def test_an_overlay_glows_where_the_heat_is():
    heat = np.zeros((44, 40), np.float32)
    heat[10:20, 5:10] = 1
    shown = overlay(np.full((44, 40, 3), 100, np.uint8), heat)
    assert shown.shape == (44, 40, 3) and shown.dtype == np.uint8
    assert shown[15, 7, 0] > 150 > 60 > shown[40, 35, 0]
    assert overlay(np.zeros((88, 80), np.uint8), heat).shape == (88, 80, 3)


# --- agents that see with it ------------------------------------------------------------------------------------------


def agent(kind, space=PIXELS, **more):
    config = kind.Config.model_validate({"vision": SMALL, "precision": "fp32", "threads": 2, **more})
    return kind(config, Setup(space, spaces.Discrete(3), batch=4, seed=3))


def batch_of(policy, steps=6, rows=4):
    rng, first = np.random.default_rng(0), np.zeros(rows, bool)
    pictures = rng.integers(0, 256, (steps + 1, rows, 4, 44, 40), np.uint8)
    decisions = [policy.explore({}, {"pixels": pictures[t]}, first) for t in range(steps)]
    extras = {key: np.stack([decision.extras[key] for decision in decisions]) for key in decisions[0].extras}
    never = np.zeros((steps, rows), bool)
    return Batch(
        state={"pixels": pictures[:-1]}, first=never, action=np.stack([decision.action for decision in decisions]),
        reward=rng.normal(size=(steps, rows)).astype(np.float32), ended=never, cut=never, extras=extras, carry={},
        next_state={"pixels": pictures[-1]}, final_index=np.zeros((0, 2), int),
        final_state={"pixels": pictures[0][:0]},
    )  # fmt: skip


@pytest.mark.parametrize("kind", [PPO, A2C, DQN])
def test_agents_learn_with_it(kind):
    policy = agent(kind)
    rng, rows = np.random.default_rng(0), 4
    if kind is DQN:
        pictures = rng.integers(0, 256, (2, rows, 4, 44, 40), np.uint8)
        never = np.zeros((1, rows), bool)
        batch = Batch(
            state={"pixels": pictures[:1]}, first=never, action=rng.integers(0, 3, (1, rows)),
            reward=np.ones((1, rows), np.float32), ended=never, cut=never, extras={}, carry={},
            next_state={"pixels": pictures[1]}, final_index=np.zeros((0, 2), int),
            final_state={"pixels": pictures[0][:0]},
        )  # fmt: skip
    else:
        batch = batch_of(policy)
    before = policy.save().arrays
    assert all(np.isfinite(list(policy.learn(batch).values())))
    after = policy.save().arrays
    moved = [name for name in before if name.startswith("net/") and not np.array_equal(before[name], after[name])]
    assert any("maps" in name for name in moved) and any("qkv" in name for name in moved)


def test_the_first_ratio_of_ppo_is_one():
    """Acting, 4 rows at a time, and learning, 24 samples in two threads, think the same of every choice."""
    policy = agent(PPO, epochs=1, minibatches=1, lr=1e-4)
    figures = policy.learn(batch_of(policy))
    assert abs(figures["approx_kl"]) < 1e-9
    assert figures["clip_fraction"] == 0


def test_acting_in_bfloat16_is_close_to_acting_in_float32():
    frames = {"pixels": noise(8, 4, 44, 40).numpy()}
    exact, low = agent(DQN), agent(DQN, precision="bf16")
    fast, net = low._fast, low.net
    assert {p.dtype for p in fast.convolutions.parameters()} == {torch.bfloat16}
    state = {"pixels": torch.from_numpy(frames["pixels"])}
    torch.testing.assert_close(net(state), exact.net(state))
    assert (fast(state) - net(state)).abs().max() < 0.1 * net(state).std()


def test_a_run_that_is_loaded_again_sees_the_same():
    policy, other = agent(PPO), agent(PPO, lr=1e-3)
    policy.learn(batch_of(policy))
    other.load(policy.save())
    state = {"pixels": noise(3, 4, 44, 40).numpy()}
    np.testing.assert_array_equal(policy.heatmaps(state)["pixels"], other.heatmaps(state)["pixels"])


@pytest.mark.parametrize("kind", [PPO, DQN])
def test_it_is_exported(kind, tmp_path):
    greedy = {"evaluate": "greedy"} if kind is PPO else {"epsilon_act": 0.0}
    policy = agent(kind, **greedy)
    policy.export_onnx(tmp_path / "policy.onnx", {})
    runtime = onnxruntime.InferenceSession(str(tmp_path / "policy.onnx"), providers=["CPUExecutionProvider"])
    for rows in (1, 5):
        frames = noise(rows, 4, 44, 40)
        (action, value) = runtime.run(["action", "value"], {"pixels": frames.numpy()})
        np.testing.assert_array_equal(action, policy.act({}, {"pixels": frames.numpy()}, np.zeros(rows, bool)).action)
        net = policy.net if kind is DQN else policy._actor.net
        with torch.no_grad():
            if kind is DQN:
                expected = net({"pixels": frames})[..., 0]
            else:
                expected = net({"pixels": frames[None]}, {}, torch.zeros(1, rows, dtype=torch.bool)).value
        np.testing.assert_allclose(value, expected, atol=1e-4)


def test_heatmaps_are_of_every_image_and_no_number():
    both = spaces.Dict({**PIXELS.spaces, "eye": spaces.Box(0, 255, (30, 34, 3), np.uint8), "hud": spaces.Discrete(4)})
    state = {"pixels": noise(2, 4, 44, 40).numpy(), "eye": noise(2, 30, 34, 3).numpy(), "hud": np.array([1, 2])}
    for kind in (PPO, DQN):
        heat = agent(kind, both).heatmaps(state)
        assert {key: array.shape for key, array in heat.items()} == {"pixels": (2, 44, 40), "eye": (2, 30, 34)}
        assert all(array.max() == 1 and array.min() >= 0 for array in heat.values())
    with pytest.raises(ValueError, match="only `vision: hybrid`"):
        agent(PPO, vision="nature").heatmaps(state)


def test_the_pages_lines_show_a_heatmap_over_a_picture(tmp_path, monkeypatch):
    from agentctl.core.config import compose
    from agentctl.core.plugins import Switches
    from agentctl.core.runner import train

    doors, games = "configs/toy/doors-hybrid.yaml", tmp_path / "games"
    asked = ("--agent", "expert", "--games", "16", "-s", "perception=toy_cells", "--out", games)
    assert call("record", doors, *asked).returncode == 0
    quick = ["run.steps=64", "run.cycle_steps=64", f"replay.recordings=[{games}]", "evaluation.episodes=1"]
    small = [f"policy.vision={{name: hybrid, backbone: {SMALL['backbone']}, dim: 32}}"]
    sides = Switches(disable=frozenset(["tensorboard", "recorder", "report", "progress", "metrics"]))
    composition = compose(ROOT / doors, [*quick, *small], (), sides)
    train(composition, tmp_path / "runs" / "doors", quiet=True)
    page = (ROOT / "docs" / "agents.md").read_text(encoding="utf-8")
    (lines,) = [block for block in re.findall(r"```python\n(.*?)```", page, re.DOTALL) if "heatmaps" in block]
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    exec(compile(lines, "docs/agents.md", "exec"), names)
    assert names["heat"].shape == (35, 45) and names["shown"].shape == (35, 45, 3)


# --- how it is asked for ----------------------------------------------------------------------------------------------


def run_with(vision):
    return {
        "game": {"name": "toy/lantern"},
        "policy": {"name": "ppo", "vision": vision},
        "replay": {"name": "rollout", "steps": 16},
    }


@pytest.mark.parametrize("vision", ["nature", "impala", "hybrid", {"name": "hybrid"}, {"strides": [4, 8, 16]}, SMALL])
def test_a_name_or_a_block_is_taken(vision):
    config = composed(run_with(vision)).one("policy").config
    assert config.vision == (vision if isinstance(vision, str) else HybridVision.model_validate(vision))


@pytest.mark.parametrize(
    ("vision", "told"),
    [
        (
            "hybird",
            "policy.vision must be 'nature', 'impala', 'iris' or 'hybrid', not \"hybird\"; did you mean 'hybrid'",
        ),
        ({"name": "hybrid", "backbon": "x"}, "policy.vision.backbon: unknown key; did you mean 'backbone'"),
        ({"dim": 130}, "policy.vision.dim must be a multiple of 4"),
        ({"heads": 5}, "policy.vision: dim 128 must be a multiple of heads 5"),
        ({"strides": [16, 8]}, "policy.vision: strides [16, 8] must rise"),
        ({"strides": []}, "policy.vision.strides must have at least 1 item"),
    ],
)
def test_what_cannot_be_is_said_with_its_place(vision, told):
    with pytest.raises(ConfigError, match=re.escape(told)):
        composed(run_with(vision))


def test_a_wrong_backbone_stride_or_width_is_said():
    with pytest.raises(ValueError, match="timm has no backbone 'resnet19'"):
        eye(backbone="resnet19")
    with pytest.raises(ValueError, match=r"no feature map of stride 64; it has \[2, 4, 8, 16"):
        eye(strides=(8, 64))
    with pytest.raises(ValueError, match=r"width 0.5 is for nature, impala and iris"):
        agent(PPO, width=0.5)


def test_without_timm_the_remedy_is_said(monkeypatch):
    monkeypatch.undo()
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(NotReadyError, match=re.escape("pip install 'game-agentctl[timm]'")):
        eye()


def test_a_timm_that_does_not_load_is_told_from_one_that_is_missing(monkeypatch, tmp_path):
    monkeypatch.undo()
    monkeypatch.delitem(sys.modules, "timm", raising=False)
    (tmp_path / "timm.py").write_text("raise RuntimeError('operator torchvision::nms does not exist')")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(NotReadyError, match=r"does not load: operator torchvision::nms .* must fit torch"):
        eye()
    sys.modules.pop("timm", None)


def test_weights_that_cannot_be_fetched_are_said_with_the_remedy(monkeypatch):
    made = backbones.load_timm()

    def offline(name, *, pretrained=False, **options):
        if pretrained:
            raise OSError("no route to the hub")
        return made.create_model(name, **options)

    stand_in = SimpleNamespace(is_model=made.is_model, create_model=offline)
    monkeypatch.setattr(backbones, "load_timm", lambda: stand_in)
    with pytest.raises(NotReadyError, match="resnet18 cannot be fetched: no route to the hub; .*`pretrained: false`"):
        eye(pretrained=True)


# --- backbones --------------------------------------------------------------------------------------------------------


def worn(net, channels):
    """``net`` after some training: BatchNorm has seen batches, and weights are its own."""
    net.train()
    with torch.no_grad():
        for _ in range(3):
            net(2 * torch.randn(4, channels, 64, 64) + 1)
        for module in net.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.weight.uniform_(0.5, 1.5)
                module.bias.normal_()
    return net.eval()


@pytest.mark.parametrize("name", ["pyramid", *NAMES])
def test_a_frozen_norm_is_what_batch_norm_is_when_evaluated(name):
    torch.manual_seed(0)
    made = Pyramid(4, (2, 3)) if name == "pyramid" else backbones.timm_network(name, (8, 16), in_chans=4)
    net, frames = worn(made, 4), torch.randn(2, 4, 64, 64)
    with torch.no_grad():
        expected = net(frames)
        backbones.replace_batch_norm(net, backbones.frozen)
        for ours, theirs in zip(net(frames), expected, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-3)
    assert not list(net.buffers())


def test_a_grouped_norm_is_that_of_its_paper():
    norm = nn.BatchNorm2d(24)
    with torch.no_grad():
        norm.weight[0] = 0
    made, x = backbones.grouped(norm), torch.randn(2, 24, 5, 5)
    assert made.num_groups == 3  # 16 do not divide 24, 8 do
    groups = x.reshape(2, 3, 8 * 25)
    by_hand = (groups - groups.mean(2, keepdim=True)) / (groups.var(2, correction=0, keepdim=True) + 1e-5).sqrt()
    torch.testing.assert_close(made(x), by_hand.reshape(x.shape) * norm.weight[:, None, None], rtol=1e-4, atol=1e-5)
    assert backbones.grouped(nn.BatchNorm2d(64)).num_groups == 4


@needs_timm
@pytest.mark.parametrize("name", ["tf_efficientnetv2_b0", "tf_efficientnetv2_s", "resnet50", "resnet18"])
def test_timms_backbones_read_atari_and_use_all_they_have(name):
    net = eye((4, 84, 84), backbone=name, strides=(8, 16, 32))
    features = net(noise(2, 4, 84, 84))
    torch.autograd.grad(features.sum(), list(net.parameters()))  # raises where a weight has no share
    assert net.grids == [(11, 11), (6, 6), (3, 3)]
    assert not [module for module in net.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]


@needs_timm
@pytest.mark.parametrize("name", ["tf_efficientnetv2_b0", "resnet18"])
def test_a_backbone_is_timms_own_cut_off_after_the_last_scale(name):
    theirs = timm.create_model(name, features_only=True, out_indices=(2, 3), in_chans=4).eval()
    ours = backbones.timm_network(name, (8, 16), in_chans=4).eval()
    weights = theirs.state_dict()
    ours.load_state_dict({key: weights[key.removeprefix("model.")] for key in ours.state_dict()}, strict=True)
    frames = torch.randn(2, 4, 84, 84)
    for one, other in zip(ours(frames), theirs(frames), strict=True):
        torch.testing.assert_close(one, other)
