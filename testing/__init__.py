"""What plugin authors test with: the contracts that `agentctl plugins check` runs, a toy game, made-up experience.

    from agentctl.testing import assert_contract

    def test_it_keeps_the_contract():
        assert_contract("reward", MyReward)

The same as pytest fixtures: ``registry``, ``toy_game``, ``cli``. Names load on first use, so that a test run which
needs none of them pays nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from agentctl.testing.cli import Result, run_cli
    from agentctl.testing.contract import assert_contract, assert_plugin, check_component, isolated_registry
    from agentctl.testing.experience import episode_batch, transitions
    from agentctl.testing.toy import ToyGame

__all__ = [
    "Result",
    "ToyGame",
    "assert_contract",
    "assert_plugin",
    "check_component",
    "episode_batch",
    "isolated_registry",
    "run_cli",
    "transitions",
]

_HOMES = {
    "Result": "cli",
    "ToyGame": "toy",
    "assert_contract": "contract",
    "assert_plugin": "contract",
    "check_component": "contract",
    "episode_batch": "experience",
    "isolated_registry": "contract",
    "run_cli": "cli",
    "transitions": "experience",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"agentctl.testing has no {name!r}")
    return getattr(import_module(f"agentctl.testing.{_HOMES[name]}"), name)
