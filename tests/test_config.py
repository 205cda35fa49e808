"""One YAML = one run: what is refused and how it is said, overrides, switching off, and where values come from."""

import copy
import re
import time
from pathlib import Path
from textwrap import dedent
from typing import Any, Literal

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, Field

from agentctl.core.assembly import assemble
from agentctl.core.config import Composition, compose, dump
from agentctl.core.document import Document
from agentctl.core.errors import AgentctlError, ConfigError, PluginError, did_you_mean
from agentctl.core.explain import explain
from agentctl.core.plugins import Switches
from agentctl.core.problems import validate
from agentctl.core.protocols import BaseConfig
from agentctl.core.strict_yaml import parse

SHIPPED = sorted((Path(__file__).resolve().parent.parent / "configs").rglob("*.yaml"))
GOOD = """\
version: 1
game: {name: toy/lantern, batch: 8}
perception: [toy_cells]
world_model: tabular
memory: {name: last_seen, fields: [lantern]}
reward:
  - game
  - {name: toy_step_cost, weight: 0.01}
policy: {name: dyna_q, lr: 0.5, planning: 10}
replay: {name: rollout, steps: 16}
run: {steps: 40000, seed: 0}
evaluation: {episodes: 100}
"""


@pytest.fixture
def game(tmp_path: Path) -> Path:
    path = tmp_path / "game.yaml"
    path.write_text(GOOD)
    return path


def changed(path: Path, old: str, new: str) -> Path:
    """The file with ``old`` replaced, or with ``new`` appended when ``old`` is empty."""
    assert old in GOOD
    path.write_text(GOOD.replace(old, new) if old else GOOD + new)
    return path


def refusal(path: Path, *overrides: str, off: tuple[str, ...] = ()) -> str:
    """What the user reads, the folder's name taken out."""
    with pytest.raises(AgentctlError) as caught:
        compose(path, overrides, off)
    return str(caught.value).replace(f"{path.parent}/", "")


def block(composition: Composition, kind: str) -> dict[str, Any]:
    chosen = composition.one(kind)
    assert chosen is not None
    return chosen.resolved()


# What is refused, with its place, value and remedy.


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("policy:", "polcy:", "game.yaml:9:1: polcy: unknown key; did you mean 'policy'?"),
        ("lr:", "lrr:", "game.yaml:9:24: policy.lrr: unknown key; did you mean 'lr'?"),
        ("lr:", "enabeld: true, lr:", "game.yaml:9:24: policy.enabeld: unknown key; did you mean 'enabled'?"),
        ("seed:", "sed:", "game.yaml:11:21: run.sed: unknown key; did you mean 'seed'?"),
        ("", "plugins: {path: [a.py]}", "game.yaml:13:11: plugins.path: unknown key; did you mean 'paths'?"),
        ("", "3: x", "game.yaml:13:1: 3: unknown key; known: evaluation, game"),
        ("", "steps: 3", "game.yaml:13:1: steps: unknown key: it stands under run: run.steps"),
        ("", '"a\\e[31m": 3', "game.yaml:13:1: 'a\\x1b[31m': unknown key"),
        ("lr:", "weight: 2, lr:", "game.yaml:9:24: policy.weight: unknown key: only rewards have a weight"),
        ("steps: 16", "batch: 16", "game.yaml:10:25: replay.batch: unknown key: only the game has a batch: game.batch"),
        ("dyna_q", "dyna", "game.yaml:9:10: no policy is called 'dyna'; did you mean 'dyna_q'?"),
        ("toy/lantern", "lantern", "game.yaml:2:8: no game is called 'lantern'; did you mean 'toy/lantern'?"),
        ("toy/lantern", "Pong", "game.yaml:2:8: no game is called 'Pong'; did you mean 'atari/pong'?"),
        ("- game", "- gam", "game.yaml:7:5: no reward is called 'gam'; did you mean 'game'?"),
        ("dyna_q", "''", "game.yaml:9:10: no policy is called ''; known: "),
        ("name: dyna_q, ", "", "game.yaml:9:1: policy.name: missing; which policy? `agentctl plugins list` names them"),
        ("dyna_q", "7", "game.yaml:9:10: policy.name must be text, not 7; put it in quotes"),
        ("[lantern]", "[on]", "memory.fields.0 must be text, not true; put it in quotes: YAML reads on, off, yes"),
        ("lr: 0.5", "lr: '0.5'", 'game.yaml:9:24: policy.lr must be a number, not "0.5"; remove the quotes'),
        ("lr: 0.5", "lr: fast", 'game.yaml:9:24: policy.lr must be a number, not "fast"'),
        ("lr: 0.5", "lr: 2", "game.yaml:9:24: policy.lr must be less than or equal to 1, not 2"),
        ("lr: 0.5", "lr: .nan", "game.yaml:9:28: cannot read '.nan': a number must be finite"),
        ("steps: 40000", "steps: .inf", "game.yaml:11:14: cannot read '.inf'"),
        ("steps: 40000", "steps: 1.5", "game.yaml:11:7: run.steps must be a whole number, not 1.5"),
        ("steps: 40000", "steps: 0", "game.yaml:11:7: run.steps must be greater than 0, not 0"),
        ("steps: 40000", "steps: 2024-01-01", 'run.steps must be a whole number, not "2024-01-01"'),
        ("steps: 40000", "steps: true", "run.steps must be a whole number, not true"),
        ("seed: 0", "seed: 4_000_000_000", "run.seed must be less than 2147483648, not 4000000000"),
        ("batch: 8", "batch: 0", "game.yaml:2:27: game.batch must be greater than 0, not 0"),
        ("0.01", "heavy", 'game.yaml:8:27: reward.1.weight must be a number, not "heavy"'),
        ("lr: 0.5", "enabled: 'no'", 'policy.enabled must be true or false, not "no"; remove the quotes'),
        ("tabular", "on", "game.yaml:4:1: world_model must be a component's name or a block with one, not true"),
        ("[toy_cells]", "[3]", "game.yaml:3:14: perception.0 must be a component's name or a block with one, not 3"),
        ("[toy_cells]", "[[toy_cells]]", 'perception.0 must be a component\'s name or a block with one, not ["toy_'),
        ("[toy_cells]", "[toy_cells, off]", "game.yaml:3:25: perception.1 must be a component's name or a block"),
        ("[toy_cells]", "{name: toy_cells, colr: 1}", "game.yaml:3:31: perception.0.colr: unknown key; known: enabled"),
        ("{episodes: 100}", "fast", 'game.yaml:12:1: evaluation must be a block of keys, not "fast"'),
        ("[lantern]", "3", "game.yaml:5:27: memory.fields must be a list such as [a, b], not 3"),
        ("policy: {", "policy: off # {", "game.yaml:9:1: a run needs a policy; here it is empty or switched off"),
        ("lr: 0.5", "enabled: false", "game.yaml:9:1: a run needs a policy; here it is empty or switched off"),
        ("game: {name: toy/lantern, batch: 8}", "", "game.yaml:1:1: a run needs a game; add 'game: NAME'"),
        ("version: 1", "version: 9", "game.yaml:1:1: version 9: made for a newer agentctl; this one reads 1: upgrade"),
        ("version: 1", "version: one", 'game.yaml:1:1: version "one": there is only version 1 yet'),
        ("version: 1", "version: true", "game.yaml:1:1: version true: there is only version 1 yet"),
        ("lr: 0.5", "fallback: randm", "game.yaml:9:24: no policy is called 'randm'; did you mean 'random'?"),
        ("lr: 0.5", "fallback: dyna_q", "game.yaml:9:24: policy 'dyna_q' cannot be its own fallback"),
        ("batch: 8", "fallback: gym", "game.yaml:2:27: nothing can stand in for a game; remove the fallback"),
    ],
)  # fmt: skip
def test_a_mistake_is_told_with_place_value_and_remedy(old: str, new: str, told: str, game: Path) -> None:
    assert told in refusal(changed(game, old, new))


def test_every_mistake_is_told_at_once(game: Path) -> None:
    game.write_text(GOOD.replace("lr:", "lrr:").replace("steps: 16", "steps: 0").replace("toy_cells", "toy_cell"))
    assert [line.split(": ")[0] for line in refusal(game).splitlines()] == [
        "game.yaml:3:14",
        "game.yaml:9:24",
        "game.yaml:10:25",
    ]


def test_of_very_many_mistakes_the_first_are_told(game: Path) -> None:
    told = refusal(changed(game, "", "".join(f"k{n}: 1\n" for n in range(2000)))).splitlines()
    assert len(told) == 21 and told[-1] == "... and 1,980 more"


class Layer(BaseModel):
    size: int = Field(gt=0)
    kind: Literal["relu", "tanh"] = "relu"
    model_config = {"extra": "forbid"}


class Nested(BaseConfig):
    width: int | Literal["auto"] = "auto"
    layers: tuple[Layer, ...] | None = None
    table: dict[str, float | list[int]] = {}
    pair: tuple[int, int] = (1, 2)


@pytest.mark.parametrize(
    ("data", "told"),
    [
        ({"width": 1.5}, "x: a.width must be a whole number or 'auto', not 1.5"),
        ({"layers": [{"size": 1}, {"sizes": 2}]}, "x: a.layers.1.size: missing; add it"),
        ({"layers": [{"size": 1}, {"sizes": 2}]}, "x: a.layers.1.sizes: unknown key; did you mean 'size'?"),
        (
            {"layers": [{"size": 1, "kind": "rely"}]},
            "x: a.layers.0.kind must be 'relu' or 'tanh', not \"rely\"; did you mean 'relu'?",
        ),
        ({"table": {"b": "c"}}, 'x: a.table.b must be a number or a list such as [a, b], not "c"'),
        ({"pair": [1]}, "x: a.pair.1: missing; add it"),
    ],
)
def test_no_pydantic_noise_shows(data: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError) as caught:
        validate(Nested, data, Document(None, {}, {(): "x"}), ("a",))
    assert told in str(caught.value).splitlines()
    assert not re.search(
        r"function-|\[|literal|tuple\[|Input|pydantic|validator", str(caught.value).replace("[a, b]", "")
    )


def test_did_you_mean_ignores_case_and_the_pack() -> None:
    assert did_you_mean("PPO", ["ppo", "dqn"]) == "; did you mean 'ppo'?"
    assert did_you_mean("pong", ["atari/pong", "atari/qbert"]) == "; did you mean 'atari/pong'?"
    assert did_you_mean("zzz", ["ppo", "dqn"]) == "; known: dqn, ppo"
    assert did_you_mean("zzz", []) == ""


# What is taken.


@pytest.mark.parametrize(
    ("old", "new", "path", "value"),
    [
        ("lr: 0.5", "lr: 3e-4", "policy.lr", 3e-4),
        ("lr: 0.5", "lr: 1", "policy.lr", 1.0),
        ("40000", "250_000", "run.steps", 250_000),
        ("40000", "1e6", "run.steps", 1_000_000),
        ("run: {steps: 40000, seed: 0}", "run:", "run.steps", 100_000),
        ("perception: [toy_cells]", "perception: toy_cells", "perception.0.name", "toy_cells"),
        ("{name: dyna_q, lr: 0.5, planning: 10}", "dyna_q", "policy.name", "dyna_q"),
        ("seed: 0}", "seed: &s 5}\nplugins: {disable: []}", "run.seed", 5),
    ],
)
def test_every_way_to_write_it_is_taken(old: str, new: str, path: str, value: object, game: Path) -> None:
    assert explain(compose(changed(game, old, new)), path)["value"] == value


OFF = ["off", "no", "false", "", "null", "'off'", "{name: last_seen, enabled: false}", "{name: gone, enabled: off}"]


@pytest.mark.parametrize("written", OFF)
def test_a_component_is_switched_off_in_the_file(written: str, game: Path) -> None:
    without = compose(game, off=["memory"])
    assert without.one("memory") is None
    assert compose(changed(game, "{name: last_seen, fields: [lantern]}", written)).digest == without.digest


@pytest.mark.parametrize("kind", ["perception", "world_model", "memory", "reward", "replay"])
def test_off_switches_a_kind_off_lists_too(kind: str, game: Path) -> None:
    composition = compose(game, off=[kind])
    assert composition.many(kind) == ()
    assert explain(composition, kind)["from"] == f"--off {kind}"


@pytest.mark.parametrize(
    ("kind", "told"),
    [
        ("memry", "--off memry: not a kind of component; did you mean 'memory'?"),
        ("policy", "--off policy: a run needs a policy; these can be switched off: perception, world_model, memory"),
    ],
)
def test_off_refuses_what_cannot_be_switched_off(kind: str, told: str, game: Path) -> None:
    assert told in refusal(game, off=(kind,))


def test_a_fallback_is_checked_and_kept(game: Path) -> None:
    composition = compose(changed(game, "lr: 0.5", "fallback: random"))
    chosen = composition.one("policy")
    assert chosen is not None and chosen.fallback is not None and chosen.fallback.name == "random"
    assert block(composition, "policy")["fallback"] == "random"


# Overrides.


@pytest.mark.parametrize(
    ("override", "path", "value"),
    [
        ("policy.lr=3e-4", "policy.lr", 3e-4),
        ("policy.lr = 1", "policy.lr", 1.0),
        ("reward.1.weight=2", "reward.1.weight", 2.0),
        ("reward.toy_step_cost.weight=2", "reward.1.weight", 2.0),
        ("reward.game.weight=3", "reward.0.weight", 3.0),
        ("memory.fields.0=cell", "memory.fields.0", "cell"),
        ("memory.fields=[lantern, cell]", "memory.fields", ["lantern", "cell"]),
        ("policy=random", "policy", {"name": "random"}),
        ("reward=game", "reward", [{"name": "game", "weight": 1.0}]),
        ("memory=off", "memory", False),
        ("world_model.enabled=false", "world_model", False),
        ("run.keep_checkpoints=5", "run.keep_checkpoints", 5),
        ("plugins.disable=[report]", "plugins.disable", ["report"]),
    ],
)
def test_an_override_is_as_if_written_in_the_file(override: str, path: str, value: object, game: Path) -> None:
    found = explain(compose(game, [override]), path)
    assert found["value"] == value
    assert found["from"] == f"-s {override}"


def test_overrides_apply_in_their_order(game: Path) -> None:
    composition = compose(game, ["memory=off", "memory=last_seen", "memory.fields=[cell]", "memory.fields=[lantern]"])
    assert block(composition, "memory") == {"name": "last_seen", "fields": ["lantern"]}


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("policy.lr", "-s policy.lr: write it as path.to.key=value"),
        ("=3", "-s =3: write it as path.to.key=value"),
        ("policy..lr=3", "-s policy..lr=3: write it as path.to.key=value"),
        ("policy.lr='0.5'", 'policy.lr must be a number, not "0.5"; remove the quotes'),
        ("policy.lrr=1", "-s policy.lrr=1: policy.lrr: unknown key; did you mean 'lr'?"),
        ("polcy.lr=1", "-s polcy.lr=1: polcy: unknown key; did you mean 'policy'?"),
        ("policy.lr.x=1", "-s policy.lr.x=1: 'lr' is 0.5, a value without keys of its own"),
        ("policy.lr=[1", "-s policy.lr=[1: not valid YAML: "),
        ("policy.lr=!!python/name:os.system ''", "!!python/name:os.system has no meaning here"),
        ("policy.name=dyna", "no policy is called 'dyna'; did you mean 'dyna_q'?"),
        ("policy=off", "-s policy=off: a run needs a policy; here it is empty or switched off"),
        ("reward.5.weight=2", "-s reward.5.weight=2: the list has no item '5'; its items are 0 to 1; known: game, toy"),
        ("reward.gam.weight=2", "the list has no item 'gam'; its items are 0 to 1; did you mean 'game'?"),
        ("reward=[game,game]", ""),
        ("version=2", "-s version=2: version 2: made for a newer agentctl"),
        ("memory={fields: [cell]}", "-s memory={fields: [cell]}: memory.name: missing; which memory?"),
    ],
)
def test_a_wrong_override_is_told_like_a_wrong_file(override: str, told: str, game: Path) -> None:
    if told:
        assert told in refusal(game, override)
    else:
        assert "the items 0 and 1 are called 'game'; write the number" in refusal(
            game, override, "reward.game.weight=2"
        )


def test_the_longest_override_is_shown_shortened(game: Path) -> None:
    assert len(refusal(game, "policy.lr=" + "x" * 5000).splitlines()[0]) < 300
    assert "\x1b" not in refusal(game, "policy.lr=\x1b[31m") + refusal(game, "\x1b[31m=1")


# Plugins.

PLUGIN = """\
from agentctl.core.hooks import Component, hookimpl
from agentctl.core.protocols import BaseConfig
from pydantic import field_validator


class Nap:
    class Config(BaseConfig):
        {body}

    def __init__(self, config, setup):
        pass


@hookimpl
def agentctl_rewards():
    return [Component("nap", "agentctl_plugin_{name}:Nap", "nothing"{more})]
"""


def write_plugin(folder: Path, name: str, body: str = "depth: int = 1", more: str = "") -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / f"{name}.py"
    path.write_text(PLUGIN.format(name=name, body=body, more=more))
    return path


def test_a_plugin_file_is_found_from_the_yaml_s_folder_and_from_a_run_s(game: Path, tmp_path: Path) -> None:
    write_plugin(tmp_path / "mine", "naps")
    changed(game, "  - game\n", "  - nap\n").open("a").write("plugins: [mine/naps.py]\n")
    composition = compose(game)
    assert [item.name for item in composition.many("reward")] == ["nap", "toy_step_cost"]
    elsewhere = tmp_path / "runs" / "one" / "config.yaml"
    elsewhere.parent.mkdir(parents=True)
    elsewhere.write_text(dump(composition.resolved()))
    assert compose(elsewhere).resolved() == composition.resolved()


def test_a_plugin_file_of_the_command_line_is_found_again_too(
    game: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_plugin(tmp_path / "mine", "naps")
    monkeypatch.chdir(tmp_path / "mine")
    composition = compose(game, switches=Switches.parse(["naps.py"]))
    monkeypatch.chdir("/")
    game.write_text(dump(composition.resolved()))
    assert compose(game).resolved() == composition.resolved()


def test_where_a_plugin_file_lies_does_not_change_the_digest(game: Path, tmp_path: Path) -> None:
    one, two = write_plugin(tmp_path / "one", "naps"), write_plugin(tmp_path / "two", "naps")
    digests = [compose(game, [f"plugins=[{path}]"]).digest for path in (one, two)]
    assert digests[0] == digests[1] != compose(game).digest


@pytest.mark.parametrize(
    ("source", "told"),
    [
        (None, "game.yaml:13:11: the plugin 'naps' failed: FileNotFoundError: no such plugin file"),
        ("def broken(:", "game.yaml:13:11: the plugin 'naps' failed: naps.py:1: "),
        ("import nothing_of_that_name", "naps.py:1: ModuleNotFoundError: No module named 'nothing_of_that_name'"),
        ("AGENTCTL_API = 99", "game.yaml:13:11: the plugin 'naps' incompatible: wants plugin API 99"),
    ],
)
def test_a_broken_plugin_file_is_an_error_with_its_line(source: str | None, told: str, game: Path) -> None:
    if source is not None:
        (game.parent / "naps.py").write_text(source)
    changed(game, "", "plugins: [naps.py]\n")
    assert told in refusal(game)
    with pytest.raises(PluginError):
        compose(game)


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ("weight: int = 1", "naps:Nap.Config has ['weight'], which every reward has; rename it there"),
        ("depth: int", "game.yaml:7:5: reward.0.depth: missing; add it"),
        ("depth: int = 1\n        @field_validator('depth')\n        def _(cls, v): raise KeyError('oops')",
         "game.yaml:7:5: reward 'nap' cannot check its options: "),
    ],
)  # fmt: skip
def test_a_plugin_s_own_mistake_is_told_with_the_line(body: str, told: str, game: Path) -> None:
    write_plugin(game.parent, "naps", body)
    changed(game, "  - game\n", "  - nap\n").open("a").write("plugins: [naps.py]\n")
    assert told in refusal(game)


def test_two_plugins_of_one_name_are_told_with_the_line_and_the_switch(game: Path, tmp_path: Path) -> None:
    write_plugin(tmp_path, "naps")
    write_plugin(tmp_path, "dreams")
    changed(game, "  - game\n", "  - nap\n").open("a").write("plugins: [naps.py, dreams.py]\n")
    told = refusal(game)
    assert "game.yaml:7:5: two plugins call a reward 'nap'" in told and "-p no:dreams" in told
    assert compose(game, switches=Switches.parse(["no:dreams"])).many("reward")[0].plugin == "naps"


def test_a_plugin_s_fallback_holds_unless_the_yaml_names_another(game: Path, tmp_path: Path) -> None:
    write_plugin(tmp_path, "naps", more=", fallback='game'")
    changed(game, "  - game\n", "  - nap\n").open("a").write("plugins: [naps.py]\n")
    assert [compose(game, extra).resolved()["reward"][0]["fallback"] for extra in ([], ["reward.0.fallback=clip"])] == [
        "game",
        "clip",
    ]


# Resolving and explaining.


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_the_resolved_configuration_is_the_same_run(path: Path, tmp_path: Path) -> None:
    first = compose(path)
    (tmp_path / "config.yaml").write_text(dump(first.resolved()), encoding="utf-8")
    again = compose(tmp_path / "config.yaml")
    assert again.resolved() == first.resolved()
    assert again.digest == first.digest


def test_the_digest_follows_every_value(game: Path) -> None:
    changes = [[], ["policy.lr=0.4"], ["run.seed=1"], ["game.batch=4"], ["reward.0.weight=2"], ["memory=off"]]
    assert len({compose(game, change).digest for change in changes}) == len(changes)


@pytest.mark.parametrize(
    ("path", "value", "origin"),
    [
        ("policy.lr", 0.5, "game.yaml:9:24"),
        ("policy.discount", 0.99, "default of agentctl.agents.dyna_q:DynaQ.Config"),
        ("game.batch", 8, "game.yaml:2:27"),
        ("reward.0.weight", 1.0, "default of agentctl.core.frame:RewardSection"),
        ("reward.toy_step_cost.weight", 0.01, "game.yaml:8:27"),
        ("world_model.name", "tabular", "game.yaml:4:1"),
        ("perception", [{"name": "toy_cells"}], "game.yaml:3:1"),
        ("run.cycle_steps", 50_000, "default of agentctl.core.frame:RunSettings"),
        ("plugins.paths", [], "default of agentctl.core.frame:PluginSettings"),
    ],
)
def test_explain_says_where_a_value_came_from(path: str, value: object, origin: str, game: Path) -> None:
    found = explain(compose(game), path)
    assert (found["value"], found["from"].replace(f"{game.parent}/", "")) == (value, origin)


def test_explain_names_the_overrides_inside_a_block(game: Path) -> None:
    composition = compose(game, ["policy.lr=0.1", "memory.fields.0=cell"])
    assert explain(composition, "policy")["from"] == f"{game}:9:1, changed by -s policy.lr=0.1"
    assert explain(composition, "memory.fields")["from"] == f"{game}:5:27, changed by -s memory.fields.0=cell"


def test_explain_knows_what_a_name_implies_and_what_an_option_is_for(game: Path) -> None:
    pytest.importorskip("ale_py")
    composition = compose(game, ["game={name: atari/pong}"])
    assert explain(composition, "game.rom")["from"] == "the name 'atari/pong' implies it"
    assert "learning rate" in explain(compose(game, ["policy=ppo"]), "policy.lr")["about"]


def test_explain_and_overrides_count_disabled_items_as_the_file_does(game: Path) -> None:
    composition = compose(game, ["reward.0.enabled=false"])
    assert composition.resolved()["reward"] == [{"name": "toy_step_cost", "weight": 0.01}]
    assert explain(composition, "reward.1.weight")["value"] == 0.01
    with pytest.raises(ConfigError, match="reward.0: reward 0 is switched off .-s reward.0.enabled=false"):
        explain(composition, "reward.0")


@pytest.mark.parametrize(
    ("path", "told"),
    [
        ("policy.lrr", "policy.lrr: there is no 'lrr' in policy; did you mean 'lr'?"),
        ("polcy", "there is no 'polcy' in a run; did you mean 'policy'?"),
        ("policy.lr.x", "there is no 'x' in policy.lr"),
        ("reward.2", "the list has no item '2'; its items are 0 to 1"),
        ("memory.fields", "memory is switched off (--off memory)"),
        ("", "there is no '' in a run"),
    ],
)
def test_explain_refuses_what_is_not_there(path: str, told: str, game: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        explain(compose(game, off=["memory"]), path)
    assert told in str(caught.value)


def test_a_mismatch_of_spaces_names_both_stages_and_the_line(game: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        assemble(compose(game, off=["perception"]))
    told = str(caught.value)
    assert "game.yaml:4:1" in told and "world_model 'tabular'" in told and "game 'toy/lantern'" in told


# Broken on purpose, at random.

FUZZ = settings(
    max_examples=100, deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)  # fmt: skip
ODD = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8), st.just([]), st.just({}),
    st.just({"name": "random"}), st.just([{"name": 3}]), st.sampled_from(["clip", "off", "\ufeff", "../x.py", "game"]),
)  # fmt: skip
PLACES = st.sampled_from(
    ["version", "game", "perception", "world_model", "memory", "reward", "policy", "replay", "run", "plugins", "new",
     "policy.lr", "policy.name", "policy.enabled", "policy.fallback", "game.batch", "reward.0", "reward.1.weight",
     "memory.fields", "memory.fields.0", "run.steps", "plugins.paths", "plugins.disable", "game.maze", "policy.x.y"]
)  # fmt: skip


def put(data: Any, place: str, value: Any) -> None:
    """Set ``place`` as far as there is a way to it; a list takes the value as one item more."""
    *way, last = place.split(".")
    for word in way:
        if isinstance(data, dict):
            data = data.setdefault(word, {})
        elif isinstance(data, list) and word.isdecimal() and int(word) < len(data):
            data = data[int(word)]
    if isinstance(data, dict):
        data[last] = value
    elif isinstance(data, list):
        data.append(value)


def composed_or_refused(path: Path, overrides: tuple[str, ...] = ()) -> None:
    began = time.process_time()
    try:
        compose(path, overrides)
    except AgentctlError as error:
        assert str(error).strip()
    assert time.process_time() - began < 1


@FUZZ
@given(st.lists(st.tuples(PLACES, ODD), min_size=1, max_size=4))
def test_a_random_change_is_a_run_or_a_refusal(game: Path, changes: list[tuple[str, Any]]) -> None:
    data = parse(GOOD)[0]
    for place, value in changes:
        put(data, place, copy.deepcopy(value))
    game.write_bytes(dump(data).encode("utf-8", "surrogatepass"))
    composed_or_refused(game)


@FUZZ
@given(
    st.integers(0, len(GOOD)),
    st.integers(0, 12),
    st.text(st.sampled_from(" \n\t:-[]{},&*#'\"!|>%@`0a.\x00é"), max_size=6),
)
def test_a_random_slip_of_the_keyboard_is_a_run_or_a_refusal(game: Path, at: int, gone: int, typed: str) -> None:
    game.write_text(GOOD[:at] + typed + GOOD[at + gone :], encoding="utf-8")
    composed_or_refused(game)


@FUZZ
@given(st.one_of(st.text(max_size=20), st.tuples(PLACES, st.text(max_size=12)).map("=".join)))
def test_a_random_override_is_a_run_or_a_refusal(game: Path, override: str) -> None:
    composed_or_refused(game, (override,))


def test_a_refusal_takes_less_than_a_second(game: Path) -> None:
    compose(game)
    game.write_text("reward: [" + "gam, " * 4000 + "]")
    began = time.process_time()
    refusal(game)
    assert time.process_time() - began < 1


def test_the_docs_yaml_composes(tmp_path: Path) -> None:
    page = (Path(__file__).resolve().parent.parent / "docs" / "configuration.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```yaml\n(.*?)^```", page, flags=re.MULTILINE | re.DOTALL)
    whole = [text for text in map(dedent, blocks) if "\ngame:" in f"\n{text}"]
    assert whole
    for text in whole:
        (tmp_path / "game.yaml").write_text(text, encoding="utf-8")
        compose(tmp_path / "game.yaml")
