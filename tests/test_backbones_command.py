"""`pemt backbones`, the shapes of published checkpoints, and what methods train on them."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from source_code import REPOSITORY
from test_cli import DOCUMENT
from test_components import HEAVY
from tiny_models import MODELS, tiny_model

from components.backbones import describe, in_short, main, make_parser
from components.methods import main as methods_main, make_parser as methods_parser
from pemt_core.backbone.families import FAMILIES
from pemt_core.backbone.published import CHECKPOINTS, find_checkpoint
from pemt_core.backbone.shapes import backbone_of_shapes
from pemt_core.errors import SettingsError
from pemt_core.model.stacks import feed_forwards

GUIDE = (REPOSITORY / "docs" / "backbones.md").read_text(encoding="utf-8")
GEMMA2 = {"2b": 2_614_341_888, "9b": 9_241_705_984}  # as published: the parameters of google/gemma-2-2b and -9b


def shown(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    main(make_parser().parse_args(words))
    return capsys.readouterr().out


# --- the list


def test_every_family_is_listed(capsys: pytest.CaptureFixture[str]) -> None:
    found = json.loads(shown(capsys, "--json"))
    assert [each["family"] for each in found] == [family.name for family in FAMILIES]
    listed = [name for each in found for name in each["checkpoints"]]
    assert sorted(listed) == sorted(CHECKPOINTS)
    assert {key for each in found for key in each if f"`{key}`" not in DOCUMENT} == set()
    pages = shown(capsys)
    assert all(name in pages for name in listed)
    assert max(map(len, pages.splitlines())) <= 120


@pytest.mark.parametrize("kind", MODELS)
def test_feed_forwards_are_where_the_list_says(kind: str) -> None:
    model = tiny_model(kind)
    (paths,) = (describe(family)["feed_forwards"] for family in FAMILIES if model.config.model_type in family.models)
    modules = dict(model.named_modules())
    listed = [module for path in paths for name, module in modules.items() if re.fullmatch(pattern(path), name)]
    assert listed == [place.layer for place in feed_forwards(model)]


def pattern(path: str) -> str:
    return re.escape(path).replace(r"\*", r"\d+")


def test_the_list_loads_nothing_heavy() -> None:
    program = f"import sys, components.backbones; print([name for name in {HEAVY} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_the_guide_has_the_table_of_families() -> None:
    rows = [
        "| {family} | {types} | {layouts} | `{norm}` | {paths} | {checkpoints} | {run_on} |".format(
            family=each["family"],
            types=", ".join(f"`{name}`" for name in each["model_types"]),
            layouts=", ".join(f"`{name}`" for name in each["layouts"]),
            norm=each["norm"],
            paths=", ".join(f"`{path}`" for path in each["feed_forwards"]),
            checkpoints=", ".join(f"{name} ({in_short(size)})" for name, size in each["checkpoints"].items()),
            run_on=", ".join(each["run_on"]),
        )
        for each in map(describe, FAMILIES)
    ]
    table = GUIDE.split("<!-- from the records in pemt_core/backbone/families.py -->\n")[1].split("\n\n")[0]
    assert table.splitlines()[2:] == rows


# --- shapes


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_the_shapes_add_up_to_the_published_size(name: str) -> None:
    """Many to the last parameter; some sizes are published with three digits alone."""
    assert backbone_of_shapes(name).num_parameters() == pytest.approx(CHECKPOINTS[name].parameters, rel=0.03)


@pytest.mark.parametrize("sizes", ["2b-2b", "9b-2b", "9b-9b"])
def test_t5gemma_is_two_models_of_gemma_2_with_cross_attention(sizes: str) -> None:
    model = backbone_of_shapes(f"google/t5gemma-{sizes}-prefixlm").model
    for stack, size in zip((model.encoder, model.decoder), sizes.split("-"), strict=True):
        numbers = [parameter.numel() for name, parameter in stack.named_parameters() if "cross_attn" not in name]
        assert sum(numbers) == GEMMA2[size]


@pytest.mark.parametrize(("size", "text"), [("270m", 370_000_000), ("1b", 1_700_000_000), ("4b", 7_000_000_000)])
def test_t5gemma_2_is_text_and_vision_of_the_published_sizes(size: str, text: int) -> None:
    model = backbone_of_shapes(f"google/t5gemma-2-{size}-{size}")
    encoder = model.model.encoder
    vision = encoder.vision_tower.num_parameters()
    assert vision == pytest.approx(417_000_000, rel=0.03)
    projector = sum(parameter.numel() for parameter in encoder.multi_modal_projector.parameters())
    assert model.num_parameters() - vision - projector == pytest.approx(text, rel=0.03)


@pytest.mark.parametrize(
    ("name", "same"),
    [
        ("t5-base", "google-t5/t5-base"),
        ("Qwen3-0.6B-Base", "Qwen/Qwen3-0.6B"),
        ("qwen3-0.6b", "Qwen/Qwen3-0.6B"),
        ("meta-llama/Llama-3.2-1B-Instruct", "meta-llama/Llama-3.2-1B"),
        ("google/t5gemma-b-b-ul2-it", "google/t5gemma-b-b-prefixlm"),
        ("gemma-3-1b-it", "google/gemma-3-1b-pt"),
    ],
)
def test_variants_share_the_shapes_of_a_checkpoint(name: str, same: str) -> None:
    assert find_checkpoint(name) is CHECKPOINTS[same]


@pytest.mark.parametrize("name", ["t5-base-lm-adapt", "google/t5gemma-l-l-ul2", "", "qwen3"])
def test_other_names_are_refused(name: str) -> None:
    with pytest.raises(SettingsError, match=r"is neither a folder nor a published checkpoint of known shapes; "):
        find_checkpoint(name)


@pytest.mark.parametrize("has_own_head", [False, True])
def test_a_folder_with_a_head_of_its_own_counts_it(tmp_path: Path, has_own_head: bool) -> None:
    """Transformers' configuration of T5 v1.1 says that embeddings are the head, whatever the tensors are."""
    import torch
    from torch import nn

    model = tiny_model("t5_1_1")
    if has_own_head:
        model.lm_head.weight = nn.Parameter(torch.randn_like(model.lm_head.weight))
    model.save_pretrained(tmp_path)
    assert backbone_of_shapes(str(tmp_path)).num_parameters() == sum(p.numel() for p in model.parameters())


# --- what PEMT trains on them, with six sources and a reduction factor of 16


def trained(capsys: pytest.CaptureFixture[str], name: str) -> tuple[int, int]:
    methods_main(
        methods_parser().parse_args(["--backbone", name, "--params", str(REPOSITORY / "params.yaml"), "--json"])
    )
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    (pemt,) = (each for each in found["methods"] if each["name"] == "pemt")
    return pemt["trained_parameters"], pemt["per_prompt_token"]


def adapter(width: int) -> int:
    return 2 * width * (width // 16) + width // 16 + width


@pytest.mark.parametrize(
    ("name", "width", "feed_forward", "layers", "norms"),
    [
        ("Qwen/Qwen3-0.6B", 1024, 3072, 28, 2),
        ("HuggingFaceTB/SmolLM2-135M", 576, 1536, 30, 2),
        ("meta-llama/Llama-3.2-1B", 2048, 8192, 16, 2),
        ("google/gemma-3-270m", 640, 2048, 18, 4),
    ],
)
def test_decoder_only_models_have_gates_in_one_stack(
    capsys: pytest.CaptureFixture[str], name: str, width: int, feed_forward: int, layers: int, norms: int
) -> None:
    """Per layer F x E of a gate, a target adapter and norms of width D; the norms of queries and keys stay frozen."""
    fixed = layers * (feed_forward * 6 + adapter(width) + norms * width) + width
    assert trained(capsys, name) == (fixed, width)


@pytest.mark.parametrize(
    ("name", "width", "feed_forward", "layers", "norms"),
    [
        ("google/umt5-small", 512, 1024, 8, 2 + 3),
        ("google/t5gemma-s-s-ul2", 512, 1024, 8, 4 + 6),
        ("google/t5gemma-2-270m-270m", 640, 2048, 18, 4 + 4),
    ],
)
def test_encoder_decoders_have_gates_in_two(
    capsys: pytest.CaptureFixture[str], name: str, width: int, feed_forward: int, layers: int, norms: int
) -> None:
    """F x E in the encoder, D x E in the decoder; its cross-attention has norms of its own unless it is merged."""
    fixed = layers * ((feed_forward + width) * 6 + 2 * adapter(width) + norms * width) + 2 * width
    assert trained(capsys, name) == (fixed, width)
