"""agentctl's core: contracts, composition, the loop, the command line. Knows no implementation, imports no torch.

    from agentctl.core import load           # a bot for your own loop
    from agentctl.core import make           # a game as a Gymnasium environment
    from agentctl.core import Component, hookimpl, BaseConfig, Setup    # to write a plugin

Names load on first use, so that importing the core costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from agentctl.core.embed import Bot, load
    from agentctl.core.gym_env import make
    from agentctl.core.hooks import Component, hookimpl
    from agentctl.core.protocols import BaseConfig, Setup
    from agentctl.core.run import Observer, Run

__all__ = ["BaseConfig", "Bot", "Component", "Observer", "Run", "Setup", "hookimpl", "load", "make"]

_HOMES = {
    "BaseConfig": "protocols",
    "Bot": "embed",
    "Component": "hooks",
    "Observer": "run",
    "Run": "run",
    "Setup": "protocols",
    "hookimpl": "hooks",
    "load": "embed",
    "make": "gym_env",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"agentctl.core has no {name!r}")
    return getattr(import_module(f"agentctl.core.{_HOMES[name]}"), name)
