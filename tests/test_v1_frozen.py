"""Generation v1.0 stays as it was: fixtures/v1 is a run of it, and loads, foresees and learns on as on its first day.

fixtures/v1/README.md tells how it came about. It is never made anew: where a test here fails, the code has changed.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from running import QUIET

from agentctl.core.assembly import Assembly, assemble
from agentctl.core.checkpoint import latest_checkpoint, read_checkpoint
from agentctl.core.folder import composition_of
from agentctl.core.loop import Loop
from agentctl.core.plugins import Switches
from agentctl.core.run import Run
from agentctl.core.runner import restore, train
from agentctl.core.types import Array, Arrays, Batch
from agentctl.world_models.token_metrics import TokenScore

V1 = Path(__file__).parent / "fixtures" / "v1"
UNSEEN = Switches(disable=frozenset(QUIET))
MORE = ("run.steps=1_200", "replay.warmup=800", "replay.every=4", "world_model.lr=1e-3")
ANEW = ("run.steps=2_000", "replay.warmup=800", "replay.every=4", "world_model.lr=1e-2")


def opened(run: Path) -> Assembly:
    assembly = assemble(composition_of(run, UNSEEN).without("replay"))
    restore(assembly, latest_checkpoint(run))
    return assembly


@pytest.fixture(scope="module")
def frozen() -> Any:
    """The fixture's world model."""
    return opened(V1).pipeline.world_model


@pytest.fixture(scope="module")
def anew(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of today's code as the fixture's, but for seconds."""
    folder = tmp_path_factory.mktemp("v1") / "run"
    train(composition_of(V1, UNSEEN, ANEW), folder, quiet=True)
    return folder


@pytest.fixture(scope="module")
def held_out() -> Arrays:
    """Frames of games that it never saw, what followed, and what it made of them when it was new."""
    with np.load(V1 / "held_out.npz", allow_pickle=False) as found:
        return dict(found)


def judged(model: Any, found: Arrays) -> dict[str, float]:
    score = TokenScore(model.sizes.codes)
    model.measure(batch_of(found), score, "parallel")
    return score.metrics()


def batch_of(found: Arrays) -> Batch:
    """One step of N samples."""
    action, none = found["action"][None], np.zeros((1, len(found["action"])), bool)
    return Batch(
        {"picture": found["picture"][None]}, none, action, found["reward"][None], found["ended"][None], none, {}, {},
        {"picture": found["next_picture"]}, np.zeros((0, 2), np.int64), {"picture": found["next_picture"][:0]},
    )  # fmt: skip


def foreseen(model: Any, found: Arrays) -> tuple[Array, Array]:
    """The tokens that it reads in the pictures, and those that it expects next; both (N, h, w)."""
    rows = len(found["action"])
    seen = {"picture": found["picture"]}
    belief = model.observe(model.initial(rows), seen, None, np.ones(rows, bool))
    ahead = model.imagine(belief.carry, {**seen, **belief.latent}, found["action"])
    return belief.latent["tokens"], ahead.state["tokens"]


def layout(run: Path) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Every array of the world model in a checkpoint: its type and shape."""
    arrays = read_checkpoint(latest_checkpoint(run), only=("world_model",))["world_model"].arrays
    return {name: (array.dtype.name, array.shape) for name, array in arrays.items()}


def test_it_reads_and_foresees_what_it_did_when_it_was_new(frozen: Any, held_out: Arrays) -> None:
    for name, tokens in zip(("tokens", "foreseen"), foreseen(frozen, held_out), strict=True):
        assert np.mean(tokens == held_out[name]) >= 0.99, name


def test_its_figures_are_those_of_then_and_far_above_copying(frozen: Any, held_out: Arrays) -> None:
    found = judged(frozen, held_out)
    for name in ("accuracy", "copy_accuracy", "changed_accuracy", "bits"):
        assert found[name] == pytest.approx(float(held_out[name]), abs=0.01), name
    assert found["changed_accuracy"] > 0.6 and found["accuracy"] > found["copy_accuracy"] + 0.08, "copying: 0"


def test_its_checkpoint_is_laid_out_as_one_of_today(anew: Path) -> None:
    assert layout(anew) == layout(V1)


def test_it_learns_on(held_out: Arrays) -> None:
    loop = Loop(assemble(composition_of(V1, UNSEEN, MORE)), Run(None, {}, {}, quiet=True))
    restore(loop.assembly, latest_checkpoint(V1))
    loop.train()
    found = judged(loop.assembly.pipeline.world_model, held_out)
    print(found)
    assert found["bits"] < 0.98 * float(held_out["bits"])


def test_trained_anew_it_foresees_changes(anew: Path, held_out: Arrays) -> None:
    """In its own tokens; beside copying, which gets no change right, and the best guess that is always one."""
    model = opened(anew).pipeline.world_model
    found, after = judged(model, held_out), {**held_out, "picture": held_out["next_picture"]}
    (now, _), (then, _) = foreseen(model, held_out), foreseen(model, after)
    guessed = np.bincount(then[then != now]).max() / (then != now).sum()
    print({"guessed": guessed, **found})
    assert found["changed_accuracy"] > 1.5 * guessed and found["bits"] < 0.3 * found["unigram_bits"]
