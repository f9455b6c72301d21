"""From the recipe to the verifiers that run a model: critic, prm."""

from contextlib import ExitStack, closing
from importlib.resources import files
from pathlib import Path

from stepconf.demo_model import resolve_model
from stepconf.engines.openai import Endpoint, split_url
from stepconf.errors import StepconfError
from stepconf.recipe import CriticRecipe, PrmRecipe, Recipe, with_trust
from stepconf.stages.models import open_engine, shown_model
from stepconf.verifiers.base import Setup, Verifier
from stepconf.verifiers.critic import CriticVerifier, asking
from stepconf.verifiers.prm import Form, PrmVerifier, Reader, form_of


def open_critic(setup: Setup) -> CriticVerifier:
    """The critic, at its endpoint, in the setup's engine if that runs its model, or in an engine of its own.

    Raises:
        StepconfError: the prompt or model is not there, or the endpoint does not answer or refuses the key.
    """
    recipe, engine = setup.recipe, setup.engine
    critic, prompt = recipe.verify.critic, read_prompt(recipe.verify.critic.prompt)
    if critic.base_url is not None:
        endpoint = _endpoint(critic, critic.base_url)
        endpoint.check()
        return CriticVerifier(endpoint.ask, critic.model, prompt, critic.structured)
    if critic.structured:
        raise StepconfError(
            "verify.critic.structured needs an endpoint.", "Give verify.critic.base_url, or leave it out."
        )
    model = critic.model or recipe.model
    if model != recipe.model or engine is None:
        own = recipe.model_copy(update={"model": model, "model_revision": critic.revision})
        if model != recipe.model:
            own = with_trust(own, False)
        engine = setup.stack.enter_context(closing(open_engine(own)))
    ask = asking(engine, critic.temperature, critic.max_tokens, recipe.sampling.seed)
    return CriticVerifier(ask, shown_model(model), prompt)


def _is_own_critic(recipe: Recipe) -> bool:
    critic = recipe.verify.critic
    return critic.base_url is None and critic.model in ("", recipe.model)


CRITIC = Verifier(open_critic, runs_model=True, shares_engine=_is_own_critic)


def _endpoint(critic: CriticRecipe, base_url: str) -> Endpoint:
    if not critic.model:
        raise StepconfError("verify.critic.model is empty.", "Give the name that the endpoint knows.")
    split_url(base_url)
    return Endpoint(
        base_url=base_url,
        model=critic.model,
        api_key_env=critic.api_key_env,
        temperature=critic.temperature,
        max_tokens=critic.max_tokens,
        timeout_s=critic.timeout_s,
        attempts=critic.attempts,
        patience_s=critic.patience_s,
        concurrency=critic.concurrency,
    )


def read_prompt(name: str) -> str:
    """The text of a prompt: one that comes with stepconf, by name, or a file.

    Raises:
        StepconfError: there is no such prompt.
    """
    shipped = files("stepconf") / "prompts"
    names = sorted(Path(entry.name).stem for entry in shipped.iterdir() if entry.name.endswith(".txt"))
    if name in names:
        return (shipped / f"{name}.txt").read_text(encoding="utf-8")
    try:
        return Path(name).read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise StepconfError(
            f"there is no prompt {name!r}.", f"Give a text file, or one of: {', '.join(names)}."
        ) from error


def open_prm(prm: PrmRecipe, stack: ExitStack) -> PrmVerifier:
    """The process reward model; `stack` ends its engine.

    Raises:
        StepconfError: none is named, its form is not known or does not fit its engine, or it cannot be loaded.
    """
    if not prm.model:
        raise StepconfError(
            "no process reward model is named.", "Add --set verify.prm.model=Qwen/Qwen2.5-Math-PRM-7B, say."
        )
    form = form_of(prm.form, prm.model)
    if prm.engine == "vllm" and form.tokens is not None:
        raise StepconfError(
            f"the form {form.name!r} reads a language model's logits, which vLLM's pooling does not give.",
            "Leave out verify.prm.engine, or choose transformers.",
        )
    return PrmVerifier(_reader(prm, form, stack), form, shown_model(prm.model), prm.threshold)


PRM = Verifier(lambda setup: open_prm(setup.recipe.verify.prm, setup.stack), runs_model=True)


def _reader(prm: PrmRecipe, form: Form, stack: ExitStack) -> Reader:
    model = resolve_model(prm.model)
    if prm.engine == "vllm":
        from stepconf.engines.vllm_reward import PooledRewardModel

        pooled = PooledRewardModel(
            model,
            revision=prm.revision,
            dtype=prm.dtype,
            max_model_len=prm.max_model_len,
            options=prm.options,
        )
        return stack.enter_context(closing(pooled))
    from stepconf.engines.reward import RewardModel

    return RewardModel(
        model, form.tokens, revision=prm.revision, dtype=prm.dtype, max_model_len=prm.max_model_len
    )
