# SPDX-License-Identifier: Apache-2.0
"""A policy on a server that misbehaves, on a running graph: the arm holds, the reason names it, the next goal works."""

from __future__ import annotations

import threading
from collections.abc import Callable

import numpy as np
import pytest
import yaml
from ros_peer import ABORTED, CANCELED
from websockets.exceptions import ConnectionClosed
from websockets.sync.server import ServerConnection, serve

from qwen_vla.serving.messages import openpi_array, pack, unpack
from qwen_vla_msgs.msg import ChunkReport

INSTRUCTION = "pick up the red cube"
ROWS = np.zeros((16, 7), np.float32)
ROWS[:, 0], ROWS[:, 6] = 0.001 * np.arange(1, 17), 1.0
LATE = 1.0  # [s] after which an answer is not waited for


def actions(rows: np.ndarray = ROWS) -> bytes:
    return pack({"actions": rows}, openpi_array)


class Server:
    """Speaks openpi's protocol; answers with small motions, unless it is told what to do instead.

    Attributes:
        metadata: sent to each new client.
        misbehave: does something to a connection instead of answering, from the second question on; None: it answers.
    """

    def __init__(self) -> None:
        self.metadata: dict = {"embodiment": "widowx"}
        self.misbehave: Callable[[ServerConnection], None] | None = None
        self.released = threading.Event()  # what a slow answer waits for
        self._asked, self._port = 0, 0
        self.start()

    def start(self) -> None:
        """Listen, on the same port as before."""
        self._server = serve(self._handle, "127.0.0.1", self._port, compression=None, max_size=None)
        self._port = self._server.socket.getsockname()[1]
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()

    def stop(self) -> None:
        self._server.shutdown()
        self._thread.join()

    def behave(self) -> None:
        self.misbehave, self._asked, self.metadata = None, 0, {"embodiment": "widowx"}
        self.released.set()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self._port}"

    def _handle(self, connection: ServerConnection) -> None:
        try:
            connection.send(pack(self.metadata, openpi_array))
            for frame in connection:
                assert set(unpack(frame)["images"]) == {"ego", "wrist"}
                self._asked += 1
                if self.misbehave is not None and self._asked > 1:
                    self.misbehave(connection)
                else:
                    connection.send(actions())
        except ConnectionClosed:
            pass


@pytest.fixture(scope="module")
def server():
    server = Server()
    yield server
    server.behave()
    server.stop()


@pytest.fixture(scope="module")
def needs(tmp_path_factory, widowx) -> str:
    file = tmp_path_factory.mktemp("needs") / "server.yaml"
    said = {
        "cameras": {"ego": "images.ego", "cam_wrist": "images.wrist"},
        "control_mode": "eef_delta",
        "channels": list(map(str, widowx.channel_names)),
        "period": widowx.period,
        "horizon": 16,
        "execution_horizon": 4,
        "answer_seconds": LATE,
    }
    file.write_text(yaml.safe_dump(said))
    return str(file)


@pytest.fixture(scope="module")
def nodes(peer, processes, server, needs):
    executor = processes.start("executor_node", max_observation_age=20.0)
    policy = processes.start("policy_node", policy=f"openpi://{server.address},{needs}", observation_timeout=2.0)
    return executor, policy


@pytest.fixture
def ready(peer, nodes, server):
    """The server behaves, the arm is at home, and nothing is being executed."""
    for node in ("executor_node", "policy_node"):
        peer.wait_until_active(node)
    server.behave()  # counts from here: the node has asked once, when it was configured
    peer.trigger("executor_node/resume")
    peer.forget()
    peer.restart("executor_node")
    peer.wait_until_the_executor_hears(heartbeat=True)
    peer.clear()


def goal(peer):
    """A goal whose first chunk is being executed."""
    handle = peer.send_goal(INSTRUCTION)
    assert handle.accepted
    peer.wait(lambda: peer.arm_commands, "the first command")
    return handle


def assert_the_next_goal_works(peer, server) -> None:
    server.behave()
    peer.clear()
    handle = goal(peer)
    peer.wait(lambda: any(r.verdict == ChunkReport.COMPLETED for r in peer.reports), "a chunk executed as a whole")
    peer.in_turn(handle.cancel_goal_async)
    assert peer.result_of(handle)[0] == CANCELED


def nothing(server: Server) -> Callable[[ServerConnection], None]:
    """Answer too late."""

    def wait(_: ServerConnection) -> None:
        server.released.clear()
        assert server.released.wait(60)

    return wait


def sends(frame: bytes | str) -> Callable[[Server], Callable[[ServerConnection], None]]:
    return lambda _: lambda connection: connection.send(frame)


def a_gigabyte(_: Server) -> Callable[[ServerConnection], None]:
    """Announce a frame of a gigabyte and send its beginning."""
    begin = b"\x82\x7f" + (2**30).to_bytes(8, "big") + bytes(100_000)
    return lambda connection: connection.socket.sendall(begin)


def gone(_: Server) -> Callable[[ServerConnection], None]:
    return lambda connection: connection.socket.shutdown(2)


@pytest.mark.parametrize(
    ("how", "words"),
    [
        (nothing, "did not respond within 1 s"),
        (gone, "was lost"),
        (a_gigabyte, "was lost"),
        (sends(actions(np.full((16, 7), np.nan))), "not finite"),
        (sends(actions(ROWS[:, :6])), "actions must be [16, 7], got an array [16, 6]"),
        (sends(actions(ROWS[:3])), "actions must be [16, 7], got an array [3, 7]"),
        (sends("Traceback: out of memory"), "refuses: Traceback: out of memory"),
        (sends(b"\xc1"), "invalid response"),
    ],
    ids=["slow", "dies", "gigabyte", "nan", "width", "rows", "error", "nonsense"],
)
def test_the_arm_holds_the_reason_names_the_server_and_the_next_goal_works(ready, peer, server, how, words):
    server.misbehave = how(server)
    status, result = peer.result_of(goal(peer))
    assert status == ABORTED and words in result.error_msg and server.address in result.error_msg
    last = peer.reports[-1]
    assert last.verdict in (ChunkReport.COMPLETED, ChunkReport.HELD) and len(peer.arm_commands) <= 2
    assert_the_next_goal_works(peer, server)


def test_a_server_that_was_restarted_is_asked_again(ready, peer, server):
    handle = goal(peer)
    server.stop()
    status, result = peer.result_of(handle)
    assert status == ABORTED and server.address in result.error_msg
    status, result = peer.result_of(peer.send_goal(INSTRUCTION))
    assert status == ABORTED and "no policy responds at" in result.error_msg
    server.start()
    assert_the_next_goal_works(peer, server)


def test_motions_too_large_for_this_robot_are_refused_by_the_gate(ready, peer, server):
    wild = ROWS.copy()
    wild[:, 0] = 3.0
    server.misbehave = sends(actions(wild))(server)
    status, result = peer.result_of(goal(peer))
    assert status == ABORTED and "chunks refused in a row" in result.error_msg
    assert_the_next_goal_works(peer, server)


def test_a_server_that_has_become_that_of_another_robot_moves_nothing(ready, peer, server):
    server.misbehave = gone(server)
    peer.result_of(goal(peer))
    peer.clear()
    server.behave()
    server.metadata = {"embodiment": "aloha"}
    status, result = peer.result_of(peer.send_goal(INSTRUCTION))
    assert status == ABORTED and "a different policy responds" in result.error_msg and "embodiment" in result.error_msg
    assert not peer.arm_commands
    assert_the_next_goal_works(peer, server)


def test_a_server_of_another_robot_is_refused_before_the_node_is_ready(peer, processes, nodes, needs, ready):
    other = Server()
    other.metadata = {"embodiment": "aloha"}
    try:
        started = processes.start("policy_node", policy=f"openpi://{other.address},{needs}")
        peer.wait(
            lambda: "robot: the server drives aloha, this is widowx" in processes.log_of(started),
            "an error that names both robots",
        )
    finally:
        started.kill()
        other.stop()
