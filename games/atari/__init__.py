"""The Atari pack: one game per ROM that ale-py ships, `atari/alien` to `atari/zaxxon`."""

from __future__ import annotations

from agentctl.core.hooks import Component, hookimpl
from agentctl.games.atari.roms import ROMS, SCORES


@hookimpl
def agentctl_games() -> list[Component]:
    return [_component(rom) for rom in ROMS]


def _component(rom: str) -> Component:
    summary = f"{rom.replace('_', ' ').title()}, Atari 2600"
    if rom in SCORES:
        random, human = SCORES[rom]
        summary += f"; random {random:,.1f}, human {human:,.1f}"
    return Component(
        name=f"atari/{rom}",
        target="agentctl.games.atari.game:AtariGame",
        summary=summary,
        requires=("ale_py",),
        extra="atari",
        defaults={"rom": rom},
    )
