"""What is rehearsed is not forgotten, and what is chosen for it is what the docstring says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from pictures import balls, batch_of, differing, scenes

from agentctl.core.checkpoint import write_checkpoint
from agentctl.core.protocols import Setup
from agentctl.core.types import Array, Snapshot
from agentctl.testing import assert_contract
from agentctl.world_models.rehearsal import MOVES, Rehearsal, moved, view_distances
from agentctl.world_models.tokenizer import psnr
from agentctl.world_models.vqvae import VQVAE

SMALL = {"codes": 64, "dim": 16, "width": 16, "downsample": 4, "lr": 3e-3, "threads": 1, "precision": "fp32"}
OLD, NEW = (lambda count, seed: balls(count, seed, cells=8)), scenes
"""Two games of 32 x 32 pixels."""


def vqvae(**config: Any) -> VQVAE:
    space = spaces.Dict({"picture": spaces.Box(0, 255, (32, 32, 3), np.uint8)})
    return VQVAE(VQVAE.Config.model_validate({**SMALL, **config}), Setup(space, spaces.Discrete(3), seed=3))


def taught(made: VQVAE, game: Any, updates: int) -> VQVAE:
    for k in range(updates):
        made.learn(batch_of(game(32, k)))
    return made


def kept(made: VQVAE, folder: Path) -> str:
    write_checkpoint(folder / "checkpoints", 0, {"world_model": made.save()}, keep=1)
    return str(folder)


def quality(made: VQVAE, frames: torch.Tensor) -> float:
    shown = made.tokenizer.decode(made.tokenizer.encode(frames))
    return psnr(float(((shown.float() - frames.float()) / 255).square().mean()))


def test_an_old_game_is_forgotten_less_by_who_rehearses_it(tmp_path: Path) -> None:
    """Its sabotage: the same updates on as many new frames, without."""
    first = taught(vqvae(rehearsal={}), OLD, 120)
    run, held_out, new = kept(first, tmp_path), OLD(200, 10_000), NEW(200, 10_000)
    before, found = quality(first, held_out), {}
    for name, rehearsal in {"without": None, "with": {"frames": 64}}.items():
        later = taught(vqvae(**{"from": run, "rehearsal": rehearsal}), NEW, 80)
        found[name] = quality(later, held_out), quality(later, new)
    print(f"dB on the old game: {before:.1f} before; afterwards, with the new one: {found}")
    assert found["without"][0] < before - 3 and found["with"][0] > found["without"][0] + 3
    assert min(found["with"][1], found["without"][1]) > quality(first, new) + 2, "the new one is learnt all the same"


def views(frames: Array, rng: np.random.Generator) -> Array:
    """`moved`, pixel by pixel."""
    count, height, width, _ = frames.shape
    down, right = rng.integers(-MOVES, MOVES + 1, (2, count, 1))[..., 0]
    view = np.zeros_like(frames)
    for n in range(count):
        for y in range(height):
            for x in range(width):
                there = min(max(y + down[n], 0), height - 1), min(max(x + right[n], 0), width - 1)
                view[n, y, x] = frames[n][there]
    return view


def test_the_chosen_are_those_whose_views_the_quantiser_parts_most() -> None:
    """Against brute force: every view made by hand, every code searched for, all frames sorted."""
    made = taught(vqvae(), NEW, 20)
    frames, twin = NEW(20, 5).numpy(), np.random.default_rng(7)
    distances = view_distances(frames, made._quantised, np.random.default_rng(7))
    codes = made.tokenizer.quantizer.lookup(torch.arange(64)).double()

    def quantised(view: Array) -> torch.Tensor:
        z = made.tokenizer.encoder(torch.from_numpy(view).permute(0, 3, 1, 2) / 255).permute(0, 2, 3, 1)
        return codes[torch.cdist(z.reshape(-1, 16).double(), codes).argmin(1)].reshape(len(view), -1)

    with torch.no_grad():
        one, other = (quantised(views(frames, twin)) for _ in range(2))
    expected = (one - other).square().mean(1).numpy()
    np.testing.assert_allclose(distances, expected, rtol=1e-5)
    rehearsal = Rehearsal(Rehearsal.Config(frames=6), (32, 32, 3), seed=7)
    earlier = Snapshot({"rehearsal/memory": frames[:1], "rehearsal/candidates": frames}, {"rehearsal": {}})
    rehearsal.take_over(earlier, made._quantised)
    assert (rehearsal.memory == frames[[0, *sorted(np.argsort(expected)[-6:])]]).all()


def test_every_frame_is_as_likely_to_be_kept() -> None:
    counts = np.zeros(30)
    for seed in range(400):
        keeper = Rehearsal(Rehearsal.Config(candidates=6), (1, 1, 1), seed)
        for part in np.split(np.arange(30, dtype=np.uint8).reshape(30, 1, 1, 1), 5):
            keeper.joined(part)
        counts[keeper.candidates.ravel()] += 1
    assert counts.sum() == 6 * 400
    assert np.square(counts - 80).sum() / 80 < 52, "chi-squared of 29 degrees of freedom, 99.5 %"


def test_an_update_has_its_share_of_rehearsed_frames() -> None:
    rehearsal = Rehearsal(Rehearsal.Config(share=0.25, choose="random"), (32, 32, 3), seed=0)
    old, new = OLD(50, 0).numpy(), NEW(16, 0).numpy()
    earlier = Snapshot({"rehearsal/memory": old[:0], "rehearsal/candidates": old}, {"rehearsal": {}})
    assert (rehearsal.joined(new) == new).all() and len(rehearsal.candidates) == 16
    rehearsal.take_over(earlier, lambda frames: frames)
    both = rehearsal.joined(new)
    assert len(both) == 20 and (both[:16] == new).all()
    assert all((old == frame).all((1, 2, 3)).any() for frame in both[16:])


def test_what_two_runs_ago_was_rehearsed_still_is(tmp_path: Path) -> None:
    first = kept(taught(vqvae(rehearsal={}), OLD, 2), tmp_path / "one")
    second = vqvae(**{"from": first, "rehearsal": {"frames": 10}})
    third = vqvae(**{"from": kept(taught(second, NEW, 2), tmp_path / "two"), "rehearsal": {"frames": 7}})
    mine, before = third._rehearsal.memory, second._rehearsal.memory
    assert len(mine) == 17 and (mine[:10] == before).all()


def test_it_goes_on_to_the_bit(tmp_path: Path) -> None:
    run = kept(taught(vqvae(rehearsal={}), OLD, 2), tmp_path)
    options = {"from": run, "rehearsal": {"candidates": 40}}
    made = taught(vqvae(**options), NEW, 3)
    snapshot = made.save()
    twin = vqvae(**options)
    twin.load(Snapshot({k: v.copy() for k, v in snapshot.arrays.items()}, json.loads(json.dumps(snapshot.data))))
    assert differing(taught(made, NEW, 4).save(), taught(twin, NEW, 4).save()) == []
    with pytest.raises(ValueError, match="has 40 candidates: set `candidates` back"):
        vqvae(rehearsal={"candidates": 30}).load(snapshot)


def test_it_keeps_the_contract_of_a_world_model() -> None:
    assert_contract("world_model", VQVAE, rehearsal={"candidates": 16})


def test_a_run_that_kept_nothing_is_told(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="kept no frames: it needs `rehearsal` too"):
        vqvae(**{"from": kept(vqvae(), tmp_path), "rehearsal": {}})


def test_a_view_is_the_frame_moved() -> None:
    frames = scenes(6, 0).numpy()
    one, other = (make(frames, np.random.default_rng(1)) for make in (moved, views))
    assert (one == other).all() and (one != frames).any()
