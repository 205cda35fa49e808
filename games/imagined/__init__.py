"""Playing inside the world model of an earlier run."""

from agentctl.core.hooks import Component, hookimpl


@hookimpl
def agentctl_games() -> list[Component]:
    return [
        Component(
            "imagined",
            "agentctl.games.imagined.game:ImaginedGame",
            "what a run's world model imagines; evaluated in that run's real game",
        ),
    ]
