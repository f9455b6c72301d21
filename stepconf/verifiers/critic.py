"""The `critic` verifier: a language model judges every step of a solution in one request.

One request per solution, not per step: the model sees the whole argument once, which costs n times less than
n prefixes, and ProcessBench's critics are asked that way too. The price: one bad reply leaves every step of
its solution `unknown`. The prompt is a file (`stepconf/prompts/critic.txt`, or one of the user's).
"""

import time
from collections.abc import Callable, Iterator, Sequence
from hashlib import blake2b
from typing import Any

from stepconf.core.records import Solved, Verdict
from stepconf.engines.base import Engine, SampleRequest, Sampling
from stepconf.engines.openai import Messages, Reply
from stepconf.verifiers.critic_prompt import BadReplyError, check_prompt, parse_reply, render, reply_schema

# Replies to conversations, in order; the second argument says per conversation what the reply is held to.
Ask = Callable[[Sequence[Messages], Sequence[dict[str, Any] | None]], list[Reply]]


class CriticVerifier:
    """Judges every step; an incorrect one comes with the reference step, where the critic writes one.

    Whatever stands between a question and a well-formed answer (an error of the endpoint, a timeout, a
    refusal, a reply cut off or of another form) is `unknown` on all steps, with the reason. It has no score.

    Args:
        ask: `engines.openai.Endpoint.ask`, or `asking(engine, ...)`.
        model: name of the critic; part of the version.
        prompt: text of a prompt file, also part of the version.
        structured: hold the endpoint to the reply's JSON Schema.

    Raises:
        StepconfError: the prompt lacks a field.
    """

    name = "critic"

    def __init__(self, ask: Ask, model: str, prompt: str, structured: bool = False) -> None:
        check_prompt(prompt)
        self._ask, self._prompt, self._structured = ask, prompt, structured
        self.version = f"1+{model}+{blake2b(prompt.encode(), digest_size=4).hexdigest()}"

    def verify(self, solved: Sequence[Solved]) -> list[list[Verdict | None]]:
        """One list per solution, one verdict per step; `seconds` is the request's time shared out evenly."""
        texts = [[step.text for step in one.steps] for one in solved]
        asked = [i for i, steps in enumerate(texts) if steps]
        conversations = [
            [{"role": "user", "content": render(self._prompt, solved[i].solution.problem, texts[i])}]
            for i in asked
        ]
        schemas = [reply_schema(len(texts[i])) if self._structured else None for i in asked]
        replies = dict(zip(asked, self._ask(conversations, schemas), strict=True))
        return [self._verdicts(replies.get(i), len(steps)) for i, steps in enumerate(texts)]

    def _verdicts(self, reply: Reply | None, n_steps: int) -> list[Verdict | None]:
        if reply is None:
            return []
        seconds, failure = reply.seconds / n_steps, reply.failure
        if not failure:
            try:
                return [
                    Verdict(self.name, self.version, one.label, None, one.reason, seconds, one.reference)
                    for one in parse_reply(reply.text, n_steps)
                ]
            except BadReplyError as error:
                failure = str(error)
        return [Verdict(self.name, self.version, "unknown", None, failure, seconds) for _ in range(n_steps)]


def asking(engine: Engine, temperature: float, max_tokens: int, seed: int) -> Ask:
    """An `Ask` over one of our engines; no reply is held to a schema. All go in as one stream."""

    def ask(conversations: Sequence[Messages], schemas: Sequence[dict[str, Any] | None]) -> list[Reply]:
        replies = [Reply("", "prompt longer than the critic's context")] * len(conversations)

        def requests() -> Iterator[SampleRequest]:
            for i, messages in enumerate(conversations):
                prompt = _encoded(engine, messages)
                limit = min(max_tokens, engine.info.max_model_len - len(prompt))
                if limit > 0:
                    yield SampleRequest(str(i), prompt, 1, seed, Sampling(temperature, limit))

        started = time.perf_counter()
        for request, (completion,) in engine.sample(requests()):
            text = "".join(completion.pieces)
            cut = "reply cut off at max_tokens" if completion.finish_reason == "length" else ""
            now = time.perf_counter()
            # Requests overlap in the batch; the time since the last reply is what this one added.
            replies[int(request.key)] = Reply(text, cut, now - started)
            started = now
        return replies

    return ask


def _encoded(engine: Engine, messages: Messages) -> list[int]:
    if engine.tokenizer.has_chat_template:
        return engine.tokenizer.encode_chat(messages)
    return engine.tokenizer.encode_prompt("\n\n".join(message["content"] for message in messages) + "\n\n")
