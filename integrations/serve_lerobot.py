# SPDX-License-Identifier: Apache-2.0
"""Serve a LeRobot policy (ACT, SmolVLA, π0, …) over openpi's protocol, so that it drives a robot behind our gate.

    python integrations/serve_lerobot.py CHECKPOINT --port 8000 --device cuda

Runs in LeRobot's environment, with msgpack and websockets. Observation: `images.NAME` (H×W×3 uint8) for each feature
observation.images.NAME of the policy, `state`, `prompt`. Response: `actions` [horizon, channels], in the units that the
policy was trained in. One request at a time; an error is a text, after which the connection is closed.
"""

from __future__ import annotations

import argparse
import threading
import time
from typing import Any

import msgpack
import numpy as np
import torch
from lerobot import __version__
from lerobot.configs import PreTrainedConfig
from lerobot.policies.factory import get_policy_class, make_pre_post_processors
from lerobot.utils.constants import OBS_IMAGES, OBS_STATE
from lerobot.utils.import_utils import register_third_party_plugins
from websockets.exceptions import ConnectionClosed
from websockets.frames import CloseCode
from websockets.sync.server import ServerConnection, serve

LARGEST = 16 * 2**20  # [bytes] of a request


class ServedPolicy:
    """A LeRobot policy with its processors."""

    def __init__(self, checkpoint: str, device: str) -> None:
        """checkpoint: folder, or repository of the Hub."""
        self._config = PreTrainedConfig.from_pretrained(checkpoint)
        self._config.device = device
        self._policy = get_policy_class(self._config.type).from_pretrained(checkpoint, config=self._config)
        self._before, self._after = make_pre_post_processors(
            self._config,
            pretrained_path=checkpoint,
            preprocessor_overrides={"device_processor": {"device": device}},
        )
        self._one_at_a_time = threading.Lock()
        self.metadata = {"server": f"lerobot {__version__}", "policy": f"{self._config.type} {checkpoint}"}

    @torch.no_grad()
    def infer(self, fields: dict[str, Any]) -> dict[str, Any]:
        """The response to an observation; ValueError names what it lacks."""
        began, given = time.perf_counter(), self._observation(fields)
        with self._one_at_a_time:
            chunk = self._policy.predict_action_chunk(self._before(given))
            rows = [self._after(chunk[:, row])[0] for row in range(chunk.shape[1])]
        actions = torch.stack(rows).to("cpu", torch.float32).numpy()
        return {"actions": actions, "server_timing": {"infer_ms": 1e3 * (time.perf_counter() - began)}}

    def _observation(self, fields: dict[str, Any]) -> dict[str, Any]:
        images, observation = fields.get("images", {}), {"task": str(fields.get("prompt", ""))}
        for key in self._config.image_features:
            image = images.get(key.removeprefix(f"{OBS_IMAGES}."))
            if not isinstance(image, np.ndarray) or image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
                raise ValueError(f"images.{key.removeprefix(f'{OBS_IMAGES}.')}: must be H×W×3 uint8")
            observation[key] = torch.from_numpy(image.copy()).permute(2, 0, 1).float() / 255
        if (feature := self._config.robot_state_feature) is not None:
            state = np.asarray(fields.get("state"), np.float32)
            if state.shape != tuple(feature.shape):
                raise ValueError(f"state: must be {list(feature.shape)} numbers, got {list(state.shape)}")
            observation[OBS_STATE] = torch.from_numpy(state.copy())
        return observation


def handle(served: ServedPolicy, connection: ServerConnection) -> None:
    """Serve one client."""
    try:
        connection.send(_pack(served.metadata))
        for frame in connection:
            try:
                reply = _pack(served.infer(_unpack(frame)))
            except Exception as error:  # any error is reported to the client, and ends its connection only
                connection.send(f"{type(error).__name__}: {error}")
                connection.close(CloseCode.INTERNAL_ERROR)
                return
            connection.send(reply)
    except ConnectionClosed:
        pass


def _pack(value: Any) -> bytes:
    def array(leaf: np.ndarray) -> dict:
        return {b"__ndarray__": True, b"data": leaf.tobytes(), b"dtype": leaf.dtype.str, b"shape": leaf.shape}

    return msgpack.packb(value, default=array)


def _unpack(frame: bytes) -> Any:
    def array(value: dict) -> Any:
        if b"__ndarray__" not in value:
            return value
        return np.frombuffer(value[b"data"], np.dtype(value[b"dtype"])).reshape(value[b"shape"])

    return msgpack.unpackb(frame, object_hook=array)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", help="folder, or repository of the Hub")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on")
    parser.add_argument("--port", type=int, default=8000, help="0: any free one")
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    register_third_party_plugins()
    served = ServedPolicy(options.checkpoint, options.device)
    with serve(
        lambda connection: handle(served, connection), options.host, options.port, compression=None, max_size=LARGEST
    ) as server:
        print(f"openpi at ws://{options.host}:{server.socket.getsockname()[1]}\nready", flush=True)
        server.serve_forever()


if __name__ == "__main__":
    main()
