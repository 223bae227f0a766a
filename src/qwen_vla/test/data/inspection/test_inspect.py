# SPDX-License-Identifier: Apache-2.0
"""`qwen-vla inspect` says what is understood of others' data, and exits with 0 only where training would be right."""

import io
import json
import math

import av
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import yaml
from foreign_dataset import FPS, LENGTHS, png, write
from PIL import Image

from embodiment_descriptions import load_robot
from qwen_vla import QwenVLAConfig
from qwen_vla.cli import Inspect
from qwen_vla.data.formats.lerobot import LeRobotReader
from qwen_vla.data.formats.lerobot_meta import Feature
from qwen_vla.data.formats.spec import DataError
from qwen_vla.data.robot.robot_source import RobotData
from qwen_vla.data.samples import SourceContext
from qwen_vla.inspection import inspect

WIDOWX, ALOHA = load_robot("widowx"), load_robot("aloha")
ROWS = sum(LENGTHS)
CONTEXT = SourceContext(QwenVLAConfig.preset("tiny"), 0.34)
WIDE = SourceContext(QwenVLAConfig.from_dict(QwenVLAConfig.preset("tiny").to_dict() | {"horizon": 50}), 0.34)
ALOHA_TAGS = tuple(camera.tag for camera in ALOHA.cameras)


def motion(robot, amplitude=0.2):
    """(24, joints) near home, in the robot's order [rad, m]; every joint moves differently, grippers open and close."""
    home = np.array([robot.home[name] for name in robot.joint_names])
    steps = np.arange(ROWS)[:, None] / 9 + np.arange(len(home))
    values = home + amplitude * np.sin(steps)
    for arm in robot.arms:
        opening = 0.5 + 0.4 * np.sin(np.arange(ROWS) / 4)
        values[:, robot.joint_names.index(arm.gripper.joint)] = arm.gripper.position(opening)
    return values


def both(values, names):
    return {"observation.state": (values, names), "action": (values, names)}


def widowx(root, **options):
    return write(root, both(motion(WIDOWX), list(WIDOWX.joint_names)), **options)


def training(path, context=CONTEXT, **fields):
    return RobotData(kind="robot", path=str(path), **fields).open(context)


def refused(path, *parts, **fields):
    """Inspection finds one of these problems, and training refuses the same."""
    findings = inspect(path, **fields)
    problems = [f"{problem.where}: {problem.what}; {problem.remedy}" for problem in findings.problems]
    assert not findings.ok and any(all(part in problem for part in parts) for problem in problems), problems
    with pytest.raises(DataError) as error:
        training(path)
    assert all(part in str(error.value) for part in parts)
    return findings


def test_a_good_dataset_is_described_and_passes(tmp_path, capsys):
    root = widowx(tmp_path / "set")
    out, picture = tmp_path / "out.json", tmp_path / "out.png"
    assert Inspect(root, row=15, json=out, png=picture).run() == 0
    found = json.loads(out.read_text())
    assert found["ok"] and found["problems"] == [] and found["robot"] == "widowx"
    assert (found["episodes"], found["rows"], found["bad_rows"], found["rate_hz"]) == (2, ROWS, 0, FPS)
    column = next(column for column in found["columns"] if column["column"] == "observation.state")
    assert column["names"] == column["mapped_to"] == list(WIDOWX.joint_names) and column["unit"] == "rad"
    np.testing.assert_allclose(column["min"], motion(WIDOWX).min(axis=0), rtol=1e-5)
    np.testing.assert_allclose(column["max"], motion(WIDOWX).max(axis=0), rtol=1e-5)
    assert column["upper"][1] == pytest.approx(WIDOWX.limits["shoulder"].upper)
    assert [(c["tag"], c["width"], c["height"], c["codec"]) for c in found["cameras"]] == [
        ("ego", 32, 32, "PNG"),
        ("cam_wrist", 32, 32, "PNG"),
    ]
    assert found["instructions"] == [{"text": "lift the cube", "rows": ROWS}]
    sample = found["sample"]
    assert sample["row"] == 15 and sample["instruction"] == "lift the cube"
    assert list(sample["state"].values()) == pytest.approx(list(motion(WIDOWX)[15]), abs=1e-6)
    with Image.open(picture) as image:
        assert image.width > 500 and image.text["generator"].startswith("qwen-vla inspect")
    assert "ok: training on it would be right" in capsys.readouterr().out
    assert not (root / "cache").exists(), "nothing is written beside the data"


def test_two_arms_in_the_usual_order_are_each_their_own(tmp_path):
    names = [f"{s}_{j.split('/')[1]}" for s in ("left", "right") for j in ALOHA.arms[s == "right"].joints]
    order = [*names[:6], "left_gripper", *names[6:], "right_gripper"]
    robots = [*ALOHA.arms[0].joints, "follower_left/left_finger", *ALOHA.arms[1].joints, "follower_right/left_finger"]
    values = motion(ALOHA, 0.1)
    in_file = values[:, [ALOHA.joint_names.index(joint) for joint in robots]]
    root = write(tmp_path / "set", both(in_file, order), robot="aloha", cameras=ALOHA_TAGS)
    findings = inspect(root, row=7)
    assert findings.ok, findings.problems
    assert list(findings.columns[0].mapped_to) == robots
    for what in ("state", "action"):
        assert findings.sample[what] == pytest.approx(dict(zip(ALOHA.joint_names, values[7], strict=True)), abs=1e-6)
    source = training(root, WIDE)
    np.testing.assert_allclose(source.state, values, atol=1e-6)
    chunk = dict(zip(ALOHA.channel_names, source.chunk(7)[0], strict=True))
    assert chunk["follower_right/waist"] == pytest.approx(values[7, ALOHA.joint_names.index("follower_right/waist")])
    assert chunk["right_gripper"] == pytest.approx(0.5 + 0.4 * math.sin(7 / 4), abs=1e-5)


def test_names_that_are_not_understood_are_shown_with_the_robots(tmp_path):
    root = write(tmp_path / "set", both(motion(WIDOWX), [f"motor_{k}" for k in range(7)]))
    findings = refused(root, "motor_0, motor_1", "waist, shoulder", "under `names`")
    assert findings.columns and not any(findings.columns[0].mapped_to)


@pytest.mark.parametrize("names", [None, ["state"]])  # or only the axis is named
def test_without_names_the_order_is_the_robots(tmp_path, names):
    root = write(tmp_path / "set", both(motion(ALOHA, 0.1), names), robot="aloha", cameras=ALOHA_TAGS)
    findings = inspect(root)
    assert findings.ok and list(findings.columns[0].mapped_to) == list(ALOHA.joint_names)
    short = write(tmp_path / "short", both(motion(WIDOWX), names))
    refused(short, "action", "has 7 elements without names, 8 are needed: x, y, z, qx", "action_kind")


def degrees(values):
    """Arm in degrees, finger in percent, as an SO-101 is recorded."""
    found = np.degrees(values)
    gripper = WIDOWX.arms[0].gripper
    found[:, 6] = 100 * (values[:, 6] - gripper.closed) / (gripper.open - gripper.closed)
    return found


def test_degrees_are_no_radians(tmp_path):
    values = motion(WIDOWX, 0.9)
    root = write(tmp_path / "set", both(degrees(values), [f"{name}.pos" for name in WIDOWX.joint_names]))
    findings = refused(root, "outside the limits", "shoulder", "degrees?", "unit: degrees")
    assert findings.bad_rows == ROWS and any("limit 0.037; percent?" in line for line in findings.bad_rows_listed)
    with pytest.raises(DataError, match="outside the limits"):
        training(root, on_bad_rows="skip")
    said = {name: {"column": name, "unit": "degrees"} for name in ("observation.state", "action")}
    columns = {"joints": said["observation.state"], "actions": said["action"], "gripper": "percent"}
    source = training(root, columns=columns)
    np.testing.assert_allclose(source.state, values, atol=1e-5)


def test_a_recipe_states_the_units_for_inspection_too(tmp_path):
    values = motion(WIDOWX)
    root = write(tmp_path / "set", both(degrees(values), list(WIDOWX.joint_names)))
    columns = {"joints": {"column": "observation.state", "unit": "degrees"}, "gripper": "percent"}
    columns["actions"] = {"column": "action", "unit": "degrees"}
    entry = {"kind": "robot", "path": str(root), "columns": columns}
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump({"name": "mine", "data": [entry]}))
    findings = inspect(root, recipe=tmp_path / "recipe.yaml", row=3)
    assert findings.ok, findings.problems
    assert findings.columns[0].unit == "degrees" and findings.columns[0].upper[0] == pytest.approx(180, abs=0.1)
    assert list(findings.sample["state"].values()) == pytest.approx(list(values[3]), abs=1e-5)


def test_single_rows_outside_the_limits_are_bad(tmp_path):
    values = motion(WIDOWX)
    values[4, 2] = 2.5
    root = write(tmp_path / "set", both(values, list(WIDOWX.joint_names)))
    findings = refused(root, "row 4: observation.state: elbow is 2.5 rad, limit 1.61")
    assert findings.bad_rows == 1
    skipped = training(root, on_bad_rows="skip")
    assert 4 not in skipped.training and not set(range(5)) & set(skipped.training)


@pytest.mark.parametrize(("values", "hint"), [((0.0, 1.0), "an opening"), ((0.0, 100.0), "percent")])
def test_a_gripper_in_another_unit_is_refused(tmp_path, values, hint):
    joints = motion(WIDOWX)
    joints[:, 6] = np.linspace(*values, ROWS)
    root = write(tmp_path / "set", both(joints, [*WIDOWX.joint_names[:6], "gripper"]))
    refused(root, "left_finger", hint, "gripper: fraction")


def test_the_sentence_is_that_of_the_row(tmp_path):
    tasks = ("open the drawer", "take the cup")
    root = widowx(tmp_path / "set", tasks=tasks, task_of_row=lambda episode, row: int(row >= 5))
    findings = inspect(root, row=6)
    assert findings.ok and findings.sample["instruction"] == "take the cup"
    assert findings.instructions == [{"text": "take the cup", "rows": 14}, {"text": "open the drawer", "rows": 10}]
    assert inspect(root, row=4).sample["instruction"] == "open the drawer"
    source = training(root)
    assert source.sample(4, None).text == WIDOWX.prompt("open the drawer")
    assert source.sample(6, None).text == WIDOWX.prompt("take the cup")
    assert set(source.tasks) == set(tasks)


def gray(depth):
    def picture(row):
        stream = io.BytesIO()
        pixels = np.full((32, 32), 1000 + row, np.uint16) if depth else np.full((32, 32), row, np.uint8)
        Image.fromarray(pixels).save(stream, "PNG")
        return stream.getvalue()

    return picture


@pytest.mark.parametrize("depth", [True, False])
def test_depth_and_gray_images_are_refused_as_live(tmp_path, depth):
    refused(widowx(tmp_path / "set", picture=gray(depth)), "only color images can be used")


def test_a_camera_that_is_declared_as_depth_is_refused_before_it_is_decoded(tmp_path):
    feature = {"dtype": "image", "shape": [32, 32, 1], "names": None, "info": {"is_depth_map": True}}
    features = {f"observation.images.{tag}": feature for tag in ("ego", "cam_wrist")}
    refused(widowx(tmp_path / "set", features=features), "camera observation.images.ego has depth", "under `cameras`")


def test_what_was_decoded_before_its_metadata_said_depth_is_refused_too(tmp_path, monkeypatch):
    root = widowx(tmp_path / "set")
    training(root)
    monkeypatch.setattr(LeRobotReader, "fingerprint", "same")
    monkeypatch.setattr(Feature, "why_not_color", "")
    training(root)
    monkeypatch.setattr(Feature, "why_not_color", "has depth")
    refused(root, "camera observation.images.ego has depth")


def test_fingers_beyond_their_ends_saturate(tmp_path):
    values = motion(WIDOWX)
    values[:, 6] = np.linspace(0.0, 0.08, ROWS)
    root = write(tmp_path / "set", both(values, list(WIDOWX.joint_names)))
    assert inspect(root).ok
    opening = training(root).chunk(0)[:, -1]
    assert opening.min() == 0 and opening[0] == 0 and opening[12] == 1


def test_what_nobody_asked_for_stops_nothing(tmp_path):
    features = {
        "language_persistent": {"dtype": "language", "shape": [1], "names": None},
        "note": {"dtype": "float32", "names": None},
        "absent": {"dtype": "float32", "shape": [3], "names": None},
        "odd": "a string",
    }
    root = widowx(tmp_path / "set", features=features)
    assert inspect(root).ok and len(training(root).training)
    with pytest.raises(DataError, match=r"column note cannot be read: its shape in meta/info.json: Field required"):
        training(root, columns={"actions": {"column": "note"}})
    with pytest.raises(DataError, match="absent cannot be read: meta/info.json lists it, but it is not in data/"):
        training(root, columns={"actions": {"column": "absent"}})


def annotate(root):
    """Add the two language columns as lerobot 0.6 does: lists of annotations, in a row group per episode."""
    persistent = [
        {
            "role": "user",
            "content": f"{style} of it",
            "style": style,
            "timestamp": at,
            "camera": None,
            "tool_calls": None,
        }
        for style, at in (("subtask", 0.0), ("subtask", 1.0), ("task_aug", 0.0), ("plan", 0.0))
    ]
    event = {"role": "user", "content": "not that one", "style": "interjection", "camera": None, "tool_calls": None}
    for file in root.glob("data/**/*.parquet"):
        table = pq.read_table(file)
        rows = range(len(table))
        table = table.append_column("language_persistent", pa.array([persistent for _ in rows]))
        table = table.append_column("language_events", pa.array([[event] if row % 5 == 0 else [] for row in rows]))
        with pq.ParquetWriter(file, table.schema) as writer:
            for episode in table["episode_index"].unique():
                writer.write_table(table.filter(pc.equal(table["episode_index"], episode)))
    info = json.loads((root / "meta/info.json").read_text())
    for name in ("language_persistent", "language_events"):
        info["features"][name] = {"dtype": "language", "shape": [1], "names": None}
    (root / "meta/info.json").write_text(json.dumps(info))


def test_the_sentence_of_a_row_is_its_task_whatever_language_columns_say(tmp_path):
    tasks = ("lift the cube", "put it down")
    root = widowx(tmp_path / "set", tasks=tasks, task_of_row=lambda episode, row: int(row >= 6))
    plain = training(root)
    annotate(root)
    findings = inspect(root, row=5)
    assert findings.ok, findings.problems
    assert findings.sample["instruction"] == tasks[0]
    assert {told["text"] for told in findings.instructions} == set(tasks)
    assert sum(told["rows"] for told in findings.instructions) == ROWS
    annotated = training(root)
    np.testing.assert_array_equal(annotated.training, plain.training)
    for row, task in ((5, 0), (6, 1)):
        assert annotated.sample(row, None).text == plain.sample(row, None).text == WIDOWX.prompt(tasks[task])


@pytest.mark.parametrize("fps", [0, -1, float("nan"), "five", None])
def test_a_rate_that_is_none_is_named(tmp_path, fps):
    refused(widowx(tmp_path / "set", fps=fps), "meta/info.json", "fps is")


def test_a_task_without_a_key_is_refused(tmp_path):
    widowx(tmp_path, version="v2.1")
    (tmp_path / "meta/tasks.jsonl").write_text('{"task_index": 0}\n')
    assert "every line needs task_index and task" in str(inspect(tmp_path).problems)


@pytest.mark.parametrize("version", ["v2.0", "v2.1"])
def test_older_versions_are_read(tmp_path, version):
    old = widowx(tmp_path / "old", version=version, tasks=("a", "b"), task_of_row=lambda episode, row: episode)
    new = widowx(tmp_path / "new", tasks=("a", "b"), task_of_row=lambda episode, row: episode)
    assert inspect(old, row=20).sample == inspect(new, row=20).sample
    assert inspect(old).ok
    (old / "meta/episodes.jsonl").unlink()
    refused(old, "no meta/episodes.jsonl", "lerobot.scripts.convert_dataset_v21_to_v30")


@pytest.mark.parametrize("version", ["v1.6", "v3.1", None])
def test_other_versions_are_refused_with_the_commands_that_convert(tmp_path, version):
    root = widowx(tmp_path / "set")
    info = json.loads((root / "meta/info.json").read_text()) | {"codebase_version": version}
    (root / "meta/info.json").write_text(json.dumps(info))
    refused(root, "codebase_version", "lerobot.datasets.v30.convert_dataset_v21_to_v30", "convert_dataset_v20_to_v21")


def filmed(root):
    """Both cameras as a video per episode."""
    features = {f"observation.images.{tag}": {"dtype": "video", "shape": [32, 32, 3]} for tag in ("ego", "cam_wrist")}
    template = "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4"
    widowx(root, version="v2.1", cameras=(), features=features, video_path=template)
    for key in features:
        for number, length in enumerate(LENGTHS):
            path = root / template.format(episode_chunk=0, video_key=key, episode_index=number)
            path.parent.mkdir(parents=True, exist_ok=True)
            with av.open(str(path), "w") as out:
                stream = out.add_stream("h264", rate=FPS)
                stream.width, stream.height, stream.pix_fmt = 32, 32, "yuv420p"
                for row in range(length):
                    pixels = np.full((32, 32, 3), 10 * row + 100 * number, np.uint8)
                    out.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
                out.mux(stream.encode())
    return root


def test_videos_of_v21_are_read_from_a_file_per_episode(tmp_path):
    root = filmed(tmp_path / "set")
    findings = inspect(root)
    assert findings.ok and [camera.codec for camera in findings.cameras] == ["h264", "h264"]
    frames = training(root).images["ego"]
    assert [int(frames[row].mean()) for row in (0, 5, 14, 20)] == pytest.approx([0, 50, 100, 160], abs=4)


def test_a_file_that_was_never_downloaded_is_told_from_a_damaged_one(tmp_path):
    root = widowx(tmp_path / "set")
    (file,) = root.glob("data/**/*.parquet")
    content = file.read_bytes()
    file.write_bytes(content[:-100])
    refused(root, "file-000.parquet", "unreadable", "download it again")
    file.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    refused(root, "file-000.parquet", "only a pointer of Git LFS", "git lfs pull")


def test_metadata_of_editors_that_do_not_write_plain_utf8(tmp_path):
    root = widowx(tmp_path / "marked")
    info = root / "meta/info.json"
    info.write_bytes(b"\xef\xbb\xbf" + info.read_bytes())
    assert inspect(root).ok
    old = widowx(tmp_path / "old", version="v2.1", tasks=("lift the cube", "hebe den Würfel"))
    tasks = old / "meta/tasks.jsonl"
    tasks.write_bytes(json.dumps({"task_index": 0, "task": "hebe den Würfel"}, ensure_ascii=False).encode("latin-1"))
    refused(old, "tasks.jsonl:1: not JSON in UTF-8", "save the file as UTF-8")


def test_an_episode_without_rows_is_none(tmp_path):
    root = widowx(tmp_path / "set")
    (file,) = root.glob("meta/episodes/**/*.parquet")
    first, second = pq.read_table(file).to_pylist()
    end = first["dataset_to_index"]
    empty = {"episode_index": 1, "length": 0, "tasks": [], "dataset_from_index": end, "dataset_to_index": end}
    pq.write_table(pa.Table.from_pylist([first, empty, second | {"episode_index": 2}]), file)
    findings = inspect(root)
    assert findings.ok and (findings.episodes, findings.rows) == (2, ROWS)


def test_times_of_another_rate_are_no_missing_frames(tmp_path):
    root = widowx(tmp_path / "set", fps=1)
    findings = refused(root, "another rate than the dataset's: 0.200 s after the row before, 1.000 s expected")
    assert findings.gaps == 0


def test_an_instruction_cannot_write_to_the_terminal_at_will(tmp_path, capsys):
    root = widowx(tmp_path / "set", tasks=("lift \x1b[2J the cube",))
    assert Inspect(root).run() == 0
    printed = capsys.readouterr().out
    assert "\x1b[2J" not in printed and "lift \\x1b[2J the cube" in printed


def test_actions_with_the_names_of_the_measurements_are_compared_with_joints(tmp_path):
    root = write(tmp_path / "set", both(motion(WIDOWX), [f"joint_{k}" for k in range(7)]))
    problems = [problem.what for problem in inspect(root).problems]
    assert len(problems) == 2 and all("the robot has waist, shoulder" in what for what in problems)


def test_a_camera_without_video_in_one_episode_makes_its_rows_bad(tmp_path):
    root = filmed(tmp_path / "set")
    (root / "videos/chunk-000/observation.images.ego/episode_000001.mp4").unlink()
    assert refused(root, "image observation.images.ego").bad_rows == LENGTHS[1]
    assert len(training(root, on_bad_rows="skip", use_images=True).bad_rows) == LENGTHS[1]


@pytest.mark.parametrize(
    "template",
    [
        "videos/{video_key.__class__}/x.mp4",
        "videos/{video_key}/{frame_index:06d}.mp4",
        "{video_key}/{episode_index:999999999d}.mp4",
        "../{video_key}/x.mp4",
        "{",
    ],
)
def test_templates_of_paths_are_not_evaluated_and_stay_in_the_dataset(tmp_path, template):
    refused(
        filmed(tmp_path / "set", video_path=template) if False else _with_template(tmp_path, template), "video_path"
    )


def _with_template(tmp_path, template):
    root = filmed(tmp_path / "set")
    info = json.loads((root / "meta/info.json").read_text()) | {"video_path": template}
    (root / "meta/info.json").write_text(json.dumps(info))
    return root


def test_an_image_that_cannot_be_decoded_is_named(tmp_path):
    broken = widowx(tmp_path / "set", picture=lambda row: png(row)[:100] if row == 3 else png(row))
    findings = refused(broken, "row 3", "cannot be decoded")
    assert findings.bad_rows == 1 and {camera.bad_rows for camera in findings.cameras} == {1}


def test_a_dataset_of_no_robot_and_one_that_is_not_there(tmp_path):
    refused(widowx(tmp_path / "set", robot="so101_follower"), "--robot")
    findings = inspect(tmp_path / "absent")
    assert "no such file or folder" in findings.problems[0].what
    with pytest.raises(ValueError, match="--row 24: .* has rows 0 … 23"):
        inspect(widowx(tmp_path / "other"), row=24)


SO101 = "examples/so101/so101.yaml"
MOTORS = ("shoulder_pan", "shoulder_lift", "elbow_flex", "wrist_flex", "wrist_roll", "gripper")
PERCENT = np.array([10.0, -20.0, 30.0, 5.0, 60.0, 50.0]) + 5 * np.sin(np.arange(ROWS))[:, None]
CALIBRATION = {  # as LeRobot stores it
    motor: {"id": k + 1, "drive_mode": int(k == 1), "homing_offset": -7, "range_min": 800 + k, "range_max": 3200 - k}
    for k, motor in enumerate(MOTORS)
}


def so101(root):
    names = [f"{motor}.pos" for motor in MOTORS]
    return write(root, both(PERCENT, names), robot="so101_follower", cameras=("ego", "cam_wrist"))


def test_an_so101_as_lerobot_records_it_needs_no_columns(tmp_path):
    root = so101(tmp_path / "set")
    findings = inspect(root, robot=SO101, row=0)
    assert findings.ok, findings.problems
    assert findings.columns[0].unit == "degrees" and list(findings.columns[0].mapped_to) == list(MOTORS)
    expected = {motor: math.radians(value) for motor, value in zip(MOTORS, PERCENT[0], strict=True)}
    gripper = load_robot(SO101).arms[0].gripper
    expected["gripper"] = gripper.closed + PERCENT[0, 5] / 100 * (gripper.open - gripper.closed)
    assert findings.sample["state"] == pytest.approx(expected, abs=1e-6)


def test_percent_needs_the_calibration_of_that_arm(tmp_path):
    root, file = so101(tmp_path / "set"), tmp_path / "mine.json"
    file.write_text(json.dumps(CALIBRATION))
    joints = {"column": "observation.state", "unit": "percent"}
    columns = {"joints": joints, "actions": {"column": "action", "unit": "percent"}}
    with pytest.raises(DataError, match="percent needs the range .*calibration file"):
        training(root, WIDE, robot=SO101, columns=columns)
    state = training(root, WIDE, robot=SO101, columns=columns | {"calibration": file}).state
    half = {motor: (m["range_max"] - m["range_min"]) / 2 / 4095 * 2 * math.pi for motor, m in CALIBRATION.items()}
    assert state[3, 0] == pytest.approx(PERCENT[3, 0] / 100 * half["shoulder_pan"], abs=1e-6)
    assert state[3, 1] == pytest.approx(-PERCENT[3, 1] / 100 * half["shoulder_lift"], abs=1e-6), "drive_mode"
    limits = load_robot(SO101).limits["shoulder_pan"]
    state = training(root, WIDE, robot=SO101, columns=columns | {"calibration": "limits"}).state
    assert state[3, 0] == pytest.approx(PERCENT[3, 0] / 100 * limits.upper, abs=1e-6)


def lines(path, *rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def walk(tmp_path, name="a.png", **changes):
    (tmp_path / name).write_bytes(png(1))
    poses = [[0, 0, 0], [0.4, 0, 0], [0.8, 0, 0.2], [0.8, 0, 0.2]]
    return {"instruction": "go", "rate_hz": 2, "poses": poses, "frames": [name] * 4} | changes


def test_navigation_is_described(tmp_path):
    findings = inspect(lines(tmp_path / "walks.jsonl", walk(tmp_path), walk(tmp_path)), row=1)
    assert findings.ok and (findings.episodes, findings.rows) == (2, 8)
    assert findings.sample["state"] == {"x": 0.4, "y": 0.0, "theta": 0.0}
    assert findings.sample["action"]["dx"] == pytest.approx(0.4) and findings.sample["instruction"] == "go"
    assert [(camera.tag, camera.width, camera.codec) for camera in findings.cameras] == [("ego", 32, "png")]


def test_bad_lines_and_images_of_navigation_are_named(tmp_path):
    (tmp_path / "cut.png").write_bytes(png(1)[:100])
    cut = {**walk(tmp_path), "frames": ["cut.png"] * 4}
    findings = inspect(lines(tmp_path / "walks.jsonl", walk(tmp_path, rate_hz=0), cut, walk(tmp_path)))
    assert not findings.ok and findings.bad_rows == 1
    assert findings.problems[0].where.endswith("walks.jsonl:1") and "rate_hz" in findings.problems[0].what
    assert "4 images of camera 'ego' cannot be decoded" in findings.problems[1].what


def test_hands_are_described(tmp_path):
    rng = np.random.default_rng(0)
    arrays = {f"left_{name}": rng.normal(size=(6, n)) for name, n in (("translation", 3), ("rotation", 3), ("pca", 10))}
    np.savez(tmp_path / "hands.npz", **arrays)
    row = {"instruction": "open the jar", "rate_hz": 30, "hands": "hands.npz"}
    findings = inspect(lines(tmp_path / "hands.jsonl", row, row), row=0)
    assert findings.ok and findings.kind == "hands" and findings.episodes == 2
    assert findings.columns[0].max[0] is not None and findings.columns[0].max[16] is None, "no right hand"


def test_conversations_and_trajectories_are_described(tmp_path):
    (tmp_path / "a.png").write_bytes(png(1))
    question = [{"type": "image", "image": "a.png"}, {"type": "text", "text": "Where is the cup?"}]
    talk = {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": "here"}]}
    findings = inspect(lines(tmp_path / "chat.jsonl", talk), row=0)
    assert findings.ok and findings.sample["instruction"] == "Where is the cup?"
    assert [(camera.tag, camera.width) for camera in findings.cameras] == [("", 32)]
    entity = {"name": "the van", "points": [[8.0, -2.0], None, [6.0, -2.0]]}
    moment = {"space": "ground", "rate_hz": 2, "frames": ["a.png"], "entities": [entity]}
    findings = inspect(lines(tmp_path / "traffic.jsonl", moment), row=0)
    assert findings.ok and "the van" in findings.sample["instruction"]
    assert list(findings.columns[0].min) == [6.0, -2.0] and list(findings.columns[0].max) == [8.0, -2.0]


def test_lines_of_no_known_kind_are_refused(tmp_path):
    with pytest.raises(DataError, match="none of the keys poses, hands, entities, messages"):
        inspect(lines(tmp_path / "x.jsonl", {"text": "hello"}))
