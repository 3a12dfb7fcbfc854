"""A mixer, an optimizer, a recorder and an evidence of one's own: two files each, and no third."""

import json
import re
import sys
from pathlib import Path
from textwrap import dedent

import pytest

from attnlab.cli import main
from attnlab.run_record.record import find_runs

FILES = {
    "own_mixer.py": """
        from torch import nn

        from attnlab.attend import Attend
        from attnlab.mixer.base import Mixer


        class Averages(Mixer):
            def __init__(self, d_model, position, causal, layer=0, *, num_heads: int = 2):
                super().__init__(d_model, position, causal)
                self.num_heads = num_heads
                self.maps = nn.Linear(d_model, 3 * d_model)
                self.looks_around = Attend(causal, 0.0, num_heads)

            def forward(self, x, valid=None):
                parts = self.maps(x).unflatten(-1, (3, self.num_heads, -1)).transpose(1, 3)
                query, key, value = parts.unbind(2)
                return self.looks_around(query, key, value, valid=valid).transpose(1, 2).flatten(2)
    """,
    "mine/model/mixer/averages.yaml": """
        _target_: own_mixer.Averages
        _partial_: true
        num_heads: 2
    """,
    "own_optimizer.py": """
        import torch

        from attnlab.optimizer.base import Optimizer


        class SGD(Optimizer):
            def __init__(self, *, lr: float = 0.1, gradient_clip: float | None = 1.0):
                super().__init__(lr, gradient_clip)

            def build(self, model):
                return torch.optim.SGD(model.parameters(), lr=self.lr)
    """,
    "mine/optimizer/sgd.yaml": """
        _target_: own_optimizer.SGD
        lr: 0.05
        gradient_clip: 1.0
    """,
    "own_recorder.py": """
        from attnlab.callbacks.base import Recorder


        class WeightNorms(Recorder):
            table = "weight_norms"

            def __init__(self, subject, *, every: int = 2):
                super().__init__(subject)
                self.every = every

            def is_due(self, cadence, step):
                return step % self.every == 0

            def rows(self, step):
                norm = sum(float(p.detach().norm()) for p in self.subject.model.parameters())
                return [{"step": step, "norm": norm}]
    """,
    "mine/callbacks/norms.yaml": """
        defaults:
          - default
        norms:
          _target_: own_recorder.WeightNorms
          _partial_: true
          every: 2
    """,
    "own_evidence.py": """
        from attnlab.evidence.base import Evidence
        from attnlab.interp.attention_taps import all_heads, record_patterns
        from attnlab.layers import HeadRef
        from attnlab.run_record.finding import Label, NamedHead, Presentation


        class FirstToken(Evidence):
            presentation = Presentation(
                labels=(Label("weight", "weight of the first token", needs_attention=True),),
                opens_at=("anchor",),
                taken_away="the first token is hidden",
            )

            def __init__(self, subject, *, num_examples: int = 16):
                super().__init__(subject)
                self.num_examples = num_examples

            def measure(self):
                split = self.subject.dataset.splits["validation"]
                (asked,) = self.subject.batches(split, num_examples=self.num_examples)
                with self.subject.observed(), record_patterns(self.subject.model) as patterns:
                    self.subject.model(*asked.model_inputs)
                means = {
                    head: float(pattern[:, head.head, :, 0].mean())
                    for layer, pattern in patterns.items()
                    for head in layer.heads
                }
                best = max(means, key=means.get)
                assert set(means) == set(all_heads(self.subject.model))
                head = NamedHead(best, "anchor", means[best], {"first token hidden": 0.5})
                return self.finding({"weight": means[best]}, {"anchor": head})
    """,
    "mine/evidence/first_token.yaml": """
        first_token:
          _target_: own_evidence.FirstToken
          _partial_: true
          num_examples: 16
    """,
}
TRAINED = (
    *("dataset=pronoun", "model/mixer=averages", "optimizer=sgd", "callbacks=norms"),
    *("evidence=first_token", "debug=tiny", "model.d_model=8", "trainer.threads=1"),
    *("dataset.num_train=100", "dataset.num_validation=60", "dataset.num_test=60"),
    *("trainer.accelerator=cpu", "trainer.max_steps=4", "trainer.val_check_interval=4"),
)


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """Train with all four, from a directory of one's own."""
    home = tmp_path_factory.mktemp("own")
    for name, text in FILES.items():
        path = home / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(dedent(text))
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(home))
        for seed in (0, 1, 2):
            where = ["--config-dir", str(home / "mine"), f"runs_dir={home / 'runs'}"]
            assert main(["train", *TRAINED, f"seed={seed}", *where]) == 0
    return home / "runs"


def test_the_record_has_what_each_of_them_gives(trained):
    for record in find_runs(trained):
        result = record.result
        assert result is not None
        anchor = result.findings["first_token"].heads["anchor"]
        assert anchor.weight == pytest.approx(result.metrics["first_token/weight"])
        (layer, *_) = record.layers.attention
        assert layer.path == "blocks.0.mixer.looks_around"
        assert record.rows("weight_norms")["step"].to_pylist() == [0, 2, 4]
        assert record.rows("heads").num_rows
        assert record.identity["optimizer"]["_target_"] == "own_optimizer.SGD"
        assert "norms" not in record.identity["callbacks"]


def test_the_json_of_commands_has_them(trained, capsys):
    assert main(["compare", "--runs-dir", str(trained), "--format", "json"]) == 0
    (panel,) = json.loads(capsys.readouterr().out)["panels"]
    (group,) = panel["groups"]
    assert group["n"] == 3
    assert group["metrics"]["first_token/weight"]["mean"] is not None
    run = find_runs(trained)[0]
    assert main(["heads", str(run.path), "--format", "json"]) == 0
    (content,) = json.loads(capsys.readouterr().out)["runs"]
    assert content["layers"][0]["name"] == "blocks.0.mixer.looks_around"
    anchor = content["findings"]["first_token"]["anchor"]
    result = run.result
    assert result is not None
    head = result.findings["first_token"].heads["anchor"].head
    assert anchor["head"] == {"layer": head.layer, "head": head.head}


def test_the_report_shows_them_as_they_state(trained, tmp_path):
    page = tmp_path / "report.html"
    assert main(["report", "--runs-dir", str(trained), "-o", str(page)]) == 0
    text = page.read_text()
    assert "weight of the first token" in text
    assert "what happens when the first token is hidden" in text
    assert "layer 0, head 1" in text


def test_own_parts_are_not_built_without_the_directory_that_names_them(trained, capsys):
    run = find_runs(trained)[0]
    assert main(["evaluate", str(run.path)]) == 2
    assert "own_mixer.Averages" in capsys.readouterr().err


def printed_files() -> dict[str, str]:
    """Return the files that docs/parts.md prints: one package, and YAMLs by their first line."""
    page = (Path(__file__).parents[2] / "docs/parts.md").read_text()
    files = {"my_package.py": "\n".join(re.findall(r"```python\n(.*?)```", page, re.DOTALL))}
    for text in re.findall(r"```yaml\n(.*?)```", page, re.DOTALL):
        files[text.partition("\n")[0].removeprefix("# ")] = text
    return files


MADE_OF_PRINTED_PARTS = {
    "causal": ("model/mixer=averages", "objective=autoregressive", "dataset=copying"),
    "without_attention": ("variant=lstm", "dataset=pronoun"),
    "many_examples": (
        "variant=multihead",
        "dataset=pronoun",
        "evidence.first_token.num_examples=300",
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", MADE_OF_PRINTED_PARTS)
def test_the_parts_that_the_page_prints_train_measure_and_record(tmp_path, monkeypatch, name):
    for path, text in printed_files().items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    sys.modules.pop("my_package", None)
    more = ("callbacks=norms", "evidence=first_token", "callbacks.norms.every=2", "debug=tiny")
    sizes = ("model.d_model=8", "dataset.num_train=400", "dataset.num_validation=350")
    words = ["train", "--config-dir", "mine", *MADE_OF_PRINTED_PARTS[name], *more, *sizes]
    assert main([*words, "trainer.accelerator=cpu", "trainer.max_steps=4"]) == 0
    (record,) = find_runs(tmp_path / "runs")
    assert record.result is not None
    assert record.rows("weight_norms").num_rows == 3
    has_weight = "first_token/weight" in record.result.metrics
    assert has_weight == (name != "without_attention")
