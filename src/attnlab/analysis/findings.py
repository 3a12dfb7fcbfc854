"""The findings of the evidence of a finished run, from records of any version of attnlab.

for name, finding in read_findings(Record(Path("runs/mqar-...")).result).items():
    print(name, {role: str(named.head) for role, named in finding.heads.items()})
"""

from collections.abc import Mapping
from typing import Any

from attnlab.building import NO_USER_TARGETS, find_target, is_allowed
from attnlab.errors import RecordError
from attnlab.run_record.finding import Finding
from attnlab.run_record.result import RunResult

SECTION = "evidence"


def read_findings(result: RunResult | None, run: str = "a run") -> Mapping[str, Finding]:
    """Return the findings of a run by the name of the evidence; empty before the run is finished.

    A record of attnlab 0.1 has only numbers, which attnlab's own evidence classes convert to
    findings; classes from elsewhere are not imported, and their findings are left out. Raises
    RecordError, which names the `run`, for numbers that cannot be read.
    """
    if result is None:
        return {}
    if result.findings:
        return result.findings
    evidence_configs: Mapping[str, Any] = result.identity.get(SECTION) or {}
    return {
        name: _convert_first_record(run, name, evidence_config["_target_"], result.metrics)
        for name, evidence_config in evidence_configs.items()
        if isinstance(evidence_config, Mapping)
        and is_allowed(evidence_config.get("_target_"), SECTION, NO_USER_TARGETS)
    }


def _convert_first_record(
    run: str, name: str, class_path: Any, metrics: Mapping[str, float]
) -> Finding:
    """Return the finding that an evidence class reads from the numbers of attnlab 0.1."""
    prefix = f"{name}/"
    scalars = {
        metric.removeprefix(prefix): value
        for metric, value in metrics.items()
        if metric.startswith(prefix)
    }
    try:
        return find_target(class_path, SECTION, NO_USER_TARGETS).finding_from_old_record(scalars)
    except (LookupError, TypeError, ValueError, ArithmeticError, AttributeError) as error:
        fault = f"{type(error).__name__}: {error}"
        raise RecordError(f"{run}: what {name} found cannot be read ({fault})") from error
