"""The config check: every YAML fits the code, and every fault is told at once."""

import inspect
from pathlib import Path

import pytest
import yaml
from hydra.utils import get_object

from attnlab.config import compose, conf_dir, search_path, sweep_overrides
from attnlab.errors import ConfigError, RequestError
from attnlab.model.base import ENCODER
from tests.choices import choices, dataset_words
from tests.dataset.stated import build, builds_on_another, published_knobs
from tests.prose import keys_at_fault, refuses, says

PARTS = [p for p in sorted(conf_dir().rglob("*.yaml")) if "_target_" in p.read_text()]


def refused(composed, key: str, *overrides: str) -> list[str]:
    """Hold all that is said of a config to its words; gives the keys at fault, in their order."""
    with pytest.raises(ConfigError) as raised:
        composed(*overrides)
    says(key, "\n".join(raised.value.faults))
    return keys_at_fault(raised.value)


def nodes(content: dict):
    if "_target_" in content:
        yield content
    for child in content.values():
        if isinstance(child, dict):
            yield from nodes(child)


def test_a_yaml_states_its_classes_knobs_with_their_defaults():
    offenders = []
    for path in PARTS:
        for node in nodes(yaml.safe_load(path.read_text())):
            parameters = inspect.signature(get_object(node["_target_"])).parameters
            knobs = {
                name: list(p.default) if isinstance(p.default, tuple) else p.default
                for name, p in parameters.items()
                if p.kind is p.KEYWORD_ONLY and p.default is not p.empty
            }
            stated = {name: value for name, value in node.items() if not name.startswith("_")}
            # A part chosen from another group stands there: `- /model/mixer@cross: multihead`.
            for choice in stated.pop("defaults", []):
                for group in choice if isinstance(choice, dict) else ():
                    if (name := group.partition("@")[2]) not in stated:
                        knobs.pop(name, None)
            if missing := knobs.keys() - stated.keys():
                offenders.append(f"{path}: {node['_target_']} lacks {missing}")
            # A choice of another name is there because its knobs differ; a mixture's are its parts.
            if path.stem == node["_target_"].split(".")[-2] != "mixture" and stated != knobs:
                offenders.append(f"{path}: {stated} are not the defaults {knobs}")
    assert PARTS
    assert offenders == []


@pytest.mark.parametrize("built_on", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_every_dataset_composes_to_what_its_yaml_states(composed, built_on):
    for name in choices("dataset"):
        if builds_on_another(name) == built_on:
            words = dataset_words(name)
            of_files = {word.removeprefix("dataset.").partition("=")[0] for word in words[1:]}
            knobs, stated = composed(*words).values["dataset"], published_knobs(name)
            assert knobs.keys() == stated.keys(), name
            assert all(knobs[key] == stated[key] for key in stated.keys() - of_files), name


FREE_GROUPS = (
    *("init", "size", "metric", "schedule", "callbacks", "logger", "debug"),
    *("model/ffn", "model/block"),
)
"""Groups in which each choice goes with each of another group."""


def test_every_choice_composes(composed):
    """Each in one config at least, beside others that vary."""
    longest = max(len(choices(group)) for group in (*FREE_GROUPS, "model/mixer"))
    for number in range(longest):
        groups = (*FREE_GROUPS, "model/mixer")
        composed(*(f"{group}={choices(group)[number % len(choices(group))]}" for group in groups))
    # Few mixers ask for each position, and some need several layers.
    depths = choices("depth")
    for number, position in enumerate(choices("model/position")):
        composed(f"model/position={position}", f"depth={depths[number % len(depths)]}")


@pytest.mark.parametrize("choice", sorted({*choices("evidence")} - {"none"}))
def test_every_evidence_composes_with_a_dataset_that_asks_for_it(once, choice):
    """The law of datasets, above, composes the others."""
    asking = [
        name
        for name in choices("dataset")
        if f"override /evidence: {choice}\n" in (conf_dir() / f"dataset/{name}.yaml").read_text()
    ]
    name = asking[0] if asking else "reversal" if choice == "bleu" else "text"
    words = [*dataset_words(name), *([] if asking else [f"evidence={choice}"])]
    assert once(*words).values["evidence"][choice]


@pytest.mark.parametrize("choice", choices("dataset/tokenizer"))
def test_every_tokenizer_composes(composed, choice):
    words = (*dataset_words("text"), "dataset.length=16", f"dataset/tokenizer={choice}")
    target = composed(*words).values["dataset"]["tokenizer"]["_target_"]
    assert target.startswith(f"attnlab.tokenizer.{choice}.")


KINDS = ("pronoun", "mqar", "text", "reversal")
"""A dataset of each kind: classes, labels of tokens, a text, answers."""


@pytest.mark.parametrize("dataset", KINDS)
def test_an_objective_asks_a_dataset_or_says_why_not(composed, dataset):
    data = build(dataset)
    for objective in choices("objective"):
        words = (*dataset_words(dataset), f"objective={objective}", "evidence=none")
        if (objective != "seq2seq" or data.answer_length is not None) and (
            "classification" not in objective or data.classes is not None
        ):
            assert composed(*words).choices["objective"] == objective
        else:
            assert refused(composed, f"config.objective.{dataset}_{objective}", *words) == [
                "objective"
            ]


@pytest.mark.parametrize("dataset", KINDS)
def test_every_variant_composes_with_every_kind_of_dataset(once, dataset):
    objective = once(*dataset_words(dataset)).choices["objective"]
    for number, variant in enumerate(choices("variant")):
        words = (f"variant={variant}", *dataset_words(dataset), "depth=shallow")
        if variant == "lstm_attention" and objective not in ("classification", "seq2seq"):
            # There is nothing that a causal LSTM without an encoder could attend to.
            assert refused(once, f"config.variant.{dataset}_{variant}", *words) == ["model"]
        elif variant == "lstm_attention" or number % 2 == KINDS.index(dataset) % 2:
            config = once(*words)
            assert config.choices["variant"] == variant
            assert config.values["model"]["num_layers"] == 1


def test_the_command_line_wins_over_the_dataset_and_the_variant(composed):
    config = composed(
        "dataset=mqar", "variant=moe", "objective=autoregressive", "model/ffn=mlp", "optimizer.lr=1"
    )
    assert config.values["model"]["ffn"]["_target_"].endswith("MLP")
    assert config.values["optimizer"]["lr"] == 1.0
    assert isinstance(config.values["optimizer"]["lr"], float)


def test_all_faults_are_told_at_once_with_key_expectation_and_nearest_name(composed):
    keys = refused(
        composed,
        "config.all_at_once",
        "model.mixer.num_haeds=3",
        "model.num_layers=2.5",
        "varant=moe",
        "dataset=mqra",
        "optimizer.lr=fast",
        "tainer.max_steps=3",
        "seed=true",
        "trainer.max_steps",
        "trainer.precision=32",
    )
    assert sorted(keys) == sorted(
        [
            *("model.mixer.num_haeds", "model.num_layers", "varant", "dataset=mqra"),
            *("optimizer.lr", "tainer.max_steps", "seed", "trainer.max_steps"),
            "trainer.precision",
        ]
    )


def test_an_added_a_missing_and_a_wired_key_are_told(composed):
    overrides = ("+model.mixer.num_haeds=3", "+seeed=3", "+model.mixer.d_model=3")
    keys = refused(composed, "config.added", *overrides, "~model.mixer.num_heads")
    assert sorted(keys) == [
        *("model.mixer.d_model", "model.mixer.num_haeds", "model.mixer.num_heads", "seeed")
    ]


def test_a_knob_that_the_variant_lacks_is_refused_with_the_variant(composed):
    words = ("variant=lstm", "model.mixer.num_heads=2", "model/mixer=multihead")
    assert refused(composed, "config.lacks", *words) == ["model/mixer", "model.mixer.num_heads"]


BUILT = (
    *("trainer.max_steps=0", "batch_size=0", "seed=-1", "schedule.floor=2"),
    *("optimizer.lr=0", "model.num_layers=0"),
)
RECORDED = (
    *("callbacks.cadence.log_every=0", "callbacks.recorder.max_tokens=0"),
    *("callbacks.statistics.num_examples=0", "callbacks.vectors.num_tokens=0"),
)


@pytest.mark.parametrize(
    ("name", "overrides", "keys"),
    [
        (
            "built",
            BUILT,
            [
                *("seed", "batch_size", "model.num_layers", "optimizer.lr", "schedule.floor"),
                "trainer.max_steps",
            ],
        ),
        (
            "recorded",
            RECORDED,
            [word.partition("=")[0] for word in RECORDED],
        ),
        ("partial", ["evidence.pronoun._partial_=false"], ["evidence.pronoun"]),
        ("heads", ["model.mixer.num_heads=5"], ["model.mixer.num_heads"]),
        ("width", ["variant=moe", "model.d_model=20"], ["model.ffn"]),
        ("experts", ["variant=moe", "model.ffn.top_k=9"], ["model.ffn"]),
        ("tied", ["model.tied=true"], ["model"]),
        ("precision", ["trainer.precision=fp8"], ["trainer.precision"]),
        ("sweep", ["seed=1,2"], ["seed=1,2"]),
        ("text", ["callbacks.recorder.texts=[nonsense]"], ["callbacks.recorder"]),
        ("evidence_of_data", ["dataset=mqar", "evidence=pronoun"], ["evidence.pronoun"] * 2),
        ("evidence_of_objective", ["objective=autoregressive"], ["evidence.pronoun"]),
        ("no_choice", ["model.mixer=5"], ["model.mixer"]),
        ("interpolation", ["model.d_model=${nope}"], ["model", "model"]),
    ],
)
def test_what_cannot_work_is_refused_in_words(composed, name, overrides, keys):
    assert refused(composed, f"config.impossible.{name}", *overrides) == keys


def test_steps_that_an_override_states_beyond_the_run_are_refused(composed):
    words = ["schedule.warmup_steps=11", "trainer.val_check_interval=11", "trainer.max_steps=10"]
    keys = ["schedule.warmup_steps", "trainer.val_check_interval"]
    assert refused(composed, "config.beyond_run", *words) == keys
    values = composed(*(word.replace("=11", "=10") for word in words)).values
    assert values["schedule"]["warmup_steps"] == values["trainer"]["val_check_interval"] == 10


@pytest.mark.parametrize("words", [(), ("debug=tiny",), ("dataset=mqar", "schedule=constant")])
def test_a_run_may_be_shorter_than_what_the_yamls_state(composed, words):
    assert composed(*words, "trainer.max_steps=3").values["trainer"]["val_check_interval"] > 3


def test_a_gpu_that_is_not_there_is_refused(composed):
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is a GPU here, so asking for one is no fault")
    keys = refused(composed, "config.no_gpu", "trainer.accelerator=gpu")
    assert keys == ["trainer.accelerator"]


def test_a_class_outside_the_trusted_packages_is_not_even_imported(composed):
    keys = refused(composed, "config.untrusted", "dataset._target_=os.system")
    assert keys == ["dataset._target_"]


def test_a_sweeps_cells_are_the_product_of_its_values():
    with search_path():
        assert sweep_overrides(["seed=0,1", "variant=lstm", "depth=glob(s*)"]) == [
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
    with search_path(Path("mine")) as own:
        config = compose(["model/mixer=mine"], own)
        model = config.build("model", 5, 5, 5, ENCODER)
        assert model.blocks[0].mixer.by == 1
        with refuses(ConfigError, "config.users_typo"):
            compose(["model/mixer=mine", "+model.mixer.bye=2"], own)


def test_a_missing_config_directory_is_told():
    with refuses(RequestError, "config.no_directory"), search_path(Path("nowhere")):
        pass
