"""`agentctl config` and what the other commands share with it, run as a user runs it."""

import json
import os
import re
import shlex
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from agentctl.core import cli
from agentctl.core.document import read_document
from agentctl.core.errors import ConfigError, PluginError
from agentctl.core.plugins import KINDS

CONFIGS = Path(__file__).resolve().parent.parent / "configs"
SCHEMA = CONFIGS / "agentctl.schema.json"
SHIPPED = sorted(CONFIGS.rglob("*.yaml"))
TOY = """\
game: toy/lantern
perception: toy_cells
policy: {name: dyna_q, lr: 0.5}
replay: {name: rollout, steps: 16}
"""


class Told:
    """What a command said and how it ended."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err


@pytest.fixture
def agentctl(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """The command line, from a folder of its own that holds a game.yaml."""
    monkeypatch.chdir(tmp_path)
    Path("game.yaml").write_text(TOY)

    def call(*arguments: str) -> Told:
        monkeypatch.setattr(sys, "argv", ["agentctl", *arguments])
        code: int | str | None = 0
        try:
            cli.main()
        except SystemExit as error:
            code = error.code
        said = capsys.readouterr()
        assert "Traceback" not in said.err
        return Told(int(code or 0), said.out, said.err)

    return call


SHY = """\
from pathlib import Path
from agentctl.core.hooks import Component, hookimpl
from agentctl.games.toy.game import Lantern


class Shy(Lantern):
    def reset(self, seed):
        Path("started").touch()
        return super().reset(seed)


@hookimpl
def agentctl_games():
    return [Component("shy", "agentctl_plugin_shy:Shy", "tells when it is started")]
"""


def test_check_prints_the_chain_and_the_memory_before_any_game_starts(agentctl: Any) -> None:
    Path("shy.py").write_text(SHY)
    told = agentctl("config", "check", "game.yaml", "-p", "shy.py", "-s", "game=shy")
    assert told.code == 0, told.err
    rows = {line.split()[0]: line for line in told.out.splitlines() if line.strip()}
    assert [row for row in rows if row in KINDS] == list(KINDS)
    assert "picture Box(8, 60, 75, 3) uint8 -> Discrete(4)" in rows["game"]
    assert "cell 8 x Discrete(180)" in rows["perception"]
    assert rows["memory"].split() == ["memory", "off"]
    assert "MiB" in rows["replay"]
    assert told.out.splitlines()[-1].startswith("ok: game.yaml; its parts take ")
    assert not Path("started").exists()


def test_check_as_json_sums_the_memory(agentctl: Any) -> None:
    small, large = (
        json.loads(agentctl("config", "check", "game.yaml", "--json", "-s", f"replay.steps={steps}").out)
        for steps in (16, 1600)
    )
    assert small["ok"] and [row["stage"] for row in small["chain"]] == list(KINDS)
    held = [sum(row["nbytes"] for row in found["chain"] if row["stage"] == "replay") for found in (small, large)]
    assert held[1] == 100 * held[0] > 0
    assert large["bytes"] - small["bytes"] == held[1] - held[0]


@pytest.mark.parametrize(
    ("text", "code", "told"),
    [
        ("polcy: ppo", ConfigError.exit_code, "error: game.yaml:1:1: polcy: unknown key; did you mean 'policy'?\n"),
        ("game: [", 2, "error: game.yaml:1:8: not valid YAML: "),
        ("game: toy/lantern\npolicy: dyna", PluginError.exit_code, "error: game.yaml:2:1: no policy is called 'dyna'"),
        (TOY + "plugins: [gone.py]", 3, "error: game.yaml:5:11: the plugin 'gone' failed: FileNotFoundError: no such"),
        (TOY.replace("0.5", "fast"), 2, "error: game.yaml:3:24: policy.lr must be a number, not \"fast\"\n"),
    ],
)  # fmt: skip
def test_a_mistake_is_a_message_and_an_exit_code(text: str, code: int, told: str, agentctl: Any) -> None:
    Path("game.yaml").write_text(text)
    for command in (["config", "check"], ["config", "show"], ["run"]):
        said = agentctl(*command, "game.yaml")
        assert (said.code, said.out) == (code, "")
        assert said.err.startswith(told)


def test_a_refusal_as_json_says_so(agentctl: Any) -> None:
    said = agentctl("config", "check", "game.yaml", "--json", "-s", "policy.lr=fast")
    assert said.code == 2
    assert json.loads(said.out) == {"ok": False, "error": said.err.removeprefix("error: ").rstrip("\n")}


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("gme.yaml", "error: gme.yaml: no such file; did you mean 'game.yaml'?\n"),
        ("toy/lantren", "error: toy/lantren: no such file; did you mean 'toy/lantern'?\n"),
        ("Lantern", "error: Lantern: no such file; did you mean 'toy/lantern'?\n"),
        (".", "error: .: a folder; name a YAML in it: game.yaml\n"),
        ("x" * 4000, ": no such file; known: "),
    ],
)
def test_a_file_that_is_not_there_is_told_with_the_closest(name: str, told: str, agentctl: Any) -> None:
    said = agentctl("config", "check", name)
    assert said.code == 2 and told in said.err


@pytest.mark.parametrize("name", ["toy/lantern", "toy/lantern.yaml", "configs/toy/lantern.yaml"])
def test_a_shipped_file_is_found_by_its_name_from_anywhere(name: str, agentctl: Any) -> None:
    assert json.loads(agentctl("config", "show", name, "--json").out)["game"]["name"] == "toy/lantern"


def test_show_prints_what_is_written_and_resolved_all_of_it(agentctl: Any) -> None:
    written = yaml.safe_load(agentctl("config", "show", "game.yaml", "--off", "replay").out)
    assert written["policy"] == {"name": "dyna_q", "lr": 0.5} and not written["replay"]
    whole = yaml.safe_load(agentctl("config", "show", "game.yaml", "--resolved").out)
    assert whole == json.loads(agentctl("config", "show", "game.yaml", "--resolved", "--json").out)
    assert whole["policy"]["discount"] == 0.99 and whole["run"]["seed"] == 0 and whole["memory"] is False


@pytest.mark.parametrize(
    ("arguments", "value", "origin"),
    [
        (["policy.lr"], "0.5", "game.yaml:3:24"),
        (["policy.lr", "-s", "policy.lr=3e-4"], "0.0003", "-s policy.lr=3e-4"),
        (["policy.discount"], "0.99", "default of agentctl.agents.dyna_q:DynaQ.Config"),
        (["replay", "--off", "replay"], "false", "--off replay"),
    ],
)
def test_explain_says_value_and_origin(arguments: list[str], value: str, origin: str, agentctl: Any) -> None:
    told = agentctl("config", "explain", "game.yaml", *arguments).out.splitlines()
    assert told[:2] == [f"{arguments[0]} = {value}", f"  from   {origin}"]
    found = json.loads(agentctl("config", "explain", "game.yaml", *arguments, "--json").out)
    assert (json.dumps(found["value"]), found["from"]) == (value, origin)


# The schema.


@pytest.fixture(scope="module")
def schema() -> Any:
    found = json.loads(SCHEMA.read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator.check_schema(found)
    return jsonschema.Draft202012Validator(found)


def test_the_committed_schema_is_up_to_date(agentctl: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torch")
    pytest.importorskip("ale_py")
    monkeypatch.setenv("AGENTCTL_NO_PLUGINS", "1")
    agentctl("config", "schema", "--out", "fresh.json")
    remedy = "run: AGENTCTL_NO_PLUGINS=1 agentctl config schema --out configs/agentctl.schema.json"
    assert Path("fresh.json").read_text(encoding="utf-8") == SCHEMA.read_text(encoding="utf-8"), remedy
    assert agentctl("config", "schema").out == SCHEMA.read_text(encoding="utf-8")


class Editor(yaml.SafeLoader):
    """Reads as editors do, by YAML 1.2: ``off`` and ``250_000`` are text."""


Editor.yaml_implicit_resolvers = {}
for tag, pattern, letters in [
    ("bool", r"^(true|false)$", "tf"),
    ("null", r"^(null|~|)$", ["n", "~", ""]),
    ("int", r"^[-+]?\d+$", "-+0123456789"),
    ("float", r"^[-+]?(\.\d+|\d+(\.\d*)?)([eE][-+]?\d+)?$", "-+.0123456789"),
]:
    Editor.add_implicit_resolver(f"tag:yaml.org,2002:{tag}", re.compile(pattern), list(letters))


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_the_schema_takes_every_shipped_yaml_as_we_and_as_editors_read_it(path: Path, schema: Any) -> None:
    for data in (read_document(path).data, yaml.load(path.read_text(encoding="utf-8"), Editor)):
        assert [problem.message for problem in schema.iter_errors(data)] == []


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_every_shipped_yaml_leads_editors_to_the_schema(path: Path) -> None:
    header = re.search(r"^# yaml-language-server: \$schema=(\S+)$", path.read_text(encoding="utf-8"), re.MULTILINE)
    assert header is not None
    assert (path.parent / header[1]).resolve() == SCHEMA


@pytest.mark.parametrize(
    ("text", "valid"),
    [
        ("game: toy/lantern\npolicy: random", True),
        (
            "game: toy/lantern\npolicy: {name: dyna_q, lr: 1}\nmemory: off\nreward: [game, {name: clip, weight: 2}]",
            True,
        ),
        ("game: {name: atari/pong, batch: 4}\npolicy: ppo\nrun: {steps: 250_000}\nplugins: [a.py]", True),
        ("game: {name: gym, id: CartPole-v1}\npolicy: ppo", True),
        ("game: gym\npolicy: ppo", False),
        ("game: {name: gym}\npolicy: ppo", False),
        ("policy: random", False),
        ("game: off\npolicy: random", False),
        ("game: toy/lantern\npolcy: random", False),
        ("game: toy/lantern\npolicy: {name: dyna_q, lrr: 1}", False),
        ("game: toy/lantern\npolicy: {name: dyna_q, lr: fast}", False),
        ("game: toy/lantern\npolicy: {name: dyna_q, weight: 1}", False),
        ("game: toy/lantern\npolicy: random\nrun: {steps: many}", False),
        ("game: toy/lantern\npolicy: dyna", False),
        ("version: 2\ngame: toy/lantern\npolicy: random", False),
    ],
)
def test_the_schema_takes_and_refuses_as_config_check_does(text: str, valid: bool, schema: Any, agentctl: Any) -> None:
    for data in (yaml.safe_load(text), yaml.load(text, Editor)):
        assert schema.is_valid(data) is valid
    Path("game.yaml").write_text(text.replace("plugins: [a.py]", ""))
    assert (agentctl("config", "show", "game.yaml").code == 0) is valid


def test_a_plugin_s_options_stand_in_the_schema_too(agentctl: Any) -> None:
    Path("shy.py").write_text(SHY)
    found = json.loads(agentctl("config", "schema", "-p", "shy.py").out)
    checker = jsonschema.Draft202012Validator(found)
    assert checker.is_valid({"game": {"name": "shy", "limit": 3}, "policy": "random"})
    assert not checker.is_valid({"game": {"name": "shy", "limits": 3}, "policy": "random"})


def test_a_place_that_cannot_be_written_is_told(agentctl: Any) -> None:
    said = agentctl("config", "schema", "--out", "nowhere/schema.json")
    assert (said.code, said.err) == (1, "error: nowhere/schema.json: cannot be written: No such file or directory\n")
    Path("game.yaml.bak").mkdir()
    said = agentctl("config", "migrate", "game.yaml")
    assert said.code == 1 and "cannot be written: Is a directory" in said.err
    assert Path("game.yaml").read_text() == TOY
    assert sorted(path.name for path in Path().iterdir()) == ["game.yaml", "game.yaml.bak"]


# Migrating.


@pytest.mark.parametrize("ending", ["\n", "\r\n"])
def test_migrate_adds_the_version_and_keeps_the_rest_with_a_backup(ending: str, agentctl: Any) -> None:
    before = ending.join(["# my game", "---", "game: toy/lantern  # the maze", "", "policy: random", ""]).encode()
    Path("game.yaml").write_bytes(before)
    os.chmod("game.yaml", 0o640)
    assert agentctl("config", "migrate", "game.yaml").code == 0
    after = Path("game.yaml").read_bytes()
    assert after == before.replace(b"game: ", f"version: 1{ending}game: ".encode(), 1)
    assert Path("game.yaml.bak").read_bytes() == before
    assert Path("game.yaml").stat().st_mode & 0o777 == 0o640
    assert "already up to date" in agentctl("config", "migrate", "game.yaml").out
    assert Path("game.yaml").read_bytes() == after and Path("game.yaml.bak").read_bytes() == before
    assert sorted(path.name for path in Path().iterdir()) == ["game.yaml", "game.yaml.bak"]


def test_migrate_dry_run_writes_nothing(agentctl: Any) -> None:
    assert agentctl("config", "migrate", "game.yaml", "--dry-run").out == f"version: 1\n{TOY}"
    assert Path("game.yaml").read_text() == TOY and not Path("game.yaml.bak").exists()


def test_migrate_changes_the_file_behind_a_link(agentctl: Any) -> None:
    Path("link.yaml").symlink_to("game.yaml")
    agentctl("config", "migrate", "link.yaml")
    assert Path("link.yaml").is_symlink() and Path("game.yaml").read_text().startswith("version: 1\n")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("version: 2\n" + TOY, "game.yaml:1:1: version 2: made for a newer agentctl; this one reads 1: upgrade"),
        ("{game: toy/lantern, policy: random}", "cannot be migrated as it is written; add 'version: 1' to it yourself"),
        ("game: [", "game.yaml:1:8: not valid YAML"),
    ],
)
def test_migrate_refuses_what_it_cannot_carry_forward(text: str, told: str, agentctl: Any) -> None:
    Path("game.yaml").write_text(text)
    said = agentctl("config", "migrate", "game.yaml")
    assert said.code == 2 and told in said.err
    assert Path("game.yaml").read_text() == text and not Path("game.yaml.bak").exists()


# The page.


def test_the_docs_commands_print_what_the_docs_say(agentctl: Any) -> None:
    page = (CONFIGS.parent / "docs" / "configuration.md").read_text(encoding="utf-8")
    game = next(text for text in re.findall(r"^```yaml\n(.*?)^```", page, re.M | re.S) if "version: 1" in text)
    Path("game.yaml").write_text(game, encoding="utf-8")
    shown = re.findall(r"^\$ agentctl (.*)\n((?:(?!\$ |```).*\n)*)", page, re.M)
    assert len(shown) >= 5
    for command, output in shown:
        said = agentctl(*shlex.split(command))
        printed = [line.rstrip() for line in (said.out + said.err).splitlines() if line.strip()]
        assert printed == output.splitlines(), command
