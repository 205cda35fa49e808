"""What can go wrong for a user. Each error names the place, the value and the remedy; its class fixes the exit code."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class AgentctlError(Exception):
    """A failure that a user can act on; printed without a traceback."""

    exit_code = 1


class ConfigError(AgentctlError):
    """The YAML or an override cannot be run."""

    exit_code = 2


class PluginError(AgentctlError):
    """A plugin that the run needs is missing, broken or ambiguous."""

    exit_code = 3


class NotReadyError(AgentctlError):
    """The game or the machine is not ready."""

    exit_code = 4


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """``"; did you mean 'policy'?"``, or the known words when none is close; empty when nothing is known.

    Case does not count, and ``pong`` is close to ``atari/pong``.
    """
    known = sorted(known)
    candidates = {name.rpartition("/")[2].casefold(): name for name in known} | {n.casefold(): n for n in known}
    close = difflib.get_close_matches(word.casefold()[:80], candidates, n=1, cutoff=0.6)
    if close:
        return f"; did you mean {candidates[close[0]]!r}?"
    return f"; known: {', '.join(known[:12])}{' ...' if len(known) > 12 else ''}" if known else ""
