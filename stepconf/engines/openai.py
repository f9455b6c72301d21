"""Conversations with a model at an OpenAI-compatible endpoint: what critics ask, and what they read."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from stepconf.engines.client import Client, Post, Servers, counted
from stepconf.engines.client import Reply as Answer

Messages = list[dict[str, str]]
CUT_OFF = "reply cut off at max_tokens"


@dataclass(frozen=True, slots=True)
class Question:
    """A conversation that a critic replies to.

    Args:
        messages: the conversation.
        temperature: of sampling; 0 is greedy.
        seed: of sampling.
        schema: JSON Schema that the reply is held to.
    """

    messages: Messages
    temperature: float = 0.0
    seed: int = 0
    schema: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Reply:
    """What came back.

    Args:
        text: what the model wrote.
        failure: why no reply came; to ask again would not help.
        flaw: why a reply that came cannot be used (cut off, a refusal); another seed may help.
        seconds: of every attempt and wait.
        tokens_read: tokens of the prompt, 0 where unknown.
        tokens_written: tokens of the reply, thinking included, 0 where unknown.
    """

    text: str
    failure: str = ""
    flaw: str = ""
    seconds: float = 0.0
    tokens_read: int = 0
    tokens_written: int = 0


class Endpoint:
    """A model that is asked for replies to conversations.

    Args:
        servers: where it is.
        model: the name that they know.
        max_tokens: of a reply.
        sleep: as of `Client`.

    Raises:
        StepconfError: as `Client`.
    """

    def __init__(
        self,
        servers: Servers,
        model: str,
        max_tokens: int = 2048,
        sleep: Callable[[float], Any] = asyncio.sleep,
    ) -> None:
        self._model, self._max_tokens = model, max_tokens
        self._client = Client(servers, sleep)

    def check(self) -> None:
        """Ask for the list of models, once, before any work; raises StepconfError as `Client.models`."""
        self._client.models()

    def ask(self, questions: Sequence[Question]) -> list[Reply]:
        """A reply to each question, in order."""
        posts = [Post("", "chat", self._body(question), number) for number, question in enumerate(questions)]
        replies = {post.tag: _reply(answer) for post, answer in self._client.post_each(posts)}
        return [replies[number] for number in range(len(questions))]

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def _body(self, question: Question) -> dict[str, Any]:
        body: dict[str, Any] = {
            "model": self._model,
            "messages": question.messages,
            "temperature": question.temperature,
            "max_tokens": self._max_tokens,
        }
        if question.temperature > 0:
            body["seed"] = question.seed
        if question.schema is not None:
            form = {"name": "verdicts", "strict": True, "schema": question.schema}
            body["response_format"] = {"type": "json_schema", "json_schema": form}
        return body


def _reply(answer: Answer) -> Reply:
    """The reply in a chat completion, or why there is none."""
    if answer.failure:
        return Reply("", answer.failure, seconds=answer.seconds)
    try:
        choice = answer.data["choices"][0]
        message, ended = choice["message"], choice.get("finish_reason")
        text, refusal = message.get("content"), message.get("refusal")
        usage = answer.data.get("usage") or {}
        read, written = (counted(usage.get(name)) for name in ("prompt_tokens", "completion_tokens"))
    except (KeyError, IndexError, TypeError, AttributeError):
        return Reply("", "not a chat completion", seconds=answer.seconds)
    text = text if isinstance(text, str) else ""
    flaw = "" if text.strip() else "empty reply"
    if refusal or ended == "content_filter":
        flaw = "refused"
    elif ended == "length":
        flaw = CUT_OFF
    return Reply(text, "", flaw, answer.seconds, read, written)
