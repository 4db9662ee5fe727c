"""CASCADE inference: the dense engine against ``neuralib`` on real populations and real packages.

    python -m benchmarks.cascade_dense [--data ../shared/data] [--threshold 0|1] [--samples 1000000]

The neurons of each population are repeated until there are that many samples. Each engine runs in a
fresh process with one thread. CPU time and extra memory count everything from the call on (reading
weights, building networks, noise levels, inference, threshold). Before the count begins, the recording
is there, TensorFlow is imported and has run one small graph.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from importlib import import_module
from pathlib import Path

import numpy as np
from scipy.io import loadmat

CASES = [
    ("Allen V1, GCaMP6f", "allen_30Hz_Experiment_552195520_excerpt.mat", "Global_EXC_30Hz_smoothing50ms_causalkernel"),
    ("zebrafish pDp, OGB-1", "zf_pDp_7.5Hz_Calcium_traces_01.mat", "OGB_zf_pDp_7.5Hz_smoothing200ms"),
]
GOALS = "goals: largest difference 1e-6, same NaN and zeros, CPU ratio >= 15, memory ratio >= 50"


def load(data: Path, file: str, samples: int) -> np.ndarray:
    dff = loadmat(data / "calcium_populations" / file)["dF_traces"].astype(np.float32)
    dff = dff[np.isfinite(dff).all(axis=1)]
    neurons = max(1, round(samples / dff.shape[1]))
    return np.ascontiguousarray(dff[np.arange(neurons) % len(dff)])


def run_one(engine: str, data: Path, case: int, threshold: int, samples: int, out: Path) -> None:
    """In the child process: predict, save the result, print the cost as JSON."""
    from src.preprocess.cascade.dense import import_tensorflow
    from src.preprocess.cascade.package import open_package

    _, file, model = CASES[case]
    dff = load(data, file, samples)
    package = open_package(data / "cascade_models" / model)
    tf = import_tensorflow()
    first = tf.function(lambda x, kernel: tf.nn.relu(tf.nn.conv1d(x, kernel, 1, "VALID")))
    first(tf.zeros((1, 8, 1)), tf.zeros((3, 1, 2))).numpy()
    if engine == "neuralib":
        from src.preprocess.cascade import neuralib as cascade_neuralib

        os.environ["NUMBA_NUM_THREADS"] = "1"
        import_module("neuralib.spikes.cascade")
    else:
        from src.preprocess.cascade.inference import open_engine
    Path("/proc/self/clear_refs").write_text("5")  # peak memory counts from here
    before, cpu, wall = memory("VmRSS"), time.process_time(), time.perf_counter()
    if engine == "neuralib":
        result = cascade_neuralib.neuralib_predict(dff, package, None, 1 if threshold else 0)
    else:
        rate = package.config.sampling_rate_hz
        models = data / "cascade_models"
        align = "upstream"  # where neuralib writes its predictions
        ours = open_engine("dense", model, models_dir=models, fs_hz=rate, threshold=threshold, align=align)
        result = ours.predict(dff)
    cost = {
        "cpu_s": time.process_time() - cpu,
        "wall_s": time.perf_counter() - wall,
        "extra_mb": memory("VmHWM") - before,
        "result_mb": result.nbytes / 1e6,
    }
    np.save(out, result)
    print(json.dumps(cost))


def memory(field: str) -> float:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) * 1024 / 1e6
    raise RuntimeError(f"/proc/self/status has no {field}")


def measure(engine: str, case: int, settings: argparse.Namespace, folder: Path) -> tuple[dict[str, float], np.ndarray]:
    out = folder / f"{engine}.npy"
    command = [sys.executable, "-m", "benchmarks.cascade_dense", "--child", engine, str(case), str(out)]
    command += ["--data", str(settings.data), "--threshold", str(settings.threshold)]
    command += ["--samples", str(settings.samples)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1", "TF_CPP_MIN_LOG_LEVEL": "3"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr)
    return json.loads(done.stdout.splitlines()[-1]), np.load(out)


def compare(case: int, settings: argparse.Namespace) -> None:
    title, file, model = CASES[case]
    with tempfile.TemporaryDirectory() as folder:
        reference, expected = measure("neuralib", case, settings, Path(folder))
        cost, result = measure("dense", case, settings, Path(folder))
    neurons, frames = result.shape
    print(f"\n{title} ({file}): {neurons} neurons x {frames} frames, {model}, threshold {settings.threshold}")
    for name, row in (("neuralib", reference), ("dense", cost)):
        print(
            f"  {name:9s} {row['cpu_s']:7.2f} CPU-s {row['cpu_s'] / result.size * 1e6:6.2f} us/sample"
            f" {row['wall_s']:8.2f} s wall {row['extra_mb']:8.1f} MB extra ({row['result_mb']:.1f} MB are the result)"
        )
    ratio = {key: reference[key] / cost[key] for key in ("cpu_s", "wall_s", "extra_mb")}
    print(f"  ratio     {ratio['cpu_s']:.1f} x CPU, {ratio['wall_s']:.1f} x wall, {ratio['extra_mb']:.0f} x memory")
    same = np.isfinite(expected) & np.isfinite(result)
    difference, highest = np.abs(expected[same] - result[same]).max(), expected[same].max()
    nan, zeros = (np.isnan(expected) != np.isnan(result)).sum(), ((expected == 0) != (result == 0)).sum()
    print(f"  largest difference {difference:.1e} (outputs up to {highest:.2f}); NaN that differ {nan}, zeros {zeros}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--threshold", type=int, choices=(0, 1), default=1)
    parser.add_argument("--samples", type=int, default=1_000_000)
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        engine, case, out = arguments.child
        run_one(engine, arguments.data, int(case), arguments.threshold, arguments.samples, Path(out))
        return
    for case in range(len(CASES)):
        compare(case, arguments)
    print(f"\n{GOALS}")


if __name__ == "__main__":
    main()
