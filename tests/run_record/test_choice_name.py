"""The name of a choice is that of its YAML, so that a table shows what a person typed."""

import yaml

from attnlab.config import conf_dir
from attnlab.run_record.choice_name import choice_name

# The YAML chooses the knobs of a class that another choice has the name of.
KNOBS_OF_ANOTHER = {"model/mixer/lstm_additive": "hybrid"}


def test_a_class_of_conf_has_the_name_of_its_yaml():
    wrong = []
    for path in sorted(conf_dir().rglob("*.yaml")):
        content = yaml.safe_load(path.read_text())
        choice = str(path.relative_to(conf_dir()).with_suffix(""))
        if isinstance(content, dict) and "_target_" in content:
            expected = KNOBS_OF_ANOTHER.get(choice, path.stem)
            if choice_name(content["_target_"]) != expected:
                wrong.append(f"{choice}: {content['_target_']}")
    assert wrong == []


def test_a_class_of_others_and_what_is_no_class_keep_their_names():
    assert choice_name("softpick.Softpick") == "Softpick"
    assert [choice_name(value) for value in ("moe", 3, None, "a.txt")] == ["moe", 3, None, "a.txt"]


def test_a_class_beside_others_in_its_module_is_named_by_itself():
    names = [
        "attnlab.model.block.PreNorm",
        "attnlab.model.block.Sandwich",
        "attnlab.matching.FLOPs",
    ]
    assert [*map(choice_name, names)] == ["pre_norm", "sandwich", "flops"]
