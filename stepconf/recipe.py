"""Everything that decides what a run contains, as one checked model of `recipes/*.yaml`.

Options of the command line, `--set key=value` and the file end up here; the resolved recipe lies in the run.
"""

from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from stepconf.core.labels import POLICIES
from stepconf.core.prompts import INSTRUCTION
from stepconf.errors import StepconfError

STRATEGIES = ("greedy", "cot", "self-consistency", "dipt", "best-of-n", "deepconf", "beam", "cat")
VERIFIERS = ("final", "symbolic", "critic", "rollout", "prm")


class Strict(BaseModel):
    """Unknown keys are errors; a recipe does not change once it is loaded."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class ProblemsRecipe(Strict):
    """Where problems (or solutions) come from."""

    source: str = ""
    """Named set, Hub id, local JSONL(.gz)/Parquet file, or reasoning-gym:<task>[?key=value]."""
    split: str | None = None
    problem_column: str | None = None
    answer_column: str | None = None
    solution_column: str | None = None
    steps_column: str | None = None
    id_column: str | None = None
    answer_type: str | None = None
    """math, number, choice, yesno, string, literal (a Python value) or code; None takes the set's own."""
    limit: int | None = Field(None, ge=1)
    """Keep the first N usable problems."""


class EngineRecipe(Strict):
    """How the model is run."""

    name: Literal["vllm", "transformers"] = "vllm"
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """auto: the checkpoint's own under vLLM, float32 under transformers."""
    max_model_len: int | None = Field(None, ge=16)
    """Context limit in tokens; None takes the model's own."""
    tensor_parallel: int = Field(1, ge=1)
    """GPUs that share one model."""
    options: dict[str, Any] = {}
    """Further arguments of vLLM's EngineArgs, passed through."""


class Shot(Strict):
    """A worked example in front of the problem."""

    problem: str
    solution: str


class PromptRecipe(Strict):
    """How a problem is put to the model."""

    style: Literal["auto", "chat", "plain"] = "auto"
    """auto: the chat template where the model has one."""
    system: str = ""
    instruction: str = INSTRUCTION
    shots: list[Shot] = []
    stop: list[str] = []
    """Strings that end a solution."""


class SamplingRecipe(Strict):
    """How solutions are sampled."""

    samples: int = Field(4, ge=1, le=4096)
    """Solutions per problem."""
    temperature: float = Field(0.7, ge=0, le=10)
    """0 is greedy."""
    top_p: float = Field(1.0, gt=0, le=1)
    max_tokens: int = Field(1024, ge=1)
    """Longest solution in tokens."""
    seed: int = Field(42, ge=0)


class SegmentRecipe(Strict):
    """How solutions are divided into steps. Lengths are characters."""

    mode: Literal["auto", "lines", "paragraphs", "sentences"] = "auto"
    min_chars: int = Field(3, ge=1)
    max_chars: int = Field(4000, ge=1)

    @model_validator(mode="after")
    def _limits_can_be_met(self) -> Self:
        if self.min_chars > self.max_chars:
            raise StepconfError(
                f"segment.min_chars={self.min_chars} exceeds segment.max_chars={self.max_chars}.",
                "Give min_chars <= max_chars.",
            )
        return self


class CriticRecipe(Strict):
    """The language model that judges steps: at an endpoint, or in our engine."""

    model: str = ""
    """Its name at the endpoint; without an endpoint a Hub id, local folder or demo (empty: the run's own)."""
    revision: str | None = None
    base_url: str | None = None
    """OpenAI-compatible endpoint, e.g. http://127.0.0.1:8000/v1; None runs the model in our engine."""
    api_key_env: str | None = None
    """Environment variable with the endpoint's key; None sends none. The key itself is never stored."""
    prompt: str = "critic"
    """A prompt that comes with stepconf, or a text file with $problem, $steps, $n_steps and $key."""
    temperature: float = Field(0.0, ge=0, le=10)
    max_tokens: int = Field(2048, ge=1)
    """Longest reply in tokens; a longer one is cut off and counts as unknown."""
    structured: bool = False
    """Hold the endpoint to the reply's JSON Schema (response_format)."""
    concurrency: int = Field(16, ge=1, le=1024)
    """Requests in flight."""
    timeout_s: float = Field(120.0, gt=0)
    """Wall clock of one attempt."""
    attempts: int = Field(4, ge=1, le=20)
    """How often a request is sent at most, but for a server that is away."""
    patience_s: float = Field(300.0, ge=0)
    """How long to wait for a server that is down or refuses for the rate, before its steps are unknown."""


class RolloutRecipe(Strict):
    """Completions from each step by the run's own model; top_p, max_tokens and seed are as in `sampling`."""

    n: int = Field(8, ge=1, le=1024)
    """Completions per step at most."""
    wave: int = Field(4, ge=1)
    """Completions at a time, after which a step may be decided."""
    labels: Literal["hard", "soft"] = "hard"
    """hard: correct once any completion is; soft: by the share, once its interval excludes `threshold`."""
    threshold: float = Field(0.5, gt=0, lt=1)
    confidence: float = Field(0.95, gt=0, lt=1)
    """Of the interval."""
    temperature: float = Field(0.7, gt=0, le=10)


class PrmRecipe(Strict):
    """A process reward model."""

    model: str = ""
    """Hub id or local folder."""
    revision: str | None = None
    form: Literal["auto", "qwen", "math-shepherd", "rlhflow"] = "auto"
    """What the model reads; auto goes by its name."""
    engine: Literal["transformers", "vllm"] = "transformers"
    """vllm: its pooling runner, for the classifiers that it knows (form qwen)."""
    options: dict[str, Any] = {}
    """Further arguments of vLLM's EngineArgs, e.g. gpu_memory_utilization beside a model that samples."""
    threshold: float = Field(0.5, ge=0, le=1)
    """Scores below it are incorrect."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """auto: the checkpoint's own on a GPU, float32 elsewhere."""
    max_model_len: int | None = Field(None, ge=16)
    """Context limit in tokens; None takes the model's own."""


class VerifyRecipe(Strict):
    """How steps are verified and labelled."""

    verifiers: list[str] = ["final", "symbolic"]
    policy: str = "first-decided"
    deadline_s: float = Field(5.0, gt=0)
    """Longest time one item may take before its worker is killed."""
    memory_gb: float = Field(2.0, gt=0.25)
    """Address space of one worker."""
    workers: int | None = Field(None, ge=1)
    """Worker processes; None takes one per CPU."""
    critic: CriticRecipe = CriticRecipe()
    rollout: RolloutRecipe = RolloutRecipe()
    prm: PrmRecipe = PrmRecipe()

    @model_validator(mode="after")
    def _names_are_known(self) -> Self:
        """Said here, before a model is loaded and hours of sampling later."""
        for kind, names, known in (
            ("verifier", self.verifiers, VERIFIERS),
            ("label policy", [self.policy], tuple(POLICIES)),
        ):
            if unknown := [name for name in names if name not in known]:
                raise StepconfError(f"unknown {kind} {unknown[0]!r}.", f"Choose from: {', '.join(known)}.")
        return self


class PairsRecipe(Strict):
    """How preference pairs are made out of a run."""

    strategy: Literal["caspo", "dpo-vp", "step-dpo", "pcpo"] = "caspo"
    """caspo, step-dpo: pairs of steps; dpo-vp, pcpo: pairs of whole solutions."""
    tau: float | None = Field(None, gt=0, le=1)
    """caspo: confidence at or below which a correct step is uncertain; None takes `tau_quantile`."""
    tau_quantile: float = Field(0.5, ge=0, le=1)
    """Quantile of the confidences of correct steps in the run."""
    after_error: Literal["stop", "continue"] = "stop"
    """caspo: whether steps behind the first wrong one, whose prefix is wrong, may make pairs."""
    candidates: int = Field(0, ge=0, le=1024)
    """Steps sampled where a pair is missing a side, by the run's model after the exact tokens; 0 for none."""
    candidate_temperature: float | None = Field(None, ge=0, le=10)
    """None takes the run's."""
    candidate_max_tokens: int = Field(256, ge=1)
    """Longest candidate in tokens; one whose first step is longer is dropped."""
    max_per_problem: int | None = Field(None, ge=1)
    """Pairs of one problem at most; None for all."""
    balance: bool = False
    """Drop pairs until correct_uncertain and incorrect are equally many in each split."""
    validation: float = Field(0.05, ge=0, lt=1)
    """Share of problems whose pairs go into the validation split."""
    seed: int = Field(42, ge=0)
    """Of every choice among pairs, and of the candidates."""
    round: int = Field(0, ge=0)
    """Round of iterative training; stored with each pair."""

    @model_validator(mode="after")
    def _candidates_have_a_use(self) -> Self:
        if self.candidates and self.strategy in ("dpo-vp", "pcpo"):
            raise StepconfError(
                f"pairs.candidates={self.candidates} has no use with pairs.strategy={self.strategy}, whose "
                "sides are whole solutions.",
                "Leave it out, or take --strategy caspo or step-dpo.",
            )
        return self


class LoraRecipe(Strict):
    """Low-rank adapters instead of all parameters (peft); merged into the model at the end."""

    rank: int = Field(16, ge=1)
    alpha: float = Field(32, gt=0)
    dropout: float = Field(0.0, ge=0, lt=1)
    targets: str | list[str] = "all-linear"
    """Names of the modules that get adapters."""


class TrainRecipe(Strict):
    """How a policy is optimised. The defaults are those of arXiv 2605.07353 where it gives them."""

    objective: Literal["dpo", "sft"] = "dpo"
    """dpo: prefer chosen over rejected. sft: imitate solutions whose answer is right, or the chosen sides."""
    loss: Literal["sigmoid", "ipo"] = "sigmoid"
    beta: float = Field(0.1, gt=0)
    """Strength of the pull towards the reference."""
    label_smoothing: float = Field(0.0, ge=0, lt=0.5)
    learning_rate: float = Field(5e-7, gt=0)
    """Peak; the paper takes 5e-6 for SFT."""
    schedule: Literal["constant", "linear", "cosine"] = "cosine"
    warmup_ratio: float = Field(0.1, ge=0, le=1)
    weight_decay: float = Field(0.0, ge=0)
    max_grad_norm: float = Field(1.0, gt=0)
    epochs: int = Field(1, ge=1)
    batch_size: int = Field(64, ge=1)
    """Pairs (or sequences) per optimiser step, over all processes."""
    max_length: int = Field(2048, ge=2)
    """Tokens of prompt and side; a longer example is left out and counted."""
    tokens_per_batch: int | None = Field(None, ge=1)
    """Input tokens of one forward: what fits the memory. Unset: 512 on a CPU, 8192 on a GPU. Decides the
    speed, not the result."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Of the forward; parameters and moments are float32 either way."""
    save_dtype: Literal["float32", "bfloat16"] = "float32"
    """Of the saved model. bfloat16 rounds away most of an update at a learning rate such as 5e-7."""
    attention: Literal["auto", "sdpa", "flex"] = "auto"
    """auto: FlexAttention on CUDA, SDPA with a dense mask elsewhere."""
    gradient_checkpointing: bool = False
    """Less memory for a second forward."""
    checkpoint_every: int = Field(50, ge=1)
    """Optimiser steps between checkpoints: what a crash may cost."""
    lora: LoraRecipe | None = None
    log_to: Literal["none", "tensorboard", "trackio"] = "none"
    """Besides the terminal and state/metrics.jsonl."""
    seed: int = Field(42, ge=0)


class EvaluationRecipe(Strict):
    """Held-out problems on which every round's policy is measured."""

    source: str = ""
    """As problems.source. Problems that are in it are left out of training."""
    split: str | None = None
    limit: int | None = Field(None, ge=1)
    samples: int = Field(4, ge=1, le=4096)
    """Solutions per problem."""
    temperature: float = Field(0.7, ge=0, le=10)
    seed: int = Field(7, ge=0)


class LoopRecipe(Strict):
    """Iterative training: sample, verify, pair, optimise, measure, and again with the new policy."""

    rounds: int = Field(1, ge=1, le=100)
    temperatures: list[float] = []
    """Of each round's sampling; the last one goes on. Empty: sampling.temperature."""
    evaluation: EvaluationRecipe = EvaluationRecipe()


class InferRecipe(Strict):
    """How a question is answered. Temperature, top_p, seed and the length of a solution are as in `sampling`."""

    strategy: str = "cat"
    k: int = Field(10, ge=1, le=1024)
    """Samples of a question; in a tree, candidates of a branch and branches that survive a level."""
    tau: float = Field(0.001, ge=0, le=1)
    """Cumulative confidence below which a branch is pruned; 0 prunes none."""
    tau_quantile: float | None = Field(None, gt=0, lt=1)
    """Take tau from `tau_run` instead: where it would have cost at most this share of the right solutions."""
    tau_run: str | None = None
    """A small run of the same model, as `generate` makes it, on problems that are not evaluated."""
    max_steps: int = Field(64, ge=1)
    """Most steps of a branch."""
    length_normalised: bool = False
    """C as the geometric mean of the steps' confidences; their product (the paper's) otherwise."""
    stop_early: bool = True
    """Drop branches that can no longer beat the best answer. False grows algorithm 2's whole tree, to the same
    answer (unless length_normalised)."""
    expand_below: float | None = Field(None, gt=0, le=1)
    """The greedy candidate first, and K - 1 sampled ones only where its confidence is below this; None samples K."""
    count_duplicates: bool = False
    """In C, multiply a step's confidence by the share of its parent's candidates that say the same: entropy does not
    see which of them was drawn. Not in the paper."""
    token_budget: int | None = Field(None, ge=1)
    """Tokens after which a tree grows no further level; None sets no limit."""
    beam_width: int = Field(2, ge=1)
    """Candidates of each beam; k / beam_width beams are kept."""
    deepconf_keep: float = Field(0.9, gt=0, le=1)
    """Share of the samples, the most confident, that may vote."""

    @model_validator(mode="after")
    def _strategy_is_known(self) -> Self:
        if self.strategy not in STRATEGIES:
            raise StepconfError(
                f"unknown strategy {self.strategy!r}.", f"Choose from: {', '.join(STRATEGIES)}."
            )
        return self

    @model_validator(mode="after")
    def _quantile_has_a_run(self) -> Self:
        if (self.tau_quantile is None) != (self.tau_run is None):
            given, other = (
                ("infer.tau_run", "infer.tau_quantile=0.05")
                if self.tau_quantile is None
                else ("infer.tau_quantile", "infer.tau_run=RUN")
            )
            raise StepconfError(f"{given} is given alone.", f"Add --set {other}.")
        return self


class ServeRecipe(Strict):
    """Where the server listens, and what one client may ask of it."""

    host: str = "127.0.0.1"
    port: int = Field(8000, ge=0, le=65535)
    """0 takes a free one."""
    api_key_env: str | None = None
    """Environment variable with the key that clients must send; None asks for none. The key is never stored."""
    max_concurrent: int = Field(256, ge=1)
    """Requests under way; one more is answered 429."""
    max_body_bytes: int = Field(1 << 20, ge=1024)
    max_k: int = Field(64, ge=1)
    max_tokens: int = Field(4096, ge=1)
    """Longest solution in tokens that a request may ask for."""
    max_spent: int = Field(1 << 18, ge=1)
    """Tokens one request may cost: k solutions must fit, and a tree grows no further level behind it."""
    grace_s: float = Field(30.0, ge=0)
    """After SIGTERM, how long requests under way may take to finish; then they are answered 503."""


class RayRecipe(Strict):
    """How `generate`, `score` and `verify` are spread over a Ray cluster. Decides the speed, not the result."""

    address: str | None = None
    """auto (the cluster of this machine), local (one made for the run, here) or ray://HOST:PORT; None: no Ray."""
    gpus: float | None = Field(None, ge=0)
    """GPUs of one engine, a share of one or several whole ones; None takes engine.tensor_parallel where there
    are GPUs."""
    cpus: float = Field(1, gt=0)
    """CPUs of one engine; without a GPU, its threads."""
    min_engines: int = Field(1, ge=1)
    max_engines: int | None = Field(None, ge=1)
    """None: as many as the GPUs have room for; without GPUs one a node."""
    verifier_cpus: float = Field(1, gt=0)
    """CPUs of an actor that verifies, and its worker processes (unless verify.workers says how many)."""
    verifier_gpus: float = Field(0, ge=0)
    """Its GPUs, where it runs a model: a reward model, or a critic other than the run's model."""
    min_verifiers: int = Field(1, ge=1)
    max_verifiers: int | None = Field(None, ge=1)
    """None: as many as there is work and room for."""
    retries: int = Field(3, ge=0)
    """How often a chunk is made again whose actor or node was lost, before its items are tried alone."""

    @model_validator(mode="after")
    def _values_mean_something(self) -> Self:
        address = self.address
        if address is not None and address not in ("auto", "local") and not address.startswith("ray://"):
            raise StepconfError(
                f"unknown Ray address {address!r}.", "Give --ray auto, --ray local or --ray ray://HOST:10001."
            )
        for name in ("gpus", "verifier_gpus"):
            share = getattr(self, name) or 0.0
            if share > 1 and share != int(share):
                raise StepconfError(
                    f"ray.{name}={share} is not whole.", "Give a share up to 1, or whole GPUs."
                )
        return self


class Recipe(Strict):
    """One run, whole."""

    model: str = ""
    """Hub id, local folder, or demo."""
    model_revision: str | None = None
    chunk: int = Field(64, ge=1)
    """Problems (or imported solutions) per shard: what a crash may cost."""
    problems: ProblemsRecipe = ProblemsRecipe()
    engine: EngineRecipe = EngineRecipe()
    prompt: PromptRecipe = PromptRecipe()
    sampling: SamplingRecipe = SamplingRecipe()
    segment: SegmentRecipe = SegmentRecipe()
    verify: VerifyRecipe = VerifyRecipe()
    pairs: PairsRecipe = PairsRecipe()
    train: TrainRecipe = TrainRecipe()
    loop: LoopRecipe = LoopRecipe()
    infer: InferRecipe = InferRecipe()
    serve: ServeRecipe = ServeRecipe()
    ray: RayRecipe = RayRecipe()


# What changes how fast a run goes, but not what it contains; and what is decided after it.
_CRITIC_CONNECTION = {"base_url", "api_key_env", "concurrency", "timeout_s", "attempts", "patience_s"}
_NOT_IDENTITY = {
    "verify": {"workers": True, "critic": _CRITIC_CONNECTION},
    "pairs": True,
    "train": True,
    "loop": True,
    "infer": True,
    "serve": True,
    "ray": True,
}


def load_recipe(
    file: Path | None = None, options: dict[str, Any] | None = None, sets: list[str] | None = None
) -> Recipe:
    """A recipe from a YAML file, command-line options (None is "not given") and `key=value` strings.

    Raises:
        StepconfError: the file is absent or not YAML, a key is unknown, or a value is out of its range.
    """
    values: dict[str, Any] = _read_yaml(file) if file else {}
    for key, value in (options or {}).items():
        if value is not None:
            _put(values, key, value)
    for assignment in sets or []:
        key, equals, text = assignment.partition("=")
        if not equals:
            raise StepconfError(
                f"--set {assignment!r} has no '='.", "Write --set key=value, e.g. --set sampling.top_p=0.9"
            )
        try:
            _put(values, key.strip(), yaml.safe_load(text))
        except yaml.YAMLError as error:
            raise StepconfError(
                f"--set {assignment!r}: the value is not YAML.", "Quote it: --set 'key=\"value\"'"
            ) from error
    try:
        return Recipe.model_validate(values)
    except ValidationError as error:
        raise _explained(error, file) from error


def identity(recipe: Recipe) -> dict[str, Any]:
    """The part of a recipe that decides what a run contains, as plain values."""
    return recipe.model_dump(mode="json", exclude=_NOT_IDENTITY)  # type: ignore[arg-type]  # nested mapping


def with_policy_of(recipe: Recipe, run: dict[str, Any]) -> Recipe:
    """The recipe with the model of another run's recipe, loaded, prompted and sampled as there."""
    names = ("model", "model_revision", "engine", "prompt", "sampling")
    return Recipe.model_validate(recipe.model_dump() | {name: run[name] for name in names})


def known_keys(model: type[BaseModel] = Recipe, prefix: str = "") -> list[str]:
    """Every dotted key of a recipe."""
    keys = []
    for name, info in model.model_fields.items():
        if isinstance(info.annotation, type) and issubclass(info.annotation, BaseModel):
            keys += known_keys(info.annotation, f"{prefix}{name}.")
        else:
            keys.append(prefix + name)
    return keys


def _read_yaml(file: Path) -> dict[str, Any]:
    try:
        values = yaml.safe_load(file.read_text(encoding="utf-8")) or {}
    except OSError as error:
        raise StepconfError(f"cannot read the recipe {file}: {error.strerror}.", "See recipes/.") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise StepconfError(f"{file} is not YAML: {error}") from error
    if not isinstance(values, dict):
        raise StepconfError(f"{file} holds a {type(values).__name__}, not keys and values.")
    return values


def _put(values: dict[str, Any], key: str, value: Any) -> None:
    *path, last = key.split(".")
    for part in path:
        inner = values.setdefault(part, {})
        if not isinstance(inner, dict):
            raise StepconfError(f"--set {key}: {part} is a value, not a group of keys.")
        values = inner
    values[last] = value


def _explained(error: ValidationError, file: Path | None) -> StepconfError:
    first = error.errors()[0]
    key = ".".join(str(part) for part in first["loc"])
    where = f" in {file}" if file else ""
    if first["type"] == "extra_forbidden":
        near = get_close_matches(key, known_keys(), n=3, cutoff=0.5)
        hint = f"Did you mean {' or '.join(near)}?" if near else f"Keys: {', '.join(known_keys())}"
        return StepconfError(f"unknown recipe key {key!r}{where}.", hint)
    return StepconfError(f"recipe key {key}{where}: {first['msg']}, got {first['input']!r}.")
