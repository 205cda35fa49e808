"""What a policy that does not look can reach."""

from __future__ import annotations

import numpy as np
from _results import ROOT

from agentctl.core.assembly import Assembly, assemble
from agentctl.core.config import compose
from agentctl.core.frame import EvaluationSettings


def best_constant_action(config: str) -> float:
    """The highest mean return of holding one action: what a policy that ignores the screen can reach."""
    assembly = assemble(compose(ROOT / config))
    settings = assembly.composition.settings.evaluation
    actions = range(assembly.game.action_space.n)  # type: ignore[attr-defined]
    return max(constant_return(assembly, action, settings) for action in actions)


def constant_return(assembly: Assembly, action: int, settings: EvaluationSettings) -> float:
    """The mean return of holding ``action`` on the evaluation seeds."""
    game = assembly.another_game(settings.episodes)
    game.reset(settings.seed)
    returns, running = np.zeros(settings.episodes), np.ones(settings.episodes, bool)
    for _ in range(settings.max_steps):
        step = game.step(np.full(settings.episodes, action))
        returns += step.reward * running
        running &= ~step.finished
        if not running.any():
            break
    game.close()
    return float(returns.mean())
