# SPDX-License-Identifier: Apache-2.0
"""trajectory_visualizer as a process: the visualization of predicted, accepted and refused chunks in RViz."""

from __future__ import annotations

import signal

import numpy as np
import pytest
from nav_msgs.msg import Path
from sensor_msgs.msg import JointState
from visualization_msgs.msg import Marker, MarkerArray

from embodiment_descriptions import Kinematics
from qwen_vla_control.gate.arm_gate import ArmGate
from qwen_vla_control.gate.robot_state import RobotState
from qwen_vla_control.reasons import Refused
from qwen_vla_control.stamps import nanoseconds
from qwen_vla_msgs.msg import ActionChunk, ChunkReport
from qwen_vla_ros.ros.chunk_messages import chunk_from_message

NODE = "trajectory_visualizer"


class Seen:
    """What the visualizer has published so far, and publishers of the executor."""

    def __init__(self, peer) -> None:
        self.peer = peer
        self.arrays: list[MarkerArray] = []
        self.paths: list[Path] = []
        self.ghosts: list[JointState] = []
        peer.node.create_subscription(MarkerArray, f"{NODE}/predicted_trajectory", self.arrays.append, 50)
        peer.node.create_subscription(Path, f"{NODE}/predicted_path", self.paths.append, 50)
        peer.node.create_subscription(JointState, "ghost/joint_states", lambda m: self.ghosts.append(m), 50)
        self.accepted = peer.node.create_publisher(ActionChunk, "executor_node/accepted_chunk", 10)
        self.reports = peer.node.create_publisher(ChunkReport, "executor_node/chunk_report", 10)

    def drawn(self, namespace: str, chunk: ActionChunk) -> dict[int, Marker]:
        """Wait for the markers of a chunk in a namespace, by type, including the text."""

        def find():
            for array in reversed(self.arrays):
                found = {m.type: m for m in array.markers if m.ns in (namespace, "text") and m.action == Marker.ADD}
                texts = [m.text for m in array.markers if m.ns == "text"]
                if len(found) > 1 and f"chunk {chunk.chunk_id}," in texts[0]:
                    return found
            return None

        return self.peer.wait(find, f"markers of chunk {chunk.chunk_id} in {namespace}")

    def text(self, chunk: ActionChunk, what: str) -> Marker:
        """Wait for the text of a chunk."""

        def find():
            texts = [m for array in self.arrays for m in array.markers if m.ns == "text"]
            return next((m for m in texts if f"chunk {chunk.chunk_id}," in m.text and what in m.text), None)

        return self.peer.wait(find, f"'{what}' about chunk {chunk.chunk_id}")

    def removed(self, namespace: str, since: int) -> bool:
        """Wait until every marker of a namespace is removed."""

        def gone():
            markers = [m for array in self.arrays[since:] for m in array.markers]
            return {m.id for m in markers if m.ns == namespace and m.action == Marker.DELETE} == {0, 1, 2}

        return self.peer.wait(gone, f"the end of {namespace}")

    def cleared(self, since: int) -> bool:
        """Wait for a DELETEALL."""
        return self.peer.wait(
            lambda: any(m.action == Marker.DELETEALL for array in self.arrays[since:] for m in array.markers),
            "DELETEALL",
        )

    def report(self, chunk: ActionChunk, verdict: int, message: str = "") -> None:
        """Report as the executor."""
        self.reports.publish(ChunkReport(chunk_id=chunk.chunk_id, verdict=verdict, message=message))


@pytest.fixture(scope="module")
def seen(peer, processes):
    """The running node and what it publishes."""
    seen = Seen(peer)
    process = processes.start(NODE)
    peer.wait(lambda: peer.send(peer.chunk()) and seen.paths and seen.ghosts, "the first path and ghost")
    for publisher in (seen.accepted, seen.reports):
        peer.wait(publisher.get_subscription_count, "the visualizer's subscription to reports")
    yield seen
    assert processes.end(process, signal.SIGINT) == 0, processes.log_of(process)
    assert "Traceback" not in processes.log_of(process)


def test_a_predicted_chunk_is_drawn_from_the_state_of_the_arm_at_its_observation(peer, seen):
    chunk = peer.chunk(inference_ms=81.0)
    peer.send(chunk)
    drawn = seen.drawn("arm/predicted", chunk)
    line, points, text = drawn[Marker.LINE_STRIP], drawn[Marker.SPHERE_LIST], drawn[Marker.TEXT_VIEW_FACING]
    assert len(line.points) == len(line.colors) == len(points.points) == 17
    assert line.scale.x > 0 and line.pose.orientation.w == 1.0
    tip = Kinematics(peer.embodiment).forward([peer.embodiment.home[name] for name in peer.embodiment.arms[0].joints])
    first, last = ([p.x, p.y, p.z] for p in (line.points[0], line.points[-1]))
    assert np.allclose(first, tip[:3, 3], atol=1e-6)
    assert np.allclose(last, tip[:3, 3] + 0.08 * tip[:3, 0], atol=1e-6)  # along the tool's own x axis
    assert line.colors[0].a > line.colors[-1].a and line.colors[0] != line.colors[-1]
    assert "pick up the red cube" in text.text and "81 ms" in text.text and "predicted 16 steps" in text.text
    assert Marker.ARROW in drawn
    assert all(m.header == chunk.header and 0 < m.lifetime.sec < 10 for m in drawn.values())
    path = peer.wait(lambda: next((p for p in seen.paths if p.header == chunk.header), None), "path")
    assert len(path.poses) == 17 and path.header.frame_id == "base_link"
    assert nanoseconds(path.poses[16].header.stamp) - nanoseconds(path.header.stamp) == 3_200_000_000


def test_an_accepted_chunk_is_another_layer_with_the_executed_steps(peer, seen):
    chunk = peer.chunk()
    seen.accepted.publish(chunk)
    drawn = seen.drawn("arm/accepted", chunk)
    assert len(drawn[Marker.LINE_STRIP].points) == 9
    assert "accepted 8 of 16 steps" in drawn[Marker.TEXT_VIEW_FACING].text


def test_a_refused_chunk_is_red_where_the_gate_found_fault(peer, seen):
    """The message is the gate's own, so that a changed wording is detected here."""
    chunk = peer.chunk()
    rows = np.array(chunk.data).reshape(16, 7)
    rows[9:, 1] += 0.2  # 20 cm sideways within one step
    chunk.data = rows.reshape(-1).tolist()
    with pytest.raises(Refused) as refused:
        ArmGate(peer.embodiment).decide(
            chunk_from_message(chunk),
            RobotState(0, *2 * [np.array([peer.embodiment.home[n] for n in peer.embodiment.joint_names])]),
        )
    since = len(seen.arrays)
    peer.send(chunk)
    seen.drawn("arm/predicted", chunk)
    seen.report(chunk, ChunkReport.REFUSED, str(refused.value))
    drawn = seen.drawn("arm/refused", chunk)
    reds = [c.r > 0.9 and c.a == 1.0 for c in drawn[Marker.LINE_STRIP].colors]
    assert reds[10] and sum(reds) < 4  # the end point of step 9
    assert all(c.r > 2 * c.g and c.r > 2 * c.b for c in drawn[Marker.LINE_STRIP].colors)
    assert "REFUSED: " in drawn[Marker.TEXT_VIEW_FACING].text and drawn[Marker.TEXT_VIEW_FACING].color.g < 0.5
    assert seen.removed("arm/predicted", since)


def test_a_report_may_arrive_before_its_chunk(peer, seen):
    held, chunk = peer.chunk(), peer.chunk()
    seen.accepted.publish(held)
    seen.drawn("arm/accepted", held)
    seen.report(chunk, ChunkReport.REFUSED, "the observation is 3.00 s old (limit 1.00 s)")
    seen.report(held, ChunkReport.HELD)
    seen.text(held, "HELD")  # so the previous report has been received
    peer.send(chunk)
    assert "3.00 s old" in seen.drawn("arm/refused", chunk)[Marker.TEXT_VIEW_FACING].text


def _is_drawn(seen, namespace, chunk) -> bool:
    return any(
        {namespace, "text"} <= {m.ns for m in array.markers}
        and any(f"chunk {chunk.chunk_id}," in m.text for m in array.markers)
        for array in seen.arrays
    )


def test_a_chunk_that_cannot_be_drawn_still_shows_why_it_was_refused(peer, seen):
    chunk = peer.chunk(data=[float("nan")] * 112)
    peer.send(chunk)
    after = peer.chunk()
    peer.send(after)
    seen.drawn("arm/predicted", after)
    seen.report(chunk, ChunkReport.REFUSED, "112 values are NaN or infinite")
    assert seen.text(chunk, "REFUSED: 112 values").header.frame_id == "base_link"


def test_a_hold_removes_the_accepted_path(peer, seen):
    chunk = peer.chunk()
    seen.accepted.publish(chunk)
    seen.drawn("arm/accepted", chunk)
    since = len(seen.arrays)
    seen.report(chunk, ChunkReport.HELD, "stopped by service")
    assert seen.removed("arm/accepted", since)
    seen.text(chunk, "HELD: stopped by service")


def test_a_chunk_of_another_robot_is_not_drawn(peer, seen):
    foreign = peer.chunk(embodiment="aloha")
    peer.send(foreign)
    own = peer.chunk()
    peer.send(own)
    seen.drawn("arm/predicted", own)
    assert not _is_drawn(seen, "arm/predicted", foreign)


def test_the_ghost_is_at_the_end_of_the_chunk(peer, seen):
    chunk = peer.chunk()
    peer.send(chunk)
    joints, home = peer.embodiment.arms[0].joints, peer.embodiment.home
    kinematics = Kinematics(peer.embodiment)
    start = kinematics.forward([home[name] for name in joints])

    def reached():
        positions = dict(zip(seen.ghosts[-1].name, seen.ghosts[-1].position, strict=True))
        tip = kinematics.forward([positions[name] for name in joints])
        return np.allclose(tip[:3, 3], start[:3, 3] + 0.08 * start[:3, 0], atol=1e-4)

    assert peer.wait(reached, "the ghost 8 cm further down")


@pytest.mark.parametrize("reset", ["service", "a policy that counts from 1 again", "a clock that went back"])
def test_a_reset_removes_all_markers(peer, seen, reset):
    peer.send(last := peer.chunk())
    seen.drawn("arm/predicted", last)
    since = len(seen.arrays)
    if reset == "service":
        assert peer.trigger(f"{NODE}/clear").success
    elif reset == "a policy that counts from 1 again":
        peer.send(peer.chunk(chunk_id=1))
    else:
        early = peer.chunk()
        early.header.stamp.sec -= 100
        peer.send(early)
    assert seen.cleared(since)
    peer.send(after := peer.chunk())
    seen.drawn("arm/predicted", after)
