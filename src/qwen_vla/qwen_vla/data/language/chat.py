# SPDX-License-Identifier: Apache-2.0
"""`kind: chat`: vision-language conversations in a JSON Lines file, in the formats of Qwen and OpenAI.

    {"messages": [{"role": "user", "content": [{"type": "image", "image": "table.png"},
                                               {"type": "text", "text": "Where is the cup?"}]},
                  {"role": "assistant", "content": "[{\\"bbox_2d\\": [312, 480, 405, 600], \\"label\\": \\"cup\\"}]"}]}

Visual questions, grounding, image and action captions all have this form. Every assistant turn is one sample: its text
is the target, and everything before it is the prompt, in the chat format of the checkpoint's own tokenizer: co-training
keeps the backbone what it was.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator

from qwen_vla.data.formats.spec import DataError, FileSpec, clean_text, file_hash, log, read_rows, split
from qwen_vla.data.language.images import check_address, open_image
from qwen_vla.data.samples import SourceContext
from qwen_vla.model.sample import Conversation, Sample

ADDRESS_KEYS = ("image", "image_url", "url", "path")


class ChatData(FileSpec):
    """Conversations about images."""

    kind: Literal["chat"]

    def open(self, context: SourceContext) -> Chat:
        return Chat(self, context)


class Part(BaseModel):
    """A piece of a message: text, or an image by path (relative to the file) or data URI."""

    model_config = ConfigDict(frozen=True)

    type: Literal["text", "image", "image_url"]
    text: str = ""
    address: str = ""

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

    @property
    def in_template(self) -> dict[str, Any]:
        """The message in the format of transformers' chat templates."""
        parts = [{"type": "text", "text": p.text} if p.type == "text" else {"type": "image"} for p in self.content]
        return {"role": self.role, "content": parts}


class Line(BaseModel):
    """One line of the file; other keys (an id, a source) are ignored."""

    model_config = ConfigDict(frozen=True)

    messages: tuple[Message, ...]

    @model_validator(mode="after")
    def _takes_turns(self) -> Line:
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
    """One assistant turn: the messages before it, and the target text."""

    before: tuple[Message, ...]
    answer: str
    line: int

    @property
    def images(self) -> tuple[Part, ...]:
        return tuple(part for message in self.before for part in message.images)


class Chat:
    """One sample per assistant turn; whole conversations at the end are held out. Without vision, only turns without an
    image are used.

    An image that cannot be decoded when it is needed is refused, or reported and replaced by the next sample
    (`on_bad_rows`).
    """

    statistics: dict = {}
    embodiments: dict = {}
    camera_tags: tuple[str, ...] = ()

    def __init__(self, spec: ChatData, context: SourceContext) -> None:
        self.spec = spec
        self.name = f"chat {spec.path.stem}"
        conversations, self.bad = read_rows(spec.path, self._parse, spec.on_bad_rows)
        if not context.images:
            conversations = [[turn for turn in conversation if not turn.images] for conversation in conversations]
            conversations = [conversation for conversation in conversations if conversation]
        self.turns = [turn for conversation in conversations for turn in conversation]
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
                return Sample("", answer=turn.answer, chat=self._conversation(turn))
            except DataError as error:
                if self.spec.on_bad_rows == "refuse":
                    raise
                log.warning("%s; another sample is used instead", error)
        raise DataError(f"{self.spec.path}: none of its images can be opened")

    def texts(self) -> Iterable[str]:
        return [text for turn in self.turns for text in (*(m.text for m in turn.before if m.text), turn.answer)]

    def provenance(self) -> dict:
        counts = {"samples": len(self.turns), "bad_rows": len(self.bad)}
        return {"kind": "chat", "path": str(self.spec.path), "sha256": file_hash(self.spec.path), **counts}

    def _parse(self, row: dict, line: int) -> list[Turn]:
        messages = Line.model_validate(row).messages
        for part in (part for message in messages for part in message.images):
            check_address(self.spec.path.parent, part.address)
        return list(self._turns(messages, line))

    def _turns(self, messages: tuple[Message, ...], line: int) -> Iterable[Turn]:
        for number, message in enumerate(messages):
            if message.role == "assistant":
                yield Turn(messages[:number], message.text, line)

    def _conversation(self, turn: Turn) -> Conversation:
        try:
            images = tuple(np.asarray(open_image(self.spec.path.parent, part.address)) for part in turn.images)
        except (ValueError, OSError) as error:
            raise DataError(f"{self.spec.path}:{turn.line}: {error}") from error
        return Conversation(tuple(message.in_template for message in turn.before), images)
