# SPDX-License-Identifier: Apache-2.0
"""What is generated from the code is up to date, and the generator reads docstrings correctly."""

import dataclasses
import re
import sys
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).resolve().parent.parent / "scripts"


@pytest.fixture(scope="module")
def generator():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(SCRIPTS))
        import generate_docs

        yield generate_docs


def test_pages_are_up_to_date(generator):
    stale = [str(path) for path, text in generator.pages() if path.read_text() != text]
    assert not stale, "run scripts/generate_docs.py"


def test_every_field_of_a_model_is_listed(generator):
    from qwen_vla import QwenVLAConfig

    page = generator.CONFIGURATION.read_text()
    names = [f.name for f in dataclasses.fields(QwenVLAConfig) if f.name in QwenVLAConfig.__annotations__]
    assert len(names) > 10
    assert all(f"| `{name}` |" in page for name in names)
    assert all(f"## {name}" in page for name in ("Recipe", "RobotData", "Losses", "Optimizer"))
    robots = generator.EMBODIMENT.read_text()
    assert all(f"## {name}" in robots for name in ("Arm", "XsSingleCommand", "Nav2PoseCommand", "BaseLimits"))


def test_every_program_is_on_the_page_of_the_nodes(generator):
    page = generator.NODES.read_text()
    assert page.count("\n## ") == 7
    assert "| `heartbeat_timeout` | double | `0.4` |" in page and "`qwen_vla_msgs/action/ExecuteInstruction`" in page
    assert "<" not in re.sub(r"`[^`]*`|<>", "", page)


def test_every_command_is_listed_with_its_options(generator):
    page = generator.COMMANDS.read_text()
    commands = re.findall(r"^## qwen-vla (\S+)$", page, re.MULTILINE)
    assert {"describe", "train", "evaluate", "serve", "demo", "doctor", "view"} <= set(commands)
    assert page.count("  -h, --help ") == len(commands), "one list of options each"
    assert re.search(r"  --max-steps INT +Stop at this step", page) and "(default: one per core)" in page


def test_every_interface_is_listed(generator):
    page = generator.INTERFACES.read_text()
    files = [
        file for kind in ("msg", "srv", "action") for file in (SCRIPTS.parent / "src/qwen_vla_msgs" / kind).iterdir()
    ]
    assert len(files) > 5 and all(f"/{file.stem}\n" in page for file in files)
    assert "uint16 VELOCITY_LIMIT=8 " in page


def test_meanings_are_found_in_prose(generator):
    docstring = """Summary.

    first, second: shared text
        that goes on. third: inside a line, with a colon: kept.

    fourth: alone. Not a field: nothing.
    """
    found = generator.meanings(docstring, ["first", "second", "third", "fourth", "fifth"])
    assert found == {
        "first": "shared text that goes on.",
        "second": "shared text that goes on.",
        "third": "inside a line, with a colon: kept.",
        "fourth": "alone. Not a field: nothing.",
    }


def test_paper_sizes_are_in_the_page(generator):
    text = generator.MODEL.read_text()
    assert "| expert block | 70.78 M |" in text and "| context projection | 3.93 M |" in text


def test_check_mode_names_the_stale_page_and_writes_nothing(tmp_path, generator, monkeypatch, capsys):
    stale = tmp_path / "configuration.md"
    stale.write_text("old")
    monkeypatch.setattr(generator, "ROOT", tmp_path)
    monkeypatch.setattr(generator, "CONFIGURATION", stale)
    monkeypatch.setattr(sys, "argv", ["generate_docs.py", "--check"])
    assert generator.main() == 1 and stale.read_text() == "old"
    assert "configuration.md is out of date" in capsys.readouterr().out
    monkeypatch.setattr(sys, "argv", ["generate_docs.py"])
    assert generator.main() == 0 and stale.read_text() == generator.configuration_page()
