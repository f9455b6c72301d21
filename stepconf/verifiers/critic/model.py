"""A language model in one of our engines as a critic."""

import json
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from stepconf.engines.base import Engine, SampleRequest, Sampling, ScoreRequest
from stepconf.engines.openai import CUT_OFF, Messages, Question, Reply

TOO_LONG = "prompt longer than the critic's context"


class Weighed(NamedTuple):
    """The probability of the first of two words, given that one of them comes; None where the prompt is too long."""

    probability: float | None
    seconds: float
    tokens_read: int


class ModelCritic:
    """Asks the model in an engine. All questions of a call are one stream, so that the batch stays full.

    Args:
        engine: no other thread may use it meanwhile.
        max_tokens: longest reply in tokens.
        template_kwargs: what the chat template reads beside the messages.
    """

    def __init__(
        self, engine: Engine, max_tokens: int, template_kwargs: Mapping[str, Any] | None = None
    ) -> None:
        self._engine, self._max_tokens, self._template_kwargs = engine, max_tokens, template_kwargs

    def ask(self, questions: Sequence[Question]) -> list[Reply]:
        """A reply to each question, in order."""
        replies = [Reply("", TOO_LONG)] * len(questions)
        started = time.perf_counter()
        for request, (completion,) in self._engine.sample(self._requests(questions)):
            now = time.perf_counter()
            replies[int(request.key)] = Reply(
                "".join(completion.pieces),
                flaw=CUT_OFF if completion.finish_reason == "length" else "",
                # Requests overlap in the batch; the time since the last reply is what this one added.
                seconds=now - started,
                tokens_read=len(request.prompt_ids),
                tokens_written=completion.n_sampled,
            )
            started = now
        return replies

    def _requests(self, questions: Sequence[Question]) -> Iterator[SampleRequest]:
        for i, question in enumerate(questions):
            prompt = self._encoded(question.messages)
            room = min(self._max_tokens, self._engine.info.max_model_len - len(prompt))
            if room > 0:
                schema = None if question.schema is None else json.dumps(question.schema)
                how = Sampling(question.temperature, room, json_schema=schema)
                yield SampleRequest(str(i), prompt, 1, question.seed, how)

    def weigh(self, conversations: Sequence[Messages], lead: str, words: tuple[str, str]) -> list[Weighed]:
        """Of replies that begin with `lead`, how probable the first word is against the second."""
        spelt = [self._engine.tokenizer.encode(f"{lead} {word}") for word in words]
        shared = next(i for i, (a, b) in enumerate(zip(*spelt, strict=False)) if a != b)
        prompts = [self._encoded(messages) + spelt[0][:shared] for messages in conversations]
        room = self._engine.info.max_model_len - max(map(len, spelt))
        requests = (
            ScoreRequest(f"{i}/{word}", prompt, own[shared:])
            for i, prompt in enumerate(prompts)
            if len(prompt) < room
            for word, own in enumerate(spelt)
        )
        logs: list[list[float]] = [[math.nan, math.nan] for _ in conversations]
        seconds = [0.0] * len(conversations)
        started = time.perf_counter()
        for request, scores in self._engine.score(requests):
            index, word = map(int, request.key.split("/"))
            logs[index][word] = sum(scores.logprobs)
            now = time.perf_counter()
            seconds[index] += now - started
            started = now
        return [
            Weighed(None if math.isnan(sum(own)) else _share(*own), time_, 2 * len(prompt))
            for own, time_, prompt in zip(logs, seconds, prompts, strict=True)
        ]

    def _encoded(self, messages: Messages) -> list[int]:
        tokenizer = self._engine.tokenizer
        if tokenizer.has_chat_template:
            return tokenizer.encode_chat(messages, self._template_kwargs)
        return tokenizer.encode_prompt("\n\n".join(message["content"] for message in messages) + "\n\n")


def _share(first: float, second: float) -> float:
    """The first of two log-probabilities as a share of both, in [0, 1]."""
    gap = second - first
    return math.exp(-gap) / (1.0 + math.exp(-gap)) if gap > 0 else 1.0 / (1.0 + math.exp(gap))
