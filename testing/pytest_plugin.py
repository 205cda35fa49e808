"""pytest fixtures for plugin authors, there as soon as agentctl is installed: ``registry``, ``toy_game``, ``cli``."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from agentctl.core.plugins import Registry
    from agentctl.testing.cli import Result
    from agentctl.testing.toy import ToyGame


@pytest.fixture
def registry() -> Registry:
    """An empty plugin registry, blind to what is installed; add plugins by ``registry.register(module, name)``."""
    from agentctl.core.plugins import Registry

    return Registry(discover=False)


@pytest.fixture
def toy_game() -> ToyGame:
    """Eight corridors, not yet reset."""
    from agentctl.core.protocols import Setup
    from agentctl.testing.toy import ToyGame

    return ToyGame(ToyGame.Config(), Setup(batch=8))


@pytest.fixture
def cli() -> Callable[..., Result]:
    """``cli("plugins", "list", "--json").json``: the command line in a process of its own."""
    from agentctl.testing.cli import run_cli

    return run_cli
