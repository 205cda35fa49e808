"""What is read from a file: plain values as people write them, each with its place; nothing hostile, nothing slow."""

import os
import string
import time
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agentctl.core.document import MAX_BYTES, Document, parse_document, read_document
from agentctl.core.errors import AgentctlError, ConfigError
from agentctl.core.strict_yaml import MAX_NODES, dump, parse

SHIPPED = sorted((Path(__file__).resolve().parent.parent / "configs").rglob("*.yaml"))
GAME = Path("game.yaml")


def refusal(text: str) -> str:
    with pytest.raises(ConfigError) as caught:
        parse_document(text, GAME)
    return str(caught.value)


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("3e-4", 3e-4),
        ("2.5e-4", 2.5e-4),
        (".5", 0.5),
        ("250_000", 250_000),
        ("1e6", 1_000_000),
        ("1e-3", 0.001),
        ("1.0e6", 1e6),
        ("-7", -7),
        ("0x1F", 31),
        ("0o17", 15),
        ("0", 0),
        ("on", True),
        ("off", False),
        ("yes", True),
        ("No", False),
        ("true", True),
        ("'off'", "off"),
        ("'250_000'", "250_000"),
        ("2024-01-01", "2024-01-01"),
        ("1:30", "1:30"),
        ("1.2.3", "1.2.3"),
        ("=", "="),
        ("y", "y"),
        ("~", None),
        ("", None),
        ("[a, 1]", ["a", 1]),
    ],
)
def test_a_value_means_what_people_expect(written: str, value: object) -> None:
    found = parse_document(f"key: {written}", GAME).data["key"]
    assert (found, type(found)) == (value, type(value))


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "game.yaml:1:1: the file is empty"),
        ("# only a comment\n", "game.yaml:1:1: the file is empty"),
        ("hello", "game.yaml:1:1: this is no run"),
        ("- a\n- b", "game.yaml:1:1: this is no run"),
        ("a: 1\nb: 2\na: 3", "game.yaml:3:1: the key 'a' stands twice"),
        ("a:\n  b: 1\n  b: 2", "game.yaml:3:3: the key 'b' stands twice"),
        (
            "run:\n\tsteps: 1",
            "game.yaml:2:1: not valid YAML: found character '\\t' that cannot start any token; indent",
        ),
        ("a: b: c", "game.yaml:1:5: not valid YAML: mapping values are not allowed here; is the indentation off"),
        ("a: [1, 2", "game.yaml:1:9: not valid YAML"),
        ("a: *nobody", "game.yaml:1:4: not valid YAML: found undefined alias 'nobody'"),
        ("a: 1\n---\nb: 2", "game.yaml:2:1: not valid YAML: but found another document; one file is one run"),
        ("ab\x00c: 1", "game.yaml:1:3: the character"),
        ("a: .nan", "game.yaml:1:4: cannot read '.nan': a number must be finite"),
        ("a: -.inf", "game.yaml:1:4: cannot read '-.inf': a number must be finite"),
        ("a: 1e999", "game.yaml:1:4: cannot read '1e999': a number must be finite"),
        ("a: 017", "game.yaml:1:4: cannot read '017': a whole number has no leading zero; write 17"),
        ("a: 99999999999999999999", "a whole number has at most 64 bits"),
        ("a: " + "9" * 90_000, "a whole number has at most 64 bits"),
        ("a: !!float x", "game.yaml:1:4: cannot read 'x': it is not a number"),
        ("a: !!python/object/apply:os.system [ls]", "game.yaml:1:4: !!python/object/apply:os.system has no meaning"),
        ("a: !!binary aGk=", "!!binary has no meaning here"),
        ("a: !!set {x}", "!!set has no meaning here"),
        ("a: !mine 3", "!mine has no meaning here"),
        ('a: "\\ud800"', "half a surrogate pair is not text"),
        ("? [a]\n: 1", "game.yaml:1:3: a key must be a plain word"),
        ("a: &a [*a]", "game.yaml:1:4: this block contains itself"),
        ("a: &a {<<: *a}", "this block contains itself"),
        ("a: {<<: 3}", "game.yaml:1:9: '<<' takes a block by its anchor"),
    ],
)
def test_what_is_no_configuration_is_refused_with_its_place(text: str, told: str) -> None:
    assert told in refusal(text)


def laughs(levels: int) -> str:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, levels)]
    return "\n".join(lines)


BOMBS = {
    "billion laughs": laughs(9),
    "merged laughs": "\n".join(
        ["a0: &a0 {x: 1}"] + [f"a{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 9)}]}}" for n in range(1, 9)]
    ),
    "deep lists": "a: " + "[" * 40_000,
    "deep blocks": "a: " + "{b: " * 20_000,
    "deep dashes": "- " * 40_000,
    "many values": "a: [" + "1," * 40_000 + "]",
    "many keys": "".join(f"k{n}: 1\n" for n in range(4_000)) + "a: [",
    "long word": "a" * 90_000,
    "long key": "a" * 90_000 + ": 1",
    "open quote": "a: '" + "x\n" * 40_000,
    "question marks": "? " * 40_000,
    "tags": "! " * 40_000,
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_is_refused_in_a_second(name: str) -> None:
    began = time.process_time()
    assert refusal(BOMBS[name]).startswith("game.yaml:")
    assert time.process_time() - began < 1


def test_every_key_and_item_knows_where_it_stands() -> None:
    for path in SHIPPED:
        document = read_document(path)
        lines = path.read_text(encoding="utf-8").splitlines()
        for loc, origin in document.origins.items():
            name, line, column = origin.rsplit(":", 2)
            assert name == str(path)
            if loc and isinstance(loc[-1], str):
                assert lines[int(line) - 1][int(column) - 1 :].startswith(loc[-1]), (loc, origin)


def test_anchors_and_merge_keys_work_and_keep_their_place() -> None:
    text = "a: &base {x: 1, y: 2}\nb:\n  <<: *base\n  y: 3\nc: {<<: [{x: 8}, *base]}\nd: *base\n"
    document = parse_document(text, GAME)
    assert document.data == yaml.safe_load(text)
    assert document.origin(("b", "x")) == "game.yaml:1:11"
    assert document.origin(("b", "y")) == "game.yaml:4:3"


def test_shipped_files_mean_to_pyyaml_what_they_mean_to_us() -> None:
    for path in SHIPPED:
        assert read_document(path).data == yaml.safe_load(path.read_text(encoding="utf-8")), path


@pytest.mark.parametrize("encoded", [b"\xef\xbb\xbfa: 1\n", b"a: 1\r\n", b"---\na: 1\n...\n", b"# x\na: 1"])
def test_marks_of_order_and_line_endings_do_not_matter(encoded: bytes, tmp_path: Path) -> None:
    path = tmp_path / "game.yaml"
    path.write_bytes(encoded)
    assert read_document(path).data == {"a": 1}


def test_a_link_is_followed_and_named_as_it_was_given(tmp_path: Path) -> None:
    (tmp_path / "real.yaml").write_text("a: 1")
    (tmp_path / "link.yaml").symlink_to(tmp_path / "real.yaml")
    assert read_document(tmp_path / "link.yaml").origin(("a",)) == f"{tmp_path / 'link.yaml'}:1:1"


def test_a_file_of_100_mb_is_refused_without_reading_it(tmp_path: Path) -> None:
    path = tmp_path / "game.yaml"
    with path.open("wb") as file:
        file.truncate(100_000_000)
    began = time.process_time()
    with pytest.raises(ConfigError, match="larger than 100,000 bytes"):
        read_document(path)
    assert time.process_time() - began < 0.1


@pytest.mark.skipif(os.name == "nt", reason="needs /dev and /proc")
@pytest.mark.parametrize(
    ("path", "told"),
    [
        ("/dev/zero", "larger than"),
        ("/proc/self/mem", "cannot be read"),
        ("/nowhere/game.yaml", "no such file"),
        ("/etc/passwd/game.yaml", "cannot be read: Not a directory"),
        ("/tmp/" + "x" * 5000, "cannot be read: File name too long"),
        ("/tmp/a\x00b", "cannot be read"),
    ],
)
def test_what_is_no_file_is_said_so(path: str, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        read_document(Path(path))


def test_a_folder_is_no_file_and_its_yamls_are_named(tmp_path: Path) -> None:
    (tmp_path / "pong.yaml").write_text("")
    with pytest.raises(ConfigError, match="a folder; name a YAML in it: pong.yaml"):
        read_document(tmp_path)


def test_other_encodings_are_refused_with_their_place(tmp_path: Path) -> None:
    path = tmp_path / "game.yaml"
    path.write_bytes(b"a: 1\nb: caf\xe9\n")
    with pytest.raises(ConfigError, match=r"game.yaml:2:7: not UTF-8 text; save the file as UTF-8"):
        read_document(path)


ANY_CHARACTER = st.one_of(st.characters(), st.sampled_from(" \t\n\r:-[]{}#&*!|>'\"%@`,?<=~.0123456789e_xo"))
WORDS = st.sampled_from(
    ["a: ", "- ", "[", "]", "{", "}", ",", "&a ", "*a", "<<: ", "!!int ", "!x ", "'", '"', "|\n", "\n", "  ", "? ",
     "1e9", "0x", "off", ".nan", "---\n", "...", "%YAML 1.2\n", "\ufeff", "\\ud800", "\t", "# ", "game: ", "=", "~"]
)  # fmt: skip
FUZZ = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@FUZZ
@given(st.one_of(st.text(ANY_CHARACTER, max_size=200), st.lists(WORDS, max_size=40).map("".join)))
def test_any_text_is_a_document_or_a_refusal(text: str) -> None:
    began = time.process_time()
    try:
        assert isinstance(parse_document(text, GAME), Document)
    except AgentctlError as error:
        assert str(error).startswith("game.yaml:")
    assert time.process_time() - began < 1


TEXT = st.one_of(
    st.text(st.characters(exclude_categories=["Cs"]), max_size=12),
    st.sampled_from(["3e-4", "1_0", "0o17", "0x1F", "off", "null", "~", "1e6", ".inf", "=", "<<", "2024-01-01", "017"]),
    st.text(string.digits + "eExo_.+-", max_size=6),
)
PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63) + 1, 2**63 - 1) | TEXT
    | st.floats(allow_nan=False, allow_infinity=False),
    lambda inside: st.lists(inside, max_size=4) | st.dictionaries(TEXT, inside, max_size=4),
    max_leaves=12,
)  # fmt: skip


@FUZZ
@given(st.dictionaries(TEXT, PLAIN, max_size=5))
def test_what_is_written_is_read_again_as_it_was(data: dict[str, object]) -> None:
    again = parse(dump(data))[0]
    assert again == data
    assert repr(again) == repr(data)  # 1 is not 1.0, nor True


def test_the_limits_leave_room_for_what_people_write() -> None:
    largest = max(SHIPPED, key=lambda path: path.stat().st_size)
    assert largest.stat().st_size * 20 < MAX_BYTES
    assert len(read_document(largest).origins) * 20 < MAX_NODES
