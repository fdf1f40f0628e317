"""`pemt methods`: the parameters each method trains on a backbone, computed without training or downloading."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from source_code import REPOSITORY
from test_cli import DOCUMENT
from workspace import write_params

from components.methods import main, make_parser
from pemt_core.errors import PemtError, SettingsError


def shown(capsys: pytest.CaptureFixture[str], *words: str, params: Path = REPOSITORY / "params.yaml") -> str:
    main(make_parser().parse_args([*words, "--params", str(params)]))
    return capsys.readouterr().out


def document(capsys: pytest.CaptureFixture[str], *words: str, **given: Path) -> tuple[Any, dict[str, Any]]:
    """The --json output: the whole document, and its methods by name."""
    found = json.loads(shown(capsys, *words, "--json", **given))
    return found, {method["name"]: method for method in found["methods"]}


@pytest.mark.parametrize("name", ["t5-base", "google-t5/t5-base"])
def test_the_counts_on_t5_base_equal_the_papers(capsys: pytest.CaptureFixture[str], name: str) -> None:
    """With six sources; a prompt of P tokens adds 768 P."""
    found, methods = document(capsys, "--backbone", name)
    assert (found["backbone"], found["parameters"]) == (name, 222_903_552)
    counts = {method: (each["trained_parameters"], each["per_prompt_token"]) for method, each in methods.items()}
    assert counts == {"pemt": (2_113_152, 768), "control": (1_836_672, 768)}
    assert all(each["by_target"] == {} for each in methods.values())  # without a tokenizer, P is unknown


def test_a_backbone_folder_gives_the_count_of_each_target(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """With the settings that differ for a target."""
    kept = {"backbone": {"name": str(REPOSITORY / "pemt_core" / "embedded" / "backbone")}}
    found, plain = document(capsys, params=write_params(tmp_path / "a.yaml", kept))
    other = {"per_target": {"cb": {"reduction_factor": 8}}}
    _, changed = document(capsys, params=write_params(tmp_path / "b.yaml", kept, other))
    assert found["parameters"] == 1_029_248
    for name, method in plain.items():
        differs = method["by_target"].items() ^ changed[name]["by_target"].items()
        assert {target for target, _ in differs} == {"cb"}
        for count in method["by_target"].values():
            assert count > method["trained_parameters"]
            assert (count - method["trained_parameters"]) % method["per_prompt_token"] == 0
    keys = {*found, *plain["pemt"]}
    assert {key for key in keys if f"`{key}`" not in DOCUMENT} == set()


def test_the_table_has_a_row_for_each_method(capsys: pytest.CaptureFixture[str]) -> None:
    head, pemt, control, _, last = shown(capsys, "--backbone", "t5-base").splitlines()
    assert head.split() == ["method", "kind", "trained", "parameters", "of", "backbone", "sources"]
    assert re.split(" {2,}", pemt)[:4] == ["pemt", "pemt", "2,113,152 + 768 per prompt token", "0.95 %"]
    assert re.split(" {2,}", control)[-1] == "none"
    assert last == "on t5-base, 222,903,552 parameters"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("nonsense", "'nonsense' is neither a folder nor a published checkpoint of known shapes; choose from: "),
        ("google-t5/t5-bsae", "neither a folder nor a published checkpoint of known shapes; did you mean 't5-base'"),
        (str(REPOSITORY / "docs"), "docs: no readable configuration of a model"),
    ],
)
def test_an_unknown_backbone_is_named(capsys: pytest.CaptureFixture[str], name: str, expected: str) -> None:
    with pytest.raises(PemtError) as caught:
        shown(capsys, "--backbone", name)
    assert expected in str(caught.value)


def test_a_backbone_that_is_not_pretrained_yet_is_named(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    params = write_params(tmp_path / "params.yaml", {"recipe": "scratch"})
    with pytest.raises(SettingsError, match=r"backbone: no such folder; `dvc repro backbone` creates it"):
        shown(capsys, params=params)


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
def test_the_gates_of_an_imported_lora_are_counted_where_it_is(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """A gate at q and v of every attention (64 x 7 each), and a column more in every gate of a feed-forward."""
    import peft
    from transformers import AutoModelForSeq2SeqLM

    kept = str(REPOSITORY / "pemt_core" / "embedded" / "backbone")
    model = AutoModelForSeq2SeqLM.from_pretrained(kept)
    peft.get_peft_model(model, peft.LoraConfig(r=2, target_modules=["q", "v"])).save_pretrained(str(tmp_path / "lora"))
    backbone, source = {"backbone": {"name": kept}}, {"adapter": "lora", "description": "Decide."}
    _, before = document(capsys, params=write_params(tmp_path / "a.yaml", backbone))
    imported = {"imported_sources": {"own": source}}
    _, after = document(capsys, params=write_params(tmp_path / "b.yaml", backbone, imported))
    config = model.config
    layers, attentions = config.num_layers, config.num_layers + 2 * config.num_decoder_layers
    columns = layers * config.d_ff + config.num_decoder_layers * config.d_model
    new = columns + 2 * attentions * config.d_model * 7
    assert after["pemt"]["trained_parameters"] - before["pemt"]["trained_parameters"] == new
    assert after["control"] == before["control"]
