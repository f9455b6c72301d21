"""How much of the rollouts' prompts comes from vLLM's prefix cache, on the demo model.

Solutions of arithmetic chains (the demo's prompt, 8 samples each) are rolled out from every step. Compared:
prompt tokens that the requests hold, and those of them that the cache served, as vLLM counts both.
"""

import time
from contextlib import closing
from typing import Any

from stepconf.demo import RECIPE
from stepconf.demo_model import resolve_model
from stepconf.engines.base import SampleRequest, Sampling
from stepconf.engines.vllm import VllmEngine
from stepconf.problems.load import ProblemOptions, load_problems
from stepconf.recipe import load_recipe
from stepconf.stages.models import Prompter
from stepconf.stages.solve import sampled
from stepconf.verifiers.pool import Pool
from stepconf.verifiers.rollout import RolloutOptions, RolloutVerifier

N_PROBLEMS = 8


def main() -> None:
    """Print the hit rate, and rollouts per second."""
    recipe = load_recipe(RECIPE)
    problems = load_problems(recipe.problems.source, ProblemOptions(limit=N_PROBLEMS, seed=42)).problems
    engine = VllmEngine(
        resolve_model("demo"), dtype="float32", max_model_len=512, options={"disable_log_stats": False}
    )
    with closing(engine), Pool(1) as pool:
        prompter = Prompter(engine.tokenizer, recipe.prompt)
        how = Sampling(0.7, 64, 1.0, prompter.stop)
        asked = [SampleRequest(str(i), prompter.ids(p.text), 8, i, how) for i, p in enumerate(problems)]
        solved = [
            sampled(problems[int(request.key)], request, i, completion, engine.info, recipe)
            for request, completions in engine.sample(asked)
            for i, completion in enumerate(completions)
        ]
        kept: list[Any] = [one for one in solved if not isinstance(one, str)]
        options = RolloutOptions(n=8, wave=4, max_tokens=64, stop=prompter.stop)
        verifier = RolloutVerifier(engine, pool, options, prompter.ids, "demo")
        before, started = _counts(engine), time.perf_counter()
        rows = verifier.verify(kept)
        seconds = time.perf_counter() - started
        queries, hits = (after - was for after, was in zip(_counts(engine), before, strict=True))
    verdicts = [verdict for row in rows for verdict in row if verdict is not None]
    labels = [verdict.label for verdict in verdicts]
    counts = {label: labels.count(label) for label in ("correct", "incorrect", "unknown")}
    print(f"{len(kept)} solutions, {len(verdicts)} steps in {seconds:.1f} s: {counts}")
    print(f"prompt tokens asked {queries:,}, from the cache {hits:,}: hit rate {hits / queries:.3f}")
    print(f"steps/s {len(verdicts) / seconds:.2f}")
    print(f"ratio rollout_prompt_tokens_to_computed: {queries / max(1, queries - hits):.2f}")


def _counts(engine: VllmEngine) -> tuple[float, float]:
    """Prompt tokens looked up in the prefix cache, and found there, since the engine started."""
    found = {metric.name: getattr(metric, "value", 0) for metric in engine._engine.get_metrics()}
    return found["vllm:prefix_cache_queries"], found["vllm:prefix_cache_hits"]


if __name__ == "__main__":
    main()
