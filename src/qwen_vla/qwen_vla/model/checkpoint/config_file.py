# SPDX-License-Identifier: Apache-2.0
"""config.json of a checkpoint: the keys that describe a model, their types and ranges. Free of torch.

Only these keys are read. Whatever else such a file holds is dropped, so that no key of a file reaches a loader that
would fetch code or other weights (`auto_map`, `attn_implementation`, `quantization_config`, …).
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from qwen_vla.errors.validation_errors import as_text

TauDistribution = Literal["beta", "logit_normal"]
TauDirection = Literal["clean", "noise"]
ImageOrder = Literal["after_text", "before_text"]
Proprioception = Literal["off", "text", "token"]
AttentionPattern = Literal["bidirectional", "prefix", "causal"]
CHOICES: dict[str, tuple[str, ...]] = {  # of the fields of `ConfigFile`
    "tau_distribution": get_args(TauDistribution),
    "tau_direction": get_args(TauDirection),
    "image_order": get_args(ImageOrder),
    "proprioception": get_args(Proprioception),
    "attention_pattern": get_args(AttentionPattern),
}
# Functions of torch, by transformers' name.
Activation = Literal["silu", "gelu", "gelu_pytorch_tanh", "relu", "quick_gelu"]
Count = Annotated[int, Field(ge=1, le=2**20)]
Layers = Annotated[int, Field(ge=1, le=1000)]
Token = Annotated[int, Field(ge=0, le=2**24)]
Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0, le=1e12)]
DType = Literal["float32", "bfloat16", "float16"]


class _Keys(BaseModel):
    model_config = ConfigDict(extra="ignore", strict=True, frozen=True, allow_inf_nan=False)


class _Tower(_Keys):
    dtype: DType | None = None


class Rope(_Keys):
    """Rotary position embedding. None of transformers' scaled variants, which our expert lacks."""

    rope_type: Literal["default", "axial"] = "default"
    rope_theta: Positive = 10_000.0
    partial_rotary_factor: Share = 1.0
    mrope_section: Annotated[list[Annotated[int, Field(ge=0, le=4096)]], Field(min_length=3, max_length=3)] | None = (
        None
    )
    mrope_interleaved: bool = False


class TextTower(_Tower):
    """Fields of transformers' ``Qwen3_5TextConfig``."""

    vocab_size: Annotated[int, Field(ge=1, le=2**24)] = 248_320
    hidden_size: Count = 4096
    intermediate_size: Count = 12_288
    num_hidden_layers: Layers = 32
    num_attention_heads: Count = 16
    num_key_value_heads: Count = 4
    head_dim: Count = 256
    hidden_act: Activation = "silu"
    max_position_embeddings: Annotated[int, Field(ge=1, le=2**24)] = 32_768
    initializer_range: Share = 0.02
    rms_norm_eps: Share = 1e-6
    use_cache: bool = True
    tie_word_embeddings: bool = False
    rope_parameters: Rope | None = None
    attention_bias: bool = False
    attention_dropout: Share = 0.0
    linear_conv_kernel_dim: Count = 4
    linear_key_head_dim: Count = 128
    linear_value_head_dim: Count = 128
    linear_num_key_heads: Count = 16
    linear_num_value_heads: Count = 32
    layer_types: list[Literal["full_attention", "linear_attention"]] | None = None
    pad_token_id: Token | None = None
    bos_token_id: Token | None = None
    eos_token_id: Token | Annotated[list[Token], Field(max_length=100)] | None = None

    @model_validator(mode="after")
    def _consistent(self) -> TextTower:
        if self.layer_types is not None and len(self.layer_types) != self.num_hidden_layers:
            raise ValueError(f"text_config: {len(self.layer_types)} layer_types for {self.num_hidden_layers} layers")
        if self.num_attention_heads % self.num_key_value_heads:
            raise ValueError(
                f"text_config: {self.num_attention_heads} attention heads cannot share "
                f"{self.num_key_value_heads} key-value heads"
            )
        return self


class VisionTower(_Tower):
    """Fields of transformers' ``Qwen3_5VisionConfig``."""

    depth: Layers = 27
    hidden_size: Count = 1152
    hidden_act: Activation = "gelu_pytorch_tanh"
    intermediate_size: Count = 4304
    num_heads: Count = 16
    in_channels: Literal[3] = 3
    patch_size: Annotated[int, Field(ge=1, le=1024)] = 16
    spatial_merge_size: Annotated[int, Field(ge=1, le=64)] = 2
    temporal_patch_size: Annotated[int, Field(ge=1, le=64)] = 2
    out_hidden_size: Count = 3584
    num_position_embeddings: Count = 2304
    initializer_range: Share = 0.02
    rope_parameters: Rope | None = None

    @model_validator(mode="after")
    def _consistent(self) -> VisionTower:
        if self.hidden_size % self.num_heads:
            raise ValueError(
                f"vision_config: hidden_size {self.hidden_size} is not divisible by {self.num_heads} heads"
            )
        return self


class Backbone(_Tower):
    """Fields of transformers' ``Qwen3_5Config``."""

    text_config: TextTower = TextTower()
    vision_config: VisionTower = VisionTower()
    image_token_id: Token = 248_056
    video_token_id: Token = 248_057
    vision_start_token_id: Token = 248_053
    vision_end_token_id: Token = 248_054
    tie_word_embeddings: bool = False


class Expert(_Tower):
    """Fields of ``ActionExpertConfig``."""

    context_size: Count = 2560
    hidden_size: Count = 1536
    num_layers: Layers = 16
    num_heads: Count = 12
    intermediate_size: Count = 10_240
    action_channels: Annotated[int, Field(ge=1, le=4096)] = 64
    timestep_frequencies: Annotated[int, Field(ge=2, le=2**16)] = 256
    qk_norm: bool = False
    norm_eps: Share = 1e-6
    rotary_dim: Count = 64
    rope_theta: Positive = 1e7
    mrope_section: list[int] | None = None
    attention_pattern: AttentionPattern = "bidirectional"
    state_token: bool = False


class ConfigFile(_Tower):
    """Fields of ``QwenVLAConfig``."""

    vlm_config: Backbone
    expert_config: Expert
    horizon: Annotated[int, Field(ge=1, le=4096)] = 16
    image_size: Annotated[int, Field(ge=1, le=4096)] = 256
    image_order: ImageOrder = "after_text"
    history_frames: Annotated[int, Field(ge=1, le=64)] = 1
    history_rate: Annotated[float, Field(gt=0, le=1000)] = 2.0
    proprioception: Proprioception = "off"
    context_layer: Layers | None = None
    attention_pattern: AttentionPattern = "bidirectional"
    tau_distribution: TauDistribution = "beta"
    tau_direction: TauDirection = "clean"
    beta_alpha: Positive = 1.5
    beta_beta: Positive = 1.0
    tau_scale: Annotated[float, Field(gt=0, le=1)] = 0.999
    logit_normal_mean: Annotated[float, Field(ge=-100, le=100)] = 0.0
    logit_normal_std: Annotated[float, Field(gt=0, le=100)] = 1.0
    euler_steps: Annotated[int, Field(ge=1, le=1000)] = 10
    noise_temperature: Annotated[float, Field(gt=0, le=10)] = 0.6
    prefix_steps: Annotated[int, Field(ge=0, le=4096)] = 0
    action_loss_weight: Annotated[float, Field(ge=0, le=1e6)] = 1.0
    language_loss_weight: Annotated[float, Field(ge=0, le=1e6)] = 0.1
    initializer_range: Share = 0.02

    @property
    def layers(self) -> int:
        """Number of layers of all three towers."""
        vlm = self.vlm_config
        return vlm.text_config.num_hidden_layers + vlm.vision_config.depth + self.expert_config.num_layers


def allowed_keys(content: dict[str, Any], model: type[_Keys]) -> dict[str, Any]:
    """The keys of a configuration that ``model`` knows, as they stand in the file, validated.

    Raises:
        ValueError: a value has another type or is out of range.
    """
    try:
        return model.model_validate(content).model_dump(exclude_unset=True)
    except ValidationError as error:
        raise ValueError(as_text(error, "the configuration")) from error
