"""What a check finds, and how it says so."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from dataclasses import dataclass

from agentctl.core.errors import AgentctlError, NotReadyError


@dataclass(frozen=True, slots=True)
class Finding:
    """The outcome of one check."""

    check: str
    status: str  # ok | failed | skipped
    detail: str
    remedy: str = ""


class Breach(Exception):
    """A check found the contract broken: what was seen, and what to do about it."""

    def __init__(self, detail: str, remedy: str) -> None:
        super().__init__(detail)
        self.detail, self.remedy = detail, remedy


class NotApplicable(Exception):
    """A check has nothing to say about this component, and why."""


def find(check: str, examine: Callable[[], str]) -> Finding:
    """Run one check. It returns what it saw, or raises Breach, NotApplicable, or whatever the component raised.

    What only this machine lacks (NotReadyError: a library to draw with, a window) is skipped, not failed.
    """
    try:
        return Finding(check, "ok", examine())
    except Breach as breach:
        return Finding(check, "failed", breach.detail, breach.remedy)
    except (NotApplicable, NotReadyError) as reason:
        return Finding(check, "skipped", str(reason))
    except AgentctlError as error:
        return Finding(check, "failed", str(error), "the message says what to change")
    except Exception as error:
        return Finding(check, "failed", f"{type(error).__name__}: {error}", f"look at {deepest_frame(error)}")


def deepest_frame(error: BaseException) -> str:
    """``file:line`` where ``error`` was raised."""
    frames = traceback.extract_tb(error.__traceback__)
    return f"{frames[-1].filename}:{frames[-1].lineno}" if frames else "the component"
