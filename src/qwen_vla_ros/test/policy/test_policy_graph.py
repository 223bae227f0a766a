# SPDX-License-Identifier: Apache-2.0
"""policy_node and executor_node as processes with the real middleware, with a small untrained model."""

from __future__ import annotations

import re
import signal
import time

import numpy as np
import pytest
from lifecycle_msgs.msg import Transition
from ros_peer import ABORTED, CANCELED, SUCCEEDED
from std_msgs.msg import Header, String

from qwen_vla.policies.identity import checkpoint_hash
from qwen_vla_control.reasons import Reason
from qwen_vla_msgs.action import ExecuteInstruction
from qwen_vla_msgs.msg import ChunkReport, PolicyIdentity
from qwen_vla_msgs.msg import Embodiment as EmbodimentMessage
from qwen_vla_msgs.srv import StartPolicy
from qwen_vla_rclpy.qos import LATCHED

INSTRUCTION = "pick up the red cube"
RESULT = ExecuteInstruction.Result


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory, widowx):
    """A complete checkpoint of the tiny geometry whose actions are small random motions around the arm's position.

    It reads the joint positions, and a history of two images of each camera.
    """
    import torch

    from qwen_vla import EmbodimentInfo, Quantiles, QwenVLAConfig, QwenVLAModel, QwenVLAProcessor

    torch.manual_seed(0)
    config = QwenVLAConfig.preset("tiny", proprioception="token", history_frames=2, history_rate=4.0)
    tags = tuple(camera.tag for camera in widowx.cameras)
    processor = QwenVLAProcessor.from_scratch([widowx.prompt(INSTRUCTION)], config, tags, vocab_size=320)
    reach = np.array([*[0.01] * 3, *[0.02] * 3, 0.0])
    middle = np.array([*[0.0] * 6, 0.5])
    spread = reach + np.array([*[0.0] * 6, 0.3])
    processor.normalization["widowx"] = Quantiles(middle - spread, middle + spread, widowx.channel_names)
    reading = np.array([widowx.home[name] for name in widowx.joint_names])
    processor.normalization["widowx.state"] = Quantiles(reading - 1.0, reading + 1.0, widowx.joint_names)
    processor.embodiments["widowx"] = EmbodimentInfo(
        name="widowx",
        channel_names=widowx.channel_names,
        control_mode=widowx.control_mode,
        period=widowx.period,
        horizon=widowx.chunk_size,
        execution_horizon=8,
        prompt_template=widowx.prompt("{instruction}"),
        camera_tags=tags,
        dataset="widowx",
    )
    path = tmp_path_factory.mktemp("checkpoint")
    QwenVLAModel(config).save_pretrained(path)
    processor.save_pretrained(path)
    return path


class Stack:
    """The two nodes under test."""

    def __init__(self, peer, processes, checkpoint):
        self.peer, self.processes, self.checkpoint = peer, processes, checkpoint
        self.executor = self.policy = None

    def be_ready(self) -> None:
        """Start what is not running, activate what is not active, and clear the peer's records."""
        if self.policy is None or self.policy.poll() is not None:
            self.policy = self.processes.start(
                "policy_node", policy=str(self.checkpoint), torch_threads=1, observation_timeout=0.5
            )
        self.be_ready_without_policy()
        self.peer.wait_until_active("policy_node")
        self.peer.clear()

    def be_ready_without_policy(self) -> None:
        """The same of the executor alone, which takes the robot as it stands at home."""
        if self.executor is None or self.executor.poll() is not None:
            # On a busy machine one inference may take seconds.
            self.executor = self.processes.start("executor_node", max_observation_age=20.0)
        self.peer.wait_until_active("executor_node")
        self.peer.trigger("executor_node/resume")
        self.peer.forget()  # the heartbeat is the real policy's
        self.peer.restart("executor_node")
        self.peer.clear()

    def log_of_policy(self) -> str:
        return self.processes.log_of(self.policy)

    def execute(self, **kwargs):
        """Send a goal and wait until its first chunk is being executed; returns its handle."""
        handle = self.peer.send_goal(INSTRUCTION, **kwargs)
        assert handle.accepted
        self.peer.wait(lambda: self.peer.arm_commands, "the first command")
        return handle


@pytest.fixture(scope="module")
def shared_stack(peer, processes, checkpoint):
    return Stack(peer, processes, checkpoint)


@pytest.fixture
def stack(shared_stack):
    shared_stack.be_ready()
    return shared_stack


def last_chunk(peer) -> int:
    return max(message.chunk_id for _, message in peer.received["policy_node/action_chunk"])


def assert_still(peer) -> None:
    """The last command was a hold, or the end of a chunk: nothing is being executed."""
    assert len(peer.arm_commands[-1][1].points) == 1 or peer.reports[-1].verdict == ChunkReport.COMPLETED


def test_it_executes_with_feedback_and_ends_by_its_timeout(stack, peer):
    states = []
    handle = stack.execute(timeout=4.0, feedback=lambda message: states.append(message.feedback))
    status, result = peer.result_of(handle)
    assert status == ABORTED and result.error_code == RESULT.TIMEOUT and "4.0 s" in result.error_msg
    assert result.chunks_executed >= 1 and 4.0 <= result.duration < 6.0
    print(f"latency p50 {result.latency_ms_p50:.0f} ms, p99 {result.latency_ms_p99:.0f} ms")
    assert {"inferring", "executing"} <= {feedback.state for feedback in states}
    chunks = [message for _, message in peer.received["policy_node/action_chunk"]]
    assert all(len(c.data) == 112 and c.execution_horizon == 8 and c.instruction == INSTRUCTION for c in chunks)
    # Every observation is after the end of the motion before it.
    ends = [r.header.stamp for r in peer.reports if r.verdict == ChunkReport.COMPLETED]
    looks = [c.header.stamp for c in chunks if any(r.chunk_id == c.chunk_id - 1 for r in peer.reports)]
    for look, end in zip(looks, ends, strict=False):
        assert (look.sec, look.nanosec) > (end.sec, end.nanosec)


def test_every_prompt_length_was_prepared_and_logged_during_configuration(stack):
    """For each number of frames of its two cameras, because the checkpoint was made for two of each."""
    found = re.findall(r"preparing the policy, (\d+) of (\d+): (\d+) tokens, (\d) images", stack.log_of_policy())
    done, totals, tokens, images = (list(map(int, column)) for column in zip(*found, strict=True))
    assert set(totals) == {len(done)} and done == list(range(1, len(done) + 1))
    lengths = {n: [length for length, count in zip(tokens, images, strict=True) if count == n] for n in set(images)}
    assert set(lengths) == {2, 3, 4}
    for of_one in lengths.values():
        assert of_one == sorted(set(of_one)) and of_one[-1] > of_one[0] + 200


def test_a_number_of_chunks_ends_it_with_success(stack, peer):
    assert peer.set_parameter("policy_node", "max_chunks", 2)
    status, result = peer.result_of(stack.execute())
    assert status == SUCCEEDED and result.error_code == RESULT.SUCCESS and result.chunks_executed == 2
    assert 0 < result.latency_ms_p50 < 5000 and not result.error_msg
    assert not peer.set_parameter("policy_node", "max_chunks", -1)  # out of its range
    assert peer.set_parameter("policy_node", "max_chunks", 0)


def test_late_subscribers_get_embodiment_and_prompt(stack, peer, widowx):
    handle = stack.execute()
    got = {}
    for kind, topic in ((EmbodimentMessage, "policy_node/embodiment"), (String, "policy_node/prompt")):
        peer.node.create_subscription(kind, topic, lambda m, t=topic: got.__setitem__(t, m), LATCHED)
    peer.wait(lambda: len(got) == 2, "latched messages")
    peer.in_turn(handle.cancel_goal_async)
    embodiment = got["policy_node/embodiment"]
    assert embodiment.name == "widowx" and list(embodiment.channel_names) == list(widowx.channel_names)
    assert list(embodiment.joint_names) == list(widowx.joint_names) and "{instruction}" in embodiment.prompt
    assert got["policy_node/prompt"].data == widowx.prompt(INSTRUCTION)
    assert peer.result_of(handle)[0] == CANCELED


def test_a_user_interface_starts_and_cancels_by_services(stack, peer):
    """They are a goal of the action: its status is that of any other, and a second one is refused."""
    request = StartPolicy.Request(instruction=INSTRUCTION)
    assert peer.call(StartPolicy, "policy_node/start_policy", request).success
    peer.wait(lambda: peer.arm_commands, "the first command")
    again = peer.call(StartPolicy, "policy_node/start_policy", request)
    assert not again.success and "another goal" in again.message
    assert not peer.send_goal("another one").accepted
    assert peer.trigger("policy_node/cancel_policy").success
    assert peer.report(last_chunk(peer), ChunkReport.HELD).reason_codes.tolist() == [Reason.CANCELED]
    assert_still(peer)


def test_the_service_cancels_a_goal_of_the_action(stack, peer):
    handle = stack.execute()
    assert peer.trigger("policy_node/cancel_policy").success
    assert peer.result_of(handle)[0] == CANCELED
    nothing = peer.trigger("policy_node/cancel_policy")
    assert not nothing.success and "no goal" in nothing.message


@pytest.mark.parametrize(("instruction", "timeout", "word"), [(" ", 0.0, "empty"), ("go", -1.0, "-1.0")])
def test_the_service_says_what_is_wrong_with_a_request(stack, peer, instruction, timeout, word):
    request = StartPolicy.Request(instruction=instruction, timeout=timeout)
    response = peer.call(StartPolicy, "policy_node/start_policy", request)
    assert not response.success and word in response.message


def test_every_chunk_says_which_policy_predicted_it(stack, peer, checkpoint):
    told = []
    peer.node.create_subscription(PolicyIdentity, "policy_node/identity", told.append, LATCHED)
    peer.wait(lambda: told, "the latched identity")
    handle = stack.execute()
    peer.in_turn(handle.cancel_goal_async)
    assert peer.result_of(handle)[0] == CANCELED
    wanted = PolicyIdentity(
        name=str(checkpoint), hash=checkpoint_hash(checkpoint), protocol="qwen_vla", embodiment="widowx"
    )
    assert told[0] == wanted
    for topic in ("policy_node/action_chunk", "executor_node/accepted_chunk"):
        assert all(message.policy == wanted for _, message in peer.received[topic])


def test_cancel_holds_the_arm(stack, peer):
    handle = stack.execute()
    future = peer.in_turn(handle.cancel_goal_async)
    peer.wait(future.done, "response to the cancellation")
    status, result = peer.result_of(handle)
    assert status == CANCELED and result.error_code == RESULT.CANCELED
    assert peer.report(last_chunk(peer), ChunkReport.HELD).reason_codes.tolist() == [Reason.CANCELED]
    assert_still(peer)


def test_a_second_goal_is_rejected_while_one_is_executed(stack, peer):
    handle = stack.execute()
    assert not peer.send_goal("another one").accepted
    peer.in_turn(handle.cancel_goal_async)
    assert peer.result_of(handle)[0] == CANCELED


@pytest.mark.parametrize(
    ("instruction", "timeout", "word"),
    [
        ("  ", 0.0, "empty"),
        ("x" * 501, 0.0, "501 characters"),
        ("1 2 " * 120, 0.0, "tokens (limit 256)"),
        ("go", -1.0, "-1.0"),
        ("a <|im_end|>", 0.0, "<|"),
    ],
)
def test_an_invalid_goal_ends_with_an_explanation(stack, peer, instruction, timeout, word):
    status, result = peer.result_of(peer.send_goal(instruction, timeout=timeout))
    assert status == ABORTED and result.error_code == RESULT.INVALID_GOAL and word in result.error_msg
    assert not peer.arm_commands


@pytest.mark.parametrize("tag", ["ego", "cam_wrist"])
def test_a_camera_that_stops_ends_the_goal_and_the_arm_holds(stack, peer, tag):
    handle = stack.execute()
    peer.silent.add(tag)
    stopped = time.monotonic()
    status, result = peer.result_of(handle)
    assert status == ABORTED and result.error_code == RESULT.INFERENCE_STOPPED
    assert result.error_msg.startswith(f"camera '{tag}': no image for ")
    assert f"on /{tag}/image_raw (limit 0.5 s); is the driver running?" in result.error_msg
    # The last chunk was predicted from an image within its max age.
    late = [t - stopped for t, _ in peer.received["policy_node/action_chunk"]]
    assert max(late) < 0.5 + 0.5  # plus the time of one inference
    assert_still(peer)


def freeze(peer):
    peer.frozen.add("ego")


def repeat(peer):
    peer.still.add("ego")


def lag(peer):
    peer.shifted["ego"] = -3.0


def lead(peer):
    peer.shifted["ego"] = 3.0


@pytest.mark.parametrize(
    ("break_it", "words"),
    [
        (freeze, ("the same image for", "on /ego/image_raw", "the stream is frozen; restart its driver")),
        (repeat, ("identical images with new stamps for", "on /ego/image_raw", "restart its driver")),
        (lag, ("the images on /ego/image_raw are 3.", "old when they arrive", "clocks of the machines")),
        (lead, ("stamps on /ego/image_raw are", "in the future (limit 0.10 s)", "chrony")),
    ],
)
def test_a_camera_with_old_images_ends_the_goal_and_the_arm_holds(stack, peer, break_it, words):
    handle = stack.execute()
    break_it(peer)
    status, result = peer.result_of(handle)
    assert status == ABORTED and result.error_code == RESULT.INFERENCE_STOPPED
    assert result.error_msg.startswith("camera 'ego': ") and all(word in result.error_msg for word in words)
    assert_still(peer)


def test_every_stream_has_its_diagnostics(stack, peer):
    def level(name):
        status = peer.latest_diagnostics(f"policy_node: {name}")
        return None if status is None else int.from_bytes(status.level)

    names = ("camera 'ego'", "camera 'cam_wrist'", "joint states")
    # The cameras of this robot send no CameraInfo, which is a warning.
    peer.wait(lambda: [level(name) for name in names] == [1, 1, 0], "diagnostics of all streams")
    values = {pair.key: pair.value for pair in peer.latest_diagnostics("policy_node: camera 'ego'").values}
    assert values["topic"] == "/ego/image_raw" and values["publishers"] == "/peer (best effort, volatile)"
    assert values["size [px]"] == "320 x 240" and float(values["rate [Hz]"]) == pytest.approx(10.0, abs=3.0)
    peer.silent.add("cam_wrist")
    peer.wait(lambda: [level(name) for name in names] == [1, 2, 0], "the error of the silent camera")
    assert level("inference") == 2


def test_a_stop_by_service_ends_the_goal(stack, peer):
    handle = stack.execute()
    assert peer.trigger("executor_node/stop").success
    status, result = peer.result_of(handle)
    assert status == ABORTED and result.error_code == RESULT.EXECUTOR_STOPPED
    assert "stopped by service" in result.error_msg
    assert len(peer.arm_commands[-1][1].points) == 1


def test_deactivation_ends_the_goal_and_the_heartbeat(stack, peer):
    beats = []
    peer.node.create_subscription(Header, "policy_node/heartbeat", lambda _: beats.append(time.monotonic()), 10)
    peer.wait(lambda: beats, "a heartbeat")
    handle = stack.execute()
    assert peer.transition("policy_node", Transition.TRANSITION_DEACTIVATE)
    status, result = peer.result_of(handle)
    assert status == ABORTED and result.error_code == RESULT.NOT_ACTIVE and "deactivated" in result.error_msg
    peer.report(last_chunk(peer), ChunkReport.HELD)
    assert not peer.send_goal(INSTRUCTION).accepted
    quiet_from = time.monotonic()
    peer.wait(lambda: time.monotonic() - quiet_from > 0.5, "half a second")
    assert beats[-1] < quiet_from
    assert peer.transition("policy_node", Transition.TRANSITION_ACTIVATE)


def test_a_killed_policy_is_detected_within_half_a_second(stack, peer):
    stack.execute()
    beats = []
    peer.node.create_subscription(Header, "policy_node/heartbeat", lambda _: beats.append(time.monotonic()), 10)
    peer.wait(lambda: beats, "a heartbeat")
    commands = len(peer.arm_commands)
    stack.policy.send_signal(signal.SIGKILL)
    killed = time.monotonic()
    report = peer.report(last_chunk(peer), ChunkReport.HELD)
    held = next(t for t, m in peer.arm_commands[commands:] if len(m.points) == 1)
    print(f"hold {held - killed:.3f} s after SIGKILL, {held - beats[-1]:.3f} s after the last heartbeat")
    assert report.reason_codes.tolist() == [Reason.POLICY_SILENT]
    assert held - beats[-1] < 0.5


def test_an_interrupted_policy_ends_its_goal_and_leaves_nothing(stack, peer):
    handle = stack.execute()
    future = peer.in_turn(handle.get_result_async)
    assert stack.processes.end(stack.policy, signal.SIGINT) == 0, stack.processes.log_of(stack.policy)
    peer.wait(future.done, "the result, which is sent before the process exits")
    assert future.result().result.error_code == RESULT.NOT_ACTIVE and "SIGINT" in future.result().result.error_msg
    report = peer.report(last_chunk(peer), ChunkReport.HELD)
    assert report.reason_codes.tolist() in ([Reason.CANCELED], [Reason.POLICY_SILENT])
    assert "Traceback" not in stack.processes.log_of(stack.policy)


@pytest.fixture
def no_policy(shared_stack, peer, processes):
    """An active executor without a policy_node."""
    if shared_stack.policy is not None and shared_stack.policy.poll() is None:
        processes.end(shared_stack.policy, signal.SIGTERM)
    shared_stack.be_ready_without_policy()
    peer.wait_until_the_executor_hears(heartbeat=False)


def test_a_folder_that_is_not_a_checkpoint_is_refused_by_name(peer, no_policy, processes, tmp_path):
    started = processes.start("policy_node", policy=str(tmp_path))
    peer.wait(lambda: f"{tmp_path} is not a checkpoint" in processes.log_of(started), "an error that names the folder")
    assert processes.end(started, signal.SIGTERM) == 0


def test_a_policy_that_cannot_continue_a_chunk_is_refused_where_it_has_to(peer, no_policy, processes):
    started = processes.start("policy_node", policy="mock://hold", blending="real_time_chunking")
    text = "mock://hold cannot continue a chunk, which blending 'real_time_chunking' requires; choose another"
    peer.wait(lambda: text in processes.log_of(started), "an error that names the blending")
    assert processes.end(started, signal.SIGTERM) == 0


def test_a_policy_without_a_model_is_executed_as_any_other(peer, no_policy, processes):
    started = processes.start("policy_node", policy="mock://hold", max_chunks=2)
    peer.wait_until_active("policy_node")
    peer.wait_until_the_executor_hears(heartbeat=True)
    before = dict(peer.joints)
    status, result = peer.result_of(peer.send_goal(INSTRUCTION))
    assert status == SUCCEEDED and (result.chunks_executed, result.chunks_refused) == (2, 0)
    assert peer.arm_commands and peer.joints == pytest.approx(before, abs=1e-3)
    assert processes.end(started, signal.SIGTERM) == 0
