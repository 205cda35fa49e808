"""Finding plugins: each loads inside its own guard, and `agentctl plugins list` says what became of it."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from textwrap import dedent

import pytest

from agentctl.core.config import compose
from agentctl.core.errors import PluginError
from agentctl.core.plugins import Plugin, Registry, Switches
from agentctl.testing import run_cli

REWARD = '''
    import numpy as np
    from agentctl.core import BaseConfig, Component, Setup, hookimpl
    from agentctl.core.types import Snapshot


    @hookimpl
    def agentctl_rewards():
        return [Component("{name}", f"{{__name__}}:Bonus", "one for every step")]


    class Bonus:
        class Config(BaseConfig):
            """Nothing to choose."""

        def __init__(self, config, setup):
            pass

        def score(self, transition):
            return {{"{name}": np.ones_like(transition.reward)}}

        def save(self):
            return Snapshot()

        def load(self, snapshot):
            pass
'''


def reward_plugin(name: str) -> str:
    """A one-file plugin with one reward."""
    return dedent(REWARD.format(name=name))


class Installed:
    """Distributions as pip would leave them: a module and its metadata, found by the real discovery."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def add(self, name: str, code: str, version: str = "1.0", plugin: str = "") -> None:
        module = name.replace("-", "_")
        (self.folder / f"{module}.py").write_text(code, encoding="utf-8")
        info = self.folder / f"{module}-{version}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n", encoding="utf-8")
        (info / "entry_points.txt").write_text(f"[agentctl]\n{plugin or name} = {module}\n", encoding="utf-8")


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Installed]:
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.syspath_prepend(folder)
    before = set(sys.modules)
    yield Installed(folder)
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(folder)):
            del sys.modules[name]


def found(name: str, *words: str) -> Plugin:
    return Registry(Switches.parse(words)).plugins[name]


# discovery


def test_an_installed_plugin_is_found_with_its_version_and_components(installed: Installed) -> None:
    installed.add("agentctl-shiny", reward_plugin("shiny"), version="2.5", plugin="shiny")
    plugin = found("shiny")
    assert (plugin.status, plugin.version, plugin.source) == ("ok", "2.5", "agentctl-shiny 2.5")
    assert [(kind, component.name) for kind, component in plugin.components] == [("reward", "shiny")]


def test_listing_imports_no_implementation_and_no_torch() -> None:
    program = """
    import sys
    sys.argv = ["agentctl", "plugins", "list", "--json"]
    from agentctl.core.cli import main
    try:
        main()
    except SystemExit:
        pass
    from agentctl.core.plugins import Registry
    rows = [row for plugin in Registry().plugins.values() for _, row in plugin.components]
    tables = {plugin.module for plugin in Registry().plugins.values()}
    targets = {row.target.partition(":")[0] for row in rows} - tables
    assert len(targets) > 5, targets
    print("loaded:", sorted(({"torch", "ale_py", "gymnasium"} | targets) & set(sys.modules)), file=sys.stderr)
    """
    done = subprocess.run([sys.executable, "-P", "-c", dedent(program)], capture_output=True, text=True, timeout=60)
    assert done.stderr.strip() == "loaded: []"


# what becomes of a plugin


def test_a_disabled_plugin_is_listed_and_never_imported(installed: Installed) -> None:
    installed.add("noisy", "raise SystemExit('imported')")
    assert found("noisy", "no:noisy").status == "disabled"


def test_no_plugins_leaves_only_the_builtins(installed: Installed, monkeypatch: pytest.MonkeyPatch) -> None:
    installed.add("noisy", reward_plugin("noisy"))
    monkeypatch.setenv("AGENTCTL_NO_PLUGINS", "1")
    registry = Registry()
    assert registry.plugins["noisy"].status == "disabled"
    assert registry.plugins["toy"].status == "ok"


@pytest.mark.parametrize(
    ("code", "line", "reason"),
    [
        ("x = 1\ndef broken(:\n", 2, "invalid syntax"),
        ("import there_is_no_such_module\n", 1, "ModuleNotFoundError"),
        ("\n\nraise RuntimeError('no luck')\n", 3, "no luck"),
        (
            "from agentctl.core import hookimpl\n\n@hookimpl\ndef agentctl_rewards():\n    return 1 / 0\n",
            5,
            "ZeroDivisionError",
        ),
    ],
    ids=["syntax", "import", "raise", "hook"],
)
def test_a_broken_plugin_fails_alone_with_file_and_line(
    installed: Installed, code: str, line: int, reason: str
) -> None:
    installed.add("broken", code)
    installed.add("fine", reward_plugin("fine"))
    registry = Registry()
    broken = registry.plugins["broken"]
    assert broken.status == "failed"
    assert f"broken.py:{line}" in broken.reason and reason in broken.reason
    assert registry.plugins["fine"].status == "ok" and registry.plugins["toy"].status == "ok"
    assert registry.load("reward", "fine")


def test_a_plugin_for_another_api_is_incompatible(installed: Installed) -> None:
    installed.add("future", f"AGENTCTL_API = 99\n{reward_plugin('future')}")
    registry = Registry()
    assert registry.plugins["future"].status == "incompatible"
    assert "99" in registry.plugins["future"].reason
    with pytest.raises(PluginError, match="future is incompatible"):
        registry.find("reward", "future")


def test_a_missing_extra_is_listed_with_the_command_that_installs_it(installed: Installed) -> None:
    code = reward_plugin("eyes").replace('"one for every step"', '"x", requires=("no_such_library",), extra="vision"')
    installed.add("agentctl-eyes", code, plugin="eyes")
    registry = Registry()
    assert registry.plugins["eyes"].status == "missing extra"
    assert "pip install 'agentctl-eyes[vision]'" in registry.plugins["eyes"].reason
    with pytest.raises(PluginError, match=r"pip install 'agentctl-eyes\[vision\]'"):
        registry.load("reward", "eyes")
    checked = run_cli("plugins", "check", "eyes", "--json", env={"PYTHONPATH": str(installed.folder)})
    assert checked.exit_code == 0 and checked.json["components"]["reward eyes"][0]["status"] == "skipped"


@pytest.mark.parametrize("misspelt", ["agentctl_reward", "agentctl_policys", "agentctl_run_start"])
def test_a_misspelt_hook_is_refused_with_a_suggestion(installed: Installed, misspelt: str) -> None:
    installed.add("typo", f"from agentctl.core import hookimpl\n\n\n@hookimpl\ndef {misspelt}():\n    return []\n")
    typo = found("typo")
    meant = {"agentctl_reward": "agentctl_rewards", "agentctl_policys": "agentctl_policies"}
    assert typo.status == "failed"
    assert misspelt in typo.reason and f"did you mean '{meant.get(misspelt, 'agentctl_run_started')}'" in typo.reason
    assert "typo.py:" in typo.reason


def test_a_hook_that_gives_no_components_is_refused(installed: Installed) -> None:
    installed.add("wrong", "from agentctl.core import hookimpl\n\n\n@hookimpl\ndef agentctl_games():\n    return [1]\n")
    assert "must return a list of Component, got 1" in found("wrong").reason


def test_two_components_of_one_name_are_told_apart_by_disabling_one(installed: Installed) -> None:
    installed.add("first", reward_plugin("same"))
    installed.add("second", reward_plugin("same"))
    registry = Registry()
    assert registry.plugins["second"].status == "failed"
    assert "already registered by first" in registry.plugins["second"].reason
    with pytest.raises(PluginError, match="two plugins.*first.*second.*-p no:second"):
        registry.find("reward", "same")
    assert Registry(Switches.parse(["no:second"])).find("reward", "same")[0].name == "first"


def test_two_plugins_of_one_name_are_both_listed(installed: Installed) -> None:
    installed.add("one", reward_plugin("one"), plugin="twin")
    installed.add("two", reward_plugin("two"), plugin="twin")
    statuses = {plugin.source: plugin.status for plugin in Registry().plugins.values() if "twin" in plugin.name}
    assert sorted(statuses) == ["one 1.0", "two 1.0"] and sorted(statuses.values()) == ["failed", "ok"]


@pytest.mark.parametrize(
    ("hook", "kind"),
    [
        ("agentctl_games", "game"),
        ("agentctl_perceptions", "perception"),
        ("agentctl_world_models", "world_model"),
        ("agentctl_memories", "memory"),
        ("agentctl_rewards", "reward"),
        ("agentctl_policies", "policy"),
        ("agentctl_replays", "replay"),
    ],
)
def test_each_hook_registers_components_of_its_kind(installed: Installed, hook: str, kind: str) -> None:
    table = "    return [Component('mine', 'nowhere:Mine', 'x')]\n"
    code = f"from agentctl.core import Component, hookimpl\n\n\n@hookimpl\ndef {hook}():\n{table}"
    installed.add("every", code)
    assert Registry().components(kind)["mine"][0].name == "every"


def test_observers_are_attached_and_released_by_their_two_hooks(installed: Installed) -> None:
    code = """
    from agentctl.core import Observer, hookimpl

    told = []


    @hookimpl
    def agentctl_run_started(run):
        told.append(("started", run))


    @hookimpl
    def agentctl_run_ended(run, error):
        told.append(("ended", error))
    """
    installed.add("watcher", dedent(code))
    registry = Registry()
    assert registry.plugins["watcher"].hooks == ["agentctl_run_started", "agentctl_run_ended"]
    others = [plugin for name, plugin in registry.manager.list_name_plugin() if name != "watcher"]
    registry.manager.subset_hook_caller("agentctl_run_started", others)(run="a run")
    registry.manager.subset_hook_caller("agentctl_run_ended", others)(run="a run", error=None)
    assert sys.modules["watcher"].told == [("started", "a run"), ("ended", None)]


# components


def test_an_unknown_component_is_refused_with_a_suggestion() -> None:
    with pytest.raises(PluginError, match="no game is called 'toy/lanter'; did you mean 'toy/lantern'"):
        Registry().find("game", "toy/lanter")


def test_a_class_that_does_not_load_names_file_line_and_the_switch(installed: Installed) -> None:
    table = """
    from agentctl.core import Component, hookimpl


    @hookimpl
    def agentctl_rewards():
        return [Component("late", "late_parts:Late", "x"), Component("bare", "bare_parts:Bare", "x")]
    """
    installed.add("late", dedent(table))
    (installed.folder / "late_parts.py").write_text("class Late:\n    size = 1 / 0\n", encoding="utf-8")
    (installed.folder / "bare_parts.py").write_text("class Bare:\n    pass\n", encoding="utf-8")
    registry = Registry()
    assert registry.plugins["late"].status == "ok"
    with pytest.raises(PluginError, match=r"late_parts.py:2: ZeroDivisionError.*-p no:late"):
        registry.load("reward", "late")
    with pytest.raises(PluginError, match="no nested Config"):
        registry.load("reward", "bare")


# one-file plugins and switches


def test_a_file_is_a_plugin(tmp_path: Path) -> None:
    (tmp_path / "bonus.py").write_text(reward_plugin("bonus"), encoding="utf-8")
    registry = Registry(Switches.parse([str(tmp_path / "bonus.py")]))
    assert registry.plugins["bonus"].status == "ok"
    assert registry.load("reward", "bonus").__name__ == "Bonus"


def test_a_file_that_is_not_there_is_listed_as_failed(tmp_path: Path) -> None:
    registry = Registry(Switches((tmp_path / "gone.py",)), discover=False)
    assert registry.plugins["gone"].status == "failed" and "no such plugin file" in registry.plugins["gone"].reason


def write_run(folder: Path, plugins: str) -> Path:
    (folder / "bonus.py").write_text(reward_plugin("bonus"), encoding="utf-8")
    text = f"game: toy/lantern\nreward:\n  - name: bonus\npolicy: random\nplugins: {plugins}\n"
    (folder / "run.yaml").write_text(text, encoding="utf-8")
    return folder / "run.yaml"


def test_a_run_names_its_files_relative_to_the_yaml(tmp_path: Path) -> None:
    assert compose(write_run(tmp_path, "[bonus.py]")).many("reward")[0].plugin == "bonus"


def test_off_switches_a_kind_off(tmp_path: Path) -> None:
    assert compose(write_run(tmp_path, "[bonus.py]"), off=["reward"]).many("reward") == ()


@pytest.mark.parametrize(
    ("plugins", "words"), [("{paths: [bonus.py], disable: [bonus]}", []), ("[bonus.py]", ["no:bonus"])]
)
def test_a_run_that_needs_a_disabled_plugin_names_its_line(tmp_path: Path, plugins: str, words: list[str]) -> None:
    path = write_run(tmp_path, plugins)
    with pytest.raises(PluginError, match=r"run.yaml:3.*'bonus'(.|\n)*bonus is disabled") as caught:
        compose(path, switches=Switches.parse(words))
    assert caught.value.exit_code == 3


# the command line


@pytest.mark.parametrize("misspelt", ["toy_sells", "tensorbord"])
def test_info_of_an_unknown_name_suggests_one(misspelt: str) -> None:
    done = run_cli("plugins", "info", misspelt)
    assert done.exit_code == 3 and "did you mean" in done.stderr


def test_info_shows_options_with_defaults_and_meaning() -> None:
    told = run_cli("plugins", "info", "toy/lantern", "--json").json
    option = told["components"][0]["options"]["limit"]
    assert json.loads(option["default"]) == 100 and option["description"]


def test_list_shows_every_status_with_its_reason(installed: Installed) -> None:
    installed.add("broken", "def broken(:\n")
    installed.add("future", "AGENTCTL_API = 99\n")
    done = run_cli("plugins", "list", "--json", "-p", "no:reward", env={"PYTHONPATH": str(installed.folder)})
    listed = {plugin["name"]: plugin for plugin in done.json["plugins"]}
    statuses = {name: listed[name]["status"] for name in ("toy", "reward", "broken", "future")}
    assert statuses == {"toy": "ok", "reward": "disabled", "broken": "failed", "future": "incompatible"}
    assert "broken.py:1" in listed["broken"]["reason"]


def test_check_of_a_broken_promise_exits_with_3(tmp_path: Path) -> None:
    code = reward_plugin("bonus").replace("np.ones_like(transition.reward)", "np.ones(3)")
    (tmp_path / "bonus.py").write_text(code, encoding="utf-8")
    done = run_cli("plugins", "check", "bonus", "--json", "-p", tmp_path / "bonus.py")
    assert done.exit_code == 3 and done.json["ok"] is False
    status = {finding["check"]: finding["status"] for finding in done.json["components"]["reward bonus"]}
    assert status["batching"] == "failed" and status["config"] == "ok"


def test_switching_off_what_is_not_there_is_a_warning_with_a_suggestion() -> None:
    assert Registry(Switches.parse(["no:atary"])).warnings == [
        "-p no:atary: no plugin is called so; did you mean 'atari'?"
    ]


def test_two_files_of_one_name_do_not_mix(tmp_path: Path) -> None:
    """The second is refused by its name and registers nothing; the first keeps its own classes."""
    for folder, component in (("a", "first"), ("b", "second")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "mine.py").write_text(
            "from agentctl.core import BaseConfig, Component, hookimpl\n"
            f"class Mine:\n    word = '{component}'\n    class Config(BaseConfig): pass\n"
            "@hookimpl\ndef agentctl_rewards():\n"
            f"    return [Component('{component}', f'{{__name__}}:Mine', 'a reward')]\n"
        )
    registry = Registry(Switches((tmp_path / "a" / "mine.py", tmp_path / "b" / "mine.py")))
    assert registry.load("reward", "first").word == "first"
    assert "second" not in registry.components("reward")
    assert [plugin.status for name, plugin in registry.plugins.items() if "mine" in name] == ["ok", "failed"]
