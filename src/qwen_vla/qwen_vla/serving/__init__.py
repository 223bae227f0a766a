# SPDX-License-Identifier: Apache-2.0
"""Serves one policy to several clients on the network, over the protocols of other projects. Free of ROS and torch.

    frame ──► messages ──► requests ──► inference_queue ──► served_policy ──► reply
    (bytes)   (bounded)    (checked)    (fair, batched)

`websocket_listener` manages connections, `openpi` is one protocol, `server` combines them into a process.
"""
