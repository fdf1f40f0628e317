"""The settings of a mixture's gates, in one place: each is of the gates named beside it."""

from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, Any, Literal

from pydantic import ValidationInfo, field_validator

from pemt_core.errors import nearest
from pemt_core.methods.gates import gate_modules
from pemt_core.schema.group import Group
from pemt_core.schema.numbers import Count, Rate

if TYPE_CHECKING:
    from pemt_core.model.gate import Gates

GATES_OF = {
    "gate_input": ("input", "text", "token", "top1"),
    "top_k": ("arrow",),
    "temperature": ("arrow",),
    "omega": ("scalearn",),
    "mixes": ("lorahub",),
    "value_matrix": ("fusion",),
}


class GateSettings(Group):
    """Which gates a mixture has, and how they work; the defaults are published values."""

    gate: str = "input"  # a file of `pemt_core.methods.gates`
    gate_rate: Rate = 1.0  # factor of the learning rate of whatever the gates train
    gate_input: Literal["published", "normalised"] = "published"  # normalised: scaled to unit length (L2 norm)
    top_k: Count = 3  # experts per position; the default of PEFT's ArrowConfig
    temperature: Rate = 1.0  # of the softmax over them; the same
    omega: Literal["vector", "scalar"] = "vector"  # per expert and layer
    mixes: Literal["factors", "updates"] = "factors"  # factors: (sum w U) (sum w V), as published; updates: sum w U V
    value_matrix: bool = True  # of AdapterFusion; without it, a third of the gates' parameters are gone

    @field_validator("gate")
    @classmethod
    def _known(cls, value: str) -> str:
        if value not in gate_modules():
            raise ValueError(f"there is no such gate; {nearest(value, gate_modules())}")
        return value

    @field_validator(*GATES_OF)
    @classmethod
    def _of_the_gate(cls, value: Any, info: ValidationInfo) -> Any:
        name, gate = str(info.field_name), info.data.get("gate")  # None: an error of its own
        if gate is not None and gate not in GATES_OF[name] and value != cls.model_fields[name].default:
            others = " or ".join(f"'{each}'" for each in GATES_OF[name])
            raise ValueError(f"the gate '{gate}' has no such setting, only {others}")
        return value

    def gates(self) -> "Gates":
        """The gates that these settings describe."""
        from pemt_core.model.gate import Gates

        module = import_module(gate_modules()[self.gate])
        initial_tensors, build = (partial(part, settings=self) for part in (module.initial_tensors, module.build))
        return Gates(initial_tensors, build, getattr(module, "penalty", None))

    def about_gates(self) -> list[str]:
        """Phrases for reports about everything that is not as published."""
        fields, settings = type(self).model_fields, {name: getattr(self, name) for name in GATES_OF}
        changed = [f"{name} {value}" for name, value in settings.items() if value != fields[name].default]
        found = [f"with the gate '{self.gate}'"] if changed or self.gate != "input" else []
        found = [f"{found[0]} ({', '.join(changed)})"] if changed else found
        found += [f"with the gates' learning rate times {self.gate_rate:g}"] if self.gate_rate != 1 else []
        return found
