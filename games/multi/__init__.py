"""Several games in one batch, shown and played alike."""

from agentctl.core.hooks import Component, hookimpl


@hookimpl
def agentctl_games() -> list[Component]:
    return [
        Component(
            "multi",
            "agentctl.games.multi.game:MultiGame",
            "several games side by side, as one: pictures of one size, a joystick's actions, and which game it is",
        ),
    ]
