"""What a run shows and leaves behind: metrics, TensorBoard, videos, the report, and the terminal."""

import importlib
import json
import math
import os
import pty
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import imageio.v2 as imageio
import numpy as np
import pluggy
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from agentctl.core import hooks
from agentctl.core.checkpoint import write_checkpoint
from agentctl.core.plugins import Registry, Switches
from agentctl.core.run import Evaluation, Observer, Progress, Run
from agentctl.core.types import Decision, Transition
from agentctl.plugins.observe import figures, recorder, svg
from agentctl.plugins.observe.history import History
from agentctl.plugins.observe.metrics import read_lines

REPOSITORY = Path(__file__).resolve().parent.parent
ALL = ("metrics", "progress", "recorder", "report", "tensorboard")
CONFIG = {"game": {"name": "toy/catch"}, "policy": {"name": "ppo", "lr": 2.5e-4}, "run": {"steps": 1000, "seed": 1}}
LOCK = {"python": "3.11.7", "packages": {"numpy": "2.4.6"}, "config": CONFIG}


class Session:
    """A run that the test drives in the loop's place, with real plugins in a real plugin manager."""

    def __init__(self, folder: Path | None, *plugins: str, config=CONFIG, quiet=False, stands=None) -> None:
        self.run = Run(folder, config, LOCK, quiet, progress=stands)
        self.manager = pluggy.PluginManager("agentctl")
        self.manager.add_hookspecs(hooks)
        for name in plugins:
            self.manager.register(importlib.import_module(f"agentctl.plugins.observe.{name}"), name)
        self.manager.hook.agentctl_run_started(run=self.run)

    def tell(self, what: str, *arguments: object) -> None:
        for observer in self.run.observers:
            getattr(observer, what)(*arguments)

    def learn(self, step: int, **fields: object) -> None:
        self.run.progress = progress(step, **fields)
        self.tell("learned", self.run.progress)

    def evaluate(self, step: int, returns=(1.0, 3.0), frames=()) -> Evaluation:
        evaluation = Evaluation(step, list(returns), [10, 12], [-1.0, 0.0], {"goal": 2.0})
        if frames:
            self.tell("frames", list(frames), evaluation)
        self.run.evaluations.append(evaluation)
        self.tell("evaluated", evaluation)
        return evaluation

    def save(self, step: int) -> None:
        assert self.run.folder is not None
        path = write_checkpoint(self.run.folder / "checkpoints", step, {}, keep=2)
        self.tell("saved", path, progress(step))

    def end(self, error: BaseException | None = None) -> None:
        self.manager.hook.agentctl_run_ended(run=self.run, error=error)


def progress(step, cycle=0, seconds=None, return_mean=0.5, metrics=None, terms=None) -> Progress:
    metrics = {"policy_loss": -0.1, "value_loss": 1.0 / step} if metrics is None else metrics
    terms = {"goal": 0.25} if terms is None else terms
    seconds = step / 100 if seconds is None else seconds
    return Progress(step, 1000, cycle, seconds, 100.0, step // 10, return_mean, metrics, terms)


def pictures(count: int, height: int = 30, width: int = 40) -> list[np.ndarray]:
    """Frames of one grey each, brighter with time, below a red band."""
    frames = np.empty((count, height, width, 3), np.uint8)
    frames[:] = np.linspace(20, 220, count).astype(np.uint8)[:, None, None, None]
    frames[:, : height // 3] = (200, 30, 30)
    return list(frames)


def lines_of(folder: Path) -> list[dict]:
    return [json.loads(text) for text in (folder / "metrics.jsonl").read_text().splitlines()]


# ---------------------------------------------------------------------------------------------------- all of them


def test_importing_the_observers_is_cheap():
    heavy = ("rich", "imageio", "tensorboardX", "yaml", "html", "torch")
    imports = "; ".join(f"import agentctl.plugins.observe.{name}" for name in ALL)
    code = f"import sys; {imports}; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_run_without_a_folder_writes_and_prints_nothing(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    session = Session(None, *ALL)
    session.learn(10)
    session.evaluate(10)
    session.end()
    assert session.run.observers == []
    assert list(tmp_path.iterdir()) == []
    assert capfd.readouterr() == ("", "")


def test_only_the_recorder_makes_the_loop_collect_frames(tmp_path):
    session = Session(tmp_path, *ALL)
    wanting = [type(o).__name__ for o in session.run.observers if type(o).frames is not Observer.frames]
    assert wanting == ["Recorder"]


@pytest.mark.parametrize(("plugin", "package"), [("tensorboard", "tensorboardX"), ("recorder", "imageio_ffmpeg")])
def test_without_its_package_an_observer_is_off_and_says_how_to_get_it(tmp_path, monkeypatch, plugin, package):
    monkeypatch.setitem(sys.modules, package, None)  # how Python spells "cannot be imported"
    session = Session(tmp_path, plugin, "metrics")
    session.end()
    (line,) = lines_of(tmp_path)
    assert line["event"] == "event"
    assert "pip install 'game-agentctl[" in line["text"]


# --------------------------------------------------------------------------------------------------------- metrics


def test_everything_that_happens_is_a_line_in_order(tmp_path):
    session = Session(tmp_path, "metrics")
    session.learn(100, return_mean=math.nan, metrics={"loss": np.float32(0.5), "bad": math.inf})
    session.evaluate(100)
    session.save(100)
    session.tell("event", "fallback", "'recent' took over")
    learn, evaluation, checkpoint, event = lines_of(tmp_path)
    assert learn["event"] == "learn"
    assert (learn["return_mean"], learn["metrics"]) == (None, {"loss": 0.5, "bad": None})
    assert (learn["step"], learn["seconds"], learn["steps_per_second"], learn["terms"]) == (
        100,
        1.0,
        100,
        {"goal": 0.25},
    )
    assert (evaluation["return_mean"], evaluation["return_random"], evaluation["returns"]) == (2.0, -0.5, [1.0, 3.0])
    assert (checkpoint["event"], checkpoint["step"]) == ("checkpoint", 100)
    assert (event["kind"], event["text"], event["step"]) == ("fallback", "'recent' took over", 100)


def test_learning_steps_are_thinned_but_a_cycle_keeps_its_last(tmp_path):
    session = Session(tmp_path, "metrics")
    for step in range(1, 501):
        session.learn(step, cycle=0)
    for step in range(501, 1001):
        session.learn(step, cycle=1)
    session.end()
    steps = [line["step"] for line in lines_of(tmp_path)]
    assert {1, 500, 1000} <= set(steps)
    assert len(steps) < 20


def test_a_resumed_run_lives_the_lines_beyond_its_checkpoint_again(tmp_path):
    first = Session(tmp_path, "metrics")
    for cycle, step in enumerate((100, 200, 300), start=1):
        first.learn(step, cycle=cycle)
        first.evaluate(step)
        if step < 300:
            first.save(step)  # the crash comes before the last checkpoint
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"event": "learn", "st')
    second = Session(tmp_path, "metrics")
    second.tell("event", "hello", "before learning")
    second.learn(250, seconds=0.5)
    second.end()
    found = [(line["event"], line["step"]) for line in lines_of(tmp_path)]
    lived = [(event, step) for step in (100, 200) for event in ("learn", "evaluation", "checkpoint")]
    assert found == [*lived, ("event", 200), ("learn", 250)]
    assert lines_of(tmp_path)[-1]["seconds"] == pytest.approx(2.0 + 0.5)


def test_a_checkpoints_line_that_a_kill_prevented_is_written_when_the_run_goes_on(tmp_path):
    first = Session(tmp_path, "metrics")
    for step in (100, 200):
        first.learn(step)
        first.save(step)
    path = tmp_path / "metrics.jsonl"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-1]))
    for step in (300, 400):  # the second time nothing is missing
        again = Session(tmp_path, "metrics", stands=progress(step - 100))
        again.learn(step)
        again.save(step)
        again.end()
    assert [line["step"] for line in lines_of(tmp_path) if line["event"] == "checkpoint"] == [100, 200, 300, 400]


def test_evaluating_a_run_that_is_still_training_drops_nothing(tmp_path):
    training = Session(tmp_path, "metrics")
    training.learn(100)
    training.save(100)
    training.evaluate(200)
    evaluating = Session(tmp_path, "metrics")
    evaluating.evaluate(100)
    evaluating.end()
    training.save(300)
    assert [line["step"] for line in lines_of(tmp_path)] == [100, 100, 200, 100, 300]


# ----------------------------------------------------------------------------------------------------- tensorboard


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    events = EventAccumulator(str(folder / "tensorboard"))
    events.Reload()
    return {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def test_tensorboard_reads_the_curves_back(tmp_path):
    session = Session(tmp_path, "tensorboard")
    session.learn(100)
    session.evaluate(100)
    session.end()
    expected = {
        "learn/policy_loss": -0.1,
        "learn/value_loss": 0.01,
        "terms/goal": 0.25,
        "return/training": 0.5,
        "return/evaluation": 2.0,
        "return/random": -0.5,
        "evaluation_terms/goal": 2.0,
        "speed/steps_per_second": 100.0,
    }
    assert scalars(tmp_path) == {tag: [(100, pytest.approx(value))] for tag, value in expected.items()}


def test_tensorboard_shows_no_curve_twice_after_a_resume(tmp_path):
    first = Session(tmp_path, "tensorboard")
    for step in (100, 200, 300):
        first.evaluate(step)
    first.save(200)
    first.end()
    second = Session(tmp_path, "tensorboard")
    second.learn(250)
    second.evaluate(300, returns=(9.0, 9.0))
    second.end()
    assert scalars(tmp_path)["return/evaluation"] == [(100, 2.0), (200, 2.0), (300, 9.0)]


# --------------------------------------------------------------------------------------------------------- recorder


def test_a_video_reads_back_as_the_frames_it_was_made_of(tmp_path):
    session = Session(tmp_path, "recorder")
    frames = pictures(40, height=31, width=45)
    evaluation = session.evaluate(1234, frames=frames)
    path = tmp_path / "videos" / "step-00001234.mp4"
    assert evaluation.video == path
    assert os.listdir(path.parent) == [path.name]
    with imageio.get_reader(path) as video:
        assert video.get_meta_data()["codec"] == "h264"
        assert video.get_meta_data()["pix_fmt"].startswith("yuv420p")
        seen = [*video.iter_data()]
    assert len(seen) == 40
    assert seen[0].shape == (31 * 8, 45 * 8, 3)  # 45 px wide: eight times is the first that reaches 320
    for shown, frame in zip(seen, frames, strict=True):
        small = np.asarray(shown, float).reshape(31, 8, 45, 8, 3).mean(axis=(1, 3))
        assert np.abs(small - frame).mean() < 6


@pytest.mark.parametrize(
    ("size", "shown"), [((210, 160), (420, 320)), ((9, 321), (10, 322)), ((1, 1), (320, 320)), ((480, 640), (480, 640))]
)
def test_frames_are_shown_in_even_sizes_of_at_least_320_pixels(size, shown):
    frame = np.random.default_rng(0).integers(1, 255, (*size, 3), np.uint8)
    large = recorder.presentable(frame)
    factor = shown[1] // size[1]
    assert large.shape == (*shown, 3)
    assert np.array_equal(large[::factor, ::factor][: size[0], : size[1]], frame)
    assert (large != 0).any(axis=(1, 2)).all()  # no black row or column at the edge
    assert (large != 0).any(axis=(0, 2)).all()


def test_a_long_episode_is_cut_and_an_event_says_so_once(tmp_path, monkeypatch):
    monkeypatch.setattr(recorder, "LONGEST", 2)  # seconds, instead of the minute
    session = Session(tmp_path, "metrics", "recorder")
    session.evaluate(1, frames=pictures(61, 8, 8))
    session.evaluate(2, frames=pictures(62, 8, 8))
    with imageio.get_reader(tmp_path / "videos" / "step-00000002.mp4") as video:
        assert video.count_frames() == 60
    (event,) = [line for line in lines_of(tmp_path) if line["event"] == "event"]
    assert event["text"] == "the episode has 61 frames; videos show the first 2 s (60 frames)"


@pytest.mark.parametrize(("frames", "fps"), [(2, 5), (50, 10), (150, 30), (1800, 30)])
def test_short_episodes_play_slower(frames, fps):
    assert recorder.frame_rate(frames) == fps


# ------------------------------------------------------------------------------------------------------------ charts


def test_a_chart_draws_each_point_where_its_axes_say():
    points = [(0.0, -20.0), (500.0, 4.0), (1000.0, 21.0)]
    plot = svg.plot_area([svg.Series("return", "training", points)], (740, 380), 1000.0)
    drawn = re.search(r'<polyline[^>]* points="([^"]+)"', svg.drawn(svg.Series("return", "training", points), plot))
    assert drawn is not None
    pixels = [tuple(map(float, pair.split(","))) for pair in drawn[1].split()]
    left, right, top, bottom = plot.x.start, plot.x.end, plot.y.end, plot.y.start
    low, high = -20 - 41 * 0.05, 21 + 41 * 0.05  # a twentieth of the range as margin
    for (x, y), (px, py) in zip(points, pixels, strict=True):
        assert px == pytest.approx(left + x / 1000 * (right - left), abs=0.05)
        assert py == pytest.approx(bottom - (y - low) / (high - low) * (bottom - top), abs=0.05)


@pytest.mark.parametrize(
    ("low", "high", "count", "labels"),
    [
        (0.0, 2e6, 4, ["0", "0.5M", "1.0M", "1.5M", "2.0M"]),
        (-21.0, 17.3, 5, ["-20", "-15", "-10", "-5", "0", "5", "10", "15"]),
        (0.004, 0.0085, 2, ["0.004", "0.006", "0.008"]),
        (0.0, 1e-4, 2, ["0", "5e-05", "0.0001"]),
        (7400.0, 8900.0, 2, ["7.5k", "8.0k", "8.5k"]),
    ],
)
def test_ticks_are_round_numbers(low, high, count, labels):
    assert svg.tick_labels(svg.ticks(low, high, count)) == labels


@pytest.mark.parametrize("values", [[], [0.0], [5.0, 5.0], [-1e-9, 1e12]])
def test_a_chart_of_anything_has_finite_coordinates(values):
    line = svg.series("x", "measure", range(len(values)), values, 340)
    text = svg.chart("x", [line], (340, 170), 0.0)
    assert "nan" not in text
    assert "inf" not in text


def test_long_curves_are_drawn_as_means_within_their_band():
    values = np.random.default_rng(0).normal(size=30_000)
    line = svg.series("noise", "measure", np.arange(30_000.0), values, 300)
    parts = values.reshape(100, 300)
    assert [y for _, y in line.points] == pytest.approx(parts.mean(axis=1))
    inside = [
        (low <= part) & (part <= high) for (_, low), part, (_, high) in zip(line.low, parts, line.high, strict=True)
    ]
    assert np.mean(inside) == pytest.approx(0.8, abs=0.01)


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (21, "21.0"), (999.7, "1,000"), (12345.6, "12,346"), (-0.01234, "-0.0123"), (1.5e-5, "1.5e-05")],
)
def test_figures_have_three_digits(value, text):
    assert figures.number(value) == text
    assert figures.number(math.nan) == "–"


@pytest.mark.parametrize(("seconds", "text"), [(8.21, "8.2 s"), (192, "3 min 12 s"), (7500, "2 h 05 min")])
def test_durations_read_as_people_say_them(seconds, text):
    assert figures.duration(seconds) == text


# ------------------------------------------------------------------------------------------------------------ report


class Page(HTMLParser):
    """Every tag with its attributes, and the text outside of style sheets."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()
        self.text = " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        self.open.append(tag)

    def handle_endtag(self, tag):
        while self.open and self.open.pop() != tag:
            pass

    def handle_data(self, data):
        if "style" not in self.open:
            self.words.append(data)


def told_run(folder: Path, *plugins: str, config=CONFIG, error: BaseException | None = None) -> Page:
    """The report of a small run: five evaluations, a video, an event."""
    session = Session(folder, "metrics", "report", *plugins, config=config)
    for cycle, step in enumerate(range(200, 1001, 200), start=1):
        session.learn(step, cycle=cycle, return_mean=step / 500)
        session.evaluate(step, returns=(step / 100, step / 50), frames=pictures(20) if step == 1000 else ())
    session.tell("event", "fallback", "'recent' took over")
    session.end(error)
    return Page((folder / "report.html").read_text(encoding="utf-8"))


def test_the_report_says_what_was_reached_and_what_chance_reaches(tmp_path):
    page = told_run(tmp_path)
    assert "toy/catch played by ppo" in page.text
    assert "Evaluation return 15.0 over 2 episodes Random policy -0.500 on the same seeds Better by +15.5" in page.text
    assert "Steps 1,000 in all Time 10.0 s" in page.text
    assert "fallback 'recent' took over" in page.text
    assert "lr: 0.00025" in page.text
    assert "numpy 2.4.6" in page.text


def test_the_report_needs_no_network_and_no_script(tmp_path):
    page = told_run(tmp_path, "recorder")
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    links = [
        v for _, attributes in page.tags for k, v in attributes.items() if k in ("src", "href", "poster", "srcset")
    ]
    assert [link[:22] for link in links] == ["data:video/mp4;base64,"]
    assert not {"script", "link", "iframe", "object", "embed", "base"} & {tag for tag, _ in page.tags}
    assert not any(name.startswith("on") for _, attributes in page.tags for name in attributes)
    assert "url(" not in text
    assert "@import" not in text


def test_the_report_shows_hostile_names_as_text(tmp_path):
    evil = '<script>alert("1")</script><img src=x onerror=alert(1)>'
    config = {"game": {"name": evil}, "policy": {"name": "</style><b>"}, evil: evil}
    session = Session(tmp_path, "metrics", "report", config=config)
    session.learn(100, metrics={evil: 1.0}, terms={evil: 1.0})
    session.learn(200, cycle=1, metrics={evil: 2.0}, terms={evil: 2.0})
    session.tell("event", evil, evil)
    session.run.lock |= {evil: evil, "packages": {evil: evil}}
    session.end(ValueError(evil))
    page = Page((tmp_path / "report.html").read_text(encoding="utf-8"))
    assert not {"script", "img", "b"} & {tag for tag, _ in page.tags}
    assert f"Ended early at step 200: ValueError: {evil}" in page.text
    assert f"{evil} played by </style><b>" in page.text


def test_the_report_also_knows_what_was_before_a_resume(tmp_path):
    first = Session(tmp_path, "metrics", "report", "recorder")
    first.learn(100)
    first.evaluate(100, returns=(7.0, 7.0), frames=pictures(5))
    first.save(100)
    first.end()
    second = Session(tmp_path, "metrics", "report", "recorder")
    second.learn(200, seconds=1.0)
    second.evaluate(200, returns=(8.0, 8.0))
    second.end()
    page = Page((tmp_path / "report.html").read_text(encoding="utf-8"))
    assert "200 8.00 0 8.00 8.00 -0.500 +8.50 11.0 2 100 7.00 0" in page.text
    assert "Time 2.0 s" in page.text
    assert "An evaluation episode step 100" in page.text


def test_a_run_that_fails_at_once_still_has_a_report(tmp_path):
    session = Session(tmp_path, "report")
    session.end(RuntimeError("no display"))
    page = Page((tmp_path / "report.html").read_text(encoding="utf-8"))
    assert "RuntimeError: no display" in page.text
    assert "never evaluated" in page.text


def test_the_curves_of_the_report_are_those_of_the_file(tmp_path):
    page = told_run(tmp_path)
    history = History.of(read_lines(tmp_path / "metrics.jsonl"))
    assert list(history.curves["return_mean"].values) == [0.4, 0.8, 1.2, 1.6, 2.0]
    (wide, *_), size = [a for tag, a in page.tags if tag == "polyline" and a["class"] == "line training"], (1080, 320)
    evaluations = [(float(step), e.return_mean) for step, e in history.evaluations.items()]
    values = [*history.curves["return_mean"].values, *(y for _, y in evaluations), -0.5]
    extent = [(0.0, min(values)), (1000.0, max(values))]
    plot = svg.plot_area([svg.Series("", "", extent)], size, 1000.0)
    curve = history.curves["return_mean"]
    assert wide["points"] == svg.coordinates(list(zip(curve.steps, curve.values, strict=True)), plot)


PROBE = """<pre id="probe"></pre><script>
const video = document.querySelector("video"), probe = document.getElementById("probe");
const write = () => probe.textContent = JSON.stringify({
  width: video.videoWidth, height: video.videoHeight, seconds: video.duration, failed: video.error !== null,
  page: document.documentElement.scrollWidth, window: innerWidth,
});
video.addEventListener("loadeddata", write); video.addEventListener("error", write);
</script></body>"""


@pytest.mark.skipif(not shutil.which("chromium"), reason="needs chromium (apt-get install chromium)")
def test_a_browser_plays_the_video_and_the_page_fits_a_narrow_window(tmp_path):
    told_run(tmp_path, "recorder")
    report = (tmp_path / "report.html").read_text(encoding="utf-8")
    (tmp_path / "probe.html").write_text(report.replace("</body>", PROBE), encoding="utf-8")
    quiet = "no-first-run disable-gpu disable-quic disable-background-networking disable-component-update disable-sync"
    flags = [f"--{flag}" for flag in f"headless no-sandbox dump-dom {quiet}".split()]
    flags += [f"--user-data-dir={tmp_path / 'profile'}", "--window-size=500,900", "--virtual-time-budget=4000"]
    command = ["chromium", *flags, (tmp_path / "probe.html").as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    found = re.search(r'<pre id="probe">(\{.*?\})</pre>', done.stdout)
    assert found, done.stderr[-2000:]
    seen = json.loads(found[1])
    assert (seen["width"], seen["height"], seen["failed"]) == (320, 240, False)
    assert seen["seconds"] == pytest.approx(4.0, abs=0.1)  # 20 frames at the slowest rate
    assert seen["page"] <= seen["window"]


# ---------------------------------------------------------------------------------------------------------- progress


def test_without_a_terminal_progress_is_plain_lines(tmp_path, capfd, monkeypatch):
    monkeypatch.setattr("agentctl.plugins.observe.progress.LINE_INTERVAL", 0.0)
    session = Session(tmp_path, "progress", "report")
    session.learn(250, cycle=3)
    session.evaluate(300)
    session.tell("event", "fallback", "'recent' took over")
    session.end()
    out, _ = capfd.readouterr()
    assert "step 250 of 1,000 (25%) | speed 100 steps/s, cycle 3, 7.5 s left | return 0.500 in training" in out
    assert re.search(r"learning policy_loss -0\.100, value_loss 0\.00400 \| memory \d+\.", out)
    assert "evaluation at step 300: 2.00 (random policy -0.500)\nfallback: 'recent' took over\n" in out
    assert re.search(rf"run +{tmp_path}\s+report +{tmp_path / 'report.html'}", out)
    assert "\x1b" not in out


def test_lines_come_now_and_then(tmp_path, capfd):
    session = Session(tmp_path, "progress")
    for step in range(1, 1000):
        session.learn(step)
    assert capfd.readouterr().out == ""


def test_quiet_means_nothing(tmp_path, capfd):
    session = Session(tmp_path, *ALL, quiet=True)
    session.learn(10)
    session.evaluate(10)
    session.tell("event", "fallback", "x")
    session.end()
    assert capfd.readouterr() == ("", "")


def test_steps_before_the_first_learning_step_count(tmp_path, capfd, monkeypatch):
    monkeypatch.setattr("agentctl.plugins.observe.progress.LINE_INTERVAL", 0.0)
    session = Session(tmp_path, "progress")
    row = np.zeros(4, np.float32)
    off = row.astype(bool)
    for _ in range(3):
        session.tell("stepped", Transition({}, off, {}, Decision(row), row, off, off, off, {}, None))
    assert [line.split(" | ")[0] for line in capfd.readouterr().out.splitlines()] == [
        "step 4 of 1,000 (0%)",
        "step 8 of 1,000 (0%)",
        "step 12 of 1,000 (1%)",
    ]


LIVE = """
import sys, time
from pathlib import Path
sys.path.insert(0, {tests!r})
from test_observers import Session
session = Session(Path({folder!r}), "progress")
for step in (100, 200):
    session.learn(step)
    time.sleep(0.3)
session.evaluate(200)
session.end()
"""


def test_on_a_terminal_progress_is_a_live_view_that_leaves_a_table(tmp_path):
    ours, theirs = pty.openpty()
    code = LIVE.format(tests=str(Path(__file__).parent), folder=str(tmp_path))
    environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "100"}
    with subprocess.Popen([sys.executable, "-c", code], stdout=theirs, stderr=theirs, env=environment) as process:
        os.close(theirs)
        chunks = []
        try:
            while chunk := os.read(ours, 65536):
                chunks.append(chunk)
        except OSError:  # how Linux says that the other end is closed
            pass
    os.close(ours)
    assert process.returncode == 0
    raw = b"".join(chunks).decode()
    text = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", raw)
    assert "━" in text
    assert "100 of 1,000 (10%)" in text
    assert "200 of 1,000 (20%)" in text
    assert "\x1b[1A" in raw  # it went back up to draw again
    assert text.rstrip().splitlines()[-1].split() == ["run", str(tmp_path)]


# -------------------------------------------------------------------------------------------------------------- docs


def test_the_observer_in_the_docs_works(tmp_path):
    page = (REPOSITORY / "docs" / "observing.md").read_text(encoding="utf-8")
    (code,) = [block for block in re.findall(r"```python\n(.*?)```", page, re.DOTALL) if "hookimpl" in block]
    plugin = tmp_path / "records.py"
    plugin.write_text(code, encoding="utf-8")
    registry = Registry(Switches.parse([str(plugin)]), discover=False)
    assert {name: (found.status, found.reason) for name, found in registry.plugins.items()} == {"records": ("ok", "")}
    session = Session(tmp_path)
    registry.manager.hook.agentctl_run_started(run=session.run)
    for step, reached in enumerate((1.0, 3.0, 2.0, 4.0)):
        session.evaluate(step, returns=(reached,))
    assert (tmp_path / "records.txt").read_text() == "0 1.0\n1 3.0\n3 4.0\n"
