# SPDX-License-Identifier: Apache-2.0
"""Conversations: the spellings in common use, one sample per assistant turn, and bad rows that never go unnoticed."""

import base64
import io
import json
import logging

import numpy as np
import pytest
from comparison import assert_alike
from micro import pictures
from PIL import Image
from qwen_checkpoint import write_tokenizer
from transformers import PreTrainedTokenizerFast

from qwen_vla import QwenVLAConfig, QwenVLAProcessor, Sample
from qwen_vla.data.formats.spec import DataError
from qwen_vla.data.language.chat import ChatData
from qwen_vla.data.samples import SourceContext
from qwen_vla.model.chat_prompt import chat_prompt
from qwen_vla.model.processing import IGNORED_LABEL
from qwen_vla.model.sample import Conversation

CONFIG = QwenVLAConfig.preset("tiny")
RED = np.full((20, 30, 3), (250, 10, 10), np.uint8)


def user(*content):
    return {"role": "user", "content": list(content)}


def text(words):
    return {"type": "text", "text": words}


def says(words):
    return {"role": "assistant", "content": words}


def uri(image, form="PNG"):
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, form)
    return f"data:image/{form.lower()};base64," + base64.b64encode(stream.getvalue()).decode()


def write(folder, *rows):
    Image.fromarray(RED).save(folder / "red.png")
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    (folder / "talk.jsonl").write_text("\n".join(lines), encoding="utf-8")
    return folder / "talk.jsonl"


def open_chat(path, held_out=0.0, **more):
    return ChatData(kind="chat", path=path, **more).open(SourceContext(CONFIG, held_out))


def first(source):
    return source.sample(int(source.training[0]), np.random.default_rng(0))


@pytest.mark.parametrize(
    "image",
    [
        {"type": "image", "image": "red.png"},
        {"type": "image", "path": "red.png"},
        {"type": "image", "image": uri(RED)},
        {"type": "image_url", "image_url": {"url": uri(RED)}},
        {"type": "image_url", "image_url": uri(RED)},
    ],
)
def test_all_common_spellings_of_an_image_mean_the_same(tmp_path, image):
    path = write(tmp_path, {"id": 7, "messages": [user(image, text("What color?")), says("red")]})
    sample = first(open_chat(path))
    content = ({"type": "image"}, {"type": "text", "text": "What color?"})
    assert tuple(sample.chat.messages[0]["content"]) == content and sample.answer == "red"
    np.testing.assert_array_equal(sample.chat.images[0], RED)


def test_file_uris_are_paths(tmp_path):
    image = {"type": "image", "image": f"file://{tmp_path}/red.png"}
    np.testing.assert_array_equal(
        first(open_chat(write(tmp_path, {"messages": [user(image, text("?")), says("red")]}))).chat.images[0], RED
    )


def test_every_assistant_turn_is_a_sample_with_all_that_went_before(tmp_path):
    talk = [
        {"role": "system", "content": "Answer briefly."},
        user({"type": "image", "image": "red.png"}, text("What color?")),
        says("red"),
        {"role": "user", "content": "Sure?"},
        says("yes"),
    ]
    source = open_chat(write(tmp_path, {"messages": talk}))
    assert len(source.training) == 2
    one, two = (source.sample(int(i), np.random.default_rng(0)) for i in source.training)
    assert [message["role"] for message in one.chat.messages] == ["system", "user"] and one.answer == "red"
    assert [message["role"] for message in two.chat.messages] == ["system", "user", "assistant", "user"]
    assert two.answer == "yes" and len(two.chat.images) == 1


def test_images_stand_where_they_were_shown_in_their_own_shape(tmp_path):
    blue = np.full((40, 20, 3), (10, 10, 250), np.uint8)
    images = [{"type": "image", "image": uri(image)} for image in (RED, blue)]
    source = open_chat(write(tmp_path, {"messages": [user(images[0], text("or"), images[1], text("?")), says("red")]}))
    chat = first(source).chat
    assert [part["type"] for part in chat.messages[0]["content"]] == ["image", "text", "image", "text"]
    np.testing.assert_array_equal(chat.images[0], RED)
    np.testing.assert_array_equal(chat.images[1], blue)
    assert source.camera_tags == (), "they are no camera's"


def test_a_conversation_is_written_as_the_chat_template_of_the_checkpoint_says(tmp_path):
    """By hand, as Qwen3.5 without thinking: its template closes the thoughts before the answer."""
    write_tokenizer(tmp_path)
    config = QwenVLAConfig.preset("4b", image_size=64)
    tokenizer = PreTrainedTokenizerFast.from_pretrained(tmp_path)
    processor = QwenVLAProcessor.from_tokenizer(tokenizer, config, ("ego",))
    wide = np.full((96, 192, 3), (250, 10, 10), np.uint8)
    talk = [
        {"role": "system", "content": "Answer briefly."},
        user({"type": "image", "image": uri(wide)}, text("What color?")),
        says("red"),
        {"role": "user", "content": "Sure?"},
        says("yes"),
    ]
    source = open_chat(write(tmp_path, {"messages": talk}))
    batch = processor.collate([source.sample(1, None)])
    pads = "<|image_pad|>" * 18  # 96 × 192 pixels in tokens of 32 × 32
    prompt = (
        "<|im_start|>system\nAnswer briefly.<|im_end|>\n"
        f"<|im_start|>user\n<|vision_start|>{pads}<|vision_end|>What color?<|im_end|>\n"
        "<|im_start|>assistant\nred<|im_end|>\n"
        "<|im_start|>user\nSure?<|im_end|>\n"
        "<|im_start|>assistant\n<think>\n\n</think>\n\n"
    )
    assert tokenizer.decode(batch["input_ids"][0]) == f"{prompt}yes<|im_end|>"
    labels = batch["labels"][0]
    assert tokenizer.decode(labels[labels != IGNORED_LABEL]) == "yes<|im_end|>"
    assert batch["image_grid_thw"].tolist() == [[1, 6, 12]] and len(batch["pixel_values"]) == 72


def test_of_several_chat_templates_the_default_one_is_used(tmp_path):
    tokenizer = write_tokenizer(tmp_path)
    talk = Conversation(({"role": "user", "content": [{"type": "text", "text": "Sure?"}]},))
    alone = chat_prompt(tokenizer, talk)
    tokenizer.chat_template = {"default": tokenizer.chat_template, "tool_use": "{{ messages }}"}
    assert chat_prompt(tokenizer, talk) == alone


def test_a_checkpoint_without_a_template_has_qwens_format(tmp_path):
    source = open_chat(write(tmp_path, {"messages": [user(text("Who?")), says("me")]}))
    processor = QwenVLAProcessor.from_scratch(source.texts(), QwenVLAConfig.preset("tiny"), ("ego",))
    ids = processor.collate([first(source)])["input_ids"][0]
    expected = "<|im_start|>user\nWho?<|im_end|>\n<|im_start|>assistant\nme<|im_end|>"
    assert processor.tokenizer.decode(ids) == expected


def test_conversations_and_camera_images_share_a_batch_and_train(tmp_path, micro):
    """Images of any shape beside those of cameras: each row's hidden states are what they are alone."""
    model, processor = micro
    tall = np.random.default_rng(0).integers(0, 256, (90, 40, 3), dtype=np.uint8)
    talk = {"messages": [user({"type": "image", "image": uri(tall)}, text("What?")), says("noise")]}
    rows = [first(open_chat(write(tmp_path, talk))), Sample("pick up the red cube", pictures(1)[0])]
    together = model.encode(**processor.collate(rows))
    for row, sample in enumerate(rows):
        alone = model.encode(**processor.collate([sample])).hidden[0]
        assert_alike(together.hidden[row, -len(alone) :], alone)


def test_transparent_pixels_are_white_and_photographs_upright(tmp_path):
    clear = Image.new("RGBA", (4, 4), (0, 0, 0, 0))
    clear.save(tmp_path / "clear.png")
    turned = Image.fromarray(RED)
    exif = turned.getexif()
    exif[0x0112] = 6  # the camera was held upright: 30×20 pixels are shown as 20×30
    turned.save(tmp_path / "turned.jpg", exif=exif)
    rows = [
        {"messages": [user({"type": "image", "image": n}, text("?")), says("!")]} for n in ("clear.png", "turned.jpg")
    ]
    source = open_chat(write(tmp_path, *rows))
    white, upright = (source.sample(i, np.random.default_rng(0)).chat.images[0] for i in (0, 1))
    assert (white == 255).all() and upright.shape == (30, 20, 3)


GOOD = {"messages": [user(text("Who?")), says("me")]}


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("{", "Expecting property name"),
        ({"messages": []}, "ending with the assistant; this one has no messages"),
        ({"messages": [says("hello")]}, "this one has assistant"),
        ({"messages": [user(text("Who?"))]}, "this one has user"),
        ({"messages": [user(text("<|im_end|>")), says("me")]}, "starts a special token"),
        ({"messages": [user({"type": "image", "image": "gone.png"}), says("me")]}, "no such image: .*gone.png"),
        ({"messages": [user({"type": "image"}), says("me")]}, "an image must have one address"),
        ({"messages": [user({"type": "image", "image": "https://x.org/a.png"}), says("me")]}, "download images first"),
        ({"messages": [user({"type": "image", "image": "data:text/plain,hi"}), says("me")]}, "is not a data URI"),
        ({"messages": [user({"type": "video", "video": "a.mp4"}), says("me")]}, "messages.0.content.0.type"),
        (
            {"messages": [user(text("Who?")), {"role": "assistant", "content": ""}]},
            "a text part needs a text",
        ),
    ],
)
def test_bad_rows_are_refused_by_line_or_skipped_and_counted(tmp_path, row, message):
    path = write(tmp_path, GOOD, row)
    with pytest.raises(DataError, match=rf"talk\.jsonl:2: .*{message}"):
        open_chat(path)
    source = open_chat(path, on_bad_rows="skip")
    assert len(source.training) == 1 and source.provenance()["bad_rows"] == 1


def test_a_picture_that_cannot_be_decoded_is_reported_when_it_is_used(tmp_path, caplog):
    (tmp_path / "half.png").write_bytes(uri(RED).encode()[:60])
    row = {"messages": [user({"type": "image", "image": "half.png"}, text("What color?")), says("red")]}
    path = write(tmp_path, row, GOOD)
    with pytest.raises(DataError, match=r"talk\.jsonl:1: cannot open the image 'half.png'"):
        first(open_chat(path))
    with caplog.at_level(logging.WARNING):
        assert first(open_chat(path, on_bad_rows="skip")).answer == "me"
    assert "half.png" in caplog.text and "another sample is used" in caplog.text


def test_conversations_are_held_out_whole(tmp_path):
    talk = {"messages": [user(text("a")), says("b"), user(text("c")), says("d")]}
    source = open_chat(write(tmp_path, *[talk] * 10), held_out=0.2)
    assert (len(source.training), len(source.held_out)) == (16, 4)
    np.testing.assert_array_equal(np.concatenate([source.training, source.held_out]), np.arange(20))


def test_texts_hold_every_prompt_and_answer(tmp_path):
    source = open_chat(write(tmp_path, GOOD, {"messages": [user(text("Größe?")), says("七")]}))
    assert set(source.texts()) == {"Who?", "me", "Größe?", "七"}
