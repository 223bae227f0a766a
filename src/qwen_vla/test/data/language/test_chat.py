"""Conversations: the spellings in common use, one sample per assistant turn, and bad rows that never go unnoticed."""

import base64
import io
import json
import logging

import numpy as np
import pytest
from PIL import Image

from qwen_vla import QwenVLAConfig
from qwen_vla.data.formats.spec import DataError
from qwen_vla.data.language.chat import ChatData
from qwen_vla.data.samples import SourceContext

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
    path = write(tmp_path, {"id": 7, "messages": [user(image, text("What colour?")), says("red")]})
    sample = first(open_chat(path))
    assert (sample.text, sample.answer) == ("What colour?", "red")
    np.testing.assert_array_equal(sample.images["ego"], RED)


def test_file_uris_are_paths(tmp_path):
    image = {"type": "image", "image": f"file://{tmp_path}/red.png"}
    np.testing.assert_array_equal(
        first(open_chat(write(tmp_path, {"messages": [user(image, text("?")), says("red")]}))).images["ego"], RED
    )


def test_every_assistant_turn_is_a_sample_with_all_that_went_before(tmp_path):
    talk = [
        {"role": "system", "content": "Answer briefly."},
        user({"type": "image", "image": "red.png"}, text("What colour?")),
        says("red"),
        {"role": "user", "content": "Sure?"},
        says("yes"),
    ]
    source = open_chat(write(tmp_path, {"messages": talk}))
    assert len(source.training) == 2
    one, two = (source.sample(int(i), np.random.default_rng(0)) for i in source.training)
    assert (one.text, one.answer) == ("Answer briefly.\nuser: What colour?", "red")
    assert two.text == "Answer briefly.\nuser: What colour?\nassistant: red\nuser: Sure?" and two.answer == "yes"
    assert list(two.images) == ["ego"]


def test_several_images_of_a_tag_are_a_history_and_tags_keep_them_apart(tmp_path):
    blue = np.full((40, 20, 3), (10, 10, 250), np.uint8)
    images = [{"type": "image", "image": uri(image)} for image in (RED, blue)]
    wrist = {"type": "image", "image": "red.png", "tag": "cam_wrist"}
    source = open_chat(write(tmp_path, {"messages": [user(*images, wrist, text("Which came first?")), says("red")]}))
    sample = first(source)
    assert sample.images["ego"].shape == (2, CONFIG.image_size, CONFIG.image_size, 3)
    assert sample.images["ego"][0, 0, 0, 0] > 200 and sample.images["ego"][1, 0, 0, 2] > 200
    np.testing.assert_array_equal(sample.images["cam_wrist"], RED)
    assert source.camera_tags == ("cam_wrist", "ego")


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
    white, upright = (source.sample(i, np.random.default_rng(0)).images["ego"] for i in (0, 1))
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
        ({"messages": [user({"type": "image", "image": "red.png", "tag": "Left!"}), says("me")]}, "camera tag 'Left!'"),
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
    row = {"messages": [user({"type": "image", "image": "half.png"}, text("What colour?")), says("red")]}
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
