"""What every test runs under: one thread, no tracker, no display; and where the shared recordings are."""

import os
import sys
from pathlib import Path

# Set before anything imports torch, tensorflow or matplotlib, here and in the processes that tests start.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["WANDB_MODE"] = "disabled"
os.environ["NEUROLIT_TRUST"] = "tests"  # configurations of tests name classes of tests
os.environ["MPLBACKEND"] = "Agg"
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "2"
os.environ["CUDA_DEVICE_ORDER"] = "PCI_BUS_ID"

import pytest
from hypothesis import HealthCheck, settings

# A busy machine draws examples slowly; that says nothing of the code. The same examples are drawn in every run, so
# that a change is judged by its own faults; `make test-faults SEED=n` draws others.
settings.register_profile("neurolit", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("neurolit")

REPOSITORY = Path(__file__).resolve().parents[1]
SHARED_DATA = REPOSITORY.parent / "shared" / "data"
ABSENT = "the shared recordings (../shared/data) are absent"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real recordings beside the repository; the test is skipped where there is none."""
    if not SHARED_DATA.is_dir():
        pytest.skip(ABSENT)
    return SHARED_DATA


@pytest.fixture(scope="session")
def repository() -> Path:
    """The repository's root."""
    return REPOSITORY


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whatever asks for the recordings carries their marker; what needs a GPU is skipped without one."""
    for item in items:
        if "shared_data" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.real_data)
        if item.get_closest_marker("gpu") is not None and not _cuda():
            item.add_marker(pytest.mark.skip(reason="no CUDA device"))


@pytest.fixture(autouse=True)
def absl_writes_to_the_terminal() -> None:
    """TensorFlow's logger keeps the stderr of the test that imported it, which is closed when that test ends."""
    if (absl := sys.modules.get("absl.logging")) is not None:
        absl.get_absl_handler().python_handler.stream = sys.__stderr__


@pytest.fixture(autouse=True)
def figures_cut_off_no_text(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every text of a figure that a test saves lies inside it; ticks beyond the limits of their axis are not drawn."""
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure
    from matplotlib.text import Text

    save = Figure.savefig

    def checked(figure, *args, **kwargs):
        save(figure, *args, **kwargs)
        if str(args[0]).endswith(".pdf"):
            return  # drawn at a resolution of its own
        figure.set_dpi(kwargs.get("dpi") or figure.dpi)  # labels stand where they were drawn
        inside = figure.bbox.padded(1)
        ticks = {label for axis in figure.findobj(Axis) for label in axis.get_ticklabels()}
        for text in set(figure.findobj(lambda artist: isinstance(artist, Text) and artist.get_visible())) - ticks:
            if not text.get_text().strip():
                continue
            box = text.get_window_extent()
            assert all(inside.contains(*corner) for corner in (box.p0, box.p1)), f"{text.get_text()!r} is cut off"

    monkeypatch.setattr(Figure, "savefig", checked)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """One line: how much of the suite ran, and how much of it wanted recordings that are not here."""
    stats = terminalreporter.stats
    counts = {name: len(stats.get(name, ())) for name in ("passed", "failed", "error", "skipped", "xfailed")}
    absent = sum(ABSENT in str(report.longrepr) for report in stats.get("skipped", ()))
    totals = ", ".join(f"{count} {name}" for name, count in counts.items() if count)
    recordings = f"{absent} skipped because {ABSENT}" if absent else "none skipped for want of the shared recordings"
    terminalreporter.write_line(f"totals: {totals or 'nothing ran'}; {recordings}")


def _cuda() -> bool:
    import torch

    return torch.cuda.is_available()


@pytest.fixture(scope="session")
def spike_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Recordings as the coursework's, of seconds: D1 labelled, D2 and D5 not, their truth in ``truth/``."""
    from src.recordings.extracellular.spike_trains import write_mat
    from src.simulate.spikes import simulate

    folder = tmp_path_factory.mktemp("spikes")
    for number, (name, ratio, seconds) in enumerate((("D1", 30.0, 14.0), ("D2", 16.0, 5.0), ("D5", 4.0, 5.0))):
        trace, train = simulate(int(45 * seconds), ratio, number, duration_s=seconds)
        write_mat(folder / f"{name}.mat", train if name == "D1" else None, trace)
        if name != "D1":
            write_mat(folder / "truth" / f"{name}.mat", train)
    return folder


@pytest.fixture(scope="session")
def spike_data(spike_folder: Path, tmp_path_factory: pytest.TempPathFactory):
    """A datamodule for :func:`spike_folder`, made to measure for a few training steps."""
    from src.datamodules.spikes import SpikeData

    def make(examples, **changes):
        arguments = {
            "data_dir": str(spike_folder),
            "labelled": "D1",
            "targets": ["D2", "D5"],
            "recording": {},
            "conditioning": {"low_hz": 20.0, "matched_filter": False},
            "examples": {"batches": 120} | examples,
            "split": {"val": 0.25, "test": 0.15},
            "execution": {"cache_dir": str(cache)},
        }
        return SpikeData(**(arguments | changes))

    cache = tmp_path_factory.mktemp("spike_cache")
    return make


@pytest.fixture(scope="session")
def spike_models(spike_data, tmp_path_factory: pytest.TempPathFactory):
    """A detector and a classifier after a few steps: ``{task: (module, datamodule, bundle folder)}``."""
    import pytorch_lightning as pl

    from src.models.bundle import export_bundle
    from src.models.spikes.classifier import SpikeClassification
    from src.models.spikes.detector import SpikeDetection
    from tests.trainers import quiet_trainer

    made = {}
    plans: dict = {
        "detector": (SpikeDetection, {}, {"windows": 64, "window": 120}, 120),
        "classifier": (SpikeClassification, {}, {"samples": 20_000}, 60),
    }
    for task, (module, arguments, examples, steps) in plans.items():
        pl.seed_everything(0, verbose=False)
        data = spike_data(examples | {"batches": steps})
        data.prepare_data()
        data.setup("fit")
        optimizer = {"_target_": "torch.optim.AdamW", "lr": 4e-3, "weight_decay": 1e-3}
        model = module(data.signal.to_dict(), data.classes, arguments, optimizer=optimizer)
        trainer = quiet_trainer(tmp_path_factory.mktemp("root"), max_epochs=2, gradient_clip_val=1.0)
        trainer.fit(model, data)
        trainer.test(model, data, verbose=False)
        bundle = model.to_bundle(data, model.test_metrics())
        folder = export_bundle(tmp_path_factory.mktemp("bundles") / task, bundle, model.network.state_dict())
        made[task] = (model, data, folder)
    return made
