# SPDX-License-Identifier: Apache-2.0
"""What the tests ask of Physical Intelligence's openpi-client, in an environment of its own.

openpi_peer.py PORT KEY IN.npz OUT.npz     ask for a chunk in both spellings, and once without images
"""

import json
import sys

import numpy as np
from openpi_client.websocket_client_policy import WebsocketClientPolicy

port, key, given, out = sys.argv[1:]
assert np.__version__.startswith("1."), "openpi-client asks for numpy before 2"
with np.load(given) as file:
    images = {name: file[name] for name in file.files}
fields = {"prompt": "pick up the red cube", "seed": 5}

client = WebsocketClientPolicy("127.0.0.1", int(port), api_key=key or None)
nested = client.infer({"images": images, **fields})
flat = client.infer({**{f"observation/{tag}": image for tag, image in images.items()}, **fields})
try:
    client.infer(fields)
except RuntimeError as told:
    error = str(told)

about = {"metadata": client.get_server_metadata(), "timing": flat["server_timing"], "error": error}
np.savez(out, nested=nested["actions"], flat=flat["actions"], about=json.dumps(about))
