"""adapter_config.json of a LoRA: its ranks and scales. Settings that make it more than B A x are refused."""

import math
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, field_validator

from pemt_core.errors import ArtifactError, SettingsError, shown
from pemt_core.lora.patterns import check_patterns, values_of
from pemt_core.schema.json_values import MOST_BYTES, parse_json
from pemt_core.schema.numbers import Rank
from pemt_core.schema.validation import validate
from pemt_core.schema.values import read_text

# The tensors show which modules were chosen, and init_lora_weights tells how they started; the rest affects only
# training, or is PEFT's bookkeeping
WITHOUT_EFFECT = (
    "auto_mapping", "base_model_name_or_path", "corda_config", "ensure_weight_tying", "eva_config", "exclude_modules",
    "inference_mode", "layers_pattern", "layers_to_transform", "loftq_config", "lora_dropout", "lora_ga_config",
    "megatron_core", "peft_version", "qalora_group_size", "revision", "runtime_config", "target_modules", "task_type",
    "velora_config",
)  # fmt: skip
REFUSED = {
    "use_dora": "DoRA rescales the backbone's weights",
    "lora_bias": "a source adapter has no biases",
    "modules_to_save": "it holds whole modules of the backbone, which stays frozen",
    "trainable_token_indices": "it changes the backbone's embeddings, which stay frozen",
    "fan_in_fan_out": "it is for weights stored as (in, out), which no supported backbone has",
    "target_parameters": "it adapts parameters that are no linear layer's weight",
    "layer_replication": "it gives the backbone other layers",
    "alora_invocation_tokens": "it adapts only some positions",
    "use_qalora": "it pools the inputs of a quantized layer",
    "use_bdlora": "its matrices are block-diagonal",
    "arrow_config": "it mixes several LoRAs",
    "kasa_config": "it changes the backbone's weights",
    "monteclora_config": "its weights are drawn anew in every pass",
    "megatron_config": "it is for Megatron's layers",
}
# Values that turn a key off: unknown keys of older or newer files are accepted with these
OFF: tuple[Any, ...] = (None, False, [], {})
INITIALISATIONS = (True, False, "gaussian", "eva", "orthogonal", "mica")  # these leave the backbone as it is

Alpha = Annotated[float, Field(ge=-1e38, le=1e38, allow_inf_nan=False)]  # float32 ends there


class Shape(NamedTuple):
    """R, and s in W z + s B A z: alpha / R, or alpha / sqrt(R) if it is rank-stabilised."""

    rank: int
    scale: float


class LoraConfig(BaseModel):
    """What determines a LoRA's function beside its tensors. Keys that older files lack take PEFT's defaults."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    peft_type: Literal["LORA"]
    r: Rank
    lora_alpha: Alpha
    use_rslora: bool = False
    rank_pattern: dict[str, Rank] = Field(default_factory=dict)
    alpha_pattern: dict[str, Alpha] = Field(default_factory=dict)
    bias: Literal["none"] = "none"
    init_lora_weights: bool | str = True

    @field_validator("rank_pattern", "alpha_pattern")
    @classmethod
    def _are_patterns(cls, value: dict[str, Any]) -> dict[str, Any]:
        check_patterns(value)
        return value

    @field_validator("init_lora_weights")
    @classmethod
    def _leaves_the_backbone(cls, value: bool | str) -> bool | str:
        if value not in INITIALISATIONS:
            raise ValueError(
                f"expected one of {', '.join(map(str, INITIALISATIONS))}, which leave the backbone's weights as they "
                "are; PEFT's save_pretrained(path_initial_model_for_weight_conversion=...) makes the others plain LoRAs"
            )
        return value

    def shapes_of(self, modules: Iterable[str], origin: Path) -> dict[str, Shape]:
        """Return the rank and the scale of the LoRA on each module.

        Raises ArtifactError, naming `origin`, if matching a pattern takes too long.
        """
        modules = list(modules)
        try:
            ranks = values_of(modules, self.rank_pattern, self.r)
            alphas = values_of(modules, self.alpha_pattern, self.lora_alpha)
        except TimeoutError as error:
            raise ArtifactError(f"{origin}: the pattern {error}; expected a simpler one") from error
        root = math.sqrt if self.use_rslora else float
        return {module: Shape(ranks[module], alphas[module] / root(ranks[module])) for module in modules}


def read_config(path: Path) -> LoraConfig:
    """Read adapter_config.json. Raises ArtifactError, naming key and value, if it cannot be a source adapter."""
    try:
        values = parse_json(read_text(path, MOST_BYTES), str(path))
    except SettingsError as error:
        raise ArtifactError(str(error)) from error
    if not isinstance(values, dict):
        raise ArtifactError(f"{path}: expected an object with PEFT's settings of a LoRA, found {type(values).__name__}")
    for key, reason in REFUSED.items():
        if values.get(key) not in OFF:
            raise ArtifactError(f"{path}: key '{key}' is {shown(values[key])}: {reason}; expected a LoRA without it")
    read = {key: value for key, value in values.items() if key in LoraConfig.model_fields and value is not None}
    unread = {key: value for key, value in values.items() if key not in LoraConfig.model_fields and value not in OFF}
    unknown = {key: value for key, value in unread.items() if key not in WITHOUT_EFFECT}
    try:
        return validate(LoraConfig, {**read, **unknown}, str(path))
    except SettingsError as error:
        raise ArtifactError(str(error)) from error
