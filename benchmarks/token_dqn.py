"""What an update of `token_dqn` costs, by the blocks of tokens that its attention takes as one.

agentctl bench token-dqn

32 samples with four frames each, of 21 x 16 or 8 x 8 tokens of 512; the rest at its default. The best of three.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from _results import Figure, Report
from _turns import fastest
from gymnasium import spaces

from agentctl.agents.token_dqn import TokenDQN
from agentctl.core.protocols import Setup
from agentctl.core.types import Batch

GRIDS = ((21, 16), (8, 8))
BLOCKS = ((1, 1, 1), (1, 2, 2), (4, 1, 1), (2, 2, 2), (4, 2, 2))
SAMPLES, CODES, ACTIONS, HISTORY = 32, 512, 9, 4


def main() -> None:
    report = Report("token-dqn")
    for grid in GRIDS:
        whole = milliseconds(grid, BLOCKS[0])
        for block in BLOCKS:
            taken = whole if block == BLOCKS[0] else milliseconds(grid, block)
            attended = (
                f"{np.prod([-(-side // part) for side, part in zip((HISTORY, *grid), block, strict=True)])} vectors"
            )
            name = f"4 frames of {grid[0]} x {grid[1]} tokens, blocks of {' x '.join(map(str, block))}"
            beside = None if block == BLOCKS[0] else ("each token by itself", whole)
            report.add(Figure(name, taken, "ms an update", baseline=beside, notes=attended))
    report.write()


def milliseconds(grid: tuple[int, int], block: tuple[int, int, int]) -> float:
    tokens = spaces.MultiDiscrete(np.full(grid, CODES), dtype=np.uint16)  # type: ignore[arg-type]
    setup = Setup(spaces.Dict({"tokens": tokens}), spaces.Discrete(ACTIONS))
    policy = TokenDQN(TokenDQN.Config.model_validate({"vision": {"block": list(block)}}), setup)
    batch = experience(grid)
    return 1e3 * fastest(lambda: policy.learn(batch), 3)


def experience(grid: tuple[int, int]) -> Batch:
    rng = np.random.default_rng(0)

    def frames(*shape: int) -> Any:
        return rng.integers(CODES, size=(*shape, *grid), dtype=np.uint16)

    none, tokens, after = np.zeros((1, SAMPLES), bool), frames(1, SAMPLES), frames(SAMPLES)
    action, reward, ends = rng.integers(ACTIONS, size=none.shape), none.astype(np.float32), np.zeros((0, 2), np.int64)
    carry = {"tokens": frames(SAMPLES, HISTORY - 1)}
    return Batch(
        {"tokens": tokens}, none, action, reward, none, none, {}, carry, {"tokens": after}, ends, {"tokens": after[:0]}
    )


if __name__ == "__main__":
    main()
