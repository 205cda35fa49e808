"""Where experience waits: the table of replays."""

from __future__ import annotations

from agentctl.core.hooks import Component, hookimpl


@hookimpl
def agentctl_replays() -> list[Component]:
    here = "agentctl.plugins.replay"
    return [
        Component("rollout", f"{here}.rollout:Rollout", "the last T steps, learnt from once (PPO, A2C, A3C)"),
        Component(
            "uniform", f"{here}.uniform:Uniform", "the last steps, all equally likely (DQN)", ("lz4",), extra="replay"
        ),
        Component(
            "prioritized",
            f"{here}.prioritized:Prioritized",
            "the last steps, the surprising ones more likely (Rainbow)",
            ("numba", "lz4"),
            extra="replay",
        ),
        Component(
            "tokens",
            f"{here}.tokens:Tokens",
            "the last steps as one grid of tokens each, handed over with the frames before them (Token DQN)",
            ("numba", "lz4"),
            extra="replay",
        ),
        Component(
            "demonstrations",
            f"{here}.demonstrations:Demonstrations",
            "recorded episodes, learnt from in epochs (BC)",
            ("minari", "pyarrow", "PIL", "lz4"),
            extra="replay,record",
        ),
    ]
