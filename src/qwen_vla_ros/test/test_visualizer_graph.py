"""trajectory_visualizer as a process: what RViz is told about predicted and accepted chunks."""

from __future__ import annotations

import signal

import numpy as np
import pytest
from nav_msgs.msg import Path
from visualization_msgs.msg import Marker, MarkerArray

from embodiment_descriptions import Kinematics
from qwen_vla_msgs.msg import ActionChunk
from qwen_vla_ros.chunk_messages import nanoseconds


@pytest.fixture(scope="module")
def seen(peer, processes):
    """What the visualizer has published so far: markers and paths."""
    markers, paths = [], []
    peer.create_subscription(MarkerArray, "trajectory_visualizer/predicted_trajectory", markers.append, 10)
    peer.create_subscription(Path, "trajectory_visualizer/predicted_path", paths.append, 10)
    accepted = peer.create_publisher(ActionChunk, "executor_node/accepted_chunk", 10)
    process = processes.start("trajectory_visualizer")

    def drawn():
        peer.send(peer.chunk())
        return paths

    peer.wait(drawn, "the first path")
    yield markers, paths, accepted
    assert processes.end(process, signal.SIGINT) == 0, processes.log_of(process)
    assert "Traceback" not in processes.log_of(process)


def markers_of(markers, namespace: str, text: str) -> dict[int, Marker]:
    """The markers of the newest array in a namespace whose text mentions `text`, by type."""
    for array in reversed(markers):
        found = {m.type: m for m in array.markers if m.ns == namespace}
        if found and text in found[Marker.TEXT_VIEW_FACING].text:
            return found
    return {}


def test_a_predicted_chunk_is_drawn_from_where_the_arm_was(peer, seen):
    markers, paths, _ = seen
    chunk = peer.chunk(inference_ms=81.0)
    peer.send(chunk)
    drawn = peer.wait(lambda: markers_of(markers, "arm/predicted", f"chunk {chunk.chunk_id},"), "markers")
    line, points = drawn[Marker.LINE_STRIP], drawn[Marker.SPHERE_LIST]
    assert len(line.points) == len(line.colors) == len(points.points) == 17
    assert line.scale.x > 0 and line.pose.orientation.w == 1.0 and line.action == Marker.ADD
    tip = Kinematics(peer.embodiment).forward([peer.embodiment.home[name] for name in peer.embodiment.arms[0].joints])
    first, last = ([p.x, p.y, p.z] for p in (line.points[0], line.points[-1]))
    assert np.allclose(first, tip[:3, 3], atol=1e-6)
    assert np.allclose(last, tip[:3, 3] + 0.08 * tip[:3, 0], atol=1e-6)  # along the tool's own x axis
    assert line.colors[0].a > line.colors[-1].a
    assert "pick up the red cube" in drawn[Marker.TEXT_VIEW_FACING].text
    assert "81 ms" in drawn[Marker.TEXT_VIEW_FACING].text
    assert Marker.ARROW in drawn
    assert all(m.header == chunk.header and 0 < m.lifetime.sec < 10 for m in drawn.values())
    path = peer.wait(lambda: next((p for p in paths if p.header == chunk.header), None), "path")
    assert len(path.poses) == 17 and path.header.frame_id == "base_link"
    assert nanoseconds(path.poses[16].header.stamp) - nanoseconds(path.header.stamp) == 3_200_000_000


def test_an_accepted_chunk_is_another_layer_with_the_executed_steps(peer, seen):
    markers, _, accepted = seen
    chunk = peer.chunk()
    accepted.publish(chunk)
    drawn = peer.wait(lambda: markers_of(markers, "arm/accepted", f"chunk {chunk.chunk_id},"), "markers")
    assert len(drawn[Marker.LINE_STRIP].points) == 9


def test_a_chunk_of_another_robot_is_not_drawn(peer, seen):
    markers, _, _ = seen
    foreign = peer.chunk(embodiment="aloha")
    peer.send(foreign)
    own = peer.chunk()
    peer.send(own)
    peer.wait(lambda: markers_of(markers, "arm/predicted", f"chunk {own.chunk_id},"), "the next chunk")
    assert not markers_of(markers, "arm/predicted", f"chunk {foreign.chunk_id},")
