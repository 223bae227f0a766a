# SPDX-License-Identifier: Apache-2.0
"""A node's tables have all that its help prints; executables answer --help, --version and unknown arguments."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import replace
from importlib.metadata import version
from types import SimpleNamespace

import pytest
from rcl_interfaces import msg as messages

from qwen_vla_control.node_interface import Endpoint, NodeInterface, Parameter, answer_options

STRING, IMAGE = "std_msgs/msg/String", type("Image", (), {"__module__": "sensor_msgs.msg._image"})
INTERFACE = NodeInterface(
    package="embodiment_descriptions",
    name="looker",
    docstring="looker: looks through a camera\nand says what is there.\n\nHow it does so is of no interest here.",
    parameters=(
        Parameter("rate", 2.5, "How often it looks [Hz]", 0.1, 30.0),
        Parameter("depth", 5, "Images that may wait", 1, 2**31 - 1, read_only=True),
        Parameter("ghost", True, "Show what it thinks"),
        Parameter("mode", "slow", "How it looks", choices=("slow", "fast")),
        Parameter("topic", "said", "Where it says it", read_only=True),
        Parameter("folder", "", "Where it writes"),
    ),
    publishes=(Endpoint("{topic}", STRING, "What it sees"),),
    subscribes=(Endpoint("<cameras>", (IMAGE, "sensor_msgs/msg/CompressedImage"), "What it looks at"),),
    managed=True,
    example="-p rate:=1.0",
)


def test_the_help_has_everything_in_lines_that_fit():
    lines = INTERFACE.help(72).splitlines()
    assert max(map(len, lines[1:])) <= 72
    text = " ".join(" ".join(lines).split())
    assert "Looks through a camera and says what is there." in text and "of no interest" not in text
    assert "ros2 run embodiment_descriptions looker --ros-args -p rate:=1.0" in text
    assert "ros2 lifecycle set /looker configure" in text
    assert "rate (double, default 2.5, 0.1 to 30) How often it looks [Hz]" in text
    assert "depth (integer, default 5, 1 to 2147483647, only at start) Images that may wait" in text
    assert "ghost (bool, default true) Show what it thinks" in text
    assert "mode (string, default slow, one of: slow, fast) How it looks" in text
    assert "folder (string, default '') Where it writes" in text
    assert "publishes: said (parameter topic) std_msgs/msg/String What it sees" in text
    assert "<cameras> sensor_msgs/msg/Image or sensor_msgs/msg/CompressedImage What it looks at" in text
    assert "offers services" not in text


@pytest.mark.parametrize("named", ["looker: ", "`ros2 run embodiment_descriptions looker`: ", ""])
def test_what_a_node_does_is_told_without_its_name(named):
    looker = replace(INTERFACE, docstring=f"{named}looks around.\n\nSlowly.")
    assert looker.summary == "Looks around."


def test_a_name_may_be_that_of_a_parameter():
    (topic,) = INTERFACE.publishes
    assert topic.name_for(SimpleNamespace(topic="elsewhere")) == "elsewhere"


def test_a_value_that_is_not_a_choice_is_refused():
    mode = next(row for row in INTERFACE.parameters if row.name == "mode")
    assert mode.refusal("fast") == "" and "mode 'green' is not one of: slow, fast" in mode.refusal("green")


def test_a_text_without_end_is_refused():
    topic = next(row for row in INTERFACE.parameters if row.name == "topic")
    assert topic.refusal("x" * 4096) == "" and topic.refusal(0) == ""
    assert topic.refusal("x" * 4097) == "topic has 4097 characters (limit 4096)"


@pytest.mark.parametrize("words", [["--help"], ["-h"], ["--ros-args", "-p", "rate:=1.0", "--", "--help"]])
def test_help_ends_the_program(words, capsys):
    with pytest.raises(SystemExit) as end:
        answer_options(INTERFACE, words)
    assert end.value.code == 0 and capsys.readouterr().out.startswith("usage: looker ")


def test_the_version_is_that_of_the_package(capsys):
    with pytest.raises(SystemExit) as end:
        answer_options(INTERFACE, ["--version"])
    assert end.value.code == 0 and capsys.readouterr().out == f"looker {version(INTERFACE.package)}\n"


def test_unknown_arguments_are_refused(capsys):
    with pytest.raises(SystemExit) as end:
        answer_options(INTERFACE, ["rate:=1.0"])
    assert end.value.code == 2 and "'rate:=1.0'" in (said := capsys.readouterr().err) and "--ros-args -p" in said


@pytest.mark.parametrize("words", [[], ["--ros-args", "-p", "rate:=1.0", "-r", "__ns:=/x"], ["--ros-args", "--help"]])
def test_what_is_for_ros_is_left_to_ros(words):
    answer_options(INTERFACE, words)


def test_without_words_those_of_the_program_are_looked_at(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["looker", "--version"])
    with pytest.raises(SystemExit) as end:
        answer_options(INTERFACE)
    assert end.value.code == 0 and "looker" in capsys.readouterr().out
    monkeypatch.setattr("sys.argv", ["looker"])
    answer_options(INTERFACE)  # its own name is no word that means nothing


def test_help_is_a_hundred_characters_wide_unless_told_otherwise():
    assert INTERFACE.help() == INTERFACE.help(100)


@pytest.mark.parametrize(("columns", "width"), [(20, 60), (75, 75), (999, 100)])
def test_help_is_as_wide_as_the_terminal_but_can_be_read(monkeypatch, capsys, columns, width):
    monkeypatch.setattr(shutil, "get_terminal_size", lambda: os.terminal_size((columns, 24)))
    with pytest.raises(SystemExit):
        answer_options(INTERFACE, ["--help"])
    assert capsys.readouterr().out == INTERFACE.help(width) + "\n"


def test_a_reader_that_has_seen_enough_makes_no_noise():
    code = "from qwen_vla_control import node_interface as n\nn._print('x' * 100)\nprint('again')"
    program = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    program.stdout.close()
    assert program.stderr.read() == b"" and program.wait(60) == 0


# What a parameter tells ROS -------------------------------------------------------------------------------------------


def descriptor(name: str):
    return next(row for row in INTERFACE.parameters if row.name == name).descriptor(messages)


def test_the_range_of_a_number_is_of_its_type():
    (floating,), (integer,) = descriptor("rate").floating_point_range, descriptor("depth").integer_range
    assert (floating.from_value, floating.to_value) == (0.1, 30.0)
    assert (integer.from_value, integer.to_value) == (1, 2**31 - 1)
    assert not descriptor("rate").integer_range and not descriptor("depth").floating_point_range


@pytest.mark.parametrize(("low", "high"), [(None, 3), (1, None), (None, None)])
def test_half_a_range_is_none(low, high):
    for default in (2, 2.0):
        found = Parameter("count", default, "How many", low, high).descriptor(messages)
        assert not found.integer_range and not found.floating_point_range


def test_a_parameter_says_what_it_is_for_which_values_it_may_have_and_when_it_is_set():
    rate, depth, mode = (descriptor(name) for name in ("rate", "depth", "mode"))
    assert (rate.description, rate.read_only, depth.read_only) == ("How often it looks [Hz]", False, True)
    assert (rate.additional_constraints, mode.additional_constraints) == ("", "one of: slow, fast")


def test_whole_numbers_are_ranges_of_floating_point_parameters_too():
    (limits,) = Parameter("rate", 2.5, "How often", 1, 30).descriptor(messages).floating_point_range
    assert (limits.from_value, limits.to_value) == (1.0, 30.0)
