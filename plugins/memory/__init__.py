"""Memories: what was seen, where and when, and is not in sight any more."""

from agentctl.core.hooks import Component, hookimpl


@hookimpl
def agentctl_memories() -> list[Component]:
    return [
        Component(
            "last_seen", "agentctl.plugins.memory.last_seen:LastSeen", "the last non-zero value of each chosen field"
        ),
    ]
