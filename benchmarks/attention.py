"""What `attention: axial` and `attention: local` save `token_transformer`, at 4 frames of 21 x 16 tokens.

agentctl bench attention

v3's size: 4 layers of 256. In turn: an update on 2 samples, and imagining, all tokens at once or one by one. Beside it
stands its floor: its multiply-adds at the rate at which this machine multiplies a layer's matrices. Beside these, how
core/nn/attention.py computes full attention in bfloat16, and torch's own.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import _cost
import numpy as np
import torch
from _results import Figure, Report
from _turns import Rates, fastest, measured, parser, spread, windows_in_turn, write
from gymnasium import spaces

GRID, CODES, FRAMES, ACTIONS, SAMPLES = (21, 16), 512, 4, 18, 2
KINDS = ("full", "axial", "local")
WORK = {"update": "updates/s", "parallel": "frames/s", "autoregressive": "frames/s"}


def main() -> None:
    options = parser(__doc__, [], MEASURES, 1, "times the steps of a window").parse_args()
    if options.measure:
        print(json.dumps(MEASURES[options.measure](options.length)))
        return
    windows = windows_in_turn(__file__, list(MEASURES), options.rounds, options.length)
    report, rate = Report("attention"), multiplying()
    report.add(Figure("multiply-adds of a layer's matrices", rate / 1e9, "G/s"))
    for work, unit in WORK.items():
        for kind in KINDS:
            shown = [window["second"] for window in windows[f"{work} {kind}"]]
            report.add(spread(f"{work}, {kind}", shown, unit))
            least = needed(work, kind) / rate
            report.add(Figure(f"{work}, {kind}: floor", 1 / least, unit, notes=f"{needed(work, kind) / 1e9:.1f} G"))
        for kind in KINDS[1:]:
            pairs = zip(windows[f"{work} {kind}"], windows[f"{work} full"], strict=True)
            report.add(
                spread(f"{work}: {kind} / full", [one["second"] / full["second"] for one, full in pairs], "ratio")
            )
    beside_torch(report)
    write(report, options)


def beside_torch(report: Report) -> None:
    """One layer's attention of `iris`: 340 tokens while learning, one query after 200 keys while imagining."""
    from agentctl.core.nn.attention import attention

    torch.set_num_threads(1)
    own, heads = torch.nn.functional.scaled_dot_product_attention, (4, 64)

    def drawn(rows: int, tokens: int) -> torch.Tensor:
        x = torch.randn(rows, tokens, *heads).transpose(1, 2).bfloat16()
        return x.requires_grad_()

    learnt = [drawn(2, 340) for _ in range(3)]
    query, *seen = [drawn(8, length).detach() for length in (1, 200, 200)]
    wide = [part.float() for part in seen]  # as a cache holds them

    def learn(found: torch.Tensor) -> object:
        return torch.autograd.grad(found.float().sum(), learnt)

    pairs = {
        "learning": (lambda: learn(attention(*learnt, "before")), lambda: learn(own(*learnt, is_causal=True))),
        "one query": (lambda: attention(query, *wide), lambda: own(query, *seen)),
    }
    for title, (ours, theirs) in pairs.items():
        ratios = [fastest(theirs, 4) / fastest(ours, 4) for _ in range(5)]
        report.add(spread(f"{title}, bfloat16: ours / torch's own", ratios, "ratio"))


def needed(work: str, kind: Any) -> int:
    """Multiply-adds."""
    shape = _cost.Shape(GRID, CODES, FRAMES, attention=kind)
    return SAMPLES * _cost.update(shape) if work == "update" else _cost.frame(shape)


def multiplying() -> float:
    """Multiply-adds per second, in the format that the model computes in."""
    from agentctl.core.nn.precision import device_of, dtype_of

    dtype = dtype_of("auto", device_of("auto"))
    x, w = torch.randn(SAMPLES * 1345, 256).to(dtype), torch.randn(1024, 256).to(dtype)
    return x.shape[0] * w.numel() / fastest(lambda: torch.nn.functional.linear(x, w), 4)


def model(kind: str, decoding: str) -> Any:
    from agentctl.core.protocols import Setup
    from agentctl.world_models.token_transformer import TokenTransformer

    tokens = spaces.MultiDiscrete(np.full(GRID, CODES), dtype=np.uint16)  # type: ignore[arg-type]
    config = TokenTransformer.Config.model_validate({"attention": kind, "decoding": decoding})
    return TokenTransformer(config, Setup(spaces.Dict({"tokens": tokens}), spaces.Discrete(ACTIONS)))


def learning(kind: str) -> Callable[[int], Rates]:
    def measure(times: int) -> Rates:
        from agentctl.core.types import Batch

        world, rng = model(kind, "parallel"), np.random.default_rng(0)
        tokens = rng.integers(CODES, size=(FRAMES + 1, SAMPLES, *GRID), dtype=np.uint16)
        none = np.zeros((FRAMES, SAMPLES), bool)
        batch = Batch(
            {"tokens": tokens[:-1]}, none, rng.integers(ACTIONS, size=none.shape), none.astype(np.float32), none, none,
            {}, {}, {"tokens": tokens[-1]}, np.zeros((0, 2), np.int64), {"tokens": tokens[-1][:0]},
        )  # fmt: skip
        return measured(lambda: world.learn(batch), 2 * times)

    return measure


def imagining(kind: str, decoding: str) -> Callable[[int], Rates]:
    def measure(times: int) -> Rates:
        world, rng = model(kind, decoding), np.random.default_rng(0)
        state = {"tokens": rng.integers(CODES, size=(1, *GRID), dtype=np.uint16)}
        carry = world.observe(world.initial(1), state, None, np.ones(1, bool)).carry
        return measured(lambda: world.imagine(carry, state, np.zeros(1, np.int64)), 2 * times)

    return measure


MEASURES: dict[str, Callable[[int], Rates]] = {
    **{f"update {kind}": learning(kind) for kind in KINDS},
    **{f"{way} {kind}": imagining(kind, way) for way in ("parallel", "autoregressive") for kind in KINDS},
}

if __name__ == "__main__":
    main()
