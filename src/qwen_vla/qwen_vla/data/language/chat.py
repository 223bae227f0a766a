"""`kind: chat`: vision-language conversations in a JSON Lines file, in the formats of Qwen and OpenAI.

    {"messages": [{"role": "user", "content": [{"type": "image", "image": "table.png"},
                                               {"type": "text", "text": "Where is the cup?"}]},
                  {"role": "assistant", "content": "[{\\"bbox_2d\\": [312, 480, 405, 600], \\"label\\": \\"cup\\"}]"}]}

Visual questions, grounding, image and action captions all have this form. Every assistant turn is one sample: its text
is the target, and everything before it is the prompt.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from PIL import Image
from pydantic import BaseModel, ConfigDict, Field, model_validator

from qwen_vla.data.formats.spec import DataError, FileSpec, clean_text, file_hash, log, read_rows, split
from qwen_vla.data.language.images import CameraTag, check_address, open_image
from qwen_vla.data.samples import SourceContext
from qwen_vla.model.sample import Sample

ADDRESS_KEYS = ("image", "image_url", "url", "path")


class ChatData(FileSpec):
    """Conversations about images. `camera_tag` is the default for images whose content part has no `tag`."""

    kind: Literal["chat"]
    camera_tag: CameraTag = "ego"

    def open(self, context: SourceContext) -> Chat:
        return Chat(self, context)


class Part(BaseModel):
    """A piece of a message: text, or an image by path (relative to the file) or data URI."""

    model_config = ConfigDict(frozen=True)

    type: Literal["text", "image", "image_url"]
    text: str = ""
    address: str = ""
    tag: CameraTag | None = None

    @model_validator(mode="before")
    @classmethod
    def _one_spelling(cls, part: Any) -> Any:
        """Qwen uses {"image": …}, OpenAI {"image_url": {"url": …}}, Hugging Face {"url": …} or {"path": …}."""
        if not isinstance(part, dict) or part.get("type") not in ("image", "image_url"):
            return part
        found = [part[key] for key in ADDRESS_KEYS if part.get(key)]
        if len(found) != 1:
            raise ValueError(f"an image must have one address, under one of {', '.join(ADDRESS_KEYS)}")
        address = found[0].get("url", "") if isinstance(found[0], dict) else found[0]
        return {**part, "address": address}

    @model_validator(mode="after")
    def _is_complete(self) -> Part:
        if self.type == "text" and not self.text:
            raise ValueError("a text part needs a text")
        if self.type != "text" and not self.address:
            raise ValueError("an image part needs an address")
        return self


class Message(BaseModel):
    """One turn. A plain-text content is one text part."""

    model_config = ConfigDict(frozen=True)

    role: Literal["system", "user", "assistant"]
    content: tuple[Part, ...] = Field(min_length=1)

    @model_validator(mode="before")
    @classmethod
    def _text_is_a_part(cls, message: Any) -> Any:
        if isinstance(message, dict) and isinstance(message.get("content"), str):
            return {**message, "content": [{"type": "text", "text": message["content"]}]}
        return message

    @model_validator(mode="after")
    def _is_clean(self) -> Message:
        if self.text:  # images need no text
            clean_text(self.text)
        if self.role == "assistant" and self.images:
            raise ValueError("an assistant turn is text; images belong to user turns")
        return self

    @property
    def text(self) -> str:
        return "\n".join(part.text.strip() for part in self.content if part.type == "text")

    @property
    def images(self) -> tuple[Part, ...]:
        return tuple(part for part in self.content if part.type != "text")


class Conversation(BaseModel):
    """One line of the file; other keys (an id, a source) are ignored."""

    model_config = ConfigDict(frozen=True)

    messages: tuple[Message, ...]

    @model_validator(mode="after")
    def _takes_turns(self) -> Conversation:
        roles = [message.role for message in self.messages]
        talk = roles[1:] if roles[:1] == ["system"] else roles
        if not talk or talk != ["user", "assistant"] * (len(talk) // 2):
            raise ValueError(
                f"a conversation is an optional system message, then user and assistant in turn, ending with the "
                f"assistant; this one has {', '.join(roles) or 'no messages'}"
            )
        return self


@dataclass(frozen=True)
class Turn:
    """One assistant turn: the prompt before it, the images so far by tag, and the target text."""

    text: str
    images: Mapping[str, tuple[str, ...]]
    answer: str
    line: int


class Chat:
    """One sample per assistant turn; whole conversations at the end are held out. Without vision, only turns without an
    image are used.

    Images of one tag, in order of appearance, form one history (oldest first). An image that cannot be decoded when it
    is needed is refused, or reported and replaced by the next sample (`on_bad_rows`).
    """

    statistics: dict = {}
    embodiments: dict = {}

    def __init__(self, spec: ChatData, context: SourceContext) -> None:
        self.spec = spec
        self.name = f"chat {spec.path.stem}"
        self.size = context.config.image_size
        conversations, self.bad = read_rows(spec.path, self._parse, spec.on_bad_rows)
        if not context.images:
            conversations = [[turn for turn in conversation if not turn.images] for conversation in conversations]
            conversations = [conversation for conversation in conversations if conversation]
        self.turns = [turn for conversation in conversations for turn in conversation]
        self.camera_tags = tuple(sorted({tag for turn in self.turns for tag in turn.images}))
        kept, held_out = split(len(conversations), context.held_out_share, f"{spec.path}: conversations")
        owner = np.repeat(np.arange(len(conversations)), [len(conversation) for conversation in conversations])
        self.training = np.flatnonzero(np.isin(owner, kept))
        self.held_out = np.flatnonzero(np.isin(owner, held_out))

    def sample(self, index: int, rng: np.random.Generator) -> Sample:
        part = self.training if index in self.training else self.held_out
        first = int(np.flatnonzero(part == index)[0])
        for offset in range(len(part)):
            turn = self.turns[part[(first + offset) % len(part)]]
            try:
                return Sample(turn.text, self._pictures(turn), turn.answer)
            except DataError as error:
                if self.spec.on_bad_rows == "refuse":
                    raise
                log.warning("%s; another sample is used instead", error)
        raise DataError(f"{self.spec.path}: none of its images can be opened")

    def texts(self) -> Iterable[str]:
        return [text for turn in self.turns for text in (turn.text, turn.answer)]

    def provenance(self) -> dict:
        counts = {"samples": len(self.turns), "bad_rows": len(self.bad)}
        return {"kind": "chat", "path": str(self.spec.path), "sha256": file_hash(self.spec.path), **counts}

    def _parse(self, row: dict, line: int) -> list[Turn]:
        messages = Conversation.model_validate(row).messages
        for part in (part for message in messages for part in message.images):
            check_address(self.spec.path.parent, part.address)
        return list(self._turns(messages, line))

    def _turns(self, messages: tuple[Message, ...], line: int) -> Iterable[Turn]:
        for number, message in enumerate(messages):
            if message.role != "assistant":
                continue
            images: dict[str, tuple[str, ...]] = {}
            for part in (part for earlier in messages[:number] for part in earlier.images):
                tag = part.tag or self.spec.camera_tag
                images[tag] = (*images.get(tag, ()), part.address)
            yield Turn(prompt_of(messages[:number]), images, message.text, line)

    def _pictures(self, turn: Turn) -> dict[str, np.ndarray]:
        """Per tag H×W×3, or T×size×size×3 for several: histories need one size."""
        pictures = {}
        for tag, addresses in turn.images.items():
            try:
                found = [open_image(self.spec.path.parent, address) for address in addresses]
            except (ValueError, OSError) as error:
                raise DataError(f"{self.spec.path}:{turn.line}: {error}") from error
            if len(found) == 1:
                pictures[tag] = np.asarray(found[0])
            else:
                size = (self.size, self.size)
                pictures[tag] = np.stack([np.asarray(image.resize(size, Image.Resampling.BOX)) for image in found])
        return pictures


def prompt_of(messages: tuple[Message, ...]) -> str:
    """The text before an assistant turn: a single question unchanged, a dialogue with its speakers named."""
    if [message.role for message in messages] == ["user"]:
        return messages[0].text
    lines = [message.text if message.role == "system" else f"{message.role}: {message.text}" for message in messages]
    return "\n".join(lines)
