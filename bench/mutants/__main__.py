"""Put small faults into src and see which the tests notice: `make mutants`."""

import argparse
import dataclasses
import json
import sys
from pathlib import Path

from bench.mutants import mutation, reach, run, table
from bench.mutants.mutation import Mutant
from bench.mutants.run import Verdict

FAST = "not slow and not browser"
FOLDER = Path(".mutants")
"""What a run can go on from: which tests reach which line, and the verdicts so far."""
EPILOG = """\
A run that was ended goes on where it was. FILE.md gets the table; the results are compared with
those of the last run, or of the one whose faults --like takes. The exit code is 1 where a fault
that was caught then is not now.
"""


def main(words: list[str]) -> int:
    """Draw faults, run the tests that reach them, and write the table."""
    asked = _parse(words)
    mutants = mutation.candidates(asked.tree)
    if asked.only:
        return _judge_alone([m for m in mutants if str(m.identity) in asked.only], asked)
    earlier = table.read(asked.like or asked.results)
    if asked.like and earlier is not None:
        drawn = list(dict.fromkeys(table.find_again(earlier, mutants).values()))
    else:
        drawn = mutation.draw(mutants, asked.count, asked.seed)
    say(f"{len(drawn)} faults of {len(mutants)}; which tests reach them?")
    names = [str(mutant.identity) for mutant in drawn]
    place = asked.folder / reach.digest(asked.tree, asked.marks, *sorted(names))
    reached = _reached(place.with_suffix(".json"), drawn, asked)
    verdicts = Verdicts(place.with_suffix(".jsonl"), len(drawn))
    missing = [m for m in drawn if str(m.identity) not in verdicts.by_name]
    run.judge(missing, asked.tree, reached, asked.jobs, verdicts.add)
    seed = earlier["seed"] if asked.like and earlier is not None else asked.seed
    settings = {"seed": seed, "marks": asked.marks}
    pairs = [(mutant, verdicts.by_name[str(mutant.identity)]) for mutant in drawn]
    results = table.to_json(settings, asked.tree, pairs)
    asked.results.write_text(json.dumps(results, indent=1) + "\n")
    asked.out.write_text(table.text(results, earlier, mutants))
    return 1 if earlier is not None and table.lost(results, earlier, mutants)[0] else 0


def _judge_alone(mutants: list[Mutant], asked: argparse.Namespace) -> int:
    """Judge some faults by the tests that mirror their files, and print what becomes of them."""
    mirrors = sorted({reach.mirror(mutant) for mutant in mutants})
    paths = [path for path in mirrors if (asked.tree / path).exists()]
    reached = reach.measure(asked.tree, mutants, asked.marks, asked.jobs, paths)
    run.judge(mutants, asked.tree, reached, asked.jobs, lambda *pair: say(_sentence(*pair)))
    return 0


def _reached(path: Path, drawn: list[Mutant], asked: argparse.Namespace) -> reach.Reach:
    """Measure which tests reach which fault, unless that is known for this state of the tree."""
    if path.exists():
        return reach.Reach(**json.loads(path.read_text()))
    reached = reach.measure(asked.tree, drawn, asked.marks, asked.jobs)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(dataclasses.asdict(reached)))
    return reached


class Verdicts:
    """The verdicts on the faults of one state of a tree, on disk as they come."""

    def __init__(self, path: Path, count: int) -> None:
        self.path, self.count = path, count
        lines = path.read_text().splitlines() if path.exists() else []
        self.by_name = {name: Verdict(*verdict) for name, verdict in map(json.loads, lines)}

    def add(self, mutant: Mutant, verdict: Verdict) -> None:
        """Keep a verdict, and print it."""
        self.by_name[str(mutant.identity)] = verdict
        with self.path.open("a") as file:
            file.write(json.dumps([str(mutant.identity), verdict]) + "\n")
        say(f"{len(self.by_name)}/{self.count} {_sentence(mutant, verdict)}")


def _sentence(mutant: Mutant, verdict: Verdict) -> str:
    tests = f"{verdict.tests_run} of {verdict.tests_chosen} tests"
    by = f" by {verdict.test} ({verdict.how})" if verdict.status == "caught" else ""
    return f"{mutant.identity} (line {mutant.line}, {tests}): {verdict.status}{by}"


def say(line: str) -> None:
    """Print a line at once, whoever reads it."""
    print(line, flush=True)


def _parse(words: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m bench.mutants",
        description="Put small faults into src and see which the tests notice.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--tree", type=Path, default=Path(), metavar="DIR", help="the checkout")
    parser.add_argument("--marks", default=FAST, metavar="EXPR", help="pytest's -m")
    parser.add_argument(
        "--out", type=Path, default=Path("docs/bench-mutants.md"), metavar="FILE.md"
    )
    parser.add_argument(
        "--results", type=Path, default=Path("bench/mutants/results.json"), metavar="FILE.json"
    )
    parser.add_argument("--like", type=Path, metavar="FILE.json", help="faults of an earlier run")
    parser.add_argument(
        "--only",
        nargs="+",
        metavar="ID",
        help="judge these by the tests of their room, and write no table",
    )
    parser.add_argument("--folder", type=Path, default=FOLDER, metavar="DIR")
    parser.add_argument("-j", "--jobs", type=int, default=2)
    asked = parser.parse_args(words)
    if asked.like and not asked.like.is_file():
        parser.error(f"--like {asked.like}: there is no such file")
    return asked


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
