# SPDX-License-Identifier: Apache-2.0
"""QwenVLAProcessor: prompts and camera images to model inputs, and a checkpoint's data besides its weights.

It owns the tokenizer, the image transform, the normalization statistics per dataset and the embodiments the
checkpoint was trained on. Prompt layout (``image_order`` "after_text")::

    <|im_start|>user\\n{instruction}{<|tag_start|><|vision_start|><|image_pad|>…<|vision_end|><|tag_end|>}…<|im_end|>\\n
    <|im_start|>assistant\\n[{answer}<|im_end|>]

A history of several frames is a video between its camera's markers, oldest first, in the backbone's own format
(`images.video`)::

    <|tag_start|><0.2 seconds><|vision_start|><|video_pad|>…<|vision_end|><1.2 seconds><|vision_start|>…<|tag_end|>

Conversations (`Sample.chat`) have the tokenizer's own chat template instead.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from qwen_vla.json_files import read_json
from qwen_vla.model.action_space import pack
from qwen_vla.model.chat_prompt import IMAGE_TOKEN, chat_prompt
from qwen_vla.model.checkpoint.config_file import ImageOrder, Proprioception
from qwen_vla.model.checkpoint.embodiment_info import EmbodimentInfo
from qwen_vla.model.checkpoint.files import (
    EMBODIMENTS_FILE,
    NORMALIZATION_FILE,
    read_embodiments,
    read_normalization,
)
from qwen_vla.model.configuration import QwenVLAConfig
from qwen_vla.model.images.transform import ImageTransform, Picture, image_transform_of
from qwen_vla.model.images.video import time_texts
from qwen_vla.model.new_tokens import ROW_MULTIPLE
from qwen_vla.model.normalization import Quantiles
from qwen_vla.model.sample import Conversation, Sample
from qwen_vla.output_files import write_json

IGNORED_LABEL = -100
CAMERA_TAG = r"^[\w.-]+$"
STATE_BINS = 256
PROCESSOR_FILE = "preprocessor_config.json"
SETTINGS = (
    "image_order",
    "horizon",
    "channels",
    "proprioception",
)  # of QwenVLAConfig, kept by the processor under the same names
QWEN_SPECIAL_TOKENS = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|vision_pad|>",
    "<|image_pad|>",
    "<|video_pad|>",
)


class ProcessorSettings(BaseModel):
    """preprocessor_config.json."""

    model_config = ConfigDict(extra="ignore", strict=True)

    image_transform: ImageTransform
    camera_tags: tuple[Annotated[str, Field(pattern=CAMERA_TAG)], ...]
    image_order: ImageOrder = "after_text"
    horizon: Annotated[int, Field(ge=1, le=4096)] = 16
    channels: Annotated[int, Field(ge=1, le=4096)] = 64
    proprioception: Proprioception = "off"


@dataclass
class _Row:
    ids: list[int] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)


class QwenVLAProcessor:
    """Builds model batches; saved beside the model with ``save_pretrained``.

    horizon, channels (H and K of the unified action tensor), image_order and proprioception are those of the model's
    configuration.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerFast,
        image_transform: ImageTransform,
        camera_tags: Sequence[str],
        image_order: str = "after_text",
        normalization: Mapping[str, Quantiles] | None = None,
        embodiments: Mapping[str, EmbodimentInfo] | None = None,
        horizon: int = 16,
        channels: int = 64,
        proprioception: str = "off",
    ):
        self.tokenizer = tokenizer
        self.image_transform = image_transform
        self.camera_tags = tuple(camera_tags)
        self.image_order = image_order
        self.horizon, self.channels, self.proprioception = horizon, channels, proprioception
        self.normalization: dict[str, Quantiles] = dict(normalization or {})
        self.embodiments: dict[str, EmbodimentInfo] = dict(embodiments or {})
        self._cache: dict[str, tuple[int, ...]] = {}
        wanted, vocabulary = (*QWEN_SPECIAL_TOKENS, *self._camera_tokens()), tokenizer.get_vocab()
        if missing := [token for token in wanted if token not in vocabulary]:
            raise ValueError(f"the tokenizer lacks the special tokens {missing}")
        self._special = {token: vocabulary[token] for token in wanted}

    # --- construction ---------------------------------------------------------------------------------------------

    @classmethod
    def from_scratch(
        cls, texts: Sequence[str], config: QwenVLAConfig, camera_tags: Sequence[str], vocab_size: int = 1024
    ) -> QwenVLAProcessor:
        """Train a byte-level BPE tokenizer on ``texts`` and write its size and token ids into ``config``.

        Bytes are the base alphabet, so every text can be encoded; digits are single tokens, as in Qwen's tokenizer.
        """
        specials = [*QWEN_SPECIAL_TOKENS, *camera_token_names(camera_tags)]
        tokenizer = Tokenizer(models.BPE())
        tokenizer.normalizer = normalizers.NFC()
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
        )
        tokenizer.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=vocab_size,
            special_tokens=specials,
            initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
            show_progress=False,
        )
        # Sorting makes the vocabulary independent of the order of the texts.
        tokenizer.train_from_iterator(sorted(set(texts)), trainer)
        wrapped = PreTrainedTokenizerFast(
            tokenizer_object=tokenizer,
            eos_token="<|im_end|>",
            pad_token="<|endoftext|>",
            extra_special_tokens=specials[1:],
            padding_side="left",
            clean_up_tokenization_spaces=False,
        )
        processor = cls(wrapped, image_transform_of(config), camera_tags, **_settings_of(config))
        config.text.vocab_size = 0
        processor.configure(config)
        return processor

    @classmethod
    def from_tokenizer(
        cls, tokenizer: PreTrainedTokenizerFast, config: QwenVLAConfig, camera_tags: Sequence[str]
    ) -> QwenVLAProcessor:
        """Use a ready tokenizer (Qwen3.5's own), adding the camera tokens, and write the ids into ``config``."""
        tokenizer.add_special_tokens(
            {"extra_special_tokens": camera_token_names(camera_tags)}, replace_extra_special_tokens=False
        )
        tokenizer.padding_side = "left"
        processor = cls(tokenizer, image_transform_of(config), camera_tags, **_settings_of(config))
        processor.configure(config)
        return processor

    def configure(self, config: QwenVLAConfig) -> None:
        """Write token ids into ``config``; the vocabulary grows to a multiple of 64 if the tokenizer needs it."""
        backbone, text = config.backbone, config.text
        if text.vocab_size < len(self.tokenizer):
            text.vocab_size = -(-len(self.tokenizer) // ROW_MULTIPLE) * ROW_MULTIPLE
        backbone.image_token_id = self._special["<|image_pad|>"]
        backbone.video_token_id = self._special["<|video_pad|>"]
        backbone.vision_start_token_id = self._special["<|vision_start|>"]
        backbone.vision_end_token_id = self._special["<|vision_end|>"]
        text.pad_token_id = self.pad_id
        text.eos_token_id = self._special["<|im_end|>"]

    def check_fits(self, config: QwenVLAConfig, folder: Path) -> None:
        """ValueError if a checkpoint's files describe other inputs than its model has, or unknown cameras."""
        pairs = {name: (getattr(self, name), getattr(config, name)) for name in SETTINGS}
        ours, needed = self.image_transform, image_transform_of(config)
        sizes = "image_size patch_size merge_size temporal_patch_size".split()
        pairs |= {name: (getattr(ours, name), getattr(needed, name)) for name in sizes}
        wrong = [f"{name} {own} there, {other} in config.json" for name, (own, other) in pairs.items() if own != other]
        if wrong:
            raise ValueError(f"{folder / PROCESSOR_FILE} does not fit the model: {'; '.join(wrong)}")
        rows = config.text.vocab_size
        if len(self.tokenizer) > rows:
            raise ValueError(f"the tokenizer in {folder} has {len(self.tokenizer)} tokens, the model {rows}")
        for robot in self.embodiments.values():
            if unknown := set(robot.camera_tags) - set(self.camera_tags):
                raise ValueError(f"{folder / EMBODIMENTS_FILE}: {robot.name}: no tokens for cameras {sorted(unknown)}")

    @property
    def pad_id(self) -> int:
        """Id of the token that fills rows."""
        return self._special["<|endoftext|>"]

    @property
    def marker_ids(self) -> list[int]:
        """Ids of the tokens that enclose the cameras' images."""
        return [self._special[token] for token in self._camera_tokens()]

    def _camera_tokens(self) -> list[str]:
        return camera_token_names(self.camera_tags)

    # --- batches --------------------------------------------------------------------------------------------------

    def __call__(
        self,
        instructions: Sequence[str],
        images: Sequence[Mapping[str, Any]] | None = None,
        answers: Sequence[str | None] | None = None,
    ) -> dict[str, torch.Tensor]:
        """A batch of prompts only: `collate` for texts with images and answers.

        instructions: B prompt texts. images: B dictionaries from camera tag to H×W×3 (or, as a history, T×H×W×3) uint8
        RGB; None or empty for text only. answers: target texts.
        """
        images = [{}] * len(instructions) if images is None else images
        answers = [None] * len(instructions) if answers is None else answers
        if not len(instructions) == len(images) == len(answers):
            raise ValueError(
                f"{len(instructions)} instructions, {len(images)} image sets, {len(answers)} answers differ"
            )
        return self.collate([Sample(*row) for row in zip(instructions, images, answers, strict=True)])

    def collate(
        self,
        samples: Sequence[Sample],
        horizon: int | None = None,
        length: int | None = None,
        device: torch.device | None = None,
    ) -> dict[str, torch.Tensor]:
        """A left-padded batch of B rows, each with or without images, answer and actions.

        Cameras are in the order of ``camera_tags``. Only an answer's tokens and its end token are labeled. Actions
        are packed into the unified tensor of ``horizon`` (default: the model's own; longer for whole trajectories)
        steps; rows without actions are masked. A row's state is appended to its text, passed to the expert, or not
        used at all, depending on ``proprioception``.

        length: for inference, pad every row at its end to this many tokens. device: a GPU that resamples images:
        images replace pixel_values: [N, size, size, 3] or, if there is a video, [N, T, size, size, 3], for
        `ImageTransform.rounded` and `patchify`.

        Returns input_ids, attention_mask, mm_token_type_ids [B, S] and, if any row has them: pixel_values
        [patches, features] and image_grid_thw [images and steps of videos, 3]; labels [B, S]; actions and action_mask
        [B, H, K]; state [B, K] and state_mask [B].
        """
        if not samples:
            raise ValueError("a batch needs at least one sample")
        rows, pictures, of_chat = [], [], []
        for sample in samples:
            views = self._frames(sample.images)
            shown = [self.image_transform.fit(image) for image in sample.chat.images] if sample.chat else []
            rows.append(self._row(sample, views, shown))
            pictures.extend(picture for frames in views.values() for picture in self.image_transform.pictures(frames))
            pictures.extend((image,) for image in shown)
            of_chat += [False] * (len(pictures) - len(of_chat) - len(shown)) + [True] * len(shown)
        batch = self._pad(rows, any(sample.answer is not None for sample in samples), length)
        if pictures and device is not None and device.type != "cpu":
            batch |= self.image_transform.on_device(pictures, device)
        elif pictures:
            resize = self.image_transform.resize
            batch |= self._pixels(
                [
                    picture if fitted else tuple(map(resize, picture))
                    for picture, fitted in zip(pictures, of_chat, strict=True)
                ]
            )
        if any(sample.actions is not None for sample in samples):
            batch |= self._actions(samples, self.horizon if horizon is None else horizon)
        if self.proprioception == "token" and any(sample.state is not None for sample in samples):
            batch |= self._states(samples)
        return batch

    def _pixels(self, pictures: Sequence[Picture]) -> dict[str, torch.Tensor]:
        """Patches and grids of resized pictures; those of equal shape are converted at once."""
        transform, patches = self.image_transform, []
        for _, alike in itertools.groupby(pictures, key=np.shape):
            patches.append(transform.patchify(torch.from_numpy(np.stack([np.stack(picture) for picture in alike]))))
        grids = [(1, *(side // transform.patch_size for side in picture[0].shape[:2])) for picture in pictures]
        return {
            "pixel_values": patches[0] if len(patches) == 1 else torch.cat(patches),
            "image_grid_thw": torch.tensor(grids),
        }

    def _actions(self, samples: Sequence[Sample], horizon: int) -> dict[str, torch.Tensor]:
        actions = np.zeros((len(samples), horizon, self.channels), np.float32)
        mask = np.zeros(actions.shape, bool)
        for row, sample in enumerate(samples):
            if sample.actions is not None:
                actions[row], mask[row] = pack(sample.actions, horizon, self.channels, sample.valid)
        return {"actions": torch.from_numpy(actions), "action_mask": torch.from_numpy(mask)}

    def _states(self, samples: Sequence[Sample]) -> dict[str, torch.Tensor]:
        # Allocated by torch: the token's product depends on alignment, and NumPy aligns only to 16 bytes.
        states, mask = torch.zeros(len(samples), self.channels), torch.zeros(len(samples), dtype=torch.bool)
        for row, sample in enumerate(samples):
            if sample.state is not None:
                state, mask[row] = checked_state(sample.state), True
                if len(state) > self.channels:
                    raise ValueError(f"a state of {len(state)} numbers does not fit the token of {self.channels}")
                states[row, : len(state)] = torch.tensor(state)
        return {"state": states, "state_mask": mask}

    def token_rows(self, samples: Sequence[Sample]) -> dict[str, torch.Tensor]:
        """input_ids, attention_mask and mm_token_type_ids [B, S] of prompts with camera images of any size."""
        return self._pad([self._row(sample, self._frames(sample.images)) for sample in samples], False, None)

    def step_tokens(self, frames: int, rate: float) -> tuple[int, int]:
        """Tokens of an image or step without its time, and of the longest time of a video of so many frames."""
        times = time_texts(frames, rate, self.image_transform.temporal_patch_size)
        return self.image_transform.tokens + 2, max(map(self.text_tokens, times))

    def prompt_tokens(self, sample: Sample) -> int:
        """Number of tokens of a sample's row, including images and answer."""
        shown = [self.image_transform.fit(image) for image in sample.chat.images] if sample.chat else []
        return len(self._row(sample, self._frames(sample.images), shown).ids)

    def text_tokens(self, text: str) -> int:
        """Number of tokens of a text; ValueError if it contains a reserved one."""
        return len(self._encode(text))

    def decode(self, ids: torch.Tensor | Sequence[int]) -> str:
        """Token ids to text without special tokens."""
        return str(self.tokenizer.decode(torch.as_tensor(ids), skip_special_tokens=True))

    def _frames(self, views: Mapping[str, Any]) -> dict[str, list[np.ndarray]]:
        """Camera tag → its frames, oldest first, in the processor's order of cameras."""
        unknown = set(views) - set(self.camera_tags)
        if unknown:
            raise ValueError(f"unknown camera tags {sorted(unknown)}; this processor knows {list(self.camera_tags)}")
        images = {tag: np.asarray(views[tag]) for tag in self.camera_tags if tag in views}
        return {tag: list(image) if image.ndim == 4 else [image] for tag, image in images.items()}

    def _row(self, sample: Sample, views: Mapping[str, Sequence], shown: Sequence[np.ndarray] = ()) -> _Row:
        """The tokens of a sample; `shown`: the resized images of its conversation."""
        ids = self._chat_ids(sample.chat, shown) if sample.chat else self._prompt_ids(sample, views)
        labels = [IGNORED_LABEL] * len(ids)
        if sample.answer is not None:
            answer_ids = [*self._encode(sample.answer), self._special["<|im_end|>"]]
            ids += answer_ids
            labels += answer_ids
        return _Row(ids, labels)

    def _chat_ids(self, conversation: Conversation, shown: Sequence[np.ndarray]) -> list[int]:
        first, *rest = chat_prompt(self.tokenizer, conversation)
        ids = list(self.tokenizer.encode(first, add_special_tokens=False))
        for image, text in zip(shown, rest, strict=True):
            ids += [self._special[IMAGE_TOKEN]] * self.image_transform.tokens_of(image)
            ids += self.tokenizer.encode(text, add_special_tokens=False)
        return ids

    def _prompt_ids(self, sample: Sample, views: Mapping[str, Sequence]) -> list[int]:
        text = list(self._encode(sample.text))
        if self.proprioception == "text" and sample.state is not None:
            # Without the cache: states hardly ever repeat.
            text += self.tokenizer.encode(f" {state_text(sample.state)}", add_special_tokens=False)
        rate = sample.frame_rate
        pictures = [token for tag, frames in views.items() for token in self._camera_ids(tag, len(frames), rate)]
        body = text + pictures if self.image_order == "after_text" else pictures + text
        start, end = self._special["<|im_start|>"], self._special["<|im_end|>"]
        newline = self._encode("\n")
        return [start, *self._encode("user\n"), *body, end, *newline, start, *self._encode("assistant\n")]

    def _camera_ids(self, tag: str, frames: int, rate: float) -> list[int]:
        if not frames:
            raise ValueError(f"the history of camera {tag!r} has no frame; omit the camera instead")
        if frames == 1:
            shown = self._vision_ids("<|image_pad|>")
        else:
            times = time_texts(frames, rate, self.image_transform.temporal_patch_size)
            shown = [token for time in times for token in (*self._encode(time), *self._vision_ids("<|video_pad|>"))]
        return [self._special[f"<|{tag}_start|>"], *shown, self._special[f"<|{tag}_end|>"]]

    def _vision_ids(self, pad: str) -> list[int]:
        s = self._special
        return [s["<|vision_start|>"], *[s[pad]] * self.image_transform.tokens, s["<|vision_end|>"]]

    def _encode(self, text: str) -> tuple[int, ...]:
        known = self._cache.get(text)
        if known is None:
            forged = [token for token in self._special if token in text]
            if forged:
                raise ValueError(f"text contains the reserved tokens {forged}: {text!r}")
            known = tuple(self.tokenizer.encode(text, add_special_tokens=False))
            if len(self._cache) < 65536:
                self._cache[text] = known
        return known

    def _pad(self, rows: Sequence[_Row], with_labels: bool, length: int | None) -> dict[str, torch.Tensor]:
        longest = max(len(row.ids) for row in rows)
        if length is not None and longest > length:
            raise ValueError(f"a prompt of {longest} tokens cannot be padded to {length}")
        shape = (len(rows), length or longest)
        ids = np.full(shape, self.pad_id, dtype=np.int64)
        mask = np.zeros(shape, dtype=np.int64)
        labels = np.full(shape, IGNORED_LABEL, dtype=np.int64)
        for index, row in enumerate(rows):
            first = longest - len(row.ids) if length is None else 0
            ids[index, first : first + len(row.ids)] = row.ids
            mask[index, first : first + len(row.ids)] = 1
            labels[index, first : first + len(row.ids)] = row.labels
        types = (ids == self._special["<|image_pad|>"]) + 2 * (ids == self._special["<|video_pad|>"])
        batch = {"input_ids": ids, "attention_mask": mask, "mm_token_type_ids": types}
        if with_labels:
            batch["labels"] = labels
        return {name: torch.from_numpy(array) for name, array in batch.items()}

    # --- files ----------------------------------------------------------------------------------------------------

    def save_pretrained(self, directory: str | os.PathLike) -> None:
        """Write tokenizer, image transform, statistics and embodiments into ``directory``."""
        directory = Path(directory)
        directory.mkdir(parents=True, exist_ok=True)
        self.tokenizer.save_pretrained(directory)
        settings = {
            "processor_class": type(self).__name__,
            "image_transform": asdict(self.image_transform),
            "camera_tags": list(self.camera_tags),
            **{name: getattr(self, name) for name in SETTINGS},
        }
        write_json(directory / PROCESSOR_FILE, settings)
        write_json(directory / NORMALIZATION_FILE, {n: q.to_json() for n, q in self.normalization.items()})
        write_json(directory / EMBODIMENTS_FILE, {n: asdict(e) for n, e in self.embodiments.items()})

    @classmethod
    def from_pretrained(cls, directory: str | os.PathLike) -> QwenVLAProcessor:
        """Read the files of ``save_pretrained``; errors name a missing or corrupt file."""
        directory = Path(directory)
        settings = read_json(directory / PROCESSOR_FILE, ProcessorSettings)
        try:
            tokenizer = PreTrainedTokenizerFast.from_pretrained(directory)
        except Exception as error:
            raise OSError(f"cannot load the tokenizer from {directory / 'tokenizer.json'}: {error}") from error
        return cls(
            tokenizer,
            settings.image_transform,
            settings.camera_tags,
            normalization=read_normalization(directory),
            embodiments=read_embodiments(directory),
            **{name: getattr(settings, name) for name in SETTINGS},
        )


def checked_state(state: np.ndarray) -> np.ndarray:
    """A normalized proprioceptive state (s,) as float32; ValueError if it is invalid."""
    state = np.asarray(state, dtype=np.float32)
    if state.ndim != 1 or not len(state) or not np.isfinite(state).all() or np.abs(state).max() > 1:
        raise ValueError(f"a state must be finite numbers (s,) in −1…1, got shape {state.shape}: {state.tolist()}")
    return state


def state_text(state: np.ndarray) -> str:
    """A normalized state as in the prompt (§5.2.4): ``state: [34, 128, …]``, 256 equal bins over −1…1."""
    bins = np.clip(np.floor((checked_state(state) + 1.0) / 2.0 * STATE_BINS), 0, STATE_BINS - 1).astype(int)
    return f"state: {bins.tolist()}"


def camera_token_names(camera_tags: Sequence[str]) -> list[str]:
    """The special tokens that enclose each camera's image."""
    return [token for tag in camera_tags for token in (f"<|{tag}_start|>", f"<|{tag}_end|>")]


def _settings_of(config: QwenVLAConfig) -> dict[str, Any]:
    """The processor's settings from a model's configuration."""
    return {name: getattr(config, name) for name in SETTINGS}
