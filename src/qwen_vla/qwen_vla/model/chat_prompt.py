# SPDX-License-Identifier: Apache-2.0
"""Conversations as a backbone knows them: the chat template of its tokenizer, with images where they were shown."""

from __future__ import annotations

from transformers import PreTrainedTokenizerFast

from qwen_vla.model.sample import Conversation

IMAGE_TOKEN = "<|image_pad|>"
# Of a checkpoint without its own: Qwen's format without a system message or thinking.
TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n"
    "{% for part in message.content %}{% if part.type == 'image' %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% else %}{{ part.text }}{% endif %}{% endfor %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def chat_prompt(tokenizer: PreTrainedTokenizerFast, conversation: Conversation) -> list[str]:
    """The text before the answer, without thinking, cut where an image's tokens belong: one part more than images.

    ValueError if the template shows another number of images than the conversation has.
    """
    text = tokenizer.apply_chat_template(
        [dict(message) for message in conversation.messages],
        chat_template=None if tokenizer.chat_template else TEMPLATE,
        tokenize=False,
        add_generation_prompt=True,
        enable_thinking=False,
    )
    parts = str(text).split(IMAGE_TOKEN)
    if len(parts) != len(conversation.images) + 1:
        raise ValueError(
            f"the chat template of the checkpoint shows {len(parts) - 1} images of a conversation with "
            f"{len(conversation.images)}; use a checkpoint with the template of Qwen3.5"
        )
    return parts
