"""From the recipe to an open critic."""

from contextlib import closing

from stepconf.engines.base import Engine, EngineClass
from stepconf.engines.client import Servers
from stepconf.engines.openai import Endpoint
from stepconf.errors import StepconfError
from stepconf.kinds import ENGINES
from stepconf.recipe import CriticRecipe, Recipe, with_trust
from stepconf.verifiers.base import Setup, Verifier, shown_model
from stepconf.verifiers.critic.forms import FORMS
from stepconf.verifiers.critic.model import ModelCritic
from stepconf.verifiers.critic.verifier import CriticVerifier


def open_critic(setup: Setup) -> CriticVerifier:
    """The critic, at its endpoint, in the setup's engine if that runs its model, or in an engine of its own.

    Raises:
        StepconfError: the prompt or model is not there, the settings contradict each other, or the endpoint does not
            answer or refuses the key.
    """
    recipe, engine = setup.recipe, setup.engine
    critic = recipe.verify.critic
    if critic.base_url is not None:
        endpoint = setup.stack.enter_context(closing(_endpoint(critic, critic.base_url)))
        # Made first: what is wrong with the prompt is said without asking.
        verifier = CriticVerifier(
            endpoint,
            critic.model,
            critic,
            recipe.sampling.seed,
            bool(critic.structured),
            segmentation=recipe.segment.options,
        )
        endpoint.check()
        return verifier
    model = critic.model or recipe.model
    if engine is None or model != recipe.model:
        engine = setup.stack.enter_context(closing(setup.open_engine(_own_recipe(recipe, model))))
    return model_critic(engine, recipe, model)


def model_critic(engine: Engine, recipe: Recipe, model: str) -> CriticVerifier:
    """The critic that `recipe` describes, with a loaded model; raises as `open_critic`."""
    critic = recipe.verify.critic
    asked = ModelCritic(engine, critic.max_tokens, recipe.prompt.chat_template_kwargs)
    return CriticVerifier(
        asked,
        shown_model(model),
        critic,
        recipe.sampling.seed,
        _is_held(recipe),
        asked.weigh,
        recipe.segment.options,
    )


def is_own_model(recipe: Recipe) -> bool:
    """Whether the critic is the recipe's own model, in our engine."""
    critic = recipe.verify.critic
    return critic.base_url is None and critic.model in ("", recipe.model)


def _waits(recipe: Recipe) -> bool:
    critic = recipe.verify.critic
    return critic.base_url is None and not is_own_model(recipe) and critic.placement == "after"


CRITIC = Verifier(open_critic, runs_model=True, shares_engine=is_own_model, waits=_waits)


def _own_recipe(recipe: Recipe, model: str) -> Recipe:
    """The recipe with the critic's model in the place of its own; another model never with code of its own."""
    own = recipe.model_copy(update={"model": model, "model_revision": recipe.verify.critic.revision})
    return own if model == recipe.model else with_trust(own, False)


def _is_held(recipe: Recipe) -> bool:
    """Whether replies are held to the form's schema: where the engine can do it, unless the recipe says otherwise."""
    critic = recipe.verify.critic
    if FORMS[critic.form].schema is None or critic.structured is False:
        return False
    kind: EngineClass = ENGINES.load(recipe.engine.name)
    if critic.structured and not kind.holds_schemas:
        raise StepconfError(
            f"the engine {recipe.engine.name} cannot hold replies to a JSON Schema.",
            "Take --engine vllm or an endpoint, or leave out verify.critic.structured.",
        )
    return kind.holds_schemas


def _endpoint(critic: CriticRecipe, base_url: str) -> Endpoint:
    if not critic.model:
        raise StepconfError("verify.critic.model is empty.", "Give the name that the endpoint knows.")
    servers = Servers(
        (base_url,),
        critic.api_key_env,
        critic.timeout_s,
        critic.attempts,
        critic.patience_s,
        critic.concurrency,
        "verify.critic",
    )
    return Endpoint(servers, critic.model, critic.max_tokens)
