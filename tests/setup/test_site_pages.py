"""The pages of the site that are made from other files: every link leads somewhere, every key is listed."""

import importlib.util
import inspect
import pkgutil
import re
from dataclasses import fields

import pytest
import yaml

from src import schema
from tests.conftest import REPOSITORY


@pytest.fixture(scope="module")
def site():
    spec = importlib.util.spec_from_file_location("site_pages", REPOSITORY / "setup" / "site_pages.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def pages(site):
    return site.pages()


def listed(entry):
    """The pages of a part of the navigation."""
    if isinstance(entry, str):
        return [entry]
    below = entry if isinstance(entry, list) else entry.values()
    return [page for part in below for page in listed(part)]


def test_the_navigation_names_every_page_once(pages):
    nav = listed(yaml.safe_load((REPOSITORY / "mkdocs.yml").read_text())["nav"])
    there = {path.name for path in (REPOSITORY / "docs").glob("*.md")} | set(pages)
    assert sorted(nav) == sorted(there)


def test_no_link_of_a_made_page_is_dead(pages):
    files = {f"{path.relative_to(REPOSITORY / 'docs')}" for path in (REPOSITORY / "docs").rglob("*.*")} | set(pages)
    for name, text in pages.items():
        for target in re.findall(r"\]\((?!https?:|#)([^)#\s]+)", re.sub(r"```.*?```", "", text, flags=re.DOTALL)):
            steps = [*name.split("/")[:-1], *target.split("/")]
            while ".." in steps:
                steps[steps.index("..") - 1 : steps.index("..") + 1] = []
            assert "/".join(steps) in files, (name, target)


def test_a_link_to_what_is_not_there_is_an_error(site):
    with pytest.raises(FileNotFoundError, match=r"links nowhere\.md"):
        site.linked("[x](nowhere.md)", "", "")


def test_the_reference_lists_every_key_of_every_step(pages):
    text = pages["reference/configuration.md"]
    for params in (schema.TrainConfig, schema.InferConfig, *schema.steps().values()):
        names = [field.name for field in fields(params)]
        assert [name for name in names if not re.search(rf"^\| `{name}[=.`]", text, re.MULTILINE)] == []


def test_a_tutorial_shows_its_figures(pages):
    tutorials = [text for name, text in pages.items() if name.startswith("tutorials/")]
    assert len(tutorials) == 5
    assert all('src="data:image/png;base64,' in text and "```python" in text for text in tutorials)


def documented(site):
    """Every public function and class of the API page, with the names that its docstring explains."""
    for path in [path for modules in site.API.values() for path in modules]:
        found = pkgutil.resolve_name(path)
        own = [found] if callable(found) else [
            value for name, value in vars(found).items()
            if callable(value) and getattr(value, "__module__", "") == path and not name.startswith("_")
        ]  # fmt: skip
        for part in own:
            text = inspect.getdoc(part) or ""
            for section in re.findall(
                r"^(?:Parameters|Attributes)\n-+\n(.*?)(?:\n\n|\Z)", text, re.DOTALL | re.MULTILINE
            ):
                yield part, re.findall(r"^\S.*", section, re.MULTILINE)


def test_the_api_explains_each_parameter_by_its_own_name(site):
    wrong = [
        (part.__qualname__, name)
        for part, names in documented(site)
        for name in names
        if not name.isidentifier() or (inspect.isfunction(part) and name not in inspect.signature(part).parameters)
    ]
    assert wrong == []
    assert len(list(documented(site))) > 10
