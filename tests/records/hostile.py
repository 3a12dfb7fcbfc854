"""Records as somebody might make them who means harm, and what a damaged disk leaves.

Each changes a copy of one sound run. `PAYLOAD` is a module beside the record and where the command
is typed; whoever imports it, or lets a record call the system, leaves the file `MARK`.
"""

import json
import os
import pickle
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pyarrow as pa
import yaml

from attnlab.run_record import forms

MARK = "it-ran"
PAYLOAD = f"""
from pathlib import Path
Path({MARK!r}).touch()

class Part:
    def __init__(self, *wiring, **knobs):
        Path({MARK!r}).touch()
        raise ValueError("it is no part of a model")
"""
TOUCH = f"touch {MARK}"
CHECKPOINTS = "attempts/1/checkpoints"
CHECKPOINT = f"{CHECKPOINTS}/step-000000008.ckpt"
MANIFEST = f"{CHECKPOINTS}/manifest.jsonl"

Harm = Callable[[Path], None]


def identity(change: Callable[[dict[str, Any]], Any]) -> Harm:
    """Change the identity, in config.yaml and run.json alike."""

    def harm(run: Path) -> None:
        path = run / "config.yaml"
        content = yaml.safe_load(path.read_text())
        change(content)
        path.write_text(yaml.safe_dump(content))
        result(lambda told: told.update(identity=content))(run)

    return harm


def node(section: str, **keys: Any) -> Harm:
    """Put keys into a section of the identity."""
    return identity(lambda content: content.setdefault(section, {}).update(keys))


def mixer(**keys: Any) -> Harm:
    return identity(lambda content: content["model"]["mixer"].update(keys))


def result(change: Callable[[dict[str, Any]], Any]) -> Harm:
    """Change run.json."""

    def harm(run: Path) -> None:
        for name in ("run.json", "attempts/1/run.json"):
            content = json.loads((run / name).read_text())
            change(content)
            (run / name).unlink()
            (run / name).write_text(json.dumps(content))

    return harm


def claim(**keys: Any) -> Harm:
    def harm(run: Path) -> None:
        path = run / "attempts/1/claim.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **keys}))

    return harm


def ended(**keys: Any) -> Harm:
    """Leave a run that is not finished, whose attempt says this of its end; None: not that key."""

    def harm(run: Path) -> None:
        (run / "run.json").unlink()
        path = run / "attempts/1/run.json"
        content = {**json.loads(path.read_text()), **keys}
        path.unlink()
        path.write_text(json.dumps({k: v for k, v in content.items() if v is not None}))

    return harm


def seal(run: Path) -> None:
    """Write each JSON file as the newest attnlab does, with the sum of what it now holds."""
    for name in ("run.json", "attempts/1/run.json", "attempts/1/claim.json"):
        path = run / name
        if not path.is_file():
            continue
        with suppress(ValueError, TypeError, AttributeError, RecursionError):
            content = json.loads(path.read_text())
            if type(content["schema"]) is int:
                whole = json.dumps(forms.seal({**content, "schema": 2}))
                path.unlink()
                path.write_text(whole)


def manifest(**keys: Any) -> Harm:
    """Change each line of the manifest; a value that is None takes the key away."""

    def harm(run: Path) -> None:
        lines = [json.loads(line) for line in (run / MANIFEST).read_text().splitlines()]
        changed = [{k: v for k, v in {**line, **keys}.items() if v is not None} for line in lines]
        (run / MANIFEST).write_text("".join(json.dumps(line) + "\n" for line in changed))

    return harm


def file(name: str, content: bytes) -> Harm:
    def harm(run: Path) -> None:
        (run / name).unlink()
        (run / name).write_bytes(content)

    return harm


def pipe(name: str) -> Harm:
    def harm(run: Path) -> None:
        (run / name).unlink()
        os.mkfifo(run / name)

    return harm


def link(name: str, to: str) -> Harm:
    """Put a link that leads out of the record in the place of a file or directory."""

    def harm(run: Path) -> None:
        path = run / name
        target = run.parent.parent / "outside"
        path.rename(target)
        path.symlink_to(target if to == "outside" else to)

    return harm


def sparse_checkpoint(size: int) -> Harm:
    """Let the checkpoint have so many bytes, of which none is on the disk."""

    def harm(run: Path) -> None:
        os.truncate(run / CHECKPOINT, size)
        manifest(size=size)(run)

    return harm


def checkpoint(state: Any) -> Harm:
    """Write another checkpoint, with a manifest that fits it."""

    def harm(run: Path) -> None:
        import hashlib
        import io

        import torch

        content = io.BytesIO()
        if isinstance(state, Runs):
            pickle.dump(state, content)
        else:
            torch.save(state, content)
        file(CHECKPOINT, content.getvalue())(run)
        sha256 = hashlib.sha256(content.getvalue()).hexdigest()
        manifest(size=len(content.getvalue()), sha256=sha256)(run)

    return harm


class Runs:
    """What runs a command when it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (TOUCH,)


def table(name: str, **columns: Any) -> Harm:
    """Write a table anew with other columns, of as many rows as the first has; None: without it."""

    def harm(run: Path) -> None:
        path = run / f"attempts/1/{name}.arrow"
        with pa.ipc.open_stream(path.read_bytes()) as reader:
            whole = reader.read_all()
        for column, value in columns.items():
            if column in whole.column_names:
                whole = whole.drop([column])
            if value is not None:
                whole = whole.append_column(column, pa.array([value] * whole.num_rows))
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, whole.schema) as writer:
            writer.write_table(whole)
        path.write_bytes(sink.getvalue().to_pybytes()[:-8])

    return harm


def rewritten_yaml(text: str) -> Harm:
    return file("config.yaml", text.encode())


LAUGHS = "a0: &a0 [x]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 10)
)
ESCAPES = "\x1b]0;mine\x07\x1b[2J\x9b31m\u202e"

RUNNING: dict[str, Harm] = {
    "system_as_model": node("model", _target_="os.system", _args_=[TOUCH]),
    "arguments_of_main": node("model", _target_="attnlab.cli.main", _args_=[["list"]]),
    "main_as_metric": identity(
        lambda c: c.update(metric={"m": {"_target_": "attnlab.cli.main", "argv": ["list"]}})
    ),
    "system_as_metric": identity(
        lambda c: c.update(metric={"m": {"_target_": "os.system", "command": TOUCH}})
    ),
    "module_beside_it": node("objective", _target_="payload.Part"),
    "module_in_the_mixer": mixer(_target_="payload.Part"),
    "module_in_a_list": mixer(num_heads=[{"a": {"_target_": "payload.Part"}}]),
    "module_deep_in_a_knob": mixer(dropout={"a": {"b": [{"_target_": "payload.Part"}]}}),
    "module_as_optimizer": node("optimizer", _target_="payload.Part"),
    "writes_a_dataset": node("dataset", _target_="attnlab.dataset.export.export", directory="."),
    "writes_a_file": node("objective", _target_="attnlab.run_record.write.create_file", path=MARK),
    "a_function_for_a_class": node("model", _target_="attnlab.model.cost.flops"),
    "no_dataset": node("dataset", _target_="attnlab.dataset.loader.Loader"),
    "a_method": node("dataset", _target_="attnlab.dataset.pronoun.Pronoun.digest"),
    "imported_there": node("model", _target_="attnlab.model.transformer.nn.Module"),
    "imported_function": identity(
        lambda c: c.update(metric={"m": {"_target_": "attnlab.metric.f1.torch.hub.load"}})
    ),
    "of_another_section": node("dataset", _target_="attnlab.mixer.multihead.MultiHead"),
    "positional_arguments": mixer(_args_=[1, 2, 3]),
    "not_recursive": mixer(_recursive_=False),
    "converted": mixer(_convert_="object"),
    "isolated": mixer(_isolate_=True),
    "half_built": mixer(_partial_="yes"),
    "a_list_of_targets": node("model", _target_=["os.system"]),
    "a_number_for_a_target": node("model", _target_=3),
    "a_module_for_a_target": node("model", _target_="attnlab.model.transformer"),
    "yaml_that_calls": rewritten_yaml(f"a: !!python/object/apply:os.system ['{TOUCH}']"),
    "yaml_of_laughs": rewritten_yaml(LAUGHS),
    "yaml_without_an_end": rewritten_yaml("&a\nvariant: multihead\nmodel: *a\n"),
    "pickle_that_calls": checkpoint(Runs()),
}
"""What would run somebody's code, or never end."""

UNASKED: dict[str, Harm] = {
    "eval_as_evidence": identity(
        lambda c: c.update(evidence={"e": {"_target_": "builtins.eval", "_args_": ["1"]}})
    ),
    "module_as_callback": identity(
        lambda c: c["callbacks"].update(mine={"_target_": "payload.Part"})
    ),
    "module_as_logger": identity(lambda c: c.update(logger={"l": {"_target_": "payload.Part"}})),
}
"""What would run code in training, and is not built of a record."""

LEADING: dict[str, Harm] = {
    "a_pipe_of_config": pipe("config.yaml"),
    "a_pipe_of_a_result": pipe("run.json"),
    "a_pipe_of_a_claim": pipe("attempts/1/claim.json"),
    "a_pipe_of_a_checkpoint": pipe(CHECKPOINT),
    "a_pipe_of_a_manifest": pipe(MANIFEST),
    "a_pipe_of_rows": pipe("attempts/1/patterns.arrow"),
    "a_device_for_rows": link("attempts/1/patterns.arrow", "/dev/zero"),
    "a_link_to_config": link("config.yaml", "outside"),
    "a_link_to_checkpoints": link(CHECKPOINTS, "outside"),
    "a_link_to_attempts": link("attempts", "outside"),
    "a_link_to_itself": link("attempts/1/run.json", "run.json"),
    "a_checkpoint_above": manifest(file="../../../../outside.ckpt"),
    "a_checkpoint_of_root": manifest(file="/etc/passwd"),
    "a_huge_checkpoint": manifest(size=1 << 60),
    "a_checkpoint_of_nothing": sparse_checkpoint(200 << 30),
    "a_negative_checkpoint": manifest(size=-1),
    "a_manifest_without_steps": manifest(step=None),
    "resumed_from_itself": claim(resumed_from={"attempt": 1, "step": 4, "sha256": ""}),
    "resumed_from_above": claim(
        resumed_from={"attempt": 1, "step": 4, "sha256": "", "run": "../../outside"}
    ),
    "resumed_from_the_directory_above": claim(
        resumed_from={"attempt": 1, "step": 4, "sha256": "", "run": ".."}
    ),
    "resumed_from_a_huge_step": claim(resumed_from={"attempt": 1, "step": 10**30, "sha256": ""}),
    "a_file_of_the_system": node(
        "dataset", _target_="attnlab.dataset.text.Text", path="/etc/passwd", sha256=None
    ),
    "resumed_from_nothing": claim(resumed_from={"attempt": -1, "step": 4, "sha256": ""}),
    "resumed_from_a_text": claim(resumed_from="1"),
    "an_older_checkpoint": manifest(step=7, file="step-000000007.ckpt"),
}
"""What leads out of the record, to what never ends, or in a circle."""

MISSHAPEN: dict[str, Harm] = {
    "no_model": identity(lambda c: c.pop("model")),
    "a_list_of_identity": result(lambda r: r.update(identity=[1])),
    "a_dataset_of_a_list": node("dataset", name=["pronoun"]),
    "a_text_for_a_seed": identity(lambda c: c.update(seed="0")),
    "a_text_for_a_section": identity(lambda c: c.update(trainer="fast")),
    "a_width_of_text": node("model", d_model="64"),
    "a_huge_width": node("model", d_model=1 << 40),
    "an_interpolation": node("dataset", template="${oc.env:HOME}"),
    "metrics_of_text": result(lambda r: r["metrics"].update({"test/accuracy": "1"})),
    "no_metrics": result(lambda r: r.pop("metrics")),
    "parameters_of_text": result(lambda r: r.update(parameters="many")),
    "seconds_of_null": result(lambda r: r.update(seconds=None)),
    "escapes_for_a_variant": result(lambda r: r.update(variant=ESCAPES)),
    "escapes_for_a_metric": result(
        lambda r: r.update(headline=ESCAPES, metrics={ESCAPES: 1.0, "test/accuracy": 1.0})
    ),
    "seconds_of_infinity": result(lambda r: r.update(seconds=float("inf"))),
    "half_a_character": result(lambda r: r.update(variant="\ud800")),
    "no_steps": result(lambda r: r.pop("steps")),
    "no_attempt": result(lambda r: r.pop("attempt")),
    "another_status": result(lambda r: r.update(status="done")),
    "ended_without_a_status": ended(status=None),
    "failed_without_an_error": ended(status="failed"),
    "failed_with_a_text": ended(status="failed", error="it broke"),
    "interrupted_by_a_number": ended(status="interrupted", rows={"train": -1}),
    "a_huge_seed": identity(lambda c: c.update(seed=10**30)),
    "a_negative_dropout": mixer(dropout=-1.0),
    "a_huge_network": identity(lambda c: c["model"]["ffn"].update(expansion=1e308)),
    "many_layers": node("model", num_layers=10**7),
    "no_accumulation": node("trainer", accumulate_grad_batches=""),
    "schema_of_true": result(lambda r: r.update(schema=True)),
    "schema_of_none": result(lambda r: r.update(schema=0)),
    "a_claim_of_text": claim(pid="1", host=None),
    "a_deep_result": result(lambda r: r.update(git=_deep(60))),
    "no_json": file("run.json", b"{" * 200_000),
    "no_arrow": file("attempts/1/patterns.arrow", bytes(range(256)) * 9),
    "text_for_a_loss": table("train", loss="low"),
    "rows_without_steps": table("train", step=None),
    "rows_of_text_steps": table("train", step="1"),
    "patterns_of_many_heads": table("patterns", heads=1e15),
    "patterns_of_no_heads": table("patterns", heads=float("nan")),
    "patterns_of_a_number": table("patterns", probe=1),
    "patterns_of_no_source": table("patterns", source=b"tap"),
    "patterns_of_other_heads": table("patterns", numbers=[7, 8, 9]),
    "patterns_of_half_heads": table("patterns", numbers=[0.5, 1.5]),
    "patterns_asked_nowhere": table("patterns", asked_at=-1e9),
    "heads_of_a_number": table("heads", heads=1.0),
    "patterns_without_codes": table("patterns", codes=None),
    "patterns_of_noise": table("patterns", codes=b"noise"),
    "patterns_of_numbers": table("patterns", tokens=[1.0, 2.0]),
    "heads_of_text": table("heads", heads="high"),
    "vectors_of_another_width": table("vectors", width=1e9),
    "weights_of_another_model": checkpoint({"state_dict": {"model.x": 1}}),
    "weights_of_a_list": checkpoint([1, 2]),
    "no_weights": checkpoint({"state_dict": {3: 4}}),
}
"""What has other types than a record has."""

ALL = RUNNING | UNASKED | LEADING | MISSHAPEN


def _deep(levels: int) -> Any:
    return {"a": _deep(levels - 1)} if levels else 1


def put_payload(*directories: Path) -> None:
    """Put the module where it might be found."""
    for directory in directories:
        (directory / "payload.py").write_text(PAYLOAD)
