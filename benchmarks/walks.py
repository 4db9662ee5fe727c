"""How much of the house one input passes: the files and functions of `src` that one command runs.

python -m benchmarks.walks infer.py bundle=runs/sleep_cnn/latest input=night.edf
"""

import runpy
import sys
import threading
from collections import Counter
from pathlib import Path
from types import FrameType

SOURCE = str(Path(__file__).resolve().parents[1] / "src")


def main() -> None:
    passed: set[tuple[str, str]] = set()

    def note(frame: FrameType, event: str, _argument: object) -> None:
        code = frame.f_code
        if event == "call" and code.co_filename.startswith(SOURCE) and "<" not in code.co_name:
            passed.add((code.co_filename[len(SOURCE) + 1 :], code.co_qualname))

    sys.argv = sys.argv[1:]
    threading.setprofile(note)
    sys.setprofile(note)
    try:
        runpy.run_path(sys.argv[0], run_name="__main__")
    finally:
        sys.setprofile(None)
        files = Counter(file for file, _ in passed)
        print("\n".join(f"{count:4d}  src/{file}" for file, count in sorted(files.items())))
        print(f"{len(files)} files, {len(passed)} functions")


if __name__ == "__main__":
    main()
