"""One policy for several clients on the network, over the protocols that foreign clients speak. Free of ROS and torch.

    frame ──► messages ──► requests ──► inference_queue ──► served_policy ──► reply
    (bytes)   (bounded)    (checked)    (fair, batched)

`websocket_listener` keeps connections, `openpi` is one protocol, `server` puts them together into a process.
"""
