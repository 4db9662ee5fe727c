"""Parameters of the steps that ``preprocess.py`` runs: one dataclass per step.

The dataclass is the schema that Hydra checks the command line against, the argument of the step, and what the
step's manifest records. It is written beside the step, in a module that imports only light packages, because
``src/schema.py`` imports all of these modules when a command starts::

    @dataclass
    class SpectrogramParams(PreprocessConfig):
        window_s: float = 2.0  # seconds; length of one window

        def run(self) -> Summary:
            from src.preprocess.lfp.spectrograms import spectrograms  # loads SciPy, so not before it is needed

            return spectrograms(self)

The comment behind a key, or the lines of comment above it, is what ``--help`` says about it: unit first, then
the meaning.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, TypeVar

from omegaconf import MISSING

from src.signals import BadInput, nearest
from src.storage.batch import Summary


@dataclass
class PreprocessConfig:
    """The keys of every step; each step adds its own in a subclass."""

    input_dir: str = MISSING  # folder (or file) with the recordings
    output_dir: str = MISSING  # folder for the results; what it holds already is kept
    workers: int = 1  # recordings at a time
    seed: int = 42  # of every random number
    skip: list[str] = field(default_factory=list)  # names of recordings to leave out
    only: str | None = None  # pattern of the names of the recordings to use, such as "rat1*"
    part: int = 1  # this process does part 1, 2, … of `parts`
    parts: int = 1  # shares that the recordings are divided into; see docs/sweeps.md

    def run(self) -> Summary:
        """Run the step on every recording; one that fails is reported in the summary and does not stop the others."""
        raise NotImplementedError(f"{type(self).__name__} has no run()")

    def own(self, *without: str, beyond: type | None = None) -> dict[str, Any]:
        """The keys that the step itself added: what can change its result, besides input and seed.

        Parameters
        ----------
        without
            Keys that do not change it, or are recorded otherwise.
        beyond
            The class whose keys are not the step's own: :class:`PreprocessConfig`, or one that several steps share.
        """
        common = {*without, *(f.name for f in fields(beyond or PreprocessConfig))}
        return {f.name: getattr(self, f.name) for f in fields(self) if f.name not in common}


Step = TypeVar("Step", bound=PreprocessConfig)


def from_keywords(step: type[Step], given: Mapping[str, Any], *others: str) -> Step:
    """Parameters of a step from the keyword arguments of a function, which takes ``others`` itself.

    Raises
    ------
    BadInput
        For a key that the step does not have, with the nearest one.
    """
    known = [f.name for f in fields(step) if f.name not in ("input_dir", "output_dir")]
    for key in given:
        if key not in known:
            near = nearest(key, [*known, *others])
            hint = f"did you mean {near}?" if near else f"choose from: {', '.join([*others, *known])}"
            raise BadInput(key, f"is no parameter of {step.__name__}", hint)
    return step(**given)
