"""What the documentation shows runs, and what it points at is there."""

import doctest
import importlib
import inspect
import pkgutil
import re
from pathlib import Path

import pytest

import fnn_core

ROOT = Path(__file__).parents[1]
PAGES = ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", "bench/README.md"]
MODULES = ["fnn_core", *(m.name for m in pkgutil.walk_packages(fnn_core.__path__, "fnn_core."))]


def python_of(page):
    """The Python blocks of a page; other lines are blank, so that line numbers stay."""
    shown, lines = False, []
    for line in (ROOT / page).read_text().splitlines():
        if line.startswith("```"):
            shown = line == "```python"
            line = ""
        lines.append(line if shown else "")
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize("page", PAGES)
def test_python_of_the_pages_runs(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    test = doctest.DocTestParser().get_doctest(python_of(page), {}, page, page, 0)
    results = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE).run(test)
    assert results.failed == 0
    assert results.attempted > 0 or page != "README.md"


@pytest.mark.parametrize("name", MODULES)
def test_doctests_of_the_modules_run(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert doctest.testmod(importlib.import_module(name)).failed == 0


def test_all_that_is_public_has_an_example():
    shown = {name: getattr(fnn_core, name) for name in fnn_core.__all__}
    methods = inspect.getmembers(fnn_core.Network, inspect.isfunction)
    shown |= {name: method for name, method in methods if not name.startswith("_")}
    described = [name for name, thing in shown.items() if ">>>" not in (thing.__doc__ or "")]
    assert [name for name in described if callable(shown[name])] == []


@pytest.mark.parametrize("page", PAGES)
def test_links_and_paths_lead_somewhere(page):
    text = (ROOT / page).read_text()
    beside = re.findall(r"\]\((?!http)([^)#]+)\)", text)
    named = re.findall(r"\b((?:bench|docs|fnn_core|src|tests|tools)/[\w./*-]*\w)", text)
    missing = [link for link in beside if not ((ROOT / page).parent / link).exists()]
    assert not missing + [path for path in named if not any(ROOT.glob(path))]
