"""200 requests at once to `stepconf serve` with vLLM and the demo model, by the official client.

Twice: the best of 2 samples, then CaT with K=2. Half of the requests stream, and each asks its own sum. Compared:
the first kind one after another, as many as fit the time, whose answers must be the same texts (float32 on CPU is
reproducible in any batch). The end is a SIGTERM with requests under way. A lost answer, one of another question,
or an engine process that outlives the server fails the run.

    python -m tests.benchmarks.serve_concurrency [--requests N]
"""

import argparse
import asyncio
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import openai

ALONE_S = 8.0
# Code, since any text is an answer then.
BEST_OF = {"strategy": "best-of-n", "k": 2, "max_tokens": 24, "answer_type": "code"}
CAT = {"strategy": "cat", "k": 2, "tau": 0.0, "max_steps": 4, "max_tokens": 24}
HOW = [
    "--set",
    "engine.dtype=float32",
    "--set",
    "engine.max_model_len=512",
    "--set",
    "sampling.max_tokens=48",
    "--set",
    "sampling.temperature=0.7",
]


@dataclass(frozen=True)
class Answer:
    """What came back: the answer's id and text, seconds until its end, tokens it cost."""

    id: str
    text: str
    seconds: float
    tokens: int


async def ask(client: openai.AsyncOpenAI, i: int, how: dict[str, Any], stream: bool) -> Answer:
    """One request, from its sending to its last chunk."""
    started = time.perf_counter()
    given: dict[str, Any] = {
        "model": "demo",
        "messages": [{"role": "user", "content": question(i)}],
        "extra_body": how,
    }
    if not stream:
        one = await client.chat.completions.create(**given)
        said, name, text = one.choices[0].message.stepconf, one.id, one.choices[0].message.content or ""  # type: ignore[attr-defined]
    else:
        chunks = [chunk async for chunk in await client.chat.completions.create(**given, stream=True)]
        said, name = chunks[-1].choices[0].delta.stepconf, chunks[-1].id  # type: ignore[attr-defined]
        text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    return Answer(name, text, time.perf_counter() - started, said["spent"]["tokens"])


def question(i: int) -> str:
    """A sum that no other request asks."""
    return f"What is {1000 + i} + {7 * i % 100}?"


async def at_once(
    client: openai.AsyncOpenAI, requests: int, how: dict[str, Any]
) -> tuple[list[Answer], float]:
    """The answers in the order of the questions, and the seconds until the last."""
    started = time.perf_counter()
    found = await asyncio.gather(*(ask(client, i, how, bool(i % 2)) for i in range(requests)))
    wall = time.perf_counter() - started
    assert len({one.id for one in found}) == requests, "lost or crossed"
    waits, tokens = sorted(one.seconds for one in found), sum(one.tokens for one in found)
    print(
        f"{requests} at once, {how['strategy']}: {wall:.1f} s, {tokens:,} tokens, {tokens / wall:.0f} tokens/s, "
        f"median wait {waits[len(waits) // 2]:.1f} s, longest {waits[-1]:.1f} s",
        flush=True,
    )
    return found, wall


async def measure(url: str, requests: int) -> None:
    """All at once, both kinds; then one after another."""
    async with openai.AsyncOpenAI(base_url=url, api_key="none", max_retries=0, timeout=600) as client:
        await ask(client, requests, BEST_OF, False)
        found, wall = await at_once(client, requests, BEST_OF)
        print(f"{len({one.text for one in found})} different texts")
        begun, alone = time.perf_counter(), 0
        while time.perf_counter() - begun < ALONE_S:
            one = await ask(client, alone, BEST_OF, False)
            assert one.text == found[alone].text, f"crossed: {one.text!r}, {found[alone].text!r}"
            alone += 1
        each = (time.perf_counter() - begun) / alone
        print(f"one after another: {alone} requests, {each:.2f} s each, the same texts", flush=True)
        await at_once(client, requests, CAT)
        print(f"ratio requests_per_second_at_once_over_one_by_one: {each * requests / wall:.2f}")


async def terminate(url: str, server: "subprocess.Popen[str]") -> None:
    """A signal with 32 requests under way."""
    body = {"model": "demo", "messages": [{"role": "user", "content": question(0)}], "strategy": "greedy"}
    async with httpx.AsyncClient(timeout=120) as http:
        place = f"{url}/chat/completions"
        tasks = [asyncio.create_task(http.post(place, json=body | {"seed": i})) for i in range(32)]
        while (await http.get(url.removesuffix("/v1") + "/health")).json()["requests"] < 32:
            pass
        server.send_signal(signal.SIGTERM)
        statuses = Counter(one.status_code for one in await asyncio.gather(*tasks))
    print(f"SIGTERM with 32 under way: statuses {dict(statuses)}")
    assert set(statuses) <= {200, 503}, statuses


def children(pid: int) -> list[int]:
    """All processes below one."""
    below: list[int] = []
    for thread in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in map(int, thread.read_text().split()):
            below += [child, *children(child)]
    return below


def outlived(pids: list[int], patience_s: float = 10.0) -> list[str]:
    """The command lines of those that still run; they have a moment, since Python's own helpers end last."""
    until = time.perf_counter() + patience_s
    while (left := [pid for pid in pids if Path(f"/proc/{pid}").exists()]) and time.perf_counter() < until:
        time.sleep(0.1)
    return [Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ") for pid in left]


def main() -> None:
    """Start the server, measure, end it."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--requests", type=int, default=200)
    options = parser.parse_args()
    command = [sys.executable, "-m", "stepconf", "serve", "--model", "demo", "--port", "0", *HOW]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=dict(os.environ)) as server:
        try:
            assert server.stdout is not None
            line = server.stdout.readline()
            url = line.split()[-1]
            print(line.strip())
            asyncio.run(measure(url, options.requests))
            engine = children(server.pid)
            asyncio.run(terminate(url, server))
            started = time.perf_counter()
            code = server.wait(60)
            print(f"ended with {code} after {time.perf_counter() - started:.1f} s more")
            left = outlived(engine)
            print(f"engine processes: {len(engine)} before, left: {left}")
            assert code == 0 and engine and not left
        finally:
            server.kill()


if __name__ == "__main__":
    main()
