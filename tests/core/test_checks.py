"""The parts of `check` by themselves: secrets by their forms, words, near duplicates."""

import random

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stepconf.core.checks.secrets import finds, hits
from stepconf.core.checks.texts import (
    LEAK_WORDS,
    leak_grams,
    near_duplicates,
    signatures,
    wholes,
    words,
)

X = "aB3dE5fG7hI9jK1lM3nO5pQ7rS9tU1vW3xY5z"  # no key, only of a key's form
FOUND = {
    f"my hf_{X[:34]} here": "secret",
    f"key=sk-proj-{X}": "secret",
    "AKIA" + "ABCD1234EFGH5678 x": "secret",
    f"AIza{X[:35]}": "secret",
    f"ghp_{X[:36]}": "secret",
    f"github_pat_{X}": "secret",
    f"xoxb-{X[:20]}": "secret",
    "-----BEGIN OPENSSH PRIVATE KEY-----": "secret",
    f"eyJ{X[:20]}.eyJ{X[:20]}.{X[:20]}": "secret",
    f"postgres://user:{X[:9]}@db.local/x": "secret",
    f'"api_key": "{X}"': "secret",
    f"PASSWORD='{X}'": "secret",
    f'{{"note": "access_token=\\"{X}\\""}}': "secret",
    "write to anna.schmidt@posteo.de.": "personal",
    "call +49 228 735 3333": "personal",
    "or (212) 555-0123": "personal",
    "in /home/anna/data": "personal",
    "in /Users/anna/data": "personal",
}
NOT_FOUND = (
    "what is 212 - 555 - 1234? 2125551234",
    "x+49 = 228 and y + 1 - 2",
    "f(234) 555",
    "anna@example.org writes to b@some.example and c@d",
    "risk-averse sk-ip the hf_ prefix",
    "https://arxiv.org/abs/2605.07353 and http://a:b/c",
    "the token is a word; the secret = 12",
    "3@4 = 7 where a@b means a + b",
    "/home is where the heart is",
    "commit 0123456789abcdef0123456789abcdef01234567",
)


@pytest.mark.parametrize("text", FOUND)
def test_what_has_the_form_is_found_and_masked(text: str) -> None:
    # Two kinds may speak of one thing: an assigned key is an assigned secret too.
    seen = list(finds(text))
    assert seen and {check for check, _ in seen} == {FOUND[text]}
    assert all(X[:8] not in what and "schmidt" not in what for _, what in seen)
    assert hits(pa.array(["1 + 1 = 2", None, text])) == [2], "the first look lets nothing through"


@pytest.mark.parametrize("text", NOT_FOUND)
def test_mathematics_and_prose_are_not_found(text: str) -> None:
    assert list(finds(text)) == []


CLIPS = "Natalia sold clips to 48 of her friends in April and half as many in May , how many in all ?"


def test_words_are_what_is_said_not_how_it_is_typed() -> None:
    texts = [CLIPS, CLIPS.upper().replace(" ", "\n ").replace(",", ""), "x−1", "x+1", "", "a b", "b a", "..."]
    read = wholes([words(text) for text in texts]).tolist()
    assert read[0] == read[1] and len(set(read)) == 6 and read[4] == read[7] == 0, (
        "nothing is said by no words"
    )
    assert words("12 and 3").numbers != words("1 and 23").numbers


@given(st.lists(st.sampled_from("abcdefgh"), min_size=1, max_size=40), st.data())
def test_leak_grams_are_shared_where_thirteen_words_are(letters: list[str], data: st.DataObject) -> None:
    """Against the definition: tuples of words."""
    other = data.draw(st.permutations(letters).map(list) | st.just(letters[3:] + letters[:3]))

    def tuples(some: list[str]) -> set[tuple[str, ...]]:
        n = min(LEAK_WORDS, len(some)) if len(some) >= 8 else len(some) + 1
        return {tuple(some[i : i + n]) for i in range(len(some) - n + 1)}

    ours = set(leak_grams(" ".join(letters))) & set(leak_grams(" ".join(other)))
    assert len(ours) == len(tuples(letters) & tuples(other))


def test_leak_grams_take_figures_out_and_formulas_as_one_word() -> None:
    figure = "[asy]\ndraw((0,0)--(1,0)--(1,1)--cycle); draw((0,0)--(1,1)); label(a); label(b);\n[/asy]"
    assert len(leak_grams(figure)) == 0
    assert len(leak_grams("What is the least value of $x^2 + y^2 + z^2$ for all $x$?")) == 2
    assert set(leak_grams(CLIPS.upper())) & set(leak_grams("Once upon a time " + CLIPS)) == set(
        leak_grams(CLIPS)
    )


def test_estimated_similarity_is_jaccards() -> None:
    rng = random.Random(7)
    for _ in range(20):
        one = [str(rng.randrange(10**6)) for _ in range(300)]
        two = one[: rng.randrange(300)] + [str(rng.randrange(10**6)) for _ in range(100)]
        exact = [{tuple(some[i : i + 3]) for i in range(len(some) - 2)} for some in (one, two)]
        jaccard = len(exact[0] & exact[1]) / len(exact[0] | exact[1])
        drawn = signatures([words(" ".join(some)) for some in (one, two)])
        assert abs((drawn[0] == drawn[1]).mean() - jaccard) < 0.25  # four standard deviations of 64


@given(st.lists(st.lists(st.sampled_from("abcdefgh"), max_size=6).map(" ".join), max_size=8))
def test_signatures_are_each_texts_own(texts: list[str]) -> None:
    together = signatures([words(text) for text in texts])
    alone = [signatures([words(text)])[0] for text in texts]
    assert together.shape == (len(texts), 64)
    assert all((one == other).all() for one, other in zip(together, alone, strict=True))


def test_near_duplicates_among_many() -> None:
    rng = random.Random(7)
    vocabulary = [f"w{i}" for i in range(700)]
    texts = [" ".join(rng.choices(vocabulary, k=60)) for _ in range(300)]
    texts += [texts[7] + " indeed", " ".join([*texts[9].split()[:30], "other", *texts[9].split()[31:]])]
    read = [words(text) for text in texts]
    numbers = np.zeros(len(read), np.uint64)
    found = near_duplicates(signatures(read), numbers)
    assert found == [(7, 300), (9, 301)]
    apart = np.arange(len(read), dtype=np.uint64)
    assert near_duplicates(signatures(read), apart) == []
