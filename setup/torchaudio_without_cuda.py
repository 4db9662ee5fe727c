"""Make ``import torchaudio`` work beside a torch that its compiled extension was not built for.

The Linux wheel of torchaudio on PyPI links its extension against the CUDA build of torch, and torchaudio
refuses to import when the extension is there but does not load. When the extension is absent it runs on
its Python code, which is all that masks and resampling need. So: if the import fails with the extension
and works without it, the one file that torchaudio looks for is renamed. Running this again, also after
torch was exchanged for another build, brings the folder into the state that fits.

    python setup/torchaudio_without_cuda.py
"""

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

ASIDE = ".aside"


def main() -> int:
    spec = find_spec("torchaudio")
    if spec is None or spec.origin is None:
        print("torchaudio is not installed; run pip install -r requirements.lock", file=sys.stderr)
        return 1
    library = Path(spec.origin).parent / "lib"
    if aside(library) and torch_has_cuda():
        put_back(library)
    problem = import_problem()
    if problem is not None:
        set_aside(library)
        problem = import_problem()
    if problem is not None:
        put_back(library)
        print(f"torchaudio cannot be imported, with its compiled extension or without it:\n{problem}", file=sys.stderr)
        return 1
    print("torchaudio: imports " + ("without its CUDA extension" if aside(library) else "with its compiled extension"))
    return 0


def aside(library: Path) -> list[Path]:
    """The extensions that were renamed."""
    return sorted(library.glob(f"_torchaudio*{ASIDE}"))


def set_aside(library: Path) -> None:
    """Rename the extension that decides whether torchaudio loads compiled code."""
    for suffix in (".so", ".pyd"):
        for extension in library.glob(f"_torchaudio*{suffix}"):
            extension.replace(extension.with_name(extension.name + ASIDE))


def put_back(library: Path) -> None:
    """Undo :func:`set_aside`."""
    for extension in aside(library):
        extension.replace(extension.with_name(extension.name.removesuffix(ASIDE)))


def import_problem() -> str | None:
    """What a fresh interpreter says when it imports torchaudio, or ``None`` when all is well."""
    # The decision must not depend on the current folder or on what this process has already loaded.
    result = subprocess.run([sys.executable, "-I", "-c", "import torchaudio"], capture_output=True, text=True)
    return None if result.returncode == 0 else result.stderr.strip()


def torch_has_cuda() -> bool:
    """Whether the installed torch was built with CUDA."""
    code = "import torch, sys; sys.exit(torch.version.cuda is None)"
    return subprocess.run([sys.executable, "-I", "-c", code]).returncode == 0


if __name__ == "__main__":
    sys.exit(main())
