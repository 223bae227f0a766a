# SPDX-License-Identifier: Apache-2.0
"""What a policy is given of one moment: images of all cameras, the joints and the base beside them, and history."""

from __future__ import annotations

import array
import math
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from embodiment_descriptions import Embodiment, load_robot
from qwen_vla_control.observation.image_decoding import DecodingError
from qwen_vla_control.observation.robot_streams import IMAGES_KEPT, History, Needs, ObservationStreams
from qwen_vla_control.observation.streams import Alignment, Observation, Past, Rules, Waiting

S = 10**9
EGO, WRIST = "ego", "cam_wrist"


def ns(seconds: float) -> int:
    return round(seconds * S)


def image(seconds: float, value: int = 0, size: tuple[int, int] = (6, 8)) -> Image:
    """One color all over; noise in a corner, as a sensor has it."""
    pixels = np.full((*size, 3), value, np.uint8)
    pixels[0, 0] = ns(seconds) // 10**6 % 251
    message = Image(height=size[0], width=size[1], encoding="rgb8", step=3 * size[1])
    message.data = array.array("B", pixels.tobytes())
    message.header.stamp.sec, message.header.stamp.nanosec = divmod(ns(seconds), S)
    return message


def look(streams: ObservationStreams, seconds: float, value: int = 0, tags=(EGO, WRIST)) -> None:
    for tag in tags:
        assert streams.take_image(tag, image(seconds, value), ns(seconds))


def tell(streams: ObservationStreams, seconds: float, value: float, joints=None) -> None:
    names = streams.joints.embodiment.joint_names if joints is None else joints
    streams.joints.push(0, ns(seconds), names, [value] * len(names), [], ns(seconds))


def odometry(streams: ObservationStreams, seconds: float, x: float) -> None:
    place, turn = SimpleNamespace(x=x, y=0.0, z=0.0), SimpleNamespace(x=0.0, y=0.0, z=0.0, w=1.0)
    streams.odometry.push(ns(seconds), "odom", SimpleNamespace(position=place, orientation=turn), ns(seconds))


def select(streams: ObservationStreams, now: float, steady: float | None = None, **arguments) -> Observation | Waiting:
    return streams.select(ns(now), ns(now if steady is None else steady), **arguments)


@pytest.fixture(scope="module")
def base() -> Embodiment:
    return load_robot("mobile_base")


# What is chosen -------------------------------------------------------------------------------------------------------


def test_an_observation_has_the_stamp_of_its_oldest_image_and_the_joints_nearest_to_that(widowx):
    streams = ObservationStreams(widowx, needs=Needs(joint_states=True))
    look(streams, 1.00, 10, (EGO,))
    look(streams, 1.04, 20, (WRIST,))
    for tick in range(12):
        tell(streams, 0.95 + 0.01 * tick, float(tick))
    seen = select(streams, 1.06)
    assert seen.stamp_ns == S and set(seen.images) == {EGO, WRIST}
    assert seen.joints == dict.fromkeys(widowx.joint_names, 5.0) and seen.base is None
    frames = streams.decode(seen)
    assert frames[EGO].shape == (6, 8, 3) and frames[EGO][1, 1, 0] == 10 and frames[WRIST][1, 1, 0] == 20


def test_the_cameras_are_those_of_the_robot_or_those_that_were_chosen(widowx):
    assert list(ObservationStreams(widowx).cameras) == [EGO, WRIST]
    streams = ObservationStreams(widowx, widowx.cameras[1:], lambda name: f"/robot/{name}")
    assert list(streams.cameras) == [WRIST]
    look(streams, 1.0, tags=(WRIST,))
    assert set(select(streams, 1.0).images) == {WRIST}
    late = select(streams, 2.0)
    assert late.stream == "camera 'cam_wrist'" and "no image for 1.0 s on /robot/cam_wrist/image_raw" in late.message
    assert "on /robot/joint_states" in streams.joints.fault(S, S)


@pytest.mark.parametrize("tag", [EGO, WRIST])
def test_every_camera_must_have_been_heard(widowx, tag):
    streams = ObservationStreams(widowx)
    look(streams, 1.0, tags=[other for other in (EGO, WRIST) if other != tag])
    waiting = select(streams, 1.0)
    assert waiting.fault and waiting.message.startswith(f"camera '{tag}': no image yet on {tag}/image_raw")


def test_a_frozen_camera_is_told_from_one_that_shows_the_same_scene(widowx):
    streams, frozen = ObservationStreams(widowx), image(1.0)
    for tick in range(14):
        seconds = 1.0 + 0.1 * tick
        look(streams, seconds, tags=(EGO,))
        frozen.header.stamp.sec, frozen.header.stamp.nanosec = divmod(ns(seconds), S)
        streams.take_image(WRIST, frozen, ns(seconds))
    waiting = select(streams, 2.3)
    assert waiting.stream == "camera 'cam_wrist'" and "identical images" in waiting.message


def test_images_from_before_a_motion_do_not_count(widowx):
    streams = ObservationStreams(widowx)
    look(streams, 1.0)
    waiting = select(streams, 1.1, not_before_ns=S)
    assert isinstance(waiting, Waiting) and not waiting.fault
    assert isinstance(select(streams, 1.1, not_before_ns=S - 1), Observation)


def test_the_rules_decide_which_images_belong_together(widowx):
    streams = ObservationStreams(widowx)
    for seconds in (0.8, 1.0):
        look(streams, seconds, tags=(EGO,))
    look(streams, 0.87, tags=(WRIST,))
    assert select(streams, 1.0).stamp_ns == ns(0.8)
    assert isinstance(select(streams, 1.0, rules=Rules(max_skew=0.05)), Waiting)
    assert select(streams, 1.0, rules=Rules(max_skew=0.05, alignment=Alignment.HOLD)).stamp_ns == ns(0.8)


def test_images_are_kept_as_long_as_the_slowest_camera_may_be_behind_and_not_without_end(widowx):
    slow = [
        camera.model_copy(update={"max_age_s": age}) for camera, age in zip(widowx.cameras, (0.2, 2.0), strict=True)
    ]
    streams = ObservationStreams(widowx, slow)
    assert [stream.max_age for stream in streams.cameras.values()] == [0.2, 2.0]
    for tick in range(40):
        look(streams, 1.0 + 0.1 * tick)
    assert [len(stream) for stream in streams.cameras.values()] == [21, 21]
    for tick in range(2 * IMAGES_KEPT):
        look(streams, 5.0 + 0.01 * tick)
    assert [len(stream) for stream in streams.cameras.values()] == [IMAGES_KEPT, IMAGES_KEPT]


# What is needed, and what is taken along ------------------------------------------------------------------------------


def test_joints_that_are_needed_must_be_known_and_others_are_taken_along(widowx):
    needing, glad = ObservationStreams(widowx, needs=Needs(joint_states=True)), ObservationStreams(widowx)
    for streams in (needing, glad):
        look(streams, 1.0)
    assert select(needing, 1.0).message.startswith("joint states: no joint state yet on joint_states")
    assert select(glad, 1.0).joints == {}
    for streams in (needing, glad):
        tell(streams, 0.95, 0.5)
        assert select(streams, 1.0).joints == dict.fromkeys(widowx.joint_names, 0.5)
    for streams in (needing, glad):
        look(streams, 1.3)
    waiting = select(needing, 1.3)
    assert waiting.fault and waiting.stream == "joint states" and "is 0.35 s away from it" in waiting.message
    assert select(glad, 1.3).joints == {}


def test_a_base_that_is_needed_must_be_known_and_otherwise_is_taken_along(base):
    needing, glad = ObservationStreams(base, needs=Needs(odometry=True)), ObservationStreams(base)
    tags = tuple(camera.tag for camera in base.cameras)
    for streams in (needing, glad):
        look(streams, 1.0, tags=tags)
    assert select(needing, 1.0).message.startswith("odometry: no message yet on odom")
    assert select(glad, 1.0).base is None
    for streams in (needing, glad):
        odometry(streams, 0.94, 1.5)
        odometry(streams, 1.03, 2.5)
        assert select(streams, 1.03).base.vector.tolist() == [2.5, 0.0, 0.0]
    for streams in (needing, glad):
        look(streams, 1.4, tags=tags)
    waiting = select(needing, 1.4)
    assert waiting.fault and waiting.stream == "odometry" and "is 0.37 s away from it" in waiting.message
    assert select(glad, 1.4).base is None


def test_wheels_are_none_of_the_joints_that_a_base_needs(base):
    streams = ObservationStreams(base, needs=Needs(joint_states=True, odometry=True))
    assert streams.joint_sources == [] and streams.needed == [streams.odometry.stream]
    assert ObservationStreams(base).needed == []


def test_a_robot_that_stays_where_it_is_needs_no_odometry(widowx):
    streams = ObservationStreams(widowx, needs=Needs(joint_states=True, odometry=True))
    assert streams.odometry is None and streams.needed == streams.joint_sources
    look(streams, 1.0)
    tell(streams, 1.0, 0.5)
    assert select(streams, 1.0).base is None


def test_without_cameras_the_moment_is_that_of_what_is_needed(widowx, base):
    arm, car = (
        ObservationStreams(widowx, (), needs=Needs(joint_states=True)),
        ObservationStreams(base, (), needs=Needs(odometry=True)),
    )
    tell(arm, 1.0, 0.5, widowx.joint_names[:6])
    tell(arm, 0.96, 0.03, widowx.joint_names[6:])
    seen = select(arm, 1.0)
    assert seen.stamp_ns == ns(0.96) and seen.images == {} and len(seen.joints) == 7
    odometry(car, 2.0, 1.5)
    assert select(car, 2.0).stamp_ns == 2 * S and select(car, 2.0).base.vector[0] == 1.5


# CameraInfo -----------------------------------------------------------------------------------------------------------


def test_a_camera_info_may_be_required(widowx):
    streams, strict = ObservationStreams(widowx), Rules(require_camera_info=True)
    assert streams.camera_info_problem(EGO) == "", "there is no image to compare with"
    look(streams, 1.0)
    assert isinstance(select(streams, 1.0), Observation)
    waiting = select(streams, 1.0, rules=strict)
    assert waiting.fault and waiting.stream == "camera 'ego'"
    assert waiting.message.startswith("camera 'ego': no CameraInfo on ego/camera_info")
    streams.take_camera_info(EGO, CameraInfo(width=8, height=6))
    assert select(streams, 1.0, rules=strict).stream == "camera 'cam_wrist'"
    streams.take_camera_info(WRIST, CameraInfo(width=80, height=60))
    assert "is for images of 80 x 60 pixels" in select(streams, 1.0, rules=strict).message
    streams.take_camera_info(WRIST, CameraInfo(width=8, height=6))
    assert isinstance(select(streams, 1.0, rules=strict), Observation)


# History --------------------------------------------------------------------------------------------------------------


def shown(streams: ObservationStreams, now: float, **arguments) -> list[int]:
    """The colors of the frames of a camera."""
    frames = streams.decode(select(streams, now, **arguments))[EGO]
    return frames[:, 1, 1, 0].tolist()


@pytest.fixture
def remembering(widowx) -> ObservationStreams:
    return ObservationStreams(widowx, widowx.cameras[:1], history=History(frames=4, rate=2.0))


def test_a_history_of_one_frame_keeps_nothing():
    assert History().past is None and History(1, 5.0).past is None
    assert History(2, 5.0).past == Past(step=0.05, span=0.4)


def test_frames_are_shown_from_the_oldest_at_the_rate_that_was_asked_for(remembering):
    for tick in range(41):
        look(remembering, 1.0 + 0.125 * tick, tick, (EGO,))
    assert shown(remembering, 6.0) == [28, 32, 36, 40]
    assert remembering.decode(select(remembering, 6.0))[EGO].shape == (4, 6, 8, 3)


def test_frames_from_before_a_task_are_not_shown(remembering):
    for tick in range(41):
        look(remembering, 1.0 + 0.125 * tick, tick, (EGO,))
    assert shown(remembering, 6.0, history_from_ns=ns(5.0)) == [32, 36, 40]
    assert shown(remembering, 6.0, history_from_ns=ns(5.0) + 1) == [36, 40]
    assert shown(remembering, 6.0, history_from_ns=ns(6.1)) == [40], "the present image is"


def test_a_history_ends_at_a_frame_that_is_missing_and_none_is_shown_twice(remembering):
    look(remembering, 1.0, 1, (EGO,))
    assert shown(remembering, 1.0) == [1]
    look(remembering, 1.24, 2, (EGO,))
    assert shown(remembering, 1.24) == [2], "wanted half a second before, and it is nearer to the present"
    look(remembering, 2.2, 3, (EGO,))
    assert shown(remembering, 2.2) == [3], "wanted at 1.7, 1.2 and 0.7, each within a quarter of a second"
    for seconds, value in ((2.3, 4), (2.7, 5), (3.2, 6)):
        look(remembering, seconds, value, (EGO,))
    assert shown(remembering, 3.2) == [3, 5, 6], "half a second before the oldest there is none; the first is too old"


@pytest.mark.parametrize(("seconds", "frames"), [(1.26, [1, 9]), (1.24, [9])])
def test_a_frame_counts_within_half_a_step_of_where_it_is_wanted(widowx, seconds, frames):
    streams = ObservationStreams(widowx, widowx.cameras[:1], history=History(frames=2, rate=2.0))
    look(streams, seconds, 1, (EGO,))
    look(streams, 2.0, 9, (EGO,))
    assert shown(streams, 2.0) == frames


def test_without_a_history_there_is_one_frame_and_no_axis_for_it(widowx):
    streams = ObservationStreams(widowx)
    for seconds in (1.0, 1.1):
        look(streams, seconds, round(10 * seconds))
    assert streams.decode(select(streams, 1.1))[EGO].shape == (6, 8, 3)


# Decoding -------------------------------------------------------------------------------------------------------------


def test_an_image_that_cannot_be_decoded_is_told_with_its_camera_and_topic(widowx):
    streams, broken = ObservationStreams(widowx, resolve=lambda name: f"/{name}"), image(1.0)
    broken.encoding = "mono8"
    streams.take_image(EGO, broken, S)
    look(streams, 1.0, tags=(WRIST,))
    with pytest.raises(DecodingError, match="^camera 'ego' on /ego/image_raw: encoding 'mono8' cannot be used"):
        streams.decode(select(streams, 1.0))


def test_frames_of_different_sizes_make_no_history(remembering):
    remembering.take_image(EGO, image(1.5, size=(6, 8)), ns(1.5))
    remembering.take_image(EGO, image(2.0, size=(8, 6)), ns(2.0))
    with pytest.raises(DecodingError, match=r"camera 'ego' on ego/image_raw: the image size has changed: .*8, 6"):
        remembering.decode(select(remembering, 2.0))


def test_compressed_and_raw_images_are_one_to_the_policy(widowx):
    streams = ObservationStreams(widowx, widowx.cameras[:1])
    data = cv2.imencode(".png", np.full((6, 8, 3), 7, np.uint8))[1].tobytes()
    message = CompressedImage(format="png", data=array.array("B", data))
    message.header.stamp.sec = 1
    streams.take_image(EGO, message, S)
    assert (streams.decode(select(streams, 1.0))[EGO] == 7).all()


def test_each_stream_may_be_asked_alone_what_is_wrong_with_it(widowx):
    streams, rules = ObservationStreams(widowx), Rules()
    look(streams, 1.0)
    ego = streams.cameras[EGO]
    assert streams.fault(ego, S, S, rules) == "" and "for 1.0 s" in streams.fault(ego, 2 * S, 2 * S, rules)
    assert "for 3.0 s" in streams.fault(ego, S, 4 * S, rules), "by the steady clock"
    assert "in the future" in streams.fault(ego, ns(0.5), S, Rules(max_lead=0.4))
    assert streams.fault(ego, ns(0.5), S, Rules(max_lead=math.inf)) == ""
