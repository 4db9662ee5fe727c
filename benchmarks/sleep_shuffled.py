"""A control for the band-power experiment: the same nights with each night's stages in random order.

python -m benchmarks.sleep_shuffled shuffled [--root ../shared/data/sleep_edfx_bandpower] [--seed 0]
python train.py experiment=sleep_context_bandpower split.fold=1 source.root=shuffled

Nothing can be learnt of the order of stages in such nights, so a κ of single held-out nights that is not near 0 would
be a leak. The pooled one may be above 0: a night keeps its shares of the stages, and hours awake can be seen.
"""

import argparse
from pathlib import Path

import numpy as np

from src.storage.atomic import atomic_file


def shuffle_nights(root: Path, target: Path, seed: int) -> int:
    """Write every night of ``root`` to ``target`` with its labels permuted; how many there were."""
    nights = sorted(root.glob("*.npz"))
    target.mkdir(parents=True, exist_ok=True)
    for number, night in enumerate(nights):
        with np.load(night) as arrays:
            kept = {name: arrays[name] for name in arrays.files}
        kept["labels"] = np.random.default_rng((seed, number)).permutation(kept["labels"])
        with atomic_file(target / night.name) as part, part.open("wb") as handle:
            np.savez(handle, **kept)
    return len(nights)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("target", type=Path)
    parser.add_argument("--root", type=Path, default=Path("../shared/data/sleep_edfx_bandpower"))
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    print(f"{shuffle_nights(given.root, given.target, given.seed)} nights in {given.target}")


if __name__ == "__main__":
    main()
