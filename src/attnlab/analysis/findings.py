"""What the evidence of a finished run found, whichever version of attnlab recorded it.

for name, finding in findings(Record(Path("runs/mqar-...")).result).items():
    print(name, {role: str(named.head) for role, named in finding.heads.items()})
"""

from collections.abc import Mapping
from typing import Any

from attnlab.building import NOTHING, find, is_allowed
from attnlab.errors import RecordError
from attnlab.run_record.finding import Finding
from attnlab.run_record.result import RunResult

SECTION = "evidence"


def findings(result: RunResult | None, run: str = "a run") -> Mapping[str, Finding]:
    """Return what each evidence of a run found, by its name; empty before the run is finished.

    A record of attnlab 0.1 has only numbers, of which the classes of attnlab make findings; those
    of anybody else are not imported, and have none. Raises RecordError, which names the `run`, for
    numbers that cannot be read.
    """
    if result is None:
        return {}
    if result.findings:
        return result.findings
    parts: Mapping[str, Any] = result.identity.get(SECTION) or {}
    return {
        name: _from_first_records(run, name, target, result.metrics)
        for name, part in parts.items()
        if isinstance(part, Mapping)
        and is_allowed(target := part.get("_target_"), SECTION, NOTHING)
    }


def _from_first_records(run: str, name: str, target: Any, metrics: Mapping[str, float]) -> Finding:
    prefix = f"{name}/"
    scalars = {k.removeprefix(prefix): v for k, v in metrics.items() if k.startswith(prefix)}
    try:
        return find(target, SECTION, NOTHING).from_first_records(scalars)
    except (LookupError, TypeError, ValueError, ArithmeticError, AttributeError) as error:
        said = f"{type(error).__name__}: {error}"
        raise RecordError(f"{run}: what {name} found cannot be read ({said})") from error
