"""The parts of a recipe that come after the data set: pairs, training, inference, serving; and the cluster."""

from typing import Annotated, Any, Literal, Self

from pydantic import ConfigDict, Field, model_validator

from stepconf.errors import StepconfError
from stepconf.kinds import OBJECTIVES, PAIR_STRATEGIES, STRATEGIES
from stepconf.recipe.base import Seed, Strict

TrackerName = Literal["none", "tensorboard", "trackio", "wandb", "mlflow"]


class PairsRecipe(Strict):
    """How preference pairs are made out of a run."""

    strategy: str = "caspo"
    """caspo, step-dpo (by step labels), rstar, cgpo (outcomes), dpo-vp, pcpo (whole solutions), or module:name."""
    tau: float | None = Field(None, gt=0, le=1)
    """caspo: confidence at or below which a correct step is uncertain (default: by pairs.tau_quantile). It is compared
    with the fitted confidence where the run has one."""
    tau_quantile: float = Field(0.5, ge=0, le=1)
    """Quantile of the confidences of correct steps in the run."""
    after_error: Literal["stop", "continue"] = "stop"
    """caspo: whether steps after the first wrong one, whose prefix is wrong, may make pairs."""
    margin: float = Field(0.5, gt=0, le=1)
    """rstar: least difference between the shares of right completions of the two sides."""
    part: Literal["all", "reasoning", "answer"] = "all"
    """Make pairs of steps in the thinking, in the answer, or in both. Pairs of whole solutions have both."""
    max_per_problem: int | None = Field(None, ge=1)
    """Pairs of one problem at most; None for all."""
    balance: bool = False
    """Drop pairs until correct_uncertain and incorrect are equally many in each split."""
    validation: float = Field(0.05, ge=0, lt=1)
    """Share of problems whose pairs go into the validation split."""
    seed: Seed = 42
    """Of every choice among pairs."""
    round: int = Field(0, ge=0)
    """Round of iterative training; stored with each pair."""

    @model_validator(mode="after")
    def _strategy_is_known(self) -> Self:
        PAIR_STRATEGIES.check(self.strategy)
        return self


class LoraRecipe(Strict):
    """Low-rank adapters instead of all parameters (peft); merged into the model at the end."""

    rank: int = Field(16, ge=1)
    alpha: float = Field(32, gt=0)
    dropout: float = Field(0.0, ge=0, lt=1)
    targets: str | list[str] = "all-linear"
    """Names of the modules that get adapters."""


class StageRecipe(Strict):
    """One stage of a training. The defaults are those of arXiv 2605.07353 where it gives them, but for `nll_weight`."""

    model_config = ConfigDict(allow_inf_nan=False)

    objective: str = "dpo"
    """dpo (pairs), step-kto (steps), sft (right solutions), rloo, grpo, pure (groups of samples), or module:name."""
    loss: Literal["sigmoid", "ipo"] = "sigmoid"
    """dpo: of the reward margin."""
    beta: float = Field(0.1, gt=0)
    """dpo, step-kto: strength of the pull towards the reference."""
    label_smoothing: float = Field(0.0, ge=0, lt=0.5)
    """dpo, sigmoid: share of the pairs whose sides are thought to be swapped."""
    nll_weight: float = Field(1.0, ge=0)
    """dpo: weight of the mean -log p of the chosen side's tokens (RPO); 0 is the paper's DPO."""
    margin_weight: float = Field(0.0, ge=0)
    """dpo: weight of the hinge on mean entropy of rejected minus that of chosen."""
    entropy_margin: float = Field(0.5, ge=0)
    """dpo: that difference from which on the hinge is 0, in nats."""
    clip: float = Field(0.2, gt=0, lt=1)
    """rloo, grpo, pure: how far the ratio to the sampling policy may go from 1 before it has no gradient."""
    divide_by_std: bool = True
    """grpo: divide advantages by the standard deviation of their group; False keeps confidence more honest."""
    kl_weight: float = Field(0.0, ge=0)
    """rloo, grpo, pure: weight of the divergence from the policy to begin with."""
    learning_rate: float = Field(5e-7, gt=0)
    """Peak; the paper takes 5e-6 for SFT."""
    schedule: Literal["constant", "linear", "cosine"] = "cosine"
    warmup_ratio: float = Field(0.1, ge=0, le=1)
    weight_decay: float = Field(0.0, ge=0)
    max_grad_norm: float = Field(1.0, gt=0)
    epochs: int = Field(1, ge=1)
    max_steps: int | None = Field(None, ge=1)
    """Optimiser steps, over as many epochs as they take; None for `epochs`."""
    batch_size: int = Field(64, ge=1)
    """Pairs (or sequences) per optimiser step, over all processes."""
    max_length: int = Field(2048, ge=2)
    """Tokens of prompt and side; a longer example is left out and counted."""
    seed: Seed = 42

    @model_validator(mode="after")
    def _objective_is_known(self) -> Self:
        OBJECTIVES.check(self.objective)
        if self.loss == "ipo" and self.label_smoothing:
            raise StepconfError(
                f"train.label_smoothing={self.label_smoothing} works with loss=sigmoid only, not with ipo.",
                "Leave it out, or take --set train.loss=sigmoid",
            )
        return self


_UNDECIDING = {"tokens_per_batch", "attention", "gradient_checkpointing", "checkpoint_every", "log_to"}


class TrainRecipe(StageRecipe):
    """How a policy is optimised: in one stage, or in several that go on from each other."""

    stages: list[StageRecipe] = Field([])
    """Stages one after the other, e.g. [{objective: dpo}, {objective: sft, learning_rate: 5.0e-6}]. A key that a stage
    does not name is as given here; without stages there is one, given here."""
    tokens_per_batch: int | None = Field(None, ge=1)
    """Input tokens of one forward: what fits the memory. Unset: 512 on a CPU, 8192 on a GPU, and a problem of up
    to 2048 and 16384 by itself. Decides the speed, not the result."""
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
    log_to: TrackerName = "none"
    """Besides the terminal and state/metrics.jsonl."""

    @model_validator(mode="before")
    @classmethod
    def _stages_are_whole(cls, values: Any) -> Any:
        """Each stage with what it does not name."""
        if not isinstance(values, dict) or not isinstance(values.get("stages"), list):
            return values
        own = {key: value for key, value in values.items() if key in StageRecipe.model_fields}
        return values | {"stages": [own | one if isinstance(one, dict) else one for one in values["stages"]]}

    def in_order(self) -> list["TrainRecipe"]:
        """The stages, each as the recipe of a training by itself."""
        return [self.model_copy(update={**stage.model_dump(), "stages": []}) for stage in self.stages] or [
            self
        ]

    def deciding(self) -> dict[str, Any]:
        """The keys that decide the result, as plain values.

        The others change it by rounding alone, and, as the number of processes does, by which units a dropout draws.
        """
        return self.model_dump(mode="json", exclude=_UNDECIDING)


class EvaluationRecipe(Strict):
    """Held-out problems on which every round's policy is measured."""

    source: str = ""
    """As problems.source. Problems that are in it are left out of training."""
    split: str | None = None
    limit: int | None = Field(None, ge=1)
    samples: int = Field(4, ge=1, le=4096)
    """Solutions per problem."""
    temperature: float = Field(0.7, ge=0, le=10)
    seed: Seed = 7


class LoopRecipe(Strict):
    """Iterative training: sample, verify, pair, optimise, measure, and again with the new policy."""

    rounds: int = Field(1, ge=1, le=100)
    """Rounds of sampling, pairs and training."""
    temperatures: list[Annotated[float, Field(ge=0, le=10)]] = Field([])
    """Of each round's sampling; the last one goes on. Empty: sampling.temperature."""
    evaluation: EvaluationRecipe = EvaluationRecipe()


class InferRecipe(Strict):
    """How a question is answered. Temperature, top_p, seed and the length of a solution are as in `sampling`."""

    strategy: str = "cat"
    """A strategy, which `stepconf infer --help` lists, or module:name."""
    k: int = Field(10, ge=1, le=1024)
    """Samples of a question, or particles; in a tree, candidates of a branch and branches that survive a level."""
    tau: float = Field(0.001, ge=0, le=1)
    """Cumulative confidence below which a branch is pruned; 0 prunes none."""
    tau_quantile: float | None = Field(None, gt=0, lt=1)
    """Take tau from `tau_run` instead: where it would have cost at most this share of the problems a right solution."""
    tau_run: str | None = None
    """A small run of the same model, as `generate` makes it, on problems that are not evaluated."""
    max_steps: int = Field(64, ge=1)
    """Most steps of a branch."""
    length_normalised: bool = False
    """C as the geometric mean of the steps' confidences; their product (the paper's) otherwise."""
    stop_early: bool = True
    """Drop branches that can no longer beat the best answer. False grows algorithm 2's whole tree: no other answer wins
    among the same draws (unless length_normalised), but a tree with more branches draws other ones."""
    expand_below: float | None = Field(None, gt=0, le=1)
    """The greedy candidate first, and K - 1 sampled ones only where its confidence is below this; None samples K."""
    count_duplicates: bool = False
    """In C, multiply a step's confidence by the share of its parent's candidates that say the same: entropy does not
    see which of them was drawn. Not in the paper."""
    token_budget: int | None = Field(None, ge=1)
    """Tokens after which a tree grows no further level; None sets no limit."""
    reasoning_max_tokens: int | None = Field(None, ge=1)
    """Longest thinking in tokens (default: no limit). Then its closing mark is put, and the model answers: budget
    forcing, arXiv 2501.19393. Thinking and answer stay within sampling.max_tokens."""
    beam_width: int = Field(2, ge=1)
    """Candidates of each beam; k / beam_width beams are kept."""
    deepconf_keep: float = Field(0.9, gt=0, le=1)
    """deepconf, deepconf-online: share of the samples, the most confident, that may vote."""
    warm_up: int = Field(4, ge=1)
    """deepconf-online: samples that are drawn whole, to set the confidence below which later ones are aborted."""
    threshold: float = Field(0.95, ge=0.5, lt=1)
    """Stop sampling at this probability that the leading answer stays ahead (adaptive, adaptive-k) or is right (cges),
    or share of the votes (deepconf-online)."""
    cisc_temperature: float = Field(0.1, gt=0)
    """cisc: T of the votes' weights, softmax(confidence / T); higher is closer to a majority."""
    gate: float = Field(0.9, ge=0, le=1)
    """gate: confidence of the greedy solution below which K - 1 more are drawn, to vote with it."""

    @model_validator(mode="after")
    def _strategy_is_known(self) -> Self:
        STRATEGIES.check(self.strategy)
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
        if self.tau_quantile is not None and self.count_duplicates:
            raise StepconfError(
                "infer.tau_quantile is of C as a run has it, and infer.count_duplicates makes it smaller.",
                "Give --tau, or leave out infer.count_duplicates.",
            )
        return self


class ServeRecipe(Strict):
    """Where the server listens, whom it answers, and what one client may ask of it."""

    host: str = "127.0.0.1"
    """Address to listen at. Beyond this machine it takes a key (`api_key_env`), or `insecure`."""
    port: int = Field(8000, ge=0, le=65535)
    """Port to listen at; 0 takes a free one."""
    api_key_env: str | None = None
    """Environment variable with the key that clients must send; None asks for none. The key is never stored."""
    insecure: bool = False
    """Answer other machines without a key (serve.api_key_env)."""
    names: list[str] = Field([])
    """Host names that lead here, beside `host`, localhost and addresses; requests for any other are refused."""
    max_concurrent: int = Field(256, ge=1)
    """Requests under way; one more is answered 429."""
    max_body_bytes: int = Field(1 << 20, ge=1024)
    max_k: int = Field(64, ge=1)
    max_tokens: int = Field(4096, ge=1)
    """Longest solution in tokens that a request may ask for."""
    max_spent: int = Field(1 << 18, ge=1)
    """Tokens one request may cost: k solutions must fit, and a tree grows no further level after it."""
    grace_s: float = Field(30.0, ge=0)
    """After SIGTERM, how long requests under way may take to finish; then they are answered 503."""


class RayRecipe(Strict):
    """How `generate`, `score` and `verify` are spread over a Ray cluster. Decides the speed, not the result."""

    address: str | None = None
    """Ray cluster: auto (this machine's), local (made here for the run) or ray://HOST:PORT (default: no Ray)."""
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
