# SPDX-License-Identifier: Apache-2.0
"""The recipe of a training run: typed, validated once, saved with every checkpoint."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from qwen_vla.data.robot.robot_dataset import HUB
from qwen_vla.data.sources import AnyData
from qwen_vla.errors.validation_errors import as_text, meant
from qwen_vla.model.checkpoint.config_file import ConfigFile

CHUNK = 16  # H of manipulation (paper §2.4): T2A trains on longer trajectories


OutputFolder = Annotated[Path, AfterValidator(Path.expanduser)]


class RecipeError(ValueError):
    """A recipe that is missing, invalid or infeasible; the message names file or recipe, and field or folder."""


class Strict(BaseModel):
    """Base of everything in a recipe: unknown fields are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Losses(Strict):
    """Weights of the losses (paper: λ_act, λ_vl). grounding: dense auxiliary head on image tokens, training only.

    balance "gradient_magnitude" (CPT) makes `language` the initial value of an adaptive λ_vl: measured every
    `balance_every` steps, so that the language loss affects the shared backbone `balance_ratio` times as much as the
    action loss. `balance_smoothing` is the weight of the old λ_vl in an update.
    """

    action: float = Field(default=1.0, ge=0)
    language: float = Field(default=0.1, ge=0)
    grounding: float = Field(default=0.0, ge=0)
    balance: Literal["fixed", "gradient_magnitude"] = "fixed"
    balance_ratio: float = Field(default=1.0, gt=0)
    balance_every: int = Field(default=20, gt=0)
    balance_smoothing: float = Field(default=0.8, ge=0, lt=1)

    @model_validator(mode="after")
    def _both(self) -> Self:
        if self.balance != "fixed" and not (self.action and self.language):
            raise ValueError("losses.balance gradient_magnitude needs losses.action and losses.language above 0")
        return self


class Tau(Strict):
    """Density of the flow time (paper §2.5), see `flow_matching.sample_tau`.

    distribution "beta_1_3": Beta(1, 3) by name, whatever alpha and beta are.
    """

    distribution: Literal["beta", "beta_1_3", "logit_normal"] = "beta"
    direction: Literal["clean", "noise"] = "clean"
    alpha: float = Field(default=1.5, gt=0)
    beta: float = Field(default=1.0, gt=0)
    mean: float = 0.0
    std: float = Field(default=1.0, gt=0)

    def in_config(self) -> dict[str, Any]:
        """As fields of `QwenVLAConfig`."""
        named = self.distribution == "beta_1_3"  # 1 − B of a Beta(3, 1) variable B is a Beta(1, 3) one
        return {
            "tau_distribution": "beta" if named else self.distribution,
            "tau_direction": self.direction,
            "beta_alpha": 3.0 if named else self.alpha,
            "beta_beta": 1.0 if named else self.beta,
            "logit_normal_mean": self.mean,
            "logit_normal_std": self.std,
        }


ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj")
LINEAR_ATTENTION = ("in_proj_qkv", "in_proj_z", "in_proj_b", "in_proj_a", "out_proj")
TEXT_LINEARS = (*ATTENTION, *LINEAR_ATTENTION, "gate_proj", "up_proj", "down_proj")


class Lora(Strict):
    """Low-rank adapters in the backbone instead of its full weights; merged when a model is saved.

    lr: learning rate of the adapters, instead of `optimizer.backbone_lr`. vision: also adapters in the vision tower.
    quantize "nf4": the adapted linear layers have 4-bit weights (QLoRA): the backbone takes a third of the memory.
    targets: linear layers of the text layers, by default all: attention, linear attention and feed-forward.
    """

    rank: int = Field(default=16, gt=0)
    alpha: float = Field(default=32.0, gt=0)
    dropout: float = Field(default=0.0, ge=0, lt=1)
    lr: float = Field(default=1e-4, gt=0)
    vision: bool = False
    quantize: Literal["none", "nf4"] = "none"
    targets: tuple[str, ...] = Field(default=TEXT_LINEARS, min_length=1)


class Optimizer(Strict):
    """AdamW with separate learning rates, linear warm-up and cosine decay to `final_share` of the peak.

    name "muon": Muon for the matrices inside the blocks, at the same rates. name "adamw_8bit": AdamW with states of 8
    bits, a quarter of the memory. Both not with shards. ema_decay 0: no averaged copy of the trained weights.
    muon_fused: a weight that holds several matrices, such as queries, keys and values, is one matrix for Muon.
    marker_lr: of the embeddings of the camera markers, which are trained even if those of the backbone are frozen.
    """

    name: Literal["adamw", "adamw_8bit", "muon"] = "adamw"
    muon_fused: bool = False
    backbone_lr: float | None = Field(default=None, gt=0)
    expert_lr: float = Field(gt=0)
    marker_lr: float = Field(default=1e-4, gt=0)
    weight_decay: float = Field(default=0.01, ge=0)
    warmup_steps: int = Field(default=200, ge=0)
    final_share: float = Field(default=0.05, ge=0, le=1)
    max_grad_norm: float = Field(default=1.0, gt=0)
    ema_decay: float = Field(default=0.999, ge=0, lt=1)


class Recipe(Strict):
    """One supervised stage of training (paper §3): T2A, CPT or SFT.

    stage: t2a trains only the expert, without images, on trajectories of up to `horizon` steps; cpt and sft train
        backbone and expert. They differ only in their defaults.
    preset, backbone, init_from: initialization of the model: a preset with random weights, a Qwen3.5 checkpoint (folder
        or hub id) with a new expert of that preset's size, or a model of ours. expert_from: the source of the expert.
    collect: a file (YAML) that defines how datasets are recorded: a list of the options of `qwen-vla collect`, which,
        given the recipe, records the missing ones of those in `data`.
    model: fields of `QwenVLAConfig` that differ from the preset or checkpoint.
    normalization: per name of statistics, whether they are recomputed from the data (default), or kept from
        `init_from`, as for a further stage on much the same data.
    freeze: parts not trained, except for the embeddings of the camera markers, which no backbone knows.
    batch_size: rows of a global batch; all processes share it, in `accumulate` parts each. batch_size_reference: the
        size for which the recipe was written, if `train --batch-size` converted it to another.
    balance: "task_and_embodiment" draws from the datasets with actions uniformly over embodiments, then tasks, then
        frames, regardless of their relative weights.
    precision: of frozen weights, by default bf16 under adapters with autocast bf16, fp32 otherwise; trained ones are
        fp32. autocast: of the computation.
    shard: FSDP instead of a full copy in every process.
    save_every: steps between saved states. keep_every: steps between two models that are kept, as
        step_<number> in the output folder; None: only the last one.
    """

    stage: Literal["t2a", "cpt", "sft"]
    name: str
    output: OutputFolder
    preset: Literal["tiny", "4b"] = "tiny"
    backbone: str | None = None
    init_from: Path | None = None
    expert_from: Path | None = None
    model: dict[str, Any] = {}
    tau: Tau = Tau()
    collect: Path | None = None
    data: list[AnyData] = Field(min_length=1)
    balance: Literal["weights", "task_and_embodiment"] = "weights"
    normalization: dict[str, Literal["keep", "recompute"]] = {}
    horizon: int | None = Field(default=None, gt=0)
    freeze: tuple[Literal["vision", "backbone", "expert"], ...] = ()
    lora: Lora | None = None
    steps: int = Field(gt=0)
    batch_size: int = Field(default=32, gt=0)
    batch_size_reference: int | None = Field(default=None, gt=0)
    accumulate: int = Field(default=1, gt=0)
    noise_draws: int = Field(default=1, gt=0)
    losses: Losses = Losses()
    optimizer: Optimizer
    held_out_share: float = Field(default=0.02, ge=0, lt=1)
    validate_every: int = Field(default=1000, gt=0)
    save_every: int = Field(default=500, gt=0)
    keep_every: int | None = Field(default=None, gt=0)
    log_every: int = Field(default=20, gt=0)
    threads: int = Field(default=2, gt=0)
    precision: Literal["fp32", "bf16"] | None = None
    autocast: Literal["no", "bf16"] = "no"
    gradient_checkpointing: bool = False
    compile: bool = False
    shard: bool = False
    seed: int = Field(default=0, ge=0)

    @model_validator(mode="before")
    @classmethod
    def _defaults_of_the_stage(cls, values: Any) -> Any:
        """T2A: frozen backbone, logit-normal τ, actions only; values in the recipe take precedence."""
        if isinstance(values, dict) and values.get("stage") == "t2a":
            losses = values.get("losses") or {}
            values = {"freeze": ("backbone",), "tau": {"distribution": "logit_normal"}, **values}
            if isinstance(losses, dict):
                values["losses"] = {"language": 0.0, **losses}
        return values

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        problems = [*self._stage_problems(), *self._start_problems(), *self._training_problems()]
        if problems:
            raise ValueError("; ".join(problems))
        return self

    @property
    def frozen(self) -> frozenset[str]:
        return frozenset(self.freeze)

    @property
    def trains_backbone(self) -> bool:
        return "backbone" not in self.frozen

    def keeps(self, name: str) -> bool:
        """Whether statistics of `init_from` are kept; those of a robot's state follow those of its actions."""
        return self.normalization.get(name, self.normalization.get(name.removesuffix(".state"))) == "keep"

    @property
    def trains_markers(self) -> bool:
        """Whether the embeddings of the camera markers are trained apart from the backbone."""
        return self.stage != "t2a" and (self.lora is not None or not self.trains_backbone)

    @property
    def trains_in_backbone(self) -> bool:
        """Whether anything before the expert is trained."""
        return self.trains_backbone or self.trains_markers

    @property
    def frozen_precision(self) -> Literal["fp32", "bf16"]:
        """The precision of frozen weights."""
        return self.precision or ("bf16" if self.lora and self.autocast == "bf16" else "fp32")

    @property
    def data_paths(self) -> list[Path]:
        """Files and folders with data; not those generated or downloaded during training."""
        paths = [str(path) for source in self.data if (path := getattr(source, "path", None)) is not None]
        return [Path(path) for path in dict.fromkeys(paths) if not path.startswith(HUB)]

    def _stage_problems(self):
        if self.stage != "t2a":
            if self.horizon is not None:
                yield f"horizon is for stage t2a; in stage {self.stage} every robot has its own"
            return
        if self.horizon is None or self.horizon <= CHUNK:
            yield f"horizon: stage t2a trains on whole trajectories, longer than {CHUNK} steps, got {self.horizon}"
        if self.trains_backbone or "expert" in self.frozen:
            yield f"freeze: stage t2a trains only the expert, got {list(self.freeze)}"
        if self.losses.language or self.losses.grounding:
            yield "losses.language and losses.grounding have nothing to train in stage t2a: set them to 0"

    def _start_problems(self):
        if self.backbone and self.init_from:
            yield "backbone and init_from are alternatives; give one"
        yield from _config_problems(self.model)

    def _training_problems(self):
        if {"backbone", "expert"} <= self.frozen:
            yield "freeze: nothing is left to train"
        if self.trains_backbone and not self.lora and self.optimizer.backbone_lr is None:
            yield "optimizer.backbone_lr: missing"
        if self.lora and not self.trains_backbone:
            yield "lora adapts the backbone, which freeze excludes"
        if self.lora and self.lora.vision and "vision" in self.frozen:
            yield "lora.vision adapts the vision tower, which freeze excludes"
        if self.frozen_precision != "fp32" and self.autocast == "no":
            yield f"precision {self.precision} with trained weights in fp32 needs autocast: bf16"
        if self.optimizer.name != "adamw" and self.shard:
            yield f"optimizer.name {self.optimizer.name} needs whole matrices: shard must be false"
        if self.lora and self.lora.quantize != "none" and self.shard:
            yield "lora.quantize needs whole matrices: shard must be false"
        if self.accumulate > self.batch_size:
            yield f"accumulate: a batch of {self.batch_size} rows cannot be split into {self.accumulate} parts"
        if self.losses.balance != "fixed" and not self.trains_backbone:
            yield "losses.balance gradient_magnitude needs a trained backbone"


def _config_problems(values: Mapping[str, Any]) -> Iterator[str]:
    """What is wrong with fields of `QwenVLAConfig`, by the types that they have in a checkpoint's file."""
    fields = [name for name in ConfigFile.model_fields if not name.endswith("_config")]
    for name, value in values.items():
        if name not in fields:
            yield f"model.{name}: unknown field in QwenVLAConfig{meant(name, fields)}"
            continue
        try:
            ConfigFile.__pydantic_validator__.validate_assignment(ConfigFile.model_construct(), name, value)
        except ValidationError as error:
            yield f"model.{as_text(error, name)}"
