"""The operations that methods add to a backbone, against closed forms and transformers' own model."""

from typing import Any

import pytest
import torch
from tiny import tiny_t5
from torch.utils.flop_counter import FlopCounterMode
from workspace import write_params

from pemt_core.comparison.inference import added_flops
from pemt_core.comparison.stand_ins import ANSWER, EMBEDDED_TOKENS
from pemt_core.settings import load_settings

WITHOUT_PRODUCTS = ["full", "norms", "bitfit", "ia3"]
METHODS: dict[str, dict[str, Any]] = {
    **{name: {} for name in WITHOUT_PRODUCTS},
    "lora": {"rank": 3},
    "lora_wo": {"rank": 5, "alpha": 5.0},
    "prompt_tuning": {"length": 9},
    "pemt": {},
    "control": {"kind": "pemt", "sources": []},
    "one": {"kind": "pemt", "sources": ["mnli"]},
    "two": {"kind": "pemt", "sources": ["mnli", "qqp"]},
}


@pytest.fixture(scope="module")
def backbone() -> Any:
    return tiny_t5()


@pytest.fixture(scope="module")
def added(backbone: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[str, int]:
    folder = tmp_path_factory.mktemp("params")
    settings = load_settings(write_params(folder / "params.yaml", {"methods": METHODS}))
    return added_flops(settings, METHODS, backbone)


def flops(model: Any, text_tokens: int) -> int:
    """Of the model as transformers computes it."""
    ids, labels = torch.ones(1, text_tokens, dtype=torch.long), torch.ones(1, ANSWER, dtype=torch.long)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(input_ids=ids, attention_mask=torch.ones_like(ids), labels=labels)
    return int(counter.get_total_flops())


@pytest.mark.parametrize("name", WITHOUT_PRODUCTS)
def test_what_only_changes_or_scales_weights_adds_no_product(name: str, added: dict[str, int]) -> None:
    assert added[name] == 0


def test_a_lora_adds_its_two_products(backbone: Any, added: dict[str, int]) -> None:
    """On q and v of every attention; the decoder's second one reads its values from the text."""
    config = backbone.config
    of_a_token = 2 * 3 * (config.d_model + config.num_heads * config.d_kv)
    encoder = config.num_layers * 2 * EMBEDDED_TOKENS
    decoder = config.num_decoder_layers * (2 * ANSWER + ANSWER + EMBEDDED_TOKENS)
    assert added["lora"] == of_a_token * (encoder + decoder)
    positions = config.num_layers * EMBEDDED_TOKENS + config.num_decoder_layers * ANSWER
    assert added["lora_wo"] == 2 * 5 * (config.d_ff + config.d_model) * positions


def test_a_prompt_costs_what_longer_text_does(backbone: Any, added: dict[str, int]) -> None:
    assert added["prompt_tuning"] == flops(backbone, EMBEDDED_TOKENS + 9) - flops(backbone, EMBEDDED_TOKENS)


def test_each_source_adds_the_same(added: dict[str, int]) -> None:
    """Six sources cost as much beyond one as five times the second one does."""
    assert 0 < added["control"] < added["one"] < added["two"] < added["pemt"]
    assert added["pemt"] - added["one"] == 5 * (added["two"] - added["one"])
