"""Checkpoints: what goes in comes out, a kill at any instant leaves a good one, and damage is named."""

import json
import os
import random
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from agentctl.core.checkpoint import latest_checkpoint, list_checkpoints, read_checkpoint, write_checkpoint
from agentctl.core.errors import AgentctlError
from agentctl.core.types import Snapshot

PARTS = {
    "policy": Snapshot({"weights": np.arange(1000.0), "none": np.zeros((0, 3)), "one": np.float32(3)}, {"rng": 2**100}),
    "loop": Snapshot({}, {"step": 7, "mean": float("inf")}),
}
ARRAYS = hnp.arrays(
    st.sampled_from([np.bool_, np.uint8, np.int16, np.int64, np.float16, np.float32, np.float64]),
    hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4),
)


@settings(max_examples=50, deadline=None)
@given(arrays=st.dictionaries(st.text(min_size=1, max_size=8), ARRAYS, max_size=4), transposed=st.booleans())
def test_every_array_comes_back_to_the_bit(
    arrays: dict[str, np.ndarray], transposed: bool, tmp_path_factory: pytest.TempPathFactory
) -> None:
    given_arrays = {key: value.T if transposed else value for key, value in arrays.items() if key != "__metadata__"}
    path = write_checkpoint(tmp_path_factory.mktemp("c"), 1, {"part": Snapshot(given_arrays)}, keep=1)
    found = read_checkpoint(path)["part"].arrays
    assert found.keys() == given_arrays.keys()
    for key, value in given_arrays.items():
        assert found[key].dtype == value.dtype and found[key].shape == value.shape
        assert found[key].tobytes() == value.tobytes() and found[key].flags.writeable


def test_data_comes_back_as_it_was_and_parts_can_be_read_alone(tmp_path: Path) -> None:
    path = write_checkpoint(tmp_path, 1, PARTS, keep=1)
    assert {name: part.data for name, part in read_checkpoint(path).items()} == {n: p.data for n, p in PARTS.items()}
    (path / "policy.safetensors").unlink()
    assert read_checkpoint(path, only=["loop"])["loop"].data == PARTS["loop"].data


def test_only_the_latest_stay_and_the_latest_is_the_newest(tmp_path: Path) -> None:
    for step in (0, 999, 1000, 20_000):
        write_checkpoint(tmp_path / "checkpoints", step, PARTS, keep=2)
    assert [path.name for path in list_checkpoints(tmp_path / "checkpoints")] == [
        "step-000000001000",
        "step-000000020000",
    ]
    assert latest_checkpoint(tmp_path).name == "step-000000020000"
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == [
        "step-000000001000", "step-000000020000",
    ]  # fmt: skip


def test_a_second_checkpoint_of_a_step_never_leaves_a_gap(tmp_path: Path) -> None:
    for turn in range(12):
        path = write_checkpoint(tmp_path / "checkpoints", 5, {"loop": Snapshot(data={"turn": turn})}, keep=1)
        assert latest_checkpoint(tmp_path) == path
        assert read_checkpoint(path)["loop"].data == {"turn": turn}


@pytest.mark.parametrize(
    ("snapshot", "message"),
    [
        (Snapshot({"words": np.array(["a"])}), "part: the array 'words' is of <U1"),
        (Snapshot({"objects": np.array([object()])}), "part: the array 'objects' is of object"),
        (Snapshot(data={"weight": np.float32(1)}), "part: its data is not plain JSON"),
    ],
)
def test_what_cannot_be_written_is_named(snapshot: Snapshot, message: str, tmp_path: Path) -> None:
    with pytest.raises(TypeError, match=message):
        write_checkpoint(tmp_path, 1, {"part": snapshot}, keep=1)
    write_checkpoint(tmp_path, 1, PARTS, keep=1)
    assert [path.name for path in tmp_path.iterdir()] == ["step-000000000001"]


def cut_short(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-1])


def flip_a_bit(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[-5] ^= 1
    file.write_bytes(content)


@pytest.mark.parametrize("damage", [cut_short, flip_a_bit, Path.unlink])
@pytest.mark.parametrize("name", ["policy.safetensors", "policy.json", "checkpoint.json"])
def test_a_damaged_file_is_named_with_the_remedy(name: str, damage: object, tmp_path: Path) -> None:
    path = write_checkpoint(tmp_path, 1, PARTS, keep=1)
    damage(path / name)  # type: ignore[operator]
    if name == "checkpoint.json" and damage is flip_a_bit:
        (path / name).write_text("{" + (path / name).read_text())
    with pytest.raises(AgentctlError, match=f"{name}: damaged checkpoint: .*; remove the folder {path}"):
        read_checkpoint(path)


def test_a_folder_without_checkpoints_says_so(tmp_path: Path) -> None:
    (tmp_path / "checkpoints" / "step-by-hand").mkdir(parents=True)
    (tmp_path / "checkpoints" / ".writing-4").mkdir()
    with pytest.raises(AgentctlError, match="no checkpoint there"):
        latest_checkpoint(tmp_path)


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(AgentctlError, match="cannot write the checkpoint of step 3: .*Not a directory"):
        write_checkpoint(tmp_path / "file" / "checkpoints", 3, PARTS, keep=1)


def test_a_full_disk_leaves_the_last_good_checkpoint_and_no_rubbish(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, 1, PARTS, keep=1)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
    try:
        with pytest.raises(
            AgentctlError, match="cannot write the checkpoint of step 2: .*make room there, then resume"
        ):
            write_checkpoint(tmp_path, 2, PARTS, keep=1)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, before)
    assert [path.name for path in tmp_path.iterdir()] == ["step-000000000001"]
    assert read_checkpoint(tmp_path / "step-000000000001").keys() == PARTS.keys()


WRITER = """
import sys
from pathlib import Path
import numpy as np
from agentctl.core.checkpoint import list_checkpoints, write_checkpoint
from agentctl.core.types import Snapshot
folder = Path(sys.argv[1]) / "checkpoints"
step = int(list_checkpoints(folder)[-1].name[5:17]) if folder.exists() else 0
while True:
    step += 1
    parts = {f"part-{i}": Snapshot({"step": np.full(20_000, step)}, {"step": step}) for i in range(4)}
    write_checkpoint(folder, step, parts, keep=2)
    print(step, flush=True)
"""


def test_a_kill_at_any_instant_leaves_a_whole_checkpoint(tmp_path: Path) -> None:
    chance, torn = random.Random(0), 0
    for _ in range(12):
        process = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(tmp_path)], stdout=subprocess.PIPE, text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )  # fmt: skip
        assert process.stdout is not None
        told = int(process.stdout.readline())
        time.sleep(chance.uniform(0, 0.05))
        process.kill()
        told = max([told, *map(int, process.stdout.read().split())])
        process.wait()
        torn += any(path.name.startswith(".") for path in (tmp_path / "checkpoints").iterdir())
        found = read_checkpoint(latest_checkpoint(tmp_path))
        steps = {part.data["step"] for part in found.values()} | {int(p.arrays["step"].max()) for p in found.values()}
        assert len(found) == 4 and len(steps) == 1 and steps.pop() >= told
    assert torn > 0, "no kill hit a checkpoint being written: the test proves nothing"


def test_the_files_are_plain_safetensors_and_json(tmp_path: Path) -> None:
    path = write_checkpoint(tmp_path, 1, PARTS, keep=1)
    header = (path / "policy.safetensors").read_bytes()
    length = int.from_bytes(header[:8], "little")
    assert json.loads(header[8 : 8 + length])["weights"]["dtype"] == "F64"
    assert {file.suffix for file in path.iterdir()} == {".safetensors", ".json"}
