"""The reference that `agentctl plugins docs` prints: hooks, protocols and checks, read from their own docstrings."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from typing import Any

from agentctl.core import hooks
from agentctl.core.contracts import contract
from agentctl.core.contracts.common import PROTOCOLS, names_of
from agentctl.core.plugins import KINDS


def hooks_reference() -> list[dict[str, str]]:
    """Each hook: ``{"name", "signature", "doc"}``."""
    return [{"name": name, "signature": call_of(spec), "doc": plain_doc(spec)} for name, spec in hook_specs().items()]


def hook_specs() -> dict[str, Callable[..., Any]]:
    """Every hook of core/hooks.py by name."""
    return {name: spec for name, spec in vars(hooks).items() if name.startswith("agentctl_")}


def call_of(spec: Callable[..., Any]) -> str:
    """``name(argument, argument)``."""
    return f"{spec.__name__}({', '.join(inspect.signature(spec).parameters)})"


def kinds_reference() -> dict[str, dict[str, Any]]:
    """Each kind: its hook, what it is, its members and its checks."""
    return {
        kind: {
            "hook": KINDS[kind],
            "doc": plain_doc(protocol),
            "members": [member_reference(protocol, name) for name in names_of(protocol)],
            "checks": [{"name": name, "doc": first_line(check)} for name, check in contract(kind).items()],
        }
        for kind, protocol in PROTOCOLS.items()
    }


def member_reference(protocol: type[Any], name: str) -> dict[str, str]:
    """A method with its signature, or an attribute with its type."""
    member = vars(protocol).get(name)
    if member is None:
        return {"name": name, "signature": f"{name}: {protocol.__annotations__[name]}", "doc": ""}
    signature = str(inspect.signature(member)).replace("'", "").replace("(self, ", "(").replace("(self)", "()")
    return {"name": name, "signature": f"{name}{signature}", "doc": plain_doc(member)}


def first_line(check: Callable[..., Any]) -> str:
    return plain_doc(check).splitlines()[0]


def plain_doc(thing: Any) -> str:
    """A docstring as one reads it: without the marks for Sphinx."""
    text = inspect.getdoc(thing) or ""
    return re.sub(r":class:`([^`]+)`", r"\1", text).replace("``", "`")
