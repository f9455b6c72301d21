"""The forms of a critic side by side on ProcessBench: F1, readable replies, cost, and whether it may be chance.

usage: python -m tests.benchmarks.critic_forms FILE --model MODEL [--engine vllm] [--limit 100]
           [--forms index,json,step,soft] [--k 1,4] [--set key=value ...]

FILE holds rows of ProcessBench (JSON lines, plain or gzipped). The model is loaded once. `soft` is the form `step`
with P(True), and has one reply to each question. `--k 1,4` measures single replies and the majority of four. Keys of
the recipe as in `stepconf audit`, e.g. --set engine.max_model_len=2048 --set verify.critic.max_tokens=512

Each form ends with a line `FORM k=K: F1 ..., readable ..., ...`, and a warning where its verdicts may be chance.
"""

import argparse
from contextlib import closing
from pathlib import Path

from stepconf.labels.audit import Audited, audit, warnings
from stepconf.recipe import Recipe, load_recipe, with_options
from stepconf.stages.models import open_engine
from stepconf.verifiers.critic.opening import model_critic


def main() -> None:
    """Measure every form with every k."""
    asked = arguments()
    usual = {"model": asked.model, "engine.name": asked.engine, "verify.critic.reference": False}
    recipe = load_recipe(None, usual, asked.set)
    with closing(open_engine(recipe)) as engine:
        for form in asked.forms.split(","):
            for k in (1,) if form == "soft" else tuple(map(int, asked.k.split(","))):
                critic = model_critic(engine, of_form(recipe, form, k), asked.model)
                report = audit("processbench", asked.file, [critic], limit=asked.limit)
                print(line(form, k, report.results[0], report.n_solutions), flush=True)
                for sentence in warnings(report):
                    print(f"  warning: {sentence}", flush=True)


def of_form(recipe: Recipe, form: str, k: int) -> Recipe:
    """The recipe with one form of the critic."""
    options = {"verify.critic.form": "step", "verify.critic.soft": True} if form == "soft" else {}
    return with_options(recipe, {"verify.critic.form": form, "verify.critic.k": k, **options})


def line(form: str, k: int, one: Audited, n_solutions: int) -> str:
    """The figures of one form."""
    bench, cost, outcomes = one.processbench, one.critic, one.outcomes
    assert bench and cost and outcomes
    f1, balanced = bench.f1_interval, outcomes.balanced_accuracy
    return (
        f"{form} k={k}: F1 {percent(bench.f1)} [{percent(f1.low)}, {percent(f1.high)}] "
        f"(errors {percent(bench.error_accuracy)}, correct {percent(bench.correct_accuracy)}) "
        f"on {n_solutions} solutions; "
        f"balanced accuracy {percent(balanced.estimate)} [{percent(balanced.low)}, {percent(balanced.high)}]; "
        f"readable {percent(cost.readable)} %, asked again {percent(cost.asked_again)} %; a solution costs "
        f"{cost.tokens_read:.0f} tokens read, {cost.tokens_written:.0f} written, {one.seconds_per_solution:.2f} s"
    )


def percent(value: float | None) -> str:
    """A share in per cent."""
    return "-" if value is None else f"{100 * value:.1f}"


def arguments() -> argparse.Namespace:
    """What was typed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("--model", required=True)
    parser.add_argument("--engine", default="vllm")
    parser.add_argument("--forms", default="index,json,step,soft")
    parser.add_argument("--k", default="1")
    parser.add_argument("--limit", type=int, default=None)
    parser.add_argument("--set", action="append", default=[], metavar="key=value")
    return parser.parse_args()


if __name__ == "__main__":
    main()
