"""Scored nights as stretches of consecutive epochs: what a network with context is trained on."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from src.datamodules.augment import LevelAugment
from src.datamodules.sleep import Batch, NightEpochs, SleepData, SleepDataset
from src.datamodules.splits import Part
from src.preprocess.sleep.epochs import read_epochs
from src.preprocess.sleep.night_normalization import NIGHT_VIEW, NIGHT_VIEW_VERSION, known_views, night_view
from src.preprocess.sleep.prepare import EpochArtifact
from src.signals import UNSCORED, BadInput, SignalSpec, require_range

SPAN_VIEWS = ("relative", "night", "low", "high")


@dataclass(frozen=True)
class SpanOptions:
    """How windows whose levels are relative to a random span of the night, and their variation, are drawn.

    A network that only ever sees levels relative to a whole night fails on excerpts and on recordings with hours of
    wake around. So the span is drawn anew for every example: twenty minutes to the whole night, with or without
    further wake on both sides.

    Shares are of examples or windows. The jitter stands for another amplifier, montage or filter.
    """

    window_epochs: int = 60
    windows: int = 4  # taken of one span
    share: float = 0.67  # with a random span; the others take the whole night
    least_epochs: int = 40  # of the shortest span; lengths are log-uniform up to the night's
    wake_share: float = 0.3  # of the random spans: the night's own wake is repeated around them
    wake_epochs: tuple[int, int] = (50, 1440)  # least and greatest number of those epochs, log-uniform
    jitter_db: float = 1.75  # sd of a constant per window, channel and band, added to the relative levels
    tilt_db: float = 1.0  # sd of one that grows by as much from band to band, likewise
    jitter_scatter: float = 0.2  # sd of a constant added to the other views, in the unit of each
    one_channel: float = 0.225  # loses all channels but one EEG channel
    other_channel: float = 0.4  # of these: the second EEG channel in place of the first
    with_eog: float = 0.3  # of these: with the EOG kept
    lost_channel: float = 0.075  # loses one channel
    views: Sequence[str] = SPAN_VIEWS[:2]  # the first two or more of SPAN_VIEWS

    def __post_init__(self) -> None:
        if len(self.views) < 2 or list(self.views) != list(SPAN_VIEWS[: len(self.views)]):
            hint = f"give the first two or more of {', '.join(SPAN_VIEWS)}"
            raise BadInput("datamodule.views", f"is {list(self.views)} with spans", hint)


def draw_windows(
    rng: np.random.Generator, levels: NDArray[np.floating], stages: NDArray[np.integer], options: SpanOptions
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Windows of one span of a night.

    Parameters
    ----------
    levels
        ``(epoch, channel, band, 1)`` in dB, NaN where unusable.
    stages
        ``(epoch,)``.

    Returns
    -------
    levels
        ``(window, epoch, channel, view × band, 1)`` float32: the views over the span, varied.
    stages
        ``(window, epoch)``; a window that is longer than the span ends in absent, unscored epochs.
    """
    chosen, core = _span(rng, levels, stages, options)
    span = levels[chosen]
    usable = np.isfinite(span).any(axis=(1, 2, 3))
    seen, known = night_view(span, usable, options.views), stages[chosen]
    length = options.window_epochs
    windows = np.full((options.windows, length, *seen.shape[1:]), np.nan, np.float32)
    scored = np.full((options.windows, length), UNSCORED, np.int64)
    for row in range(options.windows):
        # Most windows lie over the span itself, some over the wake around it.
        inside = rng.random() < 0.85
        low, high = (core[0] - length // 2, core[1] - length // 2) if inside else (0, len(known) - length)
        low, high = (int(np.clip(edge, 0, max(0, len(known) - length))) for edge in (low, max(low, high)))
        first = int(rng.integers(low, high + 1))
        part = slice(first, first + length)
        windows[row, : len(known[part])], scored[row, : len(known[part])] = seen[part], known[part]
    return vary(rng, windows, options), scored


def _span(
    rng: np.random.Generator, levels: NDArray[np.floating], stages: NDArray[np.integer], options: SpanOptions
) -> tuple[NDArray[np.int64], tuple[int, int]]:
    """Indices of the night's epochs in a span, wake around it included, and where the span itself lies in them."""
    whole = np.arange(len(stages))
    if rng.random() >= options.share or len(stages) <= options.least_epochs:
        return whole, (0, len(stages))
    length = int(np.exp(rng.uniform(np.log(options.least_epochs), np.log(len(stages)))))
    first = int(rng.integers(len(stages) - length + 1))
    chosen = whole[first : first + length]
    wake = np.flatnonzero((stages == 0) & np.isfinite(levels).all(axis=(1, 2, 3)))
    if rng.random() >= options.wake_share or len(wake) < 20:
        return chosen, (0, length)
    amount = int(np.exp(rng.uniform(*np.log(options.wake_epochs))))
    before = int(rng.integers(amount + 1))
    around = wake[(int(rng.integers(len(wake))) + np.arange(amount)) % len(wake)]
    return np.concatenate([around[:before], chosen, around[before:]]), (before, before + length)


def vary(rng: np.random.Generator, windows: NDArray[np.float32], options: SpanOptions) -> NDArray[np.float32]:
    """Windows as another amplifier and another montage would give them; the input is changed in place."""
    count, _, channels, rows = windows.shape[:4]
    bands = rows // len(options.views)
    constant = rng.normal(0, options.jitter_db, (count, 1, channels, bands, 1))
    slope = np.arange(bands) - (bands - 1) / 2
    constant += rng.normal(0, options.tilt_db, (count, 1, channels, 1, 1)) * slope[:, None]
    windows[..., :bands, :] += constant
    windows[..., bands:, :] += rng.normal(0, options.jitter_scatter, (count, 1, channels, rows - bands, 1))
    draws = rng.random((count,))
    for window, draw in zip(windows, draws, strict=True):
        if draw < options.one_channel and channels == 3:
            kept = window[:, int(rng.random() < options.other_channel)].copy()
            window[:, 0], window[:, 1] = kept, np.nan
            if rng.random() >= options.with_eog:
                window[:, 2] = np.nan
        elif draw < options.one_channel + options.lost_channel and channels > 1:
            window[:, int(rng.integers(channels))] = np.nan
    return windows


class NightDataset(SleepDataset):
    """Whole nights: ``levels (epoch, channel, freq, time)``, ``stages (epoch,)``, number of the night per epoch."""

    def __init__(self, nights: Sequence[NightEpochs]) -> None:
        super().__init__(nights)
        self.nights = list(nights)

    def __len__(self) -> int:
        return len(self.nights)

    def __getitem__(self, index: int) -> Batch:
        night = self.nights[index]
        return night.levels.float(), night.stages, torch.full_like(night.stages, index)

    def levels(self) -> Tensor:
        levels = torch.cat([night.levels for night in self.nights]).float()
        return levels[~levels.isnan().flatten(1).any(1)]


class WindowDataset(NightDataset):
    """Windows at random places: ``levels (epoch, …)``, ``stages (epoch,)``, number of the night.

    A night gets as many windows as would cover it once. They begin anywhere, drawn from torch's global generator, so
    that where in its window an epoch stands tells nothing about the night: recordings are trimmed by their scoring
    to half an hour of wake at either end, and a network that knows where it is in the night would know the stage.
    A night shorter than a window ends in absent, unscored epochs. Epochs that nobody scored stay in their place with
    their signal; only the loss passes over them.

    With ``spans`` the nights hold levels as they are, and every window draws its span of the night and its variation,
    see :class:`SpanOptions`. With ``same`` a window is the same one whenever it is asked for.
    """

    def __init__(self, nights: Sequence[NightEpochs], window_epochs: int, spans: SpanOptions | None = None) -> None:
        super().__init__(nights)
        self.window_epochs, self.spans, self.same = window_epochs, spans, False
        lengths = [len(night.stages) for night in nights]
        self.windows = [(n, first) for n, length in enumerate(lengths) for first in range(0, length, window_epochs)]

    def __len__(self) -> int:
        return len(self.windows)

    def __getitem__(self, index: int) -> Batch:
        number, first = self.windows[index]
        night = self.nights[number]
        if self.spans is not None:
            seed = index if self.same else int(torch.randint(2**31, ()))
            return *self._drawn(np.random.default_rng(seed), number), torch.tensor(number)
        if not self.same:
            first = int(torch.randint(max(1, len(night.stages) - self.window_epochs + 1), ()))
        found = slice(first, first + self.window_epochs)
        levels = torch.full((self.window_epochs, *night.levels.shape[1:]), torch.nan)
        stages = torch.full((self.window_epochs,), UNSCORED, dtype=torch.long)
        present = len(night.stages[found])
        levels[:present], stages[:present] = night.levels[found].float(), night.stages[found]
        return levels, stages, torch.tensor(number)

    def _drawn(self, rng: np.random.Generator, number: int) -> tuple[Tensor, Tensor]:
        night, options = self.nights[number], replace(self.spans or SpanOptions(), windows=1)
        levels, stages = draw_windows(rng, night.levels.float().numpy(), night.stages.numpy(), options)
        return torch.from_numpy(levels[0]), torch.from_numpy(stages[0])

    def levels(self) -> Tensor:
        if self.spans is None:
            return super().levels()
        rng = np.random.default_rng(0)
        numbers = rng.integers(len(self.nights), size=200).tolist()
        levels = torch.cat([self._drawn(rng, number)[0] for number in numbers])
        return levels[~levels.isnan().flatten(1).any(1)]


class SleepSequenceData(SleepData):
    """Nights → windows of consecutive epochs for training, whole nights for validation and test.

    Parameters are those of :class:`~src.datamodules.sleep.SleepData`, and:

    Parameters
    ----------
    augment
        Arguments of :class:`~src.datamodules.augment.LevelAugment`, and ``spans``: arguments of
        :class:`SpanOptions`, for training windows whose levels are relative to random
        spans of the night (``views`` must fit it); without it they are relative to the night.
    window_epochs, batch_size
        Epochs of a training window; windows of a step.
    views
        One or several of ``absolute``, ``relative``, ``night``, ``low``, ``high``: see
        :func:`src.preprocess.sleep.night_normalization.night_view`.
    """

    def __init__(
        self,
        source: dict[str, Any],
        epochs: dict[str, Any],
        split: dict[str, Any],
        augment: dict[str, Any] | None = None,
        window_epochs: int = 100,
        views: Sequence[str] = ("absolute",),
        batch_size: int = 6,
        execution: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(source, epochs, split, None, batch_size, execution)
        require_range("datamodule", 1, window_epochs=window_epochs)
        options = dict(augment or {})
        spans = options.pop("spans", None)
        self.spans = None if spans is None else SpanOptions(window_epochs=window_epochs, views=views, **spans)
        self.augment, self.held_out_batch = LevelAugment(**options), None
        self.window_epochs, self.views = window_epochs, known_views(views)
        self.classes = self.settings.stage_names

    def _load(self, artifact: EpochArtifact) -> NightEpochs:
        epochs = read_epochs(artifact.path)
        # With spans the views are taken when a window is drawn.
        levels = night_view(epochs.features, epochs.usable, self.views if self.spans is None else "absolute")
        seen, stages = torch.from_numpy(levels.astype(np.float16)), torch.from_numpy(epochs.stages).long()
        return NightEpochs(artifact.recording_id, artifact.subject_id, seen, stages, epochs.signal)

    def _dataset(self, part: Part, nights: Sequence[NightEpochs]) -> SleepDataset:
        if part == "train":
            return WindowDataset(nights, self.window_epochs, self.spans)
        return NightDataset(nights if self.spans is None else [self._seen(night) for night in nights])

    def _seen(self, night: NightEpochs) -> NightEpochs:
        levels = night.levels.float().numpy()
        seen = night_view(levels, np.isfinite(levels).any(axis=(1, 2, 3)), self.views)
        return replace(night, levels=torch.from_numpy(seen.astype(np.float16)))

    @property
    def signal(self) -> SignalSpec:
        """What the network sees: a window of epochs."""
        held_out = self.datasets["val"]
        assert isinstance(held_out, NightDataset)
        epoch = held_out.nights[0].levels.shape[1:]
        spec = super().signal
        return replace(spec, axes=("epoch", *spec.axes), shape=(self.window_epochs, *epoch))

    def steps(self) -> list[dict[str, Any]]:
        """The preprocessing a bundle has to repeat."""
        view = {"step": NIGHT_VIEW, "version": NIGHT_VIEW_VERSION, "params": {"views": self.views}}
        return [*super().steps(), view]
