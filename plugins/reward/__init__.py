"""What a transition is worth: the table of reward terms."""

from __future__ import annotations

from agentctl.core.hooks import Component, hookimpl


@hookimpl
def agentctl_rewards() -> list[Component]:
    return [
        Component("game", "agentctl.plugins.reward.game:Game", "the game's own reward, as it is"),
        Component("clip", "agentctl.plugins.reward.clip:Clip", "the game's reward as its sign, or within a bound"),
        Component(
            "scale", "agentctl.plugins.reward.scale:Scale", "the game's reward divided by the spread of its returns"
        ),
    ]
