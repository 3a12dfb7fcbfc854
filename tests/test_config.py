"""The config check: every YAML fits the code, and every fault is told at once."""

import inspect
from pathlib import Path

import pytest
import yaml
from hydra.utils import get_object

from attnlab.config import cells, compose, conf_dir, search_path
from attnlab.errors import ConfigError, RequestError
from attnlab.model.base import ENCODER
from tests.choices import choices, dataset_words

PARTS = [p for p in sorted(conf_dir().rglob("*.yaml")) if "_target_" in p.read_text()]


def faults(composed, *overrides: str) -> list[str]:
    with pytest.raises(ConfigError) as raised:
        composed(*overrides)
    return raised.value.faults


def nodes(content: dict):
    if "_target_" in content:
        yield content
    for child in content.values():
        if isinstance(child, dict):
            yield from nodes(child)


@pytest.mark.parametrize("path", PARTS, ids=lambda p: str(p.relative_to(conf_dir())))
def test_a_yaml_states_its_classes_knobs_with_their_defaults(path: Path):
    for node in nodes(yaml.safe_load(path.read_text())):
        parameters = inspect.signature(get_object(node["_target_"])).parameters
        knobs = {
            name: list(p.default) if isinstance(p.default, tuple) else p.default
            for name, p in parameters.items()
            if p.kind is inspect.Parameter.KEYWORD_ONLY and p.default is not inspect.Parameter.empty
        }
        stated = {name: value for name, value in node.items() if not name.startswith("_")}
        # A part that is chosen from another group stands there: `- /model/mixer@cross: multihead`.
        for choice in stated.pop("defaults", []):
            for group in choice if isinstance(choice, dict) else ():
                if (name := group.partition("@")[2]) not in stated:
                    knobs.pop(name, None)
        assert stated.keys() >= knobs.keys()
        # A choice of another name is there because its knobs differ; a mixture's are its parts.
        if path.stem == node["_target_"].split(".")[-2] != "mixture":
            assert stated == knobs


GROUPS = (
    "dataset",
    "init",
    "depth",
    "size",
    "metric",
    "schedule",
    "callbacks",
    "logger",
)


@pytest.mark.parametrize("group", GROUPS)
def test_every_choice_composes(composed, group):
    for choice in choices(group):
        composed(*(dataset_words(choice) if group == "dataset" else [f"{group}={choice}"]))


@pytest.mark.parametrize("choice", sorted({*choices("evidence")} - {"none"}))
def test_every_evidence_composes_with_its_datasets(composed, choice):
    chosen_by = [
        name
        for name in choices("dataset")
        if f"override /evidence: {choice}\n" in (conf_dir() / f"dataset/{name}.yaml").read_text()
    ]
    for name in chosen_by:
        assert composed(*dataset_words(name)).values["evidence"][choice]
    if not chosen_by:
        data = dataset_words("reversal" if choice == "bleu" else "text")
        assert composed(*data, f"evidence={choice}").values["evidence"][choice]


@pytest.mark.parametrize("choice", choices("dataset/tokenizer"))
def test_every_tokenizer_composes(composed, choice):
    words = (*dataset_words("text"), "dataset.length=16", f"dataset/tokenizer={choice}")
    target = composed(*words).values["dataset"]["tokenizer"]["_target_"]
    assert target.startswith(f"attnlab.tokenizer.{choice}.")


KINDS = ("pronoun", "parity", "mqar", "text", "reversal", "sst2")
"""Datasets of each kind: classes (drawn or read), labels, a text, answers."""


@pytest.mark.parametrize("objective", choices("objective"))
@pytest.mark.parametrize("dataset", KINDS)
def test_an_objective_asks_a_dataset_or_says_why_not(composed, objective, dataset):
    words = (*dataset_words(dataset), f"objective={objective}", "evidence=none")
    data = composed(*dataset_words(dataset)).build("dataset")
    if (objective != "seq2seq" or data.answer_length is not None) and (
        "classification" not in objective or data.classes is not None
    ):
        assert composed(*words).choices["objective"] == objective
    else:
        assert faults(composed, *words)[0].startswith("objective: ")


@pytest.mark.parametrize("choice", choices("debug"))
@pytest.mark.parametrize("dataset", ["pronoun", "mqar"])
def test_every_debugging_choice_composes(composed, choice, dataset):
    composed(f"debug={choice}", *dataset_words(dataset))


@pytest.mark.parametrize("variant", choices("variant"))
@pytest.mark.parametrize("dataset", KINDS)
def test_every_variant_composes_with_every_dataset(composed, variant, dataset):
    words = (f"variant={variant}", *dataset_words(dataset), "depth=shallow")
    objective = composed(*dataset_words(dataset)).choices["objective"]
    if variant == "lstm_attention" and objective not in ("classification", "seq2seq"):
        # There is nothing that a causal LSTM without an encoder could attend to.
        assert "attention=null" in faults(composed, *words)[0]
        return
    config = composed(*words)
    assert config.choices["variant"] == variant
    assert config.values["model"]["num_layers"] == 1


@pytest.mark.parametrize("group", ["mixer", "position", "ffn", "block"])
def test_every_part_composes(composed, group):
    for choice in choices(f"model/{group}"):
        composed(f"model/{group}={choice}")


def test_the_command_line_wins_over_the_dataset_and_the_variant(composed):
    config = composed(
        "dataset=mqar", "variant=moe", "objective=autoregressive", "model/ffn=mlp", "optimizer.lr=1"
    )
    assert config.values["model"]["ffn"]["_target_"].endswith("MLP")
    assert config.values["optimizer"]["lr"] == 1.0
    assert isinstance(config.values["optimizer"]["lr"], float)


def test_all_faults_are_told_at_once_with_key_expectation_and_nearest_name(composed):
    told = faults(
        composed,
        "model.mixer.num_haeds=3",
        "model.num_layers=2.5",
        "varant=moe",
        "dataset=mqra",
        "optimizer.lr=fast",
        "tainer.max_steps=3",
        "seed=true",
        "trainer.max_steps",
    )
    for words in (
        "model.mixer.num_haeds: model.mixer has no `num_haeds` here (variant=multihead); "
        "did you mean `num_heads`?",
        "model.num_layers: expected int, got 2.5",
        "varant: the root has no `varant` here; did you mean `variant`?",
        "dataset=mqra: no such choice; did you mean `mqar`?",
        "optimizer.lr: expected float, got 'fast'",
        "tainer.max_steps: the root has no `tainer` here; did you mean `trainer`?",
        "seed: expected int, got True",
        "trainer.max_steps: cannot be read as KEY=VALUE",
    ):
        assert any(words in fault for fault in told), words
    assert len(told) == 8


def test_an_added_key_is_a_typo_too(composed):
    assert faults(composed, "+model.mixer.num_haeds=3") == [
        "model.mixer.num_haeds: attnlab.mixer.multihead.MultiHead takes no `num_haeds`; "
        "did you mean `num_heads`?"
    ]
    assert "no such key at the root" in faults(composed, "+seeed=3")[0]


def test_a_knob_that_the_variant_lacks_is_refused_with_the_variant(composed):
    (told,) = faults(composed, "variant=lstm", "model.mixer.num_heads=2")
    assert "model has no `mixer` here (variant=lstm)" in told
    (told,) = faults(composed, "variant=lstm", "model/mixer=multihead")
    assert "model has no `mixer` here (variant=lstm)" in told


def test_wiring_is_not_for_the_config(composed):
    assert "`d_model` is set by the code" in faults(composed, "+model.mixer.d_model=3")[0]


def test_a_missing_knob_is_told(composed):
    assert faults(composed, "~model.mixer.num_heads") == [
        "model.mixer.num_heads: missing; attnlab.mixer.multihead.MultiHead has this knob, "
        "so state it"
    ]


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["model.mixer.num_heads=5"], "d_model=64 does not split into num_heads=5 heads"),
        (["variant=moe", "model.d_model=20"], "d_model=20 must be a multiple of 8"),
        (["variant=moe", "model.ffn.top_k=9"], "top_k=9"),
        (["dataset=mqar", "objective=classification"], "use objective=autoregressive"),
        (["model.tied=true"], "tied=true needs an output for each token"),
        (["trainer.max_steps=0"], "max_steps=0 must be at least 1"),
        (["trainer.precision=32"], "expected str"),
        (["trainer.precision=fp8"], "must be one of"),
        (["trainer.accelerator=gpu"], "torch sees none here"),
        (["batch_size=0"], "batch_size: 0 must be at least 1"),
        (["seed=-1"], "seed: -1 must not be negative"),
        (["schedule.floor=2"], "floor=2.0"),
        (["callbacks.clock.log_every=0"], "log_every=0"),
        (["model.num_layers=0"], "num_layers=0"),
        (["optimizer.lr=0"], "lr=0.0 must be positive"),
        (["seed=1,2"], "add -m"),
        (["callbacks.clock.test_every=0"], "test_every=0"),
        (["callbacks.recorder.max_tokens=0"], "max_tokens=0"),
        (["callbacks.recorder.twins=-1"], "twins=-1"),
        (["dataset=mqar", "callbacks.recorder.twins=2"], "MQAR has no twins"),
        (["callbacks.recorder.layers=[2]"], "layers=[2]: the model has 2 attention layers"),
        (["callbacks.recorder.heads=[]"], "heads=[] names none; null keeps all"),
        (["callbacks.recorder.heads=[4]"], "the model has 4 attention heads in blocks.0"),
        (["variant=lstm", "callbacks.recorder.layers=[0]"], "the model has no attention layers"),
        (["callbacks.clock.patterns_at=[-1,5]"], "and -1 does not lie there"),
        (["callbacks.clock.statistics_every=0"], "statistics_every=0"),
        (["callbacks.statistics.num_examples=0"], "num_examples=0"),
        (["callbacks.vectors.num_tokens=0"], "num_tokens=0"),
        (["callbacks.recorder.texts=[nonsense]"], "callbacks.recorder: Pronoun has no token"),
        (["dataset=mqar", "evidence=pronoun"], "and dataset is a MQAR; use evidence=none"),
        (["objective=autoregressive"], "evidence.pronoun: it measures a Classification"),
        (["evidence.pronoun._partial_=false"], "expected `_partial_: true`"),
        (["model.mixer=5"], "got 5"),
        (["model.d_model=${nope}"], "nope"),
    ],
)
def test_what_cannot_work_is_refused_in_words(composed, overrides, words):
    import torch

    if "accelerator=gpu" in overrides[0] and torch.cuda.is_available():
        pytest.skip("there is a GPU here, so asking for one is no fault")
    assert any(words in fault for fault in faults(composed, *overrides))


def test_a_class_outside_the_trusted_packages_is_not_even_imported(composed):
    (told,) = faults(composed, "dataset._target_=os.system")
    assert "os.system is in no package that may be built (attnlab)" in told


def test_a_sweeps_cells_are_the_product_of_its_values():
    with search_path():
        assert cells(["seed=0,1", "variant=lstm", "depth=glob(s*)"]) == [
            ["seed=0", "variant=lstm", "depth=shallow"],
            ["seed=1", "variant=lstm", "depth=shallow"],
        ]


def test_a_users_directory_adds_choices_and_classes(tmp_path, monkeypatch):
    (tmp_path / "mine/model/mixer").mkdir(parents=True)
    (tmp_path / "mine/model/mixer/mine.yaml").write_text(
        "_target_: my_mixers.Shift\n_partial_: true\nby: 1\n"
    )
    (tmp_path / "my_mixers.py").write_text(
        "from attnlab.mixer.base import Mixer\n"
        "class Shift(Mixer):\n"
        "    def __init__(self, d_model, position, causal, layer=0, *, by: int = 1):\n"
        "        super().__init__(d_model, position, causal)\n"
        "        self.by = by\n"
        "    def forward(self, x, valid=None):\n"
        "        return x.roll(self.by, 1)\n"
    )
    monkeypatch.chdir(tmp_path)
    with search_path(Path("mine")) as trusted:
        config = compose(["model/mixer=mine"], trusted)
        model = config.build("model", 5, 5, 5, ENCODER)
        assert model.blocks[0].mixer.by == 1
        with pytest.raises(ConfigError, match="did you mean `by`"):
            compose(["model/mixer=mine", "+model.mixer.bye=2"], trusted)


def test_a_missing_config_directory_is_told():
    with pytest.raises(RequestError, match="is not a directory"), search_path(Path("nowhere")):
        pass
