"""Text to token ids and back, with the text of each token: nothing is ever tokenised a second time."""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from functools import cached_property
from itertools import groupby, pairwise
from pathlib import Path
from typing import Any, cast

from stepconf.core.documents import read_object
from stepconf.errors import StepconfError, model_not_found

_PROBE_S = 10.0
_MAX_CONFIG_BYTES = 4 << 20  # some have a few thousand
_FALLBACK = re.compile("<0x[0-9A-Fa-f]{2}>")  # the name of a token that is one byte


class Tokenizer:
    """A fast (Rust) Hugging Face tokenizer.

    Args:
        model: a local folder or Hub id.
        revision: Hub revision; None for the default.
        digest: that of the tokenizer which is looked for, where it is known. If the model's tokenizer.json is it,
            transformers is imported only once a chat template or special tokens are asked for: its class for the
            model takes ten seconds to import, of which texts and ids need nothing.
        trust_remote_code: run Python code that the model brings.

    Raises:
        StepconfError: there is no such model, or it has no fast tokenizer.
    """

    def __init__(
        self, model: str, revision: str | None = None, digest: str = "", trust_remote_code: bool = False
    ) -> None:
        self._model, self._revision, self._trust = model, revision, trust_remote_code
        _check_exists(model, revision)
        plain = _plain(model, revision) if digest else None
        known = plain is not None and _digest(plain) == digest
        self._backend: Any = plain if known else _whole_texts(self._hf.backend_tokenizer)

    @cached_property
    def _hf(self) -> Any:
        from transformers import AutoTokenizer

        try:
            opened = AutoTokenizer.from_pretrained(
                self._model, revision=self._revision, trust_remote_code=self._trust
            )
        except (OSError, ValueError) as error:
            raise model_not_found(self._model, error) from error
        if not opened.is_fast:
            raise StepconfError(
                f"{self._model} has no fast tokenizer, so token offsets are not known.",
                "Convert it once: AutoTokenizer.from_pretrained(..., use_fast=True).save_pretrained(...)",
            )
        return opened

    @cached_property
    def end_ids(self) -> frozenset[int]:
        """The ids that end a generation: end of sequence, end of a chat turn, and what else the model's files name.

        Those files alone hold Phi-3's `<|end|>` and GLM-4's `<|user|>`; vLLM ends there unasked.
        """
        ids = {self._hf.eos_token_id}
        for token in ("<|im_end|>", "<|eot_id|>", "<end_of_turn>", "<|endoftext|>", "<|end_of_text|>"):
            if token in self._hf.get_added_vocab():
                ids.add(self._hf.convert_tokens_to_ids(token))
        vocabulary = self._backend.get_vocab(with_added_tokens=True).values()
        return frozenset(ids - {None} | _named_ends(self._model, self._revision).intersection(vocabulary))

    @property
    def eos_id(self) -> int:
        """The id that ends a sequence.

        Raises:
            StepconfError: the tokenizer has none.
        """
        if self._hf.eos_token_id is None:
            raise StepconfError(
                "the tokenizer names no end-of-sequence token.", "Set eos_token in its config."
            )
        return int(self._hf.eos_token_id)

    @cached_property
    def digest(self) -> str:
        """A digest of everything that maps text to ids; equal digests tokenise equally."""
        return _digest(self._backend)

    @cached_property
    def vocabulary(self) -> int:
        """Entries of the model's output layer, which may have more than the tokenizer has tokens."""
        from transformers import AutoConfig

        config = AutoConfig.from_pretrained(
            self._model, revision=self._revision, trust_remote_code=self._trust
        )
        return max(int(config.get_text_config().vocab_size), len(self._hf))

    @property
    def has_chat_template(self) -> bool:
        """Whether the model comes with a chat template."""
        return bool(self.chat_template)

    @property
    def chat_template(self) -> str:
        """The model's chat template, in Jinja; "" where it has none, all of them where it has several."""
        found = self._hf.chat_template or ""
        return "\n".join(found.values()) if isinstance(found, dict) else str(found)

    def encode(self, text: str) -> list[int]:
        """Ids of a text, without special tokens added."""
        return cast(list[int], self._backend.encode(text, add_special_tokens=False).ids)

    def encode_prompt(self, text: str) -> list[int]:
        """Ids of a plain (not chat) prompt, with the special tokens that the model expects in front."""
        return cast(list[int], self._hf(text, add_special_tokens=True)["input_ids"])

    def encode_with_starts(self, text: str) -> tuple[list[int], list[int]]:
        """Ids of a text, and the character at which each token starts."""
        encoded = self._backend.encode(text, add_special_tokens=False)
        return encoded.ids, [start for start, _ in encoded.offsets]

    def encode_chat(
        self, messages: list[dict[str, str]], template_kwargs: Mapping[str, Any] | None = None
    ) -> list[int]:
        """Ids of a conversation up to where the assistant's answer starts.

        Args:
            messages: with role and content.
            template_kwargs: what the chat template reads beside them, e.g. enable_thinking.

        Raises:
            StepconfError: the template refuses it, e.g. roles that do not alternate.
        """
        from jinja2 import TemplateError

        try:
            text = self._hf.apply_chat_template(
                messages, **{**(template_kwargs or {}), "add_generation_prompt": True, "tokenize": False}
            )
        except TemplateError as error:
            raise StepconfError(f"the model's chat template refuses the conversation: {error}") from error
        return self.encode(text)

    def decode(self, token_ids: Sequence[int]) -> str:
        """The text of ids, special tokens included; bytes that are no UTF-8 are U+FFFD, unknown ids nothing."""
        return self.decode_all(token_ids, [len(token_ids)])[0]

    def decode_all(self, token_ids: Any, ends: Any) -> list[str]:
        """The texts of lists of ids (n,) that follow each other and end at `ends` (k,); each as `decode`.

        Eight times as fast as the tokenizer itself (500 prompts of 170 tokens), which millions of pairs notice.
        """
        import numpy as np
        import pyarrow as pa

        ids, bounds = np.asarray(token_ids, np.int64), np.concatenate([[0], np.asarray(ends, np.int64)])
        if self._bytes_of is None:
            lists = (ids[start:end].tolist() for start, end in pairwise(bounds.tolist()))
            return [self._backend.decode(own, skip_special_tokens=False) for own in lists]
        # As unsigned numbers, negative ids too are beyond the last.
        known = np.minimum(ids.view(np.uint64), np.uint64(len(self._bytes_of) - 1))
        spelt = self._bytes_of.take(pa.array(known))
        _, starts, data = spelt.buffers()
        spans = pairwise(np.frombuffer(starts, np.int64)[bounds].tolist())
        text = memoryview(data or b"")
        return [str(text[start:end], "utf-8", "replace") for start, end in spans]

    @cached_property
    def _bytes_of(self) -> Any:
        """The bytes of all tokens, and an empty one last: an Arrow array.

        None where a text is not just its tokens' bytes: only in byte-level BPE it is.
        """
        import pyarrow as pa

        if self._decoder.get("type") != "ByteLevel":
            return None
        spelt = self._backend.get_vocab(with_added_tokens=True)
        found = [b""] * (max(spelt.values()) + 2)
        for token, id_ in spelt.items():
            found[id_] = _token_bytes(token)
        return pa.array(found, pa.large_binary())

    def pieces(self, token_ids: list[int]) -> list[str]:
        """What each token adds to the text; a character made of several tokens is added by the last.

        Their join is what `decode` gives, for any ids. A decoder that changes what it has given before gets all as
        the last piece; byte fallback, which does so within its bytes, does not.
        """
        whole = self.decode(token_ids)
        try:
            pieces = self._streamed(token_ids)
        except Exception:  # noqa: BLE001  the package raises nothing narrower
            pieces = [""] * len(token_ids)
        emitted = "".join(pieces)
        if not whole.startswith(emitted):
            pieces, emitted = [""] * len(token_ids), ""
        # Bytes at the end that never became a character: the decoder shows them as U+FFFD, as decode() does.
        if pieces:
            pieces[-1] += whole[len(emitted) :]
        return pieces

    def _streamed(self, token_ids: list[int]) -> list[str]:
        """Raises Exception where the text so far does not begin a longer one's."""
        from tokenizers.decoders import DecodeStream

        stream, pieces = DecodeStream(skip_special_tokens=False), []
        odd, letter = self._odd_bytes(token_ids), self._backend.token_to_id("<0x41>")
        for at, token in enumerate(token_ids):
            piece = stream.step(self._backend, letter if at in odd else token) or ""
            pieces.append(piece[:-1] + "\ufffd" if at in odd else piece)
        return pieces

    def _odd_bytes(self, token_ids: list[int]) -> set[int]:
        """Places in runs of byte-fallback tokens that are no UTF-8.

        Each byte of such a run is shown as U+FFFD, also those that made a character before the run went on.
        """
        bytes_of, odd = self._fallback_bytes, set[int]()
        if not bytes_of:
            return odd
        # Ids that the vocabulary does not have do not end a run.
        known = (at for at, id_ in enumerate(token_ids) if self._backend.id_to_token(id_) is not None)
        for are_bytes, places in groupby(known, lambda at: token_ids[at] in bytes_of):
            run = list(places)
            if are_bytes and not _is_utf8(bytes(bytes_of[token_ids[at]] for at in run)):
                odd.update(run)
        return odd

    @cached_property
    def _fallback_bytes(self) -> dict[int, int]:
        """The byte that each token of byte fallback stands for; none where the decoder has no such tokens."""
        if "ByteFallback" not in str(self._decoder):
            return {}
        spelt = self._backend.get_vocab(with_added_tokens=True)
        return {id_: int(token[3:5], 16) for token, id_ in spelt.items() if _FALLBACK.fullmatch(token)}

    @cached_property
    def _decoder(self) -> dict[str, Any]:
        return cast(dict[str, Any], json.loads(self._backend.to_str())["decoder"] or {})


def _plain(model: str, revision: str | None) -> Any:
    """The tokenizer that the model's tokenizer.json describes; None where there is none."""
    import tokenizers

    file = _file(model, revision, "tokenizer.json")
    return _whole_texts(tokenizers.Tokenizer.from_file(str(file))) if file else None


def _named_ends(model: str, revision: str | None) -> set[int]:
    """The numbers that the model's configuration gives as ends of a generation; what is none is left out."""
    found: set[int] = set()
    for name in ("generation_config.json", "config.json"):
        file = _file(model, revision, name)
        if file is None or file.stat().st_size > _MAX_CONFIG_BYTES:
            continue
        try:
            named = read_object(file.read_bytes()).get("eos_token_id")
        except ValueError:
            continue
        found.update(one for one in (named if isinstance(named, list) else [named]) if type(one) is int)
    return found


def _file(model: str, revision: str | None, name: str) -> Path | None:
    """A file of the model; None where it has none of that name: transformers may look elsewhere too."""
    if Path(model).is_dir():
        file = Path(model) / name
        return file if file.is_file() else None
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError

    try:
        return Path(hf_hub_download(model, name, revision=revision))
    except (EntryNotFoundError, OSError):
        return None


def _whole_texts(backend: Any) -> Any:
    """The tokenizer without the cutting or filling up of texts that some come with."""
    backend.no_truncation()
    backend.no_padding()
    return backend


def _digest(backend: Any) -> str:
    return hashlib.blake2b(backend.to_str().encode(), digest_size=10).hexdigest()


def _is_utf8(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def _token_bytes(token: str) -> bytes:
    """The bytes that a token of byte-level BPE spells; one with other characters (added to it) is its own text."""
    try:
        return bytes(_BYTE_OF[character] for character in token)
    except KeyError:
        return token.encode()


def _byte_alphabet() -> dict[str, int]:
    """The character that stands for each byte in byte-level BPE (Radford et al. 2019).

    Printable ones of Latin-1 are themselves, the others those from U+0100 on, in order.
    """
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + n): byte for n, byte in enumerate(others)}


_BYTE_OF = _byte_alphabet()


def _check_exists(model: str, revision: str | None) -> None:
    """Ask the Hub once, in seconds: without a network, loading would try each file again for a minute."""
    if Path(model).is_dir():
        return
    from huggingface_hub import HfApi, constants, try_to_load_from_cache

    try:
        cached = try_to_load_from_cache(model, "config.json", revision=revision)
        if not constants.HF_HUB_OFFLINE and not isinstance(cached, str):
            HfApi().model_info(model, revision=revision, timeout=_PROBE_S)
    # huggingface_hub has changed its HTTP library before; whatever that raises, the model is not to be had.
    except Exception as error:
        raise model_not_found(model, error) from error


def starts_of(pieces: list[str]) -> list[int]:
    """The character at which each token starts, given what each adds."""
    starts, position = [], 0
    for piece in pieces:
        starts.append(position)
        position += len(piece)
    return starts
