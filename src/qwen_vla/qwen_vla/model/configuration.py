# SPDX-License-Identifier: Apache-2.0
"""Configuration of Qwen-VLA: the backbone's Qwen3.5 configuration, the action expert, and the training of actions.

One class, two scales: ``QwenVLAConfig.preset("tiny")`` runs and trains on two CPU cores,
``QwenVLAConfig.preset("4b")`` is the published geometry (arXiv 2605.30280 §2.2).
"""

from __future__ import annotations

from typing import Any, ClassVar, TypeVar

from huggingface_hub.dataclasses import strict
from transformers import PreTrainedConfig
from transformers.models.qwen3_5 import Qwen3_5Config, Qwen3_5TextConfig, Qwen3_5VisionConfig

from qwen_vla.model.checkpoint.config_file import CHOICES, ConfigFile, allowed_keys

Part = TypeVar("Part", bound=PreTrainedConfig)


@strict
class ActionExpertConfig(PreTrainedConfig):
    """Geometry of the single-stream DiT (§2.2); the defaults reproduce the published component sizes.

    Some fields are set by ``QwenVLAConfig``: the rotary ones from the backbone, so that the
    expert's multi-section RoPE rotates by exactly the backbone's angles; ``attention_pattern`` and ``state_token`` from
    its own fields.
    """

    model_type: ClassVar[str] = "qwen_vla_action_expert"
    base_config_key: ClassVar[str] = "expert_config"

    context_size: int = 2560
    hidden_size: int = 1536
    num_layers: int = 16
    num_heads: int = 12
    intermediate_size: int = 10240
    action_channels: int = 64
    timestep_frequencies: int = 256
    qk_norm: bool = False
    norm_eps: float = 1e-6
    rotary_dim: int = 64
    rope_theta: float = 10_000_000.0
    mrope_section: list[int] | None = None
    attention_pattern: str = "bidirectional"
    state_token: bool = False

    def module_arguments(self) -> dict[str, Any]:
        """Keyword arguments of ``ActionExpert``."""
        names = (
            "context_size hidden_size num_layers num_heads intermediate_size action_channels timestep_frequencies "
            "qk_norm norm_eps rotary_dim rope_theta mrope_section attention_pattern state_token"
        )
        return {name: getattr(self, name) for name in names.split()}


@strict
class QwenVLAConfig(PreTrainedConfig):
    """The full configuration of a Qwen-VLA.

    vlm_config: transformers' ``Qwen3_5Config`` (text and vision tower), or its fields; read it as ``backbone``.
    expert_config: ``ActionExpertConfig``, or its fields; read it as ``expert``.
    horizon: H, steps of the unified action tensor (§2.4); K is ``expert_config.action_channels``.
    image_size: side in pixels to which every camera image is resampled. [open] in the paper.
    image_order: whether camera images follow or precede the instruction text. [open]; ``after_text`` lets causal
        image tokens attend to the instruction.
    history_frames, history_rate: in a policy's input, maximum frames per camera (1: only the current one) and their
        rate [Hz]; several are shown as a video, in the backbone's own format. The paper samples navigation video at
        2 FPS, the number is [open]. Data sources have their own.
    proprioception: ``off`` (the paper's default), ``text`` (256-bin integers after the instruction) or ``token`` (one
        continuous vector, padded to K, as a token of the expert) (§5.2.4).
    context_layer: number of text layers whose hidden states condition the expert; None:
        all of them. [open]. States of an earlier layer also pass the backbone's final norm, so that their scale is the
        same; the layers above still run, for the language loss.
    attention_pattern: in the expert, ``bidirectional`` over all valid tokens, ``prefix`` (context tokens ignore
        action tokens) or ``causal`` (nor does an action token attend to later ones). [open].
    tau_distribution, tau_direction, beta_alpha, beta_beta, tau_scale, logit_normal_mean, logit_normal_std:
        density of the flow time, see ``flow_matching.sample_tau`` (§2.5; parameters [open]).
    euler_steps: default number of integration steps. [open], 10 with 4 as the fast setting.
    noise_temperature: scale of the noise that a chunk starts from; the paper's 0.6 of evaluation. 1: as in training.
    prefix_steps: largest number of leading steps that training gave as clean actions, so that a chunk can continue
        another one by its first steps (`real_time_chunking`); 0: not trained for it.
    action_loss_weight, language_loss_weight: λ_act and λ_vl of supervised fine-tuning (§3.3).
    """

    model_type: ClassVar[str] = "qwen_vla"
    sub_configs_defaults: ClassVar[dict[str, Any]] = {"vlm_config": Qwen3_5Config, "expert_config": ActionExpertConfig}

    vlm_config: dict | PreTrainedConfig | None = None
    expert_config: dict | PreTrainedConfig | None = None
    horizon: int = 16
    image_size: int = 256
    image_order: str = "after_text"
    history_frames: int = 1
    history_rate: float = 2.0
    proprioception: str = "off"
    context_layer: int | None = None
    attention_pattern: str = "bidirectional"
    tau_distribution: str = "beta"
    tau_direction: str = "clean"
    beta_alpha: float = 1.5
    beta_beta: float = 1.0
    tau_scale: float = 0.999
    logit_normal_mean: float = 0.0
    logit_normal_std: float = 1.0
    euler_steps: int = 10
    noise_temperature: float = 0.6
    prefix_steps: int = 0
    action_loss_weight: float = 1.0
    language_loss_weight: float = 0.1
    initializer_range: float = 0.02

    def __post_init__(self, **kwargs):
        super().__post_init__(**kwargs)
        self._align_expert()
        self._check()

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], **kwargs: Any) -> QwenVLAConfig:
        """As transformers', but of a file's keys only those that describe the model are read: see `config_file`."""
        return super().from_dict(allowed_keys(config_dict, ConfigFile), **kwargs)

    @property
    def backbone(self) -> Qwen3_5Config:
        """`vlm_config`, which may be given as a dictionary, but is none afterwards."""
        return of_class(Qwen3_5Config, self.vlm_config)

    @property
    def text(self) -> Qwen3_5TextConfig:
        """The text tower of the backbone."""
        return of_class(Qwen3_5TextConfig, self.backbone.text_config)

    @property
    def vision(self) -> Qwen3_5VisionConfig:
        """The vision tower of the backbone."""
        return of_class(Qwen3_5VisionConfig, self.backbone.vision_config)

    @property
    def expert(self) -> ActionExpertConfig:
        """`expert_config`, likewise."""
        return of_class(ActionExpertConfig, self.expert_config)

    @property
    def channels(self) -> int:
        """K, the width of the unified action tensor."""
        return self.expert.action_channels

    @property
    def patch_shape(self) -> tuple[int, int]:
        """Frames and side [pixels] of a patch, which is square."""
        frames, side = self.vision.temporal_patch_size, self.vision.patch_size
        if not isinstance(frames, int) or not isinstance(side, int):
            raise ValueError(f"temporal_patch_size {frames} and patch_size {side} must be one number each")
        return frames, side

    @property
    def tokens_per_image(self) -> int:
        """Language-model tokens per camera image."""
        return (self.image_size // self._image_factor()) ** 2

    @classmethod
    def preset(cls, name: str, **overrides: Any) -> QwenVLAConfig:
        """A configuration by name (``tiny`` or ``4b``); keyword arguments override its fields.

        Dictionaries are merged, so ``expert_config={"action_channels": 32}`` changes only K.
        """
        if name not in _PRESETS:
            raise ValueError(f"unknown preset {name!r}; available: {', '.join(sorted(_PRESETS))}")
        return cls(**_merged(_PRESETS[name](), overrides))

    def _image_factor(self) -> int:
        return self.patch_shape[1] * self.vision.spatial_merge_size

    def _align_expert(self) -> None:
        expert, rope = self.expert, dict[str, Any](self.text.rope_parameters or {})
        expert.rotary_dim = int(self.text.head_dim * rope.get("partial_rotary_factor", 1.0))
        expert.rope_theta = float(rope["rope_theta"])
        expert.mrope_section = list(rope.get("mrope_section", (11, 11, 10)))
        expert.attention_pattern = self.attention_pattern
        expert.state_token = self.proprioception == "token"

    def _check(self) -> None:
        expert, text = self.expert, self.text
        problems = []
        if expert.context_size != text.hidden_size:
            problems.append(f"expert_config.context_size {expert.context_size} != text hidden_size {text.hidden_size}")
        if expert.hidden_size % expert.num_heads:
            problems.append(f"expert hidden_size {expert.hidden_size} is not divisible by num_heads {expert.num_heads}")
        elif expert.rotary_dim > expert.hidden_size // expert.num_heads:
            problems.append(
                f"backbone rotates {expert.rotary_dim} dimensions, more than the expert's head dimension "
                f"{expert.hidden_size // expert.num_heads}"
            )
        if sum(expert.mrope_section or ()) * 2 != expert.rotary_dim:
            problems.append(f"mrope_section {expert.mrope_section} must sum to rotary_dim/2 = {expert.rotary_dim // 2}")
        if self.image_size % self._image_factor():
            problems.append(f"image_size {self.image_size} is not a multiple of patch·merge = {self._image_factor()}")
        if self.horizon < 1 or self.euler_steps < 1:
            problems.append(f"horizon ({self.horizon}) and euler_steps ({self.euler_steps}) must be at least 1")
        if self.noise_temperature <= 0:
            problems.append(f"noise_temperature must be positive, got {self.noise_temperature}")
        if not 0 <= self.prefix_steps < self.horizon:
            problems.append(f"prefix_steps {self.prefix_steps} is not in 0..{self.horizon - 1}, below the horizon")
        if self.history_frames < 1 or self.history_rate <= 0:
            problems.append(f"history_frames {self.history_frames} < 1 or history_rate {self.history_rate} Hz <= 0")
        if self.context_layer is not None and not 1 <= self.context_layer <= text.num_hidden_layers:
            problems.append(f"context_layer {self.context_layer} is not in 1..{text.num_hidden_layers}")
        for field, allowed in CHOICES.items():
            if getattr(self, field) not in allowed:
                problems.append(f"{field} {getattr(self, field)!r} is not one of {', '.join(allowed)}")
        if problems:
            raise ValueError("inconsistent QwenVLAConfig: " + "; ".join(problems))


def of_class(kind: type[Part], config: object) -> Part:
    """A part of a configuration, which is an object of its class once the configuration is made."""
    if not isinstance(config, kind):
        raise TypeError(f"the configuration holds {type(config).__name__} where {kind.__name__} belongs")
    return config


def _merged(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """``base`` with ``changes``, including nested dictionaries."""
    both = {k: _merged(base[k], v) for k, v in changes.items() if isinstance(v, dict) and isinstance(base.get(k), dict)}
    return {**base, **changes, **both}


def _tiny() -> dict[str, Any]:
    """About 3 M parameters for two CPU cores; same classes as ``4b``.

    All text layers use full attention: transformers has no fast CPU kernel for the gated-linear layers. Patches of 16
    without merging give the same 6×6 tokens per image as patches of 8 merged 2×2, and train 1.6 times faster.
    """
    width = 128
    text = {
        "vocab_size": 1024,
        "hidden_size": width,
        "intermediate_size": 384,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 32,
        "layer_types": ["full_attention"] * 4,
        "linear_num_key_heads": 2,
        "linear_num_value_heads": 4,
        "linear_key_head_dim": 32,
        "linear_value_head_dim": 32,
        "max_position_embeddings": 2048,
        "tie_word_embeddings": True,
        "rope_parameters": {
            "rope_type": "default",
            "rope_theta": 10_000.0,
            "partial_rotary_factor": 0.5,
            "mrope_section": [4, 2, 2],
            "mrope_interleaved": True,
        },
    }
    vision = {
        "depth": 3,
        "hidden_size": width,
        "num_heads": 4,
        "intermediate_size": 384,
        "patch_size": 16,
        "spatial_merge_size": 1,
        "temporal_patch_size": 1,
        "out_hidden_size": width,
        "num_position_embeddings": 36,
    }
    return {
        "vlm_config": {"text_config": text, "vision_config": vision, "tie_word_embeddings": True},
        "expert_config": {
            "context_size": width,
            "hidden_size": width,
            "num_layers": 4,
            "num_heads": 4,
            "intermediate_size": 384,
            "action_channels": 64,
        },
        "horizon": 16,
        "image_size": 96,
        "euler_steps": 4,
        "noise_temperature": 1.0,
    }


def _four_billion() -> dict[str, Any]:
    """Qwen3.5-4B and the published expert (§2.2).

    The text tower is the published one; the vision tower's size and tied embeddings are inferred from the
    4 B sibling of the previous generation. A released checkpoint's own configuration takes precedence over both.
    """
    text = {
        "vocab_size": 248_320,
        "hidden_size": 2560,
        "intermediate_size": 9216,
        "num_hidden_layers": 32,
        "num_attention_heads": 16,
        "num_key_value_heads": 4,
        "head_dim": 256,
        "max_position_embeddings": 262_144,
        "tie_word_embeddings": True,
        "eos_token_id": 248_044,
        "rope_parameters": {
            "rope_type": "default",
            "rope_theta": 10_000_000.0,
            "partial_rotary_factor": 0.25,
            "mrope_section": [11, 11, 10],
            "mrope_interleaved": True,
        },
    }
    vision = {"depth": 24, "hidden_size": 1024, "num_heads": 16, "intermediate_size": 4096, "out_hidden_size": 2560}
    return {
        "vlm_config": {"text_config": text, "vision_config": vision, "tie_word_embeddings": True},
        "expert_config": {},
        "horizon": 16,
        "image_size": 256,
    }


_PRESETS = {"tiny": _tiny, "4b": _four_billion}
