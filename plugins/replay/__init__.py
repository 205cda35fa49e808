"""Where experience waits: the table of replays."""

from __future__ import annotations

from agentctl.core.hooks import Component, hookimpl


@hookimpl
def agentctl_replays() -> list[Component]:
    return [
        Component("rollout", "agentctl.plugins.replay.rollout:Rollout", "the last T steps, learnt from once (PPO, A2C)")
    ]
