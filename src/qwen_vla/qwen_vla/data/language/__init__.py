# SPDX-License-Identifier: Apache-2.0
"""Vision-language data: conversations, questions, and user images."""
