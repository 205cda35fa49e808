"""Those who watch a run. An observer that fails is switched off, the run goes on."""

from __future__ import annotations

from typing import Any

from agentctl.core.plugins import Registry
from agentctl.core.run import Observer, Run
from agentctl.core.types import Transition


class Audience:
    """Tells the observers of a run what happens. ``registry`` knows the switch of an observer's plugin."""

    def __init__(self, run: Run, registry: Registry) -> None:
        self._run, self._registry = run, registry
        self._watching: list[Observer] = []  # those that want to see every step

    def open(self) -> None:
        """Look who has come; to be called when all observers are there."""
        self._watching = self.who_see("stepped")

    def who_see(self, what: str) -> list[Observer]:
        """The observers that override a method."""
        return [o for o in self._run.observers if getattr(type(o), what, None) is not getattr(Observer, what)]

    def stepped(self, seen: Transition) -> None:
        for observer in self._watching:
            self.tell(observer, "stepped", seen)

    def tell_all(self, what: str, *args: Any) -> None:
        """Call a method of every observer."""
        for observer in list(self._run.observers):
            self.tell(observer, what, *args)

    def notify(self, kind: str, text: str) -> None:
        """Tell every observer of an event."""
        self.tell_all("event", kind, text)

    def tell(self, observer: Observer, what: str, *args: Any) -> None:
        """Call an observer."""
        try:
            getattr(observer, what)(*args)
        except Exception as error:
            self._run.observers = [other for other in self._run.observers if other is not observer]
            self._watching = [other for other in self._watching if other is not observer]
            what = f"{type(observer).__name__} failed and is off: {type(error).__name__}: {error}"
            self.notify("observer", what + self._switch(observer))

    def _switch(self, observer: Observer) -> str:
        """How to leave an observer out, if a plugin brought it."""
        for name, plugin in self._registry.manager.list_name_plugin():
            if f"{type(observer).__module__}.".startswith(f"{getattr(plugin, '__name__', name)}."):
                return f"; leave it out with -p no:{name}"
        return ""
