"""Perceptions that fit any game: take the arrays of one kind as they are."""

from __future__ import annotations

from agentctl.core.hooks import Component, hookimpl


@hookimpl
def agentctl_perceptions() -> list[Component]:
    target = "agentctl.plugins.perception.select:Select"
    return [
        Component("pixels", target, "the observation's images, as they are", defaults={"kind": "image"}),
        Component("vector", target, "the observation's 1-D float arrays, as they are", defaults={"kind": "vector"}),
    ]
