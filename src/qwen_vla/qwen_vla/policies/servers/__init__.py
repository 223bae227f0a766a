# SPDX-License-Identifier: Apache-2.0
"""Policies on a server, ours or another project's: `openpi://HOST:PORT[,FILE.yaml]`, `groot://HOST:PORT,FILE.yaml`.

    Observation ──► fields ──► connection ──► response ──► checked ActionChunk
       (needs: the server's names, sizes and units)      (policy)

`needs` describes a server, `connection` is one request and one response, `policy` trusts no response; `openpi` and
`groot` are protocols. The API key is read from the environment, QWEN_VLA_API_KEY.
"""
