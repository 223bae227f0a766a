# SPDX-License-Identifier: Apache-2.0
"""Creates a Qwen-VLA from a published Qwen3.5 checkpoint: the backbone's weights and a new action expert.

The weights are never read into memory twice: the model is built without storage and its parameters, published in bf16,
become views of the memory-mapped files, so pages are loaded on use and copied only when training writes to them.
(float32 is copied tensor by tensor: see ``aligned_weights``.)
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
from transformers import PreTrainedTokenizerFast
from transformers.models.qwen3_5 import Qwen3_5Config, Qwen3_5TextConfig
from transformers.utils import logging as transformers_logging

from qwen_vla.json_files import read_json
from qwen_vla.model.aligned_weights import AlignedWeights
from qwen_vla.model.checkpoint.config_file import Backbone, allowed_keys
from qwen_vla.model.checkpoint.files import CONFIG_FILE, REMEDY, read_weight_headers
from qwen_vla.model.configuration import QwenVLAConfig, of_class
from qwen_vla.model.new_tokens import initialize_new_rows
from qwen_vla.model.processing import QwenVLAProcessor

Model = TypeVar("Model", bound=AlignedWeights)  # a QwenVLAModel, whose module imports this one

CAMERA_TAGS = ("ego", "cam_left_wrist", "cam_right_wrist")
FILES = ["config.json", "*.safetensors", "*.safetensors.index.json", "tokenizer*.json", "vocab.json", "merges.txt"]
FILES += ["chat_template.*"]

logger = logging.getLogger(__name__)


def load_backbone(
    model_class: type[Model],
    source: str | Path,
    camera_tags: Sequence[str] = CAMERA_TAGS,
    expert: str = "4b",
    dtype: torch.dtype | None = None,
    expert_dtype: torch.dtype = torch.float32,
    device: str | torch.device = "cpu",
    **overrides: Any,
) -> tuple[Model, QwenVLAProcessor]:
    """A Qwen-VLA on the Qwen3.5 backbone in ``source``, and its processor.

    source: a folder, or a hub id such as ``Qwen/Qwen3.5-4B`` (downloaded once). camera_tags: cameras whose start and
    end markers become special tokens, with embeddings of their own (`new_tokens`). expert: preset whose action
    expert is used; it is untrained and matches the backbone's width. dtype: of the backbone, default the
    checkpoint's own; expert_dtype: of the expert, whose training steps are smaller than the resolution of bf16.
    overrides: fields of ``QwenVLAConfig``; ``expert_config`` may set single fields.

    Raises FileNotFoundError or ValueError naming the file that is missing, truncated or of another model, and OSError
    if a hub id cannot be downloaded.
    """
    folder = find_checkpoint(source)
    config = configuration_of(folder, expert, overrides)
    rows = config.text.vocab_size
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    trained = len(tokenizer)
    if trained > rows:
        raise ValueError(f"{folder / CONFIG_FILE} has vocab_size {rows}, but its tokenizer has {trained} tokens")
    processor = QwenVLAProcessor.from_tokenizer(tokenizer, config, camera_tags)
    config.text.vocab_size = rows
    model = _load(model_class, folder, config, dtype or "auto")
    for parameter in model.action_expert.parameters():
        parameter.data = parameter.data.to(expert_dtype)
    model = model.to(device)
    initialize_new_rows(model.vlm, trained, len(processor.tokenizer))
    return model.eval(), processor


def find_checkpoint(source: str | Path) -> Path:
    """The folder of a complete Qwen3.5 checkpoint; a hub id is downloaded to the Hugging Face cache first."""
    folder = Path(source)
    if not folder.is_dir():
        folder = _download(str(source))
    read_weight_headers(folder)
    kind = read_json(folder / CONFIG_FILE, remedy=REMEDY).get("model_type")
    if kind != Qwen3_5Config.model_type:
        raise ValueError(
            f"{folder / CONFIG_FILE} describes a {kind!r} model; the backbone must be a {Qwen3_5Config.model_type!r} "
            "(Qwen3_5ForConditionalGeneration), such as Qwen/Qwen3.5-4B"
        )
    tokenizer = folder / "tokenizer.json"
    if not tokenizer.is_file():
        raise FileNotFoundError(f"checkpoint file {tokenizer} is missing; copy the tokenizer to the weights' folder")
    return folder


def _download(name: str) -> Path:
    logger.info("%s is not a local folder; downloading it from the Hugging Face hub", name)
    try:
        return Path(snapshot_download(name, allow_patterns=FILES))
    except (HFValidationError, HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        raise OSError(
            f"{name!r} is neither a folder nor a checkpoint that could be downloaded from the Hugging Face hub "
            f"({type(error).__name__}); give the path of a downloaded checkpoint, or check the name and the network"
        ) from error


def configuration_of(folder: Path, expert: str, overrides: dict[str, Any]) -> QwenVLAConfig:
    """The backbone's configuration, with the expert of a preset adapted to it."""
    try:
        backbone = Qwen3_5Config(**allowed_keys(read_json(folder / CONFIG_FILE), Backbone))
    except ValueError as error:
        raise ValueError(f"{folder / CONFIG_FILE}: {error}") from error
    geometry = QwenVLAConfig.preset(expert).expert.to_diff_dict()
    width = of_class(Qwen3_5TextConfig, backbone.text_config).hidden_size
    fields = dict(overrides)
    geometry |= fields.pop("expert_config", {}) | {"context_size": width}
    return QwenVLAConfig(vlm_config=backbone, expert_config=geometry, **fields)


def _load(model_class: type[AlignedWeights], folder: Path, config: QwenVLAConfig, dtype: Any) -> Any:
    """The model with the weights in ``folder``; ValueError if they are others than the backbone's."""
    with _without_load_report():
        model, report = model_class.from_pretrained(
            folder, config=config, dtype=dtype, output_loading_info=True, ignore_mismatched_sizes=True
        )
    missing = sorted(name for name in report["missing_keys"] if not name.startswith("action_expert."))
    unexpected = sorted(name for name in report["unexpected_keys"] if "mtp." not in name)
    for kind, names in (
        ("lack", missing),
        ("have the unknown", unexpected),
        ("have another shape for", sorted(map(str, report["mismatched_keys"]))),
    ):
        if names:
            raise ValueError(
                f"the weights in {folder} do not fit {folder / CONFIG_FILE}: they {kind} {names[:3]}"
                f"{' …' if len(names) > 3 else ''}; copy or download the checkpoint again"
            )
    return model


@contextlib.contextmanager
def _without_load_report() -> Iterator[None]:
    """Suppress transformers' report, which would list every layer of the new expert as missing."""
    before = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(before)
