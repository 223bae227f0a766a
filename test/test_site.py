# SPDX-License-Identifier: Apache-2.0
"""The documentation site: it builds without a warning, lists every page, and loads nothing from elsewhere."""

import os
import re
import subprocess
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
MKDOCS = ROOT / ".venv/docs/bin/mkdocs"
PAGES = sorted(path.relative_to(ROOT / "docs").as_posix() for path in (ROOT / "docs").rglob("*.md"))
EXTERNAL = re.compile(r"""<(?:script|link|img|iframe)[^>]+(?:src|href)=["']?(?:https?:)?//(?!localhost)[^"' >]+""")


class Settings(yaml.SafeLoader):
    """Reads mkdocs.yml, whose site_url may come from the environment, and which names a function of a package."""


Settings.add_multi_constructor("tag:yaml.org,2002:python/", lambda loader, name, node: name)
Settings.add_constructor("!ENV", lambda loader, node: loader.construct_sequence(node)[-1])


def in_navigation(entry: str | list | dict) -> list[str]:
    """The pages of a part of `nav`."""
    if isinstance(entry, str):
        return [entry]
    return [page for part in (entry.values() if isinstance(entry, dict) else entry) for page in in_navigation(part)]


def build(folder: Path) -> subprocess.CompletedProcess:
    command = [MKDOCS, "build", "--strict", "--site-dir", folder]
    return subprocess.run(
        command, cwd=ROOT, env=os.environ | {"NO_MKDOCS_2_WARNING": "1"}, capture_output=True, text=True
    )


def test_every_page_is_in_the_navigation_once() -> None:
    settings = yaml.load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"), Settings)
    assert sorted(in_navigation(settings["nav"])) == PAGES, "see nav in mkdocs.yml"


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    done = build(folder)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.skipif(not MKDOCS.exists(), reason="make docs installs what builds the site")
def test_it_builds_strictly_and_is_complete(site) -> None:
    html = {path.relative_to(site).as_posix(): path.read_text(encoding="utf-8") for path in site.rglob("*.html")}
    assert len(html) == len(PAGES) + 1, "and 404.html"
    assert [name for name, text in html.items() if EXTERNAL.search(text)] == []
    assert "Decides about the chunks of one robot" in html["reference/api/gate/index.html"], "from the docstring"
    listed = (site / "llms.txt").read_text(encoding="utf-8")
    assert all(name.removesuffix(".md").removesuffix("index") in listed for name in PAGES)


@pytest.mark.skipif(not MKDOCS.exists(), reason="make docs installs what builds the site")
def test_a_link_that_leads_nowhere_fails(tmp_path) -> None:
    text = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    text = re.sub(r"nav:\n(?s:.*)", "nav: [index.md]\n", text).replace("hooks: [", f"docs_dir: docs\nhooks: [{ROOT}/")
    (tmp_path / "mkdocs.yml").write_text(text, encoding="utf-8")
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs/index.md").write_text("# Here\n\n[there](nowhere.md)\n", encoding="utf-8")
    command = [MKDOCS, "build", "--strict", "--config-file", tmp_path / "mkdocs.yml", "--site-dir", tmp_path / "site"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode != 0 and "nowhere.md" in done.stderr


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_make_docs_installs_what_it_needs_and_builds() -> None:
    done = subprocess.run(["make", "docs"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "docs: build/site/index.html" in done.stdout and (ROOT / "build/site/llms.txt").is_file()
