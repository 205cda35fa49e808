"""The Gymnasium pack: any registered Gymnasium environment, by its id."""

from __future__ import annotations

from agentctl.core.hooks import Component, hookimpl


@hookimpl
def agentctl_games() -> list[Component]:
    return [Component("gym", "agentctl.games.gym.game:GymGame", "any Gymnasium environment, by `id`")]
