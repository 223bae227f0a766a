# SPDX-License-Identifier: Apache-2.0
"""Small checkpoints in Qwen3.5's own layout, written with transformers' own classes."""

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast
from transformers.models.qwen3_5 import Qwen3_5Config, Qwen3_5ForConditionalGeneration

from qwen_vla import QwenVLAConfig
from qwen_vla.model.processing import QWEN_SPECIAL_TOKENS

TOKENS = 300  # of the tokenizer that the checkpoints come with

TEMPLATE = (  # as Qwen3.5 writes a conversation whose answers were not thought about
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{% for p in m.content %}{% if p.type == 'image' %}"
    "<|vision_start|><|image_pad|><|vision_end|>{% else %}{{ p.text }}{% endif %}{% endfor %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{{ '<think>\n' }}"
    "{% if enable_thinking is false %}{{ '\n</think>\n\n' }}{% endif %}{% endif %}"
)


def write_tokenizer(folder) -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=TOKENS,
        special_tokens=list(QWEN_SPECIAL_TOKENS),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(["pick up the red cube and put it into the blue bowl on the table"], trainer)
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        extra_special_tokens=list(QWEN_SPECIAL_TOKENS[1:]),
    )
    wrapped.chat_template = TEMPLATE
    assert len(wrapped) == TOKENS
    wrapped.save_pretrained(folder)
    return wrapped


def write_checkpoint(folder, tied=True, rows=384, width=64, layers=4, shard="200KB", empty=False):
    """A small Qwen3.5 in Qwen's layout: three gated-linear layers and one with full attention, 4 × 32-d vision."""
    tokenizer = write_tokenizer(folder)
    fields = QwenVLAConfig.preset("4b").vlm_config.to_dict()
    text, vision = fields["text_config"], fields["vision_config"]
    text.update(vocab_size=rows, hidden_size=width, intermediate_size=3 * width, num_hidden_layers=layers)
    text.update(num_attention_heads=4, num_key_value_heads=2, head_dim=64, layer_types=None, full_attention_interval=4)
    text.update(linear_num_key_heads=2, linear_num_value_heads=4, linear_key_head_dim=32, linear_value_head_dim=32)
    text.update(tie_word_embeddings=tied, pad_token_id=0, eos_token_id=2, bos_token_id=None)
    text["rope_parameters"]["mrope_section"] = [3, 3, 2]
    vision.update(depth=2, hidden_size=64, num_heads=2, intermediate_size=96, out_hidden_size=width)
    vision.update(num_position_embeddings=64)
    image, video = tokenizer.convert_tokens_to_ids(["<|image_pad|>", "<|video_pad|>"])
    fields.update(tie_word_embeddings=tied, image_token_id=image, video_token_id=video)
    torch.manual_seed(0)
    backbone = (
        empty_model(Qwen3_5Config(**fields)) if empty else Qwen3_5ForConditionalGeneration(Qwen3_5Config(**fields))
    )
    backbone.save_pretrained(folder, max_shard_size=shard)
    return backbone.eval()


def empty_model(config) -> Qwen3_5ForConditionalGeneration:
    """bf16 and all zeros: drawing 150 million random numbers would take most of the test's time."""
    with torch.device("meta"):
        model = Qwen3_5ForConditionalGeneration(config).to(torch.bfloat16)
    model.to_empty(device="cpu").tie_weights()
    for parameter in model.parameters():
        parameter.data.zero_()
    return model
