# SPDX-License-Identifier: Apache-2.0
"""What the tests ask of vla-eval's own connection, in an environment of its own.

vla_eval_peer.py PORT IN.npz OUT.npz     greet, play ten steps of an episode and one of the next, and make a mistake
"""

import asyncio
import json
import sys

import numpy as np
from vla_eval.connection import Connection
from vla_eval.specs import GRIPPER_CLOSE_POS, IMAGE_RGB, LANGUAGE, POSITION_DELTA, ROTATION_AA, DimSpec, check_specs

port, given, out = sys.argv[1:]
with np.load(given) as file:
    observation = {
        "images": {"agentview": file["ego"], "wrist": file["cam_wrist"]},
        "states": file["states"],
        "task_description": "pick up the red cube",
        "seed": 5,
    }


def specs(told: dict) -> dict:
    return {name: DimSpec.from_dict(spec) for name, spec in told.items()}


async def play() -> dict:
    async with Connection(f"ws://127.0.0.1:{port}", timeout=60) as connection:
        await connection.start_episode({"task": {"name": "test"}})
        steps = [await connection.act(observation) for _ in range(10)]
        await connection.end_episode({"success": False})
        await connection.start_episode({"task": {"name": "test"}})
        steps.append(await connection.act(observation))
        await connection.start_episode({"task": {"name": "mistake"}})
        error = ""
        try:
            await connection.act(observation | {"images": {}})
        except RuntimeError as told:
            error = str(told)
        return {"steps": steps, "info": connection.server_info, "error": error}


played = asyncio.run(play())
action = {"position": POSITION_DELTA, "rotation": ROTATION_AA, "gripper": GRIPPER_CLOSE_POS}
seen = {"agentview": IMAGE_RGB, "wrist": IMAGE_RGB, "language": LANGUAGE}
seen["state"] = DimSpec("state", 8, "eef_pos3_axisangle3_gripper2")
info = played["info"]
warnings = check_specs(specs(info["action_spec"]), action, specs(info["observation_spec"]), seen)
about = {"info": info, "error": played["error"], "warnings": warnings}
np.savez(out, actions=np.stack([step["actions"] for step in played["steps"]]), about=json.dumps(about))
