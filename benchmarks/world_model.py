"""How fast `iris` learns and imagines, in turn with a GPT-2 of its size, and `token_transformer` at 64 tokens a frame.

agentctl bench world-model                       # ours, and the floor that the processor sets
agentctl bench world-model --peer iris-like      # and Hugging Face's GPT-2 (needs transformers), as IRIS is made
agentctl bench world-model --learnt RUN          # and what `iris` imagines once it has learnt a game

IRIS's size (Micheli et al. 2023): 10 layers, 4 heads, 256 wide, 20 steps of 16 tokens and an action, batches of 4
sequences. The peer computes as IRIS does: in float32, by torch's AdamW, with a cache that grows by copying. It reads
and writes tokens alone; ours is measured so too, and with every imagined frame drawn. With weights of chance nothing is
foretold by the last frame, which is the worst case for ours: it decodes by guessing ahead. One that has learnt a game
has fewer tokens to wait for; the peer takes as long whatever it has learnt. RUN is of the same size, e.g. of

agentctl run atari/pong-iris -s policy=random -s game.batch=8 -s run.steps=11_000 -s run.cycle_steps=11_000 \\
  -s replay.every=16 -s replay.batch_size=4 -s world_model.lr=3.0e-4 -s evaluation.max_steps=100 \\
  -s 'world_model.tokenizer={frozen_after: 300, codes: 512, downsample: 16}' --out RUN
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _results import Figure, Report
from _turns import Rates, fastest, measured, parser, spread, windows_in_turn, write
from gymnasium import spaces

LAYERS, HEADS, WIDTH, STEPS, PLACES, CODES, ACTIONS = 10, 4, 256, 20, 16, 512, 18
SEQUENCES = 4
ROWS = (1, 8, 32)
GOALS = {"training": 2.0, "imagination": 5.0}
LEARNT = "LEARNT_RUN"  # the variable that tells a window's process where the learnt run is
DREAMS = {64: 20.0, 128: None}  # frames per second, what `agentctl dream` asks for


def main() -> None:
    made = parser(__doc__, ["iris-like"], MEASURES, 1, "times the steps of a window")
    made.add_argument("--learnt", type=Path, metavar="RUN", help="measure this run's `iris`, too")
    options = made.parse_args()
    if options.measure:
        print(json.dumps(MEASURES[options.measure](options.length)))
        return
    windows = in_turn(options)
    report = Report("world-model")
    beside(report, windows, "training", "updates/s", GOALS["training"] if options.peer else None)
    for rows in ROWS:
        goal = GOALS["imagination"] if options.peer and rows == 8 else None
        beside(report, windows, f"imagination {rows}", "frames/s", goal)
        shown = [window["second"] for window in windows[f"drawn {rows}"]]
        report.add(spread(f"ours, frames drawn, {rows} rows", shown, "frames/s"))
    if options.learnt:
        learnt(report, windows)
    for decoding in ("parallel", "maskgit", "autoregressive"):
        found = [window["second"] for window in windows[f"v3 {decoding}"]]
        report.add(spread(f"token_transformer v3, 64 tokens, {decoding}, 8 rows, drawn", found, "frames/s"))
    for side, goal in DREAMS.items():
        found = [window["second"] for window in windows[f"dream {side}"]]
        title = f"token_transformer v3, {side} x {side} pixels, parallel, one row, drawn"
        report.add(spread(title, found, "frames/s", goal=goal and (">=", goal)))
    floor(report, statistics.median(window["second"] for window in windows["training"]))
    write(report, options)


def in_turn(options: argparse.Namespace) -> dict[str, list[Rates]]:
    """The windows of all that is asked for."""
    left_out = [*([] if options.peer else ["peer"]), *([] if options.learnt else ["learnt"])]
    if options.learnt:
        os.environ[LEARNT] = str(options.learnt)
    names = [name for name in MEASURES if name.split()[0] not in left_out]
    return windows_in_turn(__file__, names, options.rounds, options.length)


def beside(report: Report, windows: dict[str, list[Rates]], what: str, unit: str, goal: float | None) -> None:
    title = what.replace("imagination", "imagination, rows:")
    ours = [window["second"] for window in windows[what]]
    report.add(spread(f"{title}: ours", ours, unit))
    if f"peer {what}" in windows:
        theirs = [window["second"] for window in windows[f"peer {what}"]]
        report.add(spread(f"{title}: GPT-2 as in IRIS", theirs, unit))
        ratios = [mine / other for mine, other in zip(ours, theirs, strict=True)]
        report.add(spread(f"{title}: ours / GPT-2", ratios, "ratio", goal=goal and (">=", goal)))


def learnt(report: Report, windows: dict[str, list[Rates]]) -> None:
    """What is imagined of a game that was learnt, beside the peer of the same size."""
    for rows in ROWS:
        ours = [window["second"] for window in windows[f"learnt {rows}"]]
        report.add(spread(f"ours, of a game learnt, frames drawn, {rows} rows", ours, "frames/s"))
        if theirs := windows.get(f"peer imagination {rows}"):
            ratios = [mine / other["second"] for mine, other in zip(ours, theirs, strict=True)]
            goal = (">=", GOALS["imagination"]) if rows == 8 else None
            report.add(spread(f"ours, of a game learnt, frames drawn, {rows} rows / GPT-2", ratios, "ratio", goal=goal))


def floor(report: Report, updates: float) -> None:
    """The products of one update alone, at the rate at which the cores multiply a layer's matrices side by side."""
    from agentctl.core.nn.precision import usable_cores
    from agentctl.core.nn.shards import Shards

    tokens = SEQUENCES * STEPS * (PLACES + 1)
    products = 6 * tokens * (12 * WIDTH**2 * LAYERS + WIDTH * (WIDTH + CODES))
    attention = 6 * 2 * tokens * STEPS * (PLACES + 1) // 2 * WIDTH * LAYERS
    shards, w = Shards(usable_cores()), torch.randn(4 * WIDTH, WIDTH).bfloat16()
    parts = torch.randn(tokens, WIDTH).bfloat16().tensor_split(shards.threads)

    def multiply() -> None:
        shards.map(lambda x: [torch.nn.functional.linear(x, w) for _ in range(LAYERS)], parts)

    rate = 2 * tokens * w.numel() * LAYERS / min(fastest(multiply, 4) for _ in range(5))
    seconds = (products + attention) / rate
    report.add(Figure("floor: one update's products", seconds, "s", notes=f"{(products + attention) / 1e9:.0f} GFLOP"))
    report.add(Figure("gap: an update / its floor", 1 / updates / seconds, "ratio"))


# --- ours -------------------------------------------------------------------------------------------------------------


def iris(*, drawn: bool) -> Any:
    from agentctl.core.protocols import Setup
    from agentctl.world_models.iris import Iris

    tokens = spaces.MultiDiscrete(np.full((4, 4), CODES), dtype=np.uint16)  # type: ignore[arg-type]
    pixels = spaces.Box(0, 255, (64, 64, 3), np.uint8)
    space = spaces.Dict({"pixels": pixels} if drawn else {"tokens": tokens})
    return Iris(Iris.Config(), Setup(space=space, action_space=spaces.Discrete(ACTIONS)))


def training(times: int) -> Rates:
    from agentctl.core.types import Batch

    world, rng = iris(drawn=False), np.random.default_rng(0)
    tokens = rng.integers(CODES, size=(STEPS + 1, SEQUENCES, 4, 4), dtype=np.uint16)
    none = np.zeros((STEPS, SEQUENCES), bool)
    batch = Batch(
        {"tokens": tokens[:-1]}, none, rng.integers(ACTIONS, size=none.shape), none.astype(np.float32), none, none,
        {}, {}, {"tokens": tokens[-1]}, np.zeros((0, 2), np.int64), {"tokens": tokens[-1][:0]},
    )  # fmt: skip
    return measured(lambda: world.learn(batch), 4 * times)


def imagination(rows: int, *, drawn: bool) -> Callable[[int], Rates]:
    def measure(times: int) -> Rates:
        world, rng = iris(drawn=drawn), np.random.default_rng(0)
        return dreamt(world, rows, 2 * (STEPS - 1) * times, rng)

    return measure


def of_a_game(rows: int) -> Callable[[int], Rates]:
    def measure(times: int) -> Rates:
        from _worlds import World

        world = World.of(Path(os.environ[LEARNT]), rows)
        for _ in range(100):  # until something moves
            world.step()
        return going_on(
            world.model, world.flow.world, world.state, 2 * (STEPS - 1) * times, world.rng, world.model.sizes.actions
        )

    return measure


def v3(decoding: str, side: int = 64, rows: int = 8) -> Callable[[int], Rates]:
    def measure(times: int) -> Rates:
        from agentctl.core.protocols import Setup
        from agentctl.world_models.token_transformer import TokenTransformer

        config = TokenTransformer.Config.model_validate({"generation": "v3", "decoding": decoding})
        space = spaces.Dict({"pixels": spaces.Box(0, 255, (side, side, 3), np.uint8)})
        world = TokenTransformer(config, Setup(space=space, action_space=spaces.Discrete(ACTIONS)))
        return dreamt(world, rows, 10 * times, np.random.default_rng(0), side)

    return measure


def dreamt(world: Any, rows: int, steps: int, rng: np.random.Generator, side: int = 64) -> Rates:
    """Frames per second of imagining on and on."""
    shapes: dict[str, tuple[int, ...]] = {"pixels": (side, side, 3)} if world.space else {"tokens": (4, 4)}
    percept = {
        key: rng.integers(256, size=(rows, *shape)).astype(np.uint8 if key == "pixels" else np.uint16)
        for key, shape in shapes.items()
    }
    belief = world.observe(world.initial(rows), percept, None, np.ones(rows, bool))
    return going_on(world, belief.carry, {**percept, **belief.latent}, steps, rng, ACTIONS)


def going_on(world: Any, carry: Any, state: Any, steps: int, rng: np.random.Generator, actions: int) -> Rates:
    """Of ``steps`` imagined one after the other."""
    rows = len(next(iter(carry.values())))
    at: dict[str, Any] = {"carry": carry, "state": state}

    def step() -> None:
        imagined = world.imagine(at["carry"], at["state"], rng.integers(actions, size=rows))
        at.update(carry=imagined.carry, state=imagined.state)

    return measured(step, steps, rows)


# --- the peer ---------------------------------------------------------------------------------------------------------


def gpt2() -> Any:
    from transformers import GPT2Config, GPT2LMHeadModel

    vocabulary = CODES + ACTIONS
    config = GPT2Config(
        vocab_size=vocabulary, n_positions=STEPS * (PLACES + 1), n_embd=WIDTH, n_layer=LAYERS, n_head=HEADS,
        resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0, bos_token_id=0, eos_token_id=0,
    )  # fmt: skip
    return GPT2LMHeadModel(config)


def peer_training(times: int) -> Rates:
    net = gpt2()
    adam = torch.optim.AdamW(net.parameters(), lr=1e-4)
    tokens = torch.randint(CODES, (SEQUENCES, STEPS * (PLACES + 1)))

    def update() -> None:
        adam.zero_grad()
        net(tokens, labels=tokens).loss.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 10.0)
        adam.step()

    return measured(update, 4 * times)


def peer_imagination(rows: int) -> Callable[[int], Rates]:
    @torch.inference_mode()
    def measure(times: int) -> Rates:
        net = gpt2().eval()
        past: dict[str, Any] = {"cache": None, "frames": 0}

        def frame() -> None:
            if past["frames"] % (STEPS - 1) == 0:  # begin anew, with a frame
                past["cache"] = net(torch.randint(CODES, (rows, PLACES)), use_cache=True).past_key_values
            token = torch.randint(CODES, (rows, 1))
            for _ in range(PLACES + 1):  # the action, and each token
                out = net(token, past_key_values=past["cache"], use_cache=True)
                past["cache"] = out.past_key_values
                token = torch.distributions.Categorical(logits=out.logits[:, -1, :CODES]).sample().unsqueeze(1)
            past["frames"] += 1

        return measured(frame, 2 * (STEPS - 1) * times, rows)

    return measure


MEASURES: dict[str, Callable[[int], Rates]] = {
    "training": training,
    "peer training": peer_training,
    **{f"imagination {rows}": imagination(rows, drawn=False) for rows in ROWS},
    **{f"peer imagination {rows}": peer_imagination(rows) for rows in ROWS},
    **{f"drawn {rows}": imagination(rows, drawn=True) for rows in ROWS},
    **{f"learnt {rows}": of_a_game(rows) for rows in ROWS},
    **{f"v3 {decoding}": v3(decoding) for decoding in ("parallel", "maskgit", "autoregressive")},
    **{f"dream {side}": v3("parallel", side, rows=1) for side in DREAMS},
}

if __name__ == "__main__":
    main()
