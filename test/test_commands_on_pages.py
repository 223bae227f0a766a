# SPDX-License-Identifier: Apache-2.0
"""Every command on a page can be typed as it stands there: it is run, or it is read by what would run it.

Commands are the lines of code blocks that begin with a known program, and code in a sentence that begins with
`qwen-vla`, `make` or `ros2 launch`. Those of `RUN` are run here, the pages of `RUN_BY` by another test. All others are
parsed by the real parser, or compared with the real names, and `NOT_RUN` says why they are not run.
"""

import ast
import importlib
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path

import pytest
import yaml
from markdown_it import MarkdownIt
from markdown_it.token import Token

from qwen_vla import cli

ROOT = Path(__file__).resolve().parents[1]
PAGES = [*sorted((ROOT / "docs").rglob("*.md")), ROOT / "benchmarks/README.md"]
PAGES += [ROOT / f"{name}.md" for name in ("README", "CONTRIBUTING", "CHANGELOG", "SECURITY")]
GENERATED = {"docs/reference/commands.md"}  # from the same parser; its examples are commands like any other
FOLDERS = (
    "benchmarks",
    "checkpoints",
    "config",
    "docker",
    "docs",
    "examples",
    "integrations",
    "scripts",
    "src",
    "test",
)
PROMPT = re.compile(r"^\w*\$ +")  # which machine, or only a shell
VARIABLE = re.compile(r"\w+=\S*")

RUN = [  # each is complete in itself, and takes seconds
    ".venv/bin/qwen-vla describe widowx",
    ".venv/bin/qwen-vla doctor --robot widowx --policy mock://hold --offline",
    ".venv/bin/python examples/infer_one_image.py",
    ".venv/bin/python examples/gate_a_chunk.py",
]
RUN_SLOWLY = [".venv/bin/qwen-vla evaluate widowx --episodes 4 --seed 9000 --sheet out/sheet.png"]
RUN_BY = {
    "docs/results.md": "test/test_measure_results.py",
    "docs/how-to/add_a_command_interface.md": "test/test_add_a_command_interface_graph.py",
    "docs/how-to/add_a_policy.md": "test/test_add_a_policy_graph.py",
    "docs/how-to/add_a_task.md": "test/test_add_a_task.py",
    "docs/how-to/add_an_episode_source.md": "test/test_add_an_episode_source.py",
    "docs/how-to/describe_a_robot.md": "test/test_add_an_arm.py",
    "docs/tutorial/your_own_robot.md": "test/test_your_own_robot.py",
}
NOT_RUN = {  # by program, or program and first argument
    "accelerate": "needs eight processes; two are run by src/qwen_vla/test/training/test_trainer.py",
    "colcon": "make setup runs it",
    "cp": "prepares what other lines use",
    "episode_recorder": "a node runs until it is stopped; the tutorial's is run by test/test_your_own_robot.py",
    "executor_node": "as episode_recorder",
    "policy_node": "as episode_recorder",
    "docker": "there is no Docker daemon where the tests run",
    "export": "sets a variable of the reader's shell",
    "git": "belongs to the reader's checkout",
    "make": "takes minutes to hours; what the target calls has tests of its own",
    "mkdir": "prepares what other lines use",
    "pip": "installs from the network",
    "pre-commit": "installs from the network",
    "python": "measures, needs the reader's files, or another environment",
    "ray": "starts daemons; test/test_cluster.py runs nodes",
    "sbatch": "there is no SLURM where the tests run",
    "qwen-vla": "takes minutes, needs the reader's files, or a running graph",
    "ros2": "its command line is not in the wheels; nodes, launch files and interfaces have tests of their own",
    "scripts/lerobot_venv.sh": "installs from the network",
    "sudo": "changes the reader's machine",
    "torchrun": "as accelerate, which starts the same program",
}


@dataclass(frozen=True)
class Command:
    """A command line on a page; `inline` ones stand in a sentence and may be cut short."""

    page: str
    line: int
    text: str
    inline: bool = False

    @property
    def words(self) -> list[str]:
        """Without comment, assignments before the program, and the marks of optional parts."""
        text = re.sub(r"\[(--[^\]]*)\]", r"\1", self.text).replace(" …", "").removesuffix(" &")
        words = shlex.split(text, comments=True)
        while words and VARIABLE.fullmatch(words[0]):
            words.pop(0)
        return words

    @property
    def program(self) -> str:
        return self.words[0].removeprefix(".venv/bin/")

    def __str__(self) -> str:
        return f"{self.page}:{self.line}: {self.text}"


def tokens(found: list[Token], line: int = 0) -> Iterator[tuple[int, Token]]:
    """All tokens below, each with the line in which its block begins."""
    for token in found:
        here = token.map[0] + 1 if token.map else line
        yield here, token
        yield from tokens(token.children or [], here)


def commands_of(page: Path) -> Iterator[Command]:
    name = page.relative_to(ROOT).as_posix()
    for line, token in tokens(MarkdownIt("commonmark").enable("table").parse(page.read_text(encoding="utf-8"))):
        if token.type in ("code_block", "fence") and token.info in ("", "sh", "bash"):
            for text in token.content.replace("\\\n", " ").splitlines():
                for part in re.split(r" && | ; ", PROMPT.sub("", text.strip())):
                    part = part.removeprefix("uv run ")
                    command = Command(name, line, part)
                    if is_command(part):
                        yield command
        elif token.type == "code_inline" and re.match(
            r"(\.venv/bin/)?(qwen-vla|make|ros2 launch) [a-z]", token.content
        ):
            yield Command(name, line, token.content, inline=True)


def is_command(text: str) -> bool:
    words = [word for word in text.split() if not VARIABLE.fullmatch(word)]
    return bool(words) and words[0].removeprefix(".venv/bin/") in NOT_RUN


COMMANDS = [command for page in PAGES for command in commands_of(page)]


def of(*programs: str, inline: bool = False) -> list:
    chosen = [command for command in COMMANDS if command.program in programs and command.inline == inline]
    return [pytest.param(command, id=str(command)) for command in chosen]


def parse(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Read the arguments of `qwen-vla`, as the command does."""
    monkeypatch.setattr(sys, "argv", ["qwen-vla", *words])
    try:
        cli.parse(words)
    except SystemExit as end:
        assert end.code in (0, None), "qwen-vla does not take these arguments"


def test_there_are_commands_of_every_kind_on_the_pages() -> None:
    assert len(COMMANDS) > 150 and len({command.page for command in COMMANDS}) > 20
    assert NOT_RUN.keys() >= {command.program for command in COMMANDS}
    assert {command.program for command in COMMANDS} >= {"qwen-vla", "make", "ros2", "python", "docker"}


def test_what_is_run_is_on_a_page() -> None:
    texts = {shlex.join(command.words) for command in COMMANDS}
    assert set(RUN + RUN_SLOWLY) <= texts
    assert all((ROOT / page).is_file() and (ROOT / test).is_file() for page, test in RUN_BY.items())
    named = re.findall(r"src/\S+\.py", " ".join(NOT_RUN.values()))
    assert named and all((ROOT / name).is_file() for name in named)
    assert all(page.rsplit("/", 1)[-1] in (ROOT / test).read_text() for page, test in RUN_BY.items())


def test_a_command_that_is_wrong_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(AssertionError, match="does not take"):
        parse(["evaluate", "widowx", "--episode", "4"], monkeypatch)
    with pytest.raises(AssertionError):
        check_launch("qwen_vla_ros", "widowx.launch.py", "hardwear:=mock")
    with pytest.raises(AssertionError):
        check_run("qwen_vla_ros", "executor_node", "--ros-args", "-p", "blend:=asynchronous")
    with pytest.raises(AssertionError):
        check_call("service", "/episode_recorder/start", "qwen_vla_msgs/srv/StartEpisode", "{sentence: go}")


@pytest.mark.parametrize("command", [pytest.param(c, id=str(c)) for c in COMMANDS if not c.inline])
def test_files_of_this_repository_that_it_names_exist(command: Command) -> None:
    given = [re.split(":=|,", part)[-1] for part in command.words[1:]]
    named = [word for word in given if "/" in word and word.split("/")[0] in FOLDERS]
    assert [word for word in named if not (ROOT / word).exists()] == []


@pytest.mark.parametrize("command", of("qwen-vla"))
def test_the_parser_takes_it(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    parse(command.words[1:], monkeypatch)


@pytest.mark.parametrize("command", of("torchrun", "accelerate"))
def test_the_parser_takes_what_several_processes_run(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    parse(command.words[command.words.index("qwen_vla") + 1 :], monkeypatch)


@pytest.mark.parametrize("command", of("qwen-vla", inline=True))
def test_command_and_options_in_a_sentence_exist(command: Command) -> None:
    name, *words = command.words[1:]
    kind = cli._commands()[name]
    own = {field.replace("_", "-") for field in kind.__dataclass_fields__} | {"help", "policy"}
    assert [word for word in words if word.startswith("--") and word.split("=")[0].removeprefix("--") not in own] == []


@pytest.mark.parametrize("command", [*of("make"), *of("make", inline=True)])
def test_the_makefile_has_the_target(command: Command) -> None:
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    targets = [*targets, "help"]
    wanted = [word for word in command.words[1:] if "=" not in word and not word.startswith("-") and word.islower()]
    assert wanted and set(wanted[:1]) <= set(targets)


@pytest.mark.parametrize("command", of("python"))
def test_the_program_exists(command: Command) -> None:
    program = command.words[1]
    if program == "-c":
        ast.parse(command.words[2])
    elif program == "-m":
        assert importlib.util.find_spec(command.words[2])
    else:
        assert program.startswith(("my_robot/", "gr00t/")) or (ROOT / program).is_file()


# ROS ------------------------------------------------------------------------------------------------------------------


def launch_arguments() -> set[str]:
    sources = [*(ROOT / "launch").glob("*.py"), *(ROOT / "src/qwen_vla_ros/qwen_vla_ros/bringup").glob("*.py")]
    found = [re.findall(r"DeclareLaunchArgument\(\s*\"(\w+)\"", source.read_text()) for source in sources]
    return {name for names in found for name in names}


def check_launch(package: str, file: str, *arguments: str) -> None:
    assert package == "qwen_vla_ros" and ((ROOT / "launch" / file).is_file() or "<" in file)
    given = {word.split(":=")[0] for word in arguments if ":=" in word}
    assert given <= launch_arguments()


def check_run(package: str, program: str, *arguments: str) -> None:
    programs = {entry.name: entry for entry in entry_points(group="console_scripts") if entry.dist.name == package}
    assert program in programs
    page = (ROOT / "docs/reference/nodes.md").read_text().split(f"## {program}\n")[1].split("\n## ")[0]
    given = {word.split(":=")[0] for word in arguments if ":=" in word}
    assert [name for name in given if f"| `{name}` |" not in page and name != "use_sim_time"] == []


def check_call(action: str, name: str, kind: str, *rest: str) -> None:
    package, folder, type_name = kind.split("/")
    interface = getattr(importlib.import_module(f"{package}.{folder}"), type_name)
    request = {"action": "Goal", "service": "Request", "topic": None}[action]
    fields = (getattr(interface, request) if request else interface).get_fields_and_field_types()
    given = yaml.safe_load(rest[0]) if rest and rest[0].startswith("{") else {}
    assert given.keys() <= fields.keys()


@pytest.mark.parametrize("command", [*of("ros2"), *of("ros2", inline=True)])
def test_what_ros2_is_asked_for_exists(command: Command) -> None:
    verb, *words = [word for word in command.words[1:] if word not in ("--once", "-s", "mcap")]
    if verb == "launch":
        check_launch(*words)
    elif verb == "run":
        check_run(*words)
    elif verb in ("service", "action") and words[0] in ("call", "send_goal"):
        check_call(verb, *words[1:])
    elif verb == "topic" and words[0] == "pub":
        check_call(verb, *words[1:])
    else:
        assert (verb, words[0]) in {
            ("topic", "echo"),
            ("bag", "record"),
            ("lifecycle", "set"),
            ("security", "create_keystore"),
            ("security", "create_enclave"),
            ("security", "create_permission"),
        }, "teach this test the verb"


@pytest.mark.parametrize("command", of("executor_node", "episode_recorder", "policy_node"))
def test_the_node_has_the_parameters(command: Command) -> None:
    check_run("qwen_vla_ros", *command.words)


@pytest.mark.parametrize("command", of("docker"))
def test_docker_compose_has_the_profile(command: Command) -> None:
    words = command.words
    if words[1] == "compose":
        text = (ROOT / words[words.index("-f") + 1]).read_text()
        profiles = {
            name for service in yaml.safe_load(text)["services"].values() for name in service.get("profiles", ())
        }
        assert words[words.index("--profile") + 1] in profiles


# Run ------------------------------------------------------------------------------------------------------------------


def run(command: str) -> None:
    words = shlex.split(command)
    words[0] = str(Path(sys.executable).parent / Path(words[0]).name)
    done = subprocess.run(words, cwd=ROOT, env=os.environ, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()


@pytest.mark.parametrize("command", RUN)
def test_it_runs(command: str) -> None:
    run(command)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("command", RUN_SLOWLY)
def test_it_runs_in_minutes(command: str) -> None:
    run(command)
