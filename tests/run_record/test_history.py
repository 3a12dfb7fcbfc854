"""A class that moves or gains a knob keeps its runs; one whose numbers change parts with them."""

import pytest
import yaml

from attnlab.analysis.arms import flatten_config
from attnlab.console import Console
from attnlab.launch.run import _print_earlier_revision
from attnlab.run_record import history
from attnlab.run_record.identity import identity_hash
from attnlab.run_record.record import Record, find_named_run
from tests import fabricated
from tests.prose import says

MIXER = "attnlab.mixer.multihead.MultiHead"
FFN = "attnlab.ffn.mlp.MLP"


@pytest.fixture
def past(monkeypatch):
    """Let a test state what has changed since."""

    def state(*, moved=(), renamed=(), added=(), revised=()) -> None:
        monkeypatch.setattr(history, "MOVED", dict(moved))
        monkeypatch.setattr(history, "RENAMED", dict(renamed))
        monkeypatch.setattr(history, "ADDED", dict(added))
        changes = {
            target: [r if isinstance(r, history.Revision) else history.Revision(r) for r in reasons]
            for target, reasons in dict(revised).items()
        }
        monkeypatch.setattr(history, "REVISED", changes)

    state()
    return state


def identity(**mixer) -> dict:
    part = {"_target_": MIXER, "num_heads": 4, **mixer}
    return {"seed": 0, "model": {"mixer": part, "ffn": {"_target_": FFN}, "blocks": [part]}}


def test_a_class_that_moves_keeps_its_runs(past):
    before = identity_hash(identity())
    past(moved={"attnlab.old.Heads": MIXER})
    old = identity(_target_="attnlab.old.Heads")
    assert identity_hash(identity()) == identity_hash(old) != before
    assert history.todays_form(old) == identity()
    assert history.first_form(identity()) == old


def test_a_key_that_is_renamed_keeps_its_runs(past):
    old = identity() | {"callbacks": {"clock": {"log_every": 1}, "early_stop": None}}
    today = identity() | {"callbacks": {"cadence": {"log_every": 1}, "early_stop": None}}
    before = identity_hash(old)
    assert identity_hash(today) != before
    past(renamed={"callbacks": {"clock": "cadence"}})
    assert identity_hash(today) == identity_hash(old) == before
    assert history.todays_form(old) == history.todays_form(today) == today
    assert history.first_form(today) == old
    assert history.todays_form(identity()) == identity()


def test_a_knob_that_comes_keeps_the_runs_at_the_value_that_changes_nothing(past):
    before = identity_hash(identity())
    past(added={MIXER: {"scale": 1.0, "gate": None}})
    assert identity_hash(identity(scale=1.0, gate=None)) == before
    others = [identity(scale=2.0, gate=None), identity(scale=1.0, gate={"_target_": FFN})]
    # 1 and true equal 1.0 in Python, and are other values in a config.
    others += [identity(scale=1, gate=None), identity(scale=True, gate=None)]
    hashes = {identity_hash(other) for other in others}
    assert len(hashes) == 4
    assert before not in hashes
    assert history.todays_form(identity()) == identity(scale=1.0, gate=None)


def test_a_knob_that_becomes_an_entry_of_another_keeps_its_runs(past, monkeypatch):
    old = identity(encoding="latin-1")
    before = identity_hash(old)
    nested = {MIXER: {"layout": history.Nested(("encoding",), {"text": None})}}
    monkeypatch.setattr(history, "NESTED", nested)
    today = identity(layout={"encoding": "latin-1", "text": None})
    assert identity_hash(today) == identity_hash(identity(layout={"encoding": "latin-1"})) == before
    assert history.todays_form(old) == history.todays_form(today) == today
    assert history.first_form(today) == old
    named = identity(layout={"encoding": "latin-1", "text": "review"})
    assert identity_hash(named) != before
    assert history.todays_form(history.first_form(named)) == named


def test_a_moved_class_with_a_new_knob_keeps_its_runs(past):
    old = identity(_target_="attnlab.old.Heads")
    before = identity_hash(old)
    past(moved={"attnlab.old.Heads": MIXER}, added={MIXER: {"scale": 1.0}})
    assert identity_hash(identity(scale=1.0)) == before
    assert identity_hash(history.todays_form(old)) == before


def test_numbers_that_change_make_another_run(past):
    before = identity_hash(identity())
    past(revised={MIXER: ["padding counts no more"]})
    now = history.add_revisions(identity())
    assert now["model"]["mixer"][history.REVISION] == 2
    assert history.REVISION not in now["model"]["ffn"]
    assert identity_hash(now) != before
    # What a record of before states is still the run of before, and an arm of its own.
    read = history.todays_form(identity())
    assert identity_hash(read) == before
    arms = [flatten_config(fabricated.result("multihead", identity=form)) for form in (read, now)]
    assert [arm["model.mixer.revision"] for arm in arms] == [1, 2]
    past(revised={MIXER: ["padding counts no more", "the scale is 1/sqrt(d_key)"]})
    assert identity_hash(history.todays_form(now)) == identity_hash(now)


def test_a_revision_may_concern_some_configs_alone(past):
    before = identity_hash(identity())
    wide = history.Revision("wide heads are exact", lambda mixer: mixer["num_heads"] > 4)
    past(revised={MIXER: ["a", wide]})
    first, second = (history.add_revisions(identity(num_heads=n)) for n in (4, 8))
    assert [node["model"]["mixer"][history.REVISION] for node in (first, second)] == [2, 3]
    past(revised={MIXER: [wide]})
    assert history.add_revisions(identity()) == history.todays_form(identity()) == identity()
    assert identity_hash(history.add_revisions(identity())) == before
    assert history.todays_form(identity(num_heads=8))["model"]["mixer"][history.REVISION] == 1


def test_a_revision_may_concern_the_runs_alone_whose_config_says_so(past):
    deep = history.Revision("deep stacks", concerns_run=lambda identity: identity["seed"] > 0)
    past(revised={MIXER: [deep]})
    assert history.add_revisions(identity()) == identity()
    other = identity() | {"seed": 1}
    assert history.add_revisions(other)["model"]["mixer"][history.REVISION] == 2
    assert history.todays_form(other)["model"]["mixer"][history.REVISION] == 1
    assert history.strip_revisions(other)[1] == [f"{MIXER}: deep stacks"]


def test_layers_of_experts_and_cells_are_numbered_anew_where_there_is_an_encoder():
    for target in ("gates.LSTMGates", "routing.ExpertRouting"):
        node = {"_target_": f"attnlab.evidence.{target}", "_partial_": True}
        for objective, revisions in (
            ("seq2seq.Seq2Seq", 1),
            ("autoencoder.Autoencoder", 1),
            ("autoregressive.Autoregressive", 0),
        ):
            run = {"objective": {"_target_": f"attnlab.objective.{objective}"}}
            run |= {"evidence": {"e": node}}
            assert len(history.strip_revisions(run)[1]) == revisions, (target, objective)


def test_each_earlier_revision_is_named_with_what_changed_since(past):
    past(revised={MIXER: ["a", "b"], FFN: ["c"]})
    found = list(history.earlier_revisions(history.add_revisions(identity())))
    reasons = {identity_hash(earlier.identity): earlier.reasons for earlier in found}
    assert len(reasons) == len(found) == 5
    assert reasons[identity_hash(identity())] == [f"{MIXER}: a", f"{MIXER}: b", f"{FFN}: c"]
    assert list(history.earlier_revisions(identity())) == []


def test_a_config_has_no_revision_and_a_reader_is_told_what_changed(past):
    past(revised={MIXER: ["a", "b"]})
    stated = identity(**{history.REVISION: 2})
    assert history.strip_revisions(stated) == (identity(), [f"{MIXER}: b"])
    assert history.strip_revisions(history.add_revisions(identity())) == (identity(), [])


def test_who_trains_again_is_told_why_the_older_run_is_not_taken(past, tmp_path, capsys):
    name = f"pronoun-multihead-2x4-s0-{identity_hash(identity())}"
    fabricated.write(tmp_path, name, fabricated.result("multihead"))
    past(revised={MIXER: ["padding counts no more"]})
    console = Console(soft_wrap=True)
    _print_earlier_revision(tmp_path, history.add_revisions(identity()), console)
    says("history.trained_anew", capsys.readouterr().out, name)
    _print_earlier_revision(tmp_path, identity(), console)
    assert capsys.readouterr().out == ""


def test_a_record_is_read_in_todays_form(past, tmp_path):
    content = fabricated.result("multihead")
    stated = yaml.safe_load(yaml.safe_dump(content.identity))
    path = fabricated.write(tmp_path, "a-0123456789", content)
    past(moved={MIXER: "attnlab.mixer.other.Heads"}, added={"attnlab.mixer.other.Heads": {"k": 1}})
    record = Record(path)
    assert record.identity["model"]["mixer"]["k"] == 1
    assert record.result is not None
    assert record.result.identity == record.identity
    assert yaml.safe_load((path / "config.yaml").read_text()) == stated


def test_a_run_is_named_by_the_start_of_its_hash(tmp_path):
    for name in ("pronoun-lstm-1x4-s0-0123456789", "pronoun-moe-1x4-s0-9876543210"):
        fabricated.write(tmp_path, name, fabricated.result())
    assert find_named_run("987", tmp_path).name == "pronoun-moe-1x4-s0-9876543210"
