# SPDX-License-Identifier: Apache-2.0
"""The `qwen-vla` command: every help text has an example, and errors are one line."""

import json
import re
import shlex
import socket
import subprocess
import sys
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path

import pytest
import tyro

from embodiment_descriptions import load_robot, resource_path, robot_description
from qwen_vla import cli
from qwen_vla.output_files import write_json

COMMANDS = tuple(cli._commands())  # those of other packages, too, where they are installed
OPTION = re.compile(r"^[│ ] (-\S.*?|\[?[A-Z]\S*)(?:\s{2,}(\S.*?))?[\s│]*$")  # a line of help that begins an option


def run(monkeypatch, *arguments):
    """Exit code (or message) of `qwen-vla` with these arguments."""
    monkeypatch.setattr(sys, "argv", ["qwen-vla", *map(str, arguments)])
    monkeypatch.delenv("QWEN_VLA_TRACEBACK", raising=False)
    with pytest.raises(SystemExit) as end:
        cli.main()
    return end.value.code


@pytest.mark.parametrize("command", COMMANDS)
def test_help_has_an_example(monkeypatch, capsys, command):
    assert run(monkeypatch, command, "--help") == 0
    assert f"$ qwen-vla {command}" in capsys.readouterr().out


@pytest.mark.parametrize("command", COMMANDS)
def test_help_explains_every_option(monkeypatch, capsys, command):
    run(monkeypatch, command, "--help")
    lines = capsys.readouterr().out.splitlines()
    options = [(match, after) for line, after in pairwise(lines) if (match := OPTION.match(line))]
    texts = {match[1]: match[2] or after.strip("│ ") for match, after in options}
    assert len(texts) > 2
    unexplained = [option for option, text in texts.items() if not text or text.startswith("(")]
    assert not unexplained


@pytest.mark.parametrize("command", COMMANDS)
def test_help_speaks_plainly(monkeypatch, capsys, command):
    """No internals of the library, and no empty defaults."""
    run(monkeypatch, command, "--help")
    text = capsys.readouterr().out
    assert not re.findall(r"\bSTR\b|None|default: (?:False|''|inf)?\)|, --no-(?!video|pictures)", text)


@pytest.mark.parametrize("command", COMMANDS)
def test_examples_are_commands_that_can_be_typed(command):
    """Parses every example of a help text; running them is for the other tests."""
    own = cli._commands()[command]
    examples = [line.partition("$ qwen-vla ")[2] for line in own.__doc__.splitlines() if "$ qwen-vla " in line]
    assert examples
    for example in examples:
        words = shlex.split(example, comments=True)
        assert words[0] == command
        tyro.cli(own, args=words[1:])


def test_the_version_is_told(monkeypatch, capsys):
    assert run(monkeypatch, "--version") == 0
    assert capsys.readouterr().out == f"qwen-vla {version('qwen_vla')}\n"
    said = subprocess.run([sys.executable, "-m", "qwen_vla", "--version"], capture_output=True, text=True, check=True)
    assert said.stdout == f"qwen-vla {version('qwen_vla')}\n"


def test_the_list_of_commands_is_short(monkeypatch, capsys):
    assert run(monkeypatch, "--help") == 0
    text = capsys.readouterr().out
    assert all(command in text for command in COMMANDS)
    assert "$ qwen-vla" not in text and len(text.splitlines()) < 36


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["describe", "robbie"], "unknown robot 'robbie'; known robots: .*widowx"),
        (["describe", "robbie.urdf"], "robbie.urdf: no such URDF"),
        (
            ["describe", "robbie.yaml"],
            r"robbie\.yaml: no such embodiment YAML .*: aloha",
        ),
        (["describe", "folder.urdf"], "cannot read folder.urdf: Is a directory"),
        (["describe", "folder"], "folder is not the path of an embodiment YAML; known robots: .*; for your own robot"),
        (["describe", "folder.yaml"], "folder.yaml is a folder; give the path of the embodiment YAML in it"),
        (["describe", "widowx", "--config", "mine.yaml"], "--config requires the path of a URDF"),
        (["collect", "chess", "--out", "nowhere"], "unknown suite 'chess'; installed: .*widowx_pick"),
        (["collect", "my/recipe.yaml", "--out", "nowhere"], "--out does not apply to a recipe"),
        (
            ["collect", "motions", "--out", "nowhere", "--robot", "arm.yaml"],
            r"arm\.yaml: no such",
        ),
        (["collect", "motions", "--out", "nowhere", "--task", "stack_cube"], "--task does not apply to motions"),
        (["collect", "widowx_pick", "--out", "nowhere", "--rate-hz", "5"], "--rate-hz does not apply to a suite"),
        (["collect", "widowx_pick"], "--out is missing; name the folder of the dataset"),
        (
            ["collect", "widowx_pick", "--out", "new", "--takeover-from", "nowhere"],
            r"no checkpoint directory at nowhere \(relative to .*\); check the path",
        ),
        (["report", "folder.yaml"], "folder.yaml is a folder, not a file; give a result of `qwen-vla evaluate --json`"),
        (["collect", "mine.yaml"], "mine.yaml: no such recipe; see config/training/"),
        (["collect", "mine.yaml", "--episodes", "5"], "--episodes does not apply to a recipe"),
        (["train", "mine.yaml"], "mine.yaml: no such recipe; see config/training/"),
        (["evaluate", "chess", "--policy", "nowhere"], "unknown suite 'chess'; installed: .*widowx_pick"),
        (
            ["evaluate", "arm.yaml"],
            r"arm\.yaml is a robot of your own, .* simulator; .* ros2 launch",
        ),
        (["evaluate", "widowx", "--prompt-of", "arm.yaml"], r"arm\.yaml: no such"),
        (["evaluate", "widowx_pick", "--policy", "nowhere"], "no checkpoint directory at nowhere"),
        (["evaluate", "widowx_pick", "--policy", "nowhere", "--workers", "0"], "workers must be at least 1"),
        (["serve", "--robot", "widowx", "--host", "nohost.invalid"], r"cannot listen on nohost\.invalid:8000: "),
        (["serve", "--robot", "widowx", "--port", "8123", "--groot-port", "8123"], "port 8123 is given for two"),
        (["serve", "--robot", "widowx", "--camera-names", "=ego"], "--camera-names must be NAME=TAG, .* got '=ego'"),
        (["serve", "--robot", "widowx", "--port", "0", "--device", "abacus"], "device 'abacus' is unknown; choose cpu"),
        (["benchmark", "--device", "abacus"], "device 'abacus' is unknown; choose cpu"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(monkeypatch, tmp_path, arguments, message):
    folders = [tmp_path / name for name in ("folder", "folder.urdf", "folder.yaml")]
    for folder in folders:
        folder.mkdir()
    monkeypatch.chdir(tmp_path)
    code = run(monkeypatch, *arguments)
    assert isinstance(code, str) and "\n" not in code  # sys.exit prints it and exits with 1
    assert re.match(f"qwen-vla: {message}", code), code
    assert sorted(tmp_path.iterdir()) == folders, "nothing was begun"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["serve", "--robot", "widowx", "--port", "99999"], "--port 99999: it must be 0 to 65535"),
        (["serve", "--robot", "widowx", "--groot-port", "-1"], "--groot-port -1: it must be 0 to 65535"),
        (["serve", "--robot", "widowx", "--clients", "0"], "--clients 0: it must be at least 1"),
        (["serve", "--robot", "widowx", "--frame-mb", "nan"], "--frame-mb nan: it must be 0.01 to 4096"),
        (["train", "mine.yaml", "--batch-size", "-1"], "--batch-size -1: it must be at least 1"),
        (["train", "mine.yaml", "--max-steps", "0"], "--max-steps 0: it must be at least 1"),
        (["collect", "widowx_pick", "--out", "o", "--episodes", "0"], "--episodes 0: it must be at least 1"),
        (["collect", "motions", "--out", "o", "--episodes", "0"], "--episodes 0: it must be at least 1"),
        (["collect", "motions", "--out", "o", "--seed", "-5"], "--seed -5: it must be at least 0"),
        (["collect", "mine.yaml", "--workers", "0"], "--workers 0: it must be at least 1"),
        (["collect", "motions", "--out", "o", "--rate-hz", "-1"], "--rate-hz -1.0: it must be 0.01 to 1000"),
        (["benchmark", "--repeats", "0"], "--repeats 0: it must be at least 1"),
        (["benchmark", "--images", "9"], "--images 9: it must be 0 to 4"),
        (["benchmark", "--runtime", "--seconds", "-1"], "--seconds -1.0: it must be 1 to 86400"),
    ],
)
def test_a_number_outside_the_range_of_its_option_is_refused_before_anything_begins(monkeypatch, arguments, message):
    assert run(monkeypatch, *arguments) == f"qwen-vla: {message}"


def test_serve_tells_that_its_port_is_taken_before_it_loads_a_model(monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        code = run(monkeypatch, "serve", "--robot", "widowx", "--policy", "nowhere", "--port", port)
    assert code == f"qwen-vla: cannot listen on 127.0.0.1:{port}: Address already in use; choose another host or port"


RECIPE = """
stage: sft
name: mine
output: {output}
data: [{{kind: motions, robots: [widowx], count: 10}}]
steps: 1
freeze: [backbone]
losses: {{language: 0}}
optimizer: {{expert_lr: 1.0e-3}}
"""


@pytest.fixture
def thesis(monkeypatch, tmp_path):
    """A file of the user's in `mine/model`, below the working folder."""
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "mine/model/thesis.txt"
    file.parent.mkdir(parents=True)
    file.write_text("years of work")
    return file


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["collect", "widowx_pick", "--out", "mine"], "mine is not empty and was not made by collect"),
        (["collect", "motions", "--out", "mine"], "mine is not empty and was not made by collect"),
        (["convert", "bags", "--out", "mine"], "mine is not empty and was not made by convert"),
        (["train", "recipe.yaml"], "mine is not empty and was not made by train"),
        (["evaluate", "widowx_pick", "--json", "mine/model/thesis.txt"], "mine/model/thesis.txt was not made by "),
        (["evaluate", "widowx_pick", "--markdown", "mine/model/thesis.txt"], "mine/model/thesis.txt was not made by "),
        (["evaluate", "widowx_pick", "--sheet", "mine/model/thesis.txt"], "mine/model/thesis.txt was not made by "),
        (["evaluate", "widowx_pick", "--videos", "."], r"\. is the working folder; choose a new folder"),
        (["evaluate", "widowx_pick", "--videos", "mine"], "mine is not empty and was not made by qwen-vla evaluate"),
        (["evaluate", "widowx_pick", "--json", "e", "--sheet", "e"], "--json and --sheet are the same file, e"),
        (["report", "e.json", "--out", "mine/model/thesis.txt"], "mine/model/thesis.txt was not made by "),
        (["report", "e.json", "--markdown", "mine"], "mine is a folder; name a file"),
        (["benchmark", "--json", "mine/model/thesis.txt"], "mine/model/thesis.txt was not made by qwen-vla benchmark"),
        (["collect", "widowx_pick", "--out=/etc/data"], "/etc/data is in a system folder"),
        (["collect", "widowx_pick", "--out=~"], r"\S+ is the home folder"),
    ],
)
def test_nothing_of_the_users_is_written_over(monkeypatch, thesis, arguments, message):
    Path("recipe.yaml").write_text(RECIPE.format(output="mine"))
    code = run(monkeypatch, *arguments)
    assert re.match(f"qwen-vla: {message}", str(code)), code
    assert "\n" not in code and thesis.read_text() == "years of work"
    assert sorted(path.name for path in Path().iterdir()) == ["mine", "recipe.yaml"], "nothing was begun"


def test_a_tilde_that_the_shell_left_means_the_home_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    assert cli._with_home(cli.Collect("motions", Path("~/data"))).out == tmp_path / "home/data"
    report = cli._with_home(cli.Report((Path("~/e.json"), Path("f.json"))))
    assert report.files == (tmp_path / "home/e.json", Path("f.json"))


def test_a_result_is_replaced_by_the_same_command_or_when_told_to(monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    quick = ["benchmark", "--repeats", "1", "--json", "speed.json"]
    write_json(Path("speed.json"), {"generator": "qwen-vla benchmark"})
    assert run(monkeypatch, *quick) == 0
    Path("speed.json").write_text("mine")
    assert "--overwrite" in run(monkeypatch, *quick)
    assert run(monkeypatch, *quick, "--overwrite") == 0
    assert json.loads(Path("speed.json").read_text())["generator"] == "qwen-vla benchmark"


def test_a_recipe_without_its_data_names_the_folder_and_the_way_out(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    code = run(monkeypatch, "train", resource_path("config/training/joint_grounding.yaml"))
    assert (
        "there is no data in out/data/joint/widowx_snapshots" in code and "qwen-vla collect, given the recipe" in code
    )
    assert not list(tmp_path.iterdir())


def test_errors_reach_the_shell_as_exit_code_1_without_traceback(tmp_path):
    command = [sys.executable, "-m", "qwen_vla", "train", "mine.yaml"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("qwen-vla: mine.yaml: no such recipe; ") and done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], r"Expected one of \{describe, .*view\}; .* qwen-vla --help"),
        (["trian", "mine.yaml"], "unknown command 'trian'; did you mean train\\? All commands: describe, collect, .*"),
        (["--versoin"], "Unrecognized options: --versoin; .*"),
        (["describe"], "Missing from qwen-vla describe: ROBOT Name of a robot .* qwen-vla describe --help"),
        (
            ["describe", "widowx", "--hardware", "toy"],
            "invalid choice 'toy' for argument '--hardware'. Expected .*'mock'.*",
        ),
        (
            ["collect", "widowx", "--oot", "data"],
            "Unrecognized options: --oot, data; .* --out PATH Folder of the dataset.*",
        ),
        (["collect", "widowx", "--out"], "Missing value for argument '--out'.* qwen-vla collect --help"),
        (["collect", "widowx", "--seed", "1.5"], "Error parsing --seed: .*'1.5'; .* --seed INT Seed of the first .*"),
        (
            ["report", "--train-logs"],
            "--train-logs is given without a value; add one or more after it, or omit the option",
        ),
        (["report", "--train-logs", "--overwrite"], "--train-logs is given without a value; .*"),
    ],
)
def test_a_wrong_command_line_is_told_in_one_line_with_exit_code_2(monkeypatch, capsys, arguments, message):
    assert run(monkeypatch, *arguments) == 2
    said = capsys.readouterr()
    assert re.fullmatch(f"qwen-vla: {message}\n", said.err) and not said.out


def test_only_options_of_the_same_command_are_suggested(monkeypatch, capsys):
    assert run(monkeypatch, "collect", "widowx", "--port", "8000") == 2
    assert "openpi" not in capsys.readouterr().err


def test_a_traceback_can_be_asked_for(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["qwen-vla", "train", "mine.yaml"])
    monkeypatch.setenv("QWEN_VLA_TRACEBACK", "1")
    with pytest.raises(ValueError, match="no such recipe"):
        cli.main()


def test_describe_prints_the_exact_prompt(monkeypatch, capsys):
    assert run(monkeypatch, "describe", "widowx", "--instruction", "open the drawer") == 0
    lines = capsys.readouterr().out.splitlines()
    assert load_robot("widowx").prompt("open the drawer") in lines
    assert any("waist" in line and "base_link" not in line for line in lines)


def test_describe_shows_the_interfaces_of_the_chosen_hardware(monkeypatch, capsys):
    assert run(monkeypatch, "describe", "aloha") == 0
    simulated = capsys.readouterr().out
    assert run(monkeypatch, "describe", "aloha", "--hardware", "real") == 0
    real = capsys.readouterr().out
    assert "joint_trajectory" in simulated and "xs_group" not in simulated
    assert "xs_group" in real and "open 0.0579" in real and "joint_trajectory" not in real


def test_describe_takes_the_path_of_a_urdf(monkeypatch, capsys, tmp_path):
    urdf = tmp_path / "my_arm.urdf"
    urdf.write_text(robot_description("widowx"))
    assert run(monkeypatch, "describe", urdf) == 0
    assert "this was guessed from the URDF" in capsys.readouterr().out
    assert run(monkeypatch, "describe", urdf, "--config", resource_path("config/embodiments/widowx.yaml")) == 0
    described = capsys.readouterr().out
    assert run(monkeypatch, "describe", "widowx") == 0
    assert capsys.readouterr().out == described


def test_describe_expands_a_xacro_with_arguments(monkeypatch, capsys, tmp_path):
    xacro = tmp_path / "my_arm.urdf.xacro"
    xacro.write_text(
        """<robot name="my_arm" xmlns:xacro="http://ros.org/wiki/xacro">
        <xacro:arg name="side" default="left"/>
        <link name="base"/><link name="upper"/>
        <joint name="$(arg side)_turn" type="revolute">
        <parent link="base"/><child link="upper"/><limit lower="-1" upper="1" velocity="1"/></joint></robot>"""
    )
    assert run(monkeypatch, "describe", xacro) == 0
    assert "left_turn" in capsys.readouterr().out
    assert run(monkeypatch, "describe", xacro, "--arguments", "side:=right") == 0
    assert "right_turn" in capsys.readouterr().out
    assert "name:=value" in run(monkeypatch, "describe", xacro, "--arguments", "side")
    wrong = run(monkeypatch, "describe", xacro, "--arguments", "sied:=right")
    assert wrong == f"qwen-vla: {xacro} takes no argument 'sied'; it takes: side"


def test_describe_writes_its_guess_as_a_yaml_beside_the_urdf(monkeypatch, capsys, tmp_path):
    urdf, written = tmp_path / "my_arm.urdf", tmp_path / "my_arm.yaml"
    urdf.write_text(robot_description("widowx"))
    assert run(monkeypatch, "describe", urdf, "--write", written) == 0
    guessed = capsys.readouterr().out
    assert run(monkeypatch, "describe", written) == 0
    described = capsys.readouterr().out
    assert described == re.sub(r"no YAML was given.*?\n\n", "", guessed, flags=re.DOTALL)
    assert "already exists" in run(monkeypatch, "describe", urdf, "--write", written)
    assert "--write is for a URDF without a YAML" in run(
        monkeypatch, "describe", "widowx", "--write", tmp_path / "a.yaml"
    )
    assert not (tmp_path / "a.yaml").exists()


def test_describe_names_what_is_wrong_with_a_urdf(monkeypatch, tmp_path):
    urdf = tmp_path / "broken.urdf"
    urdf.write_text("<robot name='half'><link name='a'>")
    code = run(monkeypatch, "describe", urdf)
    assert isinstance(code, str) and code.startswith("qwen-vla: ")


def test_a_pipe_that_is_closed_early_is_no_error():
    command = subprocess.Popen(
        [sys.executable, "-m", "qwen_vla", "describe", "widowx"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    command.stdout.close()
    assert (command.stderr.read(), command.wait()) == (b"", 0)
