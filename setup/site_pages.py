"""Pages of the site that are made from other files: README, notebooks, parameters' dataclasses, the API.

MkDocs calls the functions named ``on_…``; see ``hooks`` in ``mkdocs.yml``.
"""

import json
import re
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
COPIED = ("CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md", "pretrained/sleep_human.md")
API = {
    "Arrays in, results out": ("src.predict.sleep.stage", "src.predict.arrays"),
    "Bundles and modules": ("src.models.bundle", "src.models.trained_module"),
    "Data for training": ("src.datamodules.sleep", "src.datamodules.splits"),
    "Types, units, errors": ("src.signals",),
    "Cached steps": ("src.storage.step",),
}
LINK = re.compile(r"(!?)\[([^\]]*)\]\((?!https?:|#)([^)#\s]+)(#[^)]*)?\)")


def on_files(files: Any, config: Any) -> Any:
    """Add the pages that are not files of ``docs/``."""
    from mkdocs.structure.files import File

    for name, text in pages().items():
        files.append(File.generated(config, name, content=text))
    return files


def on_page_content(html: str, **_kwargs: Any) -> str:
    """Names in docstrings carry Sphinx's roles, which Markdown does not know."""
    return re.sub(r":(func|class|meth|mod|data|attr):(?=<code>)", "", html)


def pages() -> dict[str, str]:
    """Path on the site → Markdown."""
    made = {"index.md": linked((ROOT / "README.md").read_text(), "", "")}
    for name in COPIED:
        made[name] = linked((ROOT / name).read_text(), name, str(Path(name).parent))
    for notebook in sorted((ROOT / "examples").glob("*.ipynb")):
        made[f"tutorials/{notebook.stem}.md"] = linked(notebook_page(notebook), "tutorials/x", "examples")
    made["reference/configuration.md"] = configuration_page()
    made["reference/api.md"] = api_page()
    return made


def linked(text: str, page: str, folder: str) -> str:
    """Rewrite the links of a file in ``folder`` for its place on the site; what is not on the site loses its link."""
    up = "../" * (len(Path(page).parts) - 1)

    def replaced(match: re.Match[str]) -> str:
        path = (ROOT / folder / match[3]).resolve().relative_to(ROOT).as_posix()
        if not (ROOT / path).exists():
            raise FileNotFoundError(f"{page or 'README.md'} links {match[3]}, which is not there")
        if path.startswith("docs/"):
            return f"{match[1]}[{match[2]}]({up}{path.removeprefix('docs/')}{match[4] or ''})"
        return f"[{match[2]}]({up}{path}{match[4] or ''})" if path in COPIED else match[2]

    return LINK.sub(replaced, text)


def notebook_page(path: Path) -> str:
    """A notebook with its stored text and figures as Markdown."""
    parts = []
    for cell in json.loads(path.read_text())["cells"]:
        source = "".join(cell["source"])
        parts.append(source if cell["cell_type"] == "markdown" else f"```python\n{source}\n```")
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            if "image/png" in data:
                picture = "".join("".join(data["image/png"]).split())
                parts.append(f'<img alt="figure" src="data:image/png;base64,{picture}">')
            elif text := "".join(output.get("text", data.get("text/plain", ""))):
                parts.append(f"```text\n{text.rstrip()}\n```")
    return "\n\n".join([*parts, f"This page is the notebook `examples/{path.name}`."])


def configuration_page() -> str:
    """Every key of the three verbs with its default and meaning."""
    sys.path.insert(0, str(ROOT))
    from src import schema
    from src.runs.help import groups, key_rows, options

    rows = [(group, ", ".join(f"`{name}`" for name in options(group))) for group in groups()]
    parts = ["# Configuration", "The same tables as `--help` prints, made from the dataclasses. `…` stands for a value"]
    parts[-1] += " that has to be given."
    parts += ["## train.py", table("group", "options", rows)]
    parts += ["## Keys of train.py", table("key=default", "meaning", key_rows(schema.TrainConfig, hide=set(groups())))]
    parts += ["## infer.py", table("key=default", "meaning", key_rows(schema.InferConfig))]
    for name, params in schema.steps().items():
        parts += [f"## preprocess.py preprocess={name}", table("key=default", "meaning", key_rows(params))]
    return "\n\n".join(parts) + "\n"


def table(first: str, second: str, rows: list[tuple[str, str]]) -> str:
    """Two columns in Markdown, the first as code."""
    lines = [f"| {first} | {second} |", "| --- | --- |"]
    for name, text in rows:
        shown = re.sub("[<>|]", lambda sign: f"&#{ord(sign[0])};", text)
        lines.append(f"| `{name}` | {shown} |")
    return "\n".join(lines)


def api_page() -> str:
    """The functions and classes that a script imports, from their docstrings."""
    parts = ["# API"]
    for title, modules in API.items():
        parts += [f"## {title}", *(f"::: {module}\n    options: {{heading_level: 3}}" for module in modules)]
    return "\n\n".join(parts) + "\n"
