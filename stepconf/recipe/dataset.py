"""The parts of a recipe that decide what a data set contains: from problems to verified steps."""

from typing import Any, Literal, Self

from pydantic import Field, model_validator

from stepconf.core.labels import POLICIES
from stepconf.core.prompts import INSTRUCTION
from stepconf.core.segment import SegmentOptions
from stepconf.errors import StepconfError
from stepconf.kinds import ENGINES, VERIFIERS
from stepconf.recipe.base import Seed, Strict


def _refuse_trust(options: dict[str, Any], key: str, hint: str) -> None:
    if "trust_remote_code" in options:
        value = options["trust_remote_code"]
        raise StepconfError(f"{key}.trust_remote_code={value} is not passed on to vLLM.", hint)


class ProblemsRecipe(Strict):
    """Where problems (or solutions) come from."""

    source: str = ""
    """gsm8k, ...; JSONL or Parquet file; Hub id; reasoning-gym:TASK[?key=value]."""
    split: str | None = None
    problem_column: str | None = None
    """Column with the problem text (default: by its usual names)."""
    answer_column: str | None = None
    """Column with the gold answer (default: by its usual names)."""
    solution_column: str | None = None
    """Column with the solution text (default: by its usual names)."""
    steps_column: str | None = None
    id_column: str | None = None
    """Column kept as external_id (default: by its usual names)."""
    answer_type: str | None = None
    """math, number, choice, yesno, string, literal (a Python value) or code; None takes the set's own."""
    limit: int | None = Field(None, ge=1)
    """Only the first N usable rows (default: all)."""


class EngineRecipe(Strict):
    """How the model is run."""

    name: str = "vllm"
    """What runs the model: vllm, transformers, openai (a server at engine.base_url), or module:name."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Of the weights; auto: the checkpoint's own under vLLM, float32 under transformers."""
    max_model_len: int | None = Field(None, ge=16)
    """Context limit in tokens; None takes the model's own."""
    tensor_parallel: int = Field(1, ge=1)
    """GPUs that share one model."""
    options: dict[str, Any] = Field({})
    """Further arguments of vLLM's EngineArgs, passed through."""
    base_url: str | list[str] | None = None
    """openai: the server, e.g. http://127.0.0.1:8000/v1, or several with the same model."""
    api_key_env: str | None = None
    """Environment variable with the server's key; None sends none. The key itself is never stored."""
    concurrency: int = Field(64, ge=1, le=1024)
    """Requests in flight at each server."""
    timeout_s: float = Field(600.0, gt=0)
    """Wall clock of one attempt."""
    attempts: int = Field(4, ge=1, le=20)
    """How often a request is sent at most, but for a server that is away."""
    patience_s: float = Field(300.0, ge=0)
    """How long to wait for a server that is down or refuses for the rate, before the run ends."""
    trust_remote_code: bool = False
    """Run the Python code that `model` brings (`auto_map` in its config.json), with your rights. Read it first. Never
    taken from another run's recipe, and not for the model of a critic or a reward model."""

    @model_validator(mode="after")
    def _is_known(self) -> Self:
        ENGINES.check(self.name)
        return self

    @model_validator(mode="after")
    def _code_is_trusted_in_one_place(self) -> Self:
        _refuse_trust(self.options, "engine.options", "Type: --set engine.trust_remote_code=true")
        return self


class Shot(Strict):
    """A worked example in front of the problem."""

    problem: str
    solution: str


class PromptRecipe(Strict):
    """How a problem is put to the model."""

    style: Literal["auto", "chat", "plain"] = "auto"
    """auto: the chat template where the model has one."""
    system: str = ""
    """System message of the conversation; empty: none."""
    chat_template_kwargs: dict[str, Any] = Field({})
    """What the chat template reads beside the messages, e.g. enable_thinking=true."""
    instruction: str = INSTRUCTION
    shots: list[Shot] = Field([])
    stop: list[str] = Field([])
    """Strings that end a solution."""


class SamplingRecipe(Strict):
    """How solutions are sampled."""

    samples: int = Field(4, ge=1, le=4096)
    """Solutions per problem."""
    temperature: float = Field(0.7, ge=0, le=10)
    """Of sampling; 0 is greedy."""
    top_p: float = Field(1.0, gt=0, le=1)
    max_tokens: int = Field(1024, ge=1)
    """Longest solution in tokens."""
    seed: Seed = 42
    """Seed of sampling and of generated problems."""


class SegmentRecipe(Strict):
    """How solutions are divided into steps. Lengths are characters."""

    mode: Literal["auto", "lines", "paragraphs", "sentences"] = "auto"
    min_chars: int = Field(3, ge=1)
    max_chars: int = Field(4000, ge=1)
    reasoning_mode: Literal["auto", "lines", "paragraphs", "sentences"] = "paragraphs"
    """Of the thinking of a reasoning model."""

    @model_validator(mode="after")
    def _limits_can_be_met(self) -> Self:
        _ = self.options  # refuses those that cannot
        return self

    @property
    def options(self) -> SegmentOptions:
        """As `core.segment` takes them."""
        return SegmentOptions(self.mode, self.min_chars, self.max_chars, self.reasoning_mode)


class CriticRecipe(Strict):
    """The language model that judges steps: at an endpoint, or in our engine."""

    model: str = ""
    """Its name at the endpoint; without an endpoint a Hub id, local folder or demo (empty: the run's own)."""
    revision: str | None = None
    form: Literal["index", "json", "step"] = "index"
    """index: prose, then the first wrong step in a box, as in ProcessBench; json: an object with a verdict on each
    step; step: a question for each step up to the first wrong one, for small critics."""
    k: int = Field(1, ge=1, le=64)
    """Replies to each question; the majority decides."""
    soft: bool = False
    """With form step: the probability of `correct` as the verdict, without prose before it, as label and score."""
    reference: bool = True
    """Ask for the step that should follow where one is wrong; pairs use it."""
    prompt: str = ""
    """A text file with $problem, $steps and $key in the place of the form's own prompt."""
    keep_raw: bool = False
    """Keep the replies as they came, in the field `raw` of verdicts."""
    temperature: float | None = Field(None, ge=0, le=10)
    """Of sampling; unset: 0, with k above 1 0.7."""
    max_tokens: int = Field(2048, ge=1)
    """Longest reply in tokens; a longer one is cut off and cannot be read."""
    structured: bool | None = None
    """Hold replies of form json to their JSON Schema. Unset: in vLLM yes, at an endpoint (response_format) no."""
    placement: Literal["after", "beside"] = "after"
    """Another model than the run's, in our engine. after: it is loaded once the run's model is closed; beside: both are
    loaded at the same time, and work at the same time."""
    base_url: str | None = None
    """OpenAI-compatible endpoint, e.g. http://127.0.0.1:8000/v1; None runs the model in our engine."""
    api_key_env: str | None = None
    """Environment variable with the endpoint's key; None sends none. The key itself is never stored."""
    concurrency: int = Field(16, ge=1, le=1024)
    """Requests in flight."""
    timeout_s: float = Field(120.0, gt=0)
    """Wall clock of one attempt."""
    attempts: int = Field(4, ge=1, le=20)
    """How often a request is sent at most, but for a server that is away."""
    patience_s: float = Field(300.0, ge=0)
    """How long to wait for a server that is down or refuses for the rate, before its steps are unknown."""


class BranchRecipe(Strict):
    """Completions sampled from the steps of solutions: labels (`rollout`) and siblings for pairs out of one sampling.

    top_p, seed and stop strings are as in `sampling`.
    """

    where: list[Literal["first-error", "uncertain", "all"]] | None = None
    """Where to sample completions: none, all, or first-error,uncertain (default: as labels and pairs need them).
    first-error: a binary search in wrong solutions; uncertain: at the least confident steps of right ones; all: at
    every step; []: nowhere. Unset: first-error and uncertain for `generate` of problems with gold answers; elsewhere
    first-error where `rollout` is among the verifiers, else nowhere."""
    n: int = Field(8, ge=1, le=1024)
    """Completions at one place at most."""
    wave: int = Field(4, ge=1)
    """Completions at a time; after each wave a place may be decided."""
    uncertain_steps: int = Field(2, ge=1)
    """Steps of a right solution at which `uncertain` looks for a rival."""
    depth: int = Field(1, ge=1, le=4)
    """2: branches are branched too."""
    budget: float | None = Field(None, gt=0)
    """Tokens of a problem's branches at most, as a multiple of its samples'. Unset: 6 for `generate`, no limit where
    solutions are given, often one a problem."""
    temperature: float | None = Field(None, gt=0, le=10)
    """None takes the samples'; where that is 0, 0.7."""
    max_tokens: int | None = Field(None, ge=1)
    """Longest branch in tokens; None takes sampling.max_tokens."""
    model: str = ""
    """Hub id or local folder of another model that writes the branches; empty: the run's own. It must have the same
    tokenizer."""
    revision: str | None = None


class PrmRecipe(Strict):
    """A process reward model."""

    model: str = ""
    """Hub id or local folder."""
    revision: str | None = None
    form: Literal["auto", "qwen", "math-shepherd", "rlhflow"] = "auto"
    """What the model reads; auto goes by its name."""
    engine: Literal["transformers", "vllm"] = "transformers"
    """vllm: its pooling runner, for the classifiers that it knows (form qwen)."""
    options: dict[str, Any] = Field({})
    """Further arguments of vLLM's EngineArgs, e.g. gpu_memory_utilization beside a model that samples."""
    threshold: float = Field(0.5, ge=0, le=1)
    """Scores below it are incorrect."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """auto: the checkpoint's own on a GPU, float32 elsewhere."""
    max_model_len: int | None = Field(None, ge=16)
    """Context limit in tokens; None takes the model's own."""

    @model_validator(mode="after")
    def _no_code_is_trusted(self) -> Self:
        _refuse_trust(
            self.options, "verify.prm.options", "Leave it out: a reward model's own code never runs."
        )
        return self


class VerifyRecipe(Strict):
    """How steps are verified and labelled."""

    verifiers: list[str] = Field(["final", "symbolic"])
    """Comma-separated: final, symbolic, critic, rollout, prm, module:name; or none."""
    policy: str = "error-first"
    """How verdicts become labels; see relabel."""
    noise: float = Field(0.0, ge=0, le=1)
    """Share of the labels that `relabel --noise` flipped; no other command does."""
    noise_seed: int = 0
    """Which labels they are."""
    deadline_s: float = Field(5.0, gt=0)
    """Longest time one item may take before its worker is killed."""
    memory_gb: float = Field(2.0, gt=0.25)
    """Address space of one worker."""
    workers: int | None = Field(None, ge=1)
    """Worker processes; None takes one per CPU."""
    critic: CriticRecipe = CriticRecipe()
    prm: PrmRecipe = PrmRecipe()

    @model_validator(mode="after")
    def _names_are_known(self) -> Self:
        """Said here, before a model is loaded and hours of sampling later."""
        for name in self.verifiers:
            VERIFIERS.check(name)
        if self.policy not in POLICIES:
            raise StepconfError(
                f"unknown label policy {self.policy!r}.", f"Choose from: {', '.join(POLICIES)}."
            )
        return self
