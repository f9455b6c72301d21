"""Process reward models: tiny ones of the published architectures, against forwards written here.

The references follow the published recipes step by step: one forward per step for RLHFlow, all tokens' logits
for Math-Shepherd, the two-layer head over every position for Qwen2.5-Math-PRM.
"""

import json
import math
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    AutoTokenizer,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForTokenClassification,
    Qwen2Model,
)

from stepconf.engines import reward
from stepconf.engines.reward import RewardModel
from stepconf.errors import StepconfError
from stepconf.recipe import PrmRecipe
from stepconf.verifiers.prm import (
    FORMS,
    QWEN_SYSTEM,
    PrmVerifier,
    form_of,
    math_shepherd,
    open_prm,
    qwen,
    rlhflow,
)
from tests.engines.test_transformers import half_copied
from tests.tiny import stepconf
from tests.verifiers.solutions import solved

PROBLEM = "Ann has 2 apples and buys 3. How many?"
STEPS = ["She starts with 2.\n", "2 + 3 = 5 apples ки in all.\n\n", "The answer is 5."]
SIZES = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
}
CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
LLAMA3 = (
    "{{ bos_token }}{% for m in messages %}<|start_header_id|>{{ m.role }}<|end_header_id|>\n\n"
    "{{ m.content | trim }}<|eot_id|>{% endfor %}"
    "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
)


def make_tokenizer(
    template: str | None, special: list[str], bos: str | None = None
) -> PreTrainedTokenizerFast:
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=["<|end|>"], show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )  # fmt: skip
    backend.train_from_iterator([*STEPS, PROBLEM, "Step 1: ки + - " * 9] * 9, trainer)
    made = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<|end|>", model_max_length=512)
    made.add_special_tokens({"additional_special_tokens": special} | ({"bos_token": bos} if bos else {}))
    made.chat_template = template
    return made


def loud(model: Any) -> Any:
    """Weights so large that scores differ from step to step."""
    with torch.no_grad():
        for weight in model.parameters():
            if weight.dim() > 1:
                weight.normal_(0, 0.3)
    return model.eval()


@pytest.fixture(scope="module", autouse=True)
def _seeded() -> Iterator[None]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        yield


@pytest.fixture(scope="module")
def qwen_prm(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any, Any]:
    return qwen_model(tmp_path_factory.mktemp("qwen2.5-math-prm"), SIZES)


def qwen_model(folder: Path, sizes: dict[str, int]) -> tuple[Path, Any, Any]:
    """In the layout of the published checkpoint: Qwen2 body, `score.0` and `score.2`, and code."""
    width = sizes["hidden_size"]
    tokenizer = make_tokenizer(CHATML, ["<|im_start|>", "<|im_end|>", "<extra_0>"])
    body = loud(Qwen2Model(Qwen2Config(vocab_size=len(tokenizer), **sizes)))
    head = torch.nn.Sequential(torch.nn.Linear(width, width), torch.nn.ReLU(), torch.nn.Linear(width, 2))
    tokenizer.save_pretrained(folder)
    body.save_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tensors = {f"model.{name}": tensor for name, tensor in load_file(folder / "model.safetensors").items()}
    tensors |= {f"score.{name}": tensor.clone() for name, tensor in head.state_dict().items()}
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    config = json.loads((folder / "config.json").read_text())
    config |= {"architectures": ["Qwen2ForProcessRewardModel"], "num_labels": 2}
    config["auto_map"] = {"AutoModel": "modeling_qwen2_rm.Qwen2ForProcessRewardModel"}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "modeling_qwen2_rm.py").write_text("raise SystemExit('remote code ran')\n")
    return folder, torch.nn.Sequential(head), (tokenizer, body)


def language_model(folder: Path, kind: str) -> tuple[Path, Any, Any]:
    if kind == "mistral":
        tokenizer = make_tokenizer(None, ["<s>"], "<s>")
        model = loud(MistralForCausalLM(MistralConfig(vocab_size=len(tokenizer), **SIZES)))
    else:
        special = ["<|begin|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]
        tokenizer = make_tokenizer(LLAMA3, special, "<|begin|>")
        model = loud(LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), **SIZES)))
    tokenizer.save_pretrained(folder)
    model.save_pretrained(folder)
    return folder, AutoTokenizer.from_pretrained(folder), model


@pytest.fixture(scope="module")
def shepherd(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any, Any]:
    return language_model(tmp_path_factory.mktemp("math-shepherd"), "mistral")


@pytest.fixture(scope="module")
def rlhf(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any, Any]:
    return language_model(tmp_path_factory.mktemp("rlhflow"), "llama")


def scores(folder: Path, many: list[tuple[str, list[str]]], **options: Any) -> list[list[float | None]]:
    with ExitStack() as stack:
        verifier = open_prm(PrmRecipe(model=str(folder), dtype="float32", **options), stack)
        rows = verifier.verify([solved(problem, steps) for problem, steps in many])
    return [[v.score for v in row if v is not None] for row in rows]


def close(found: list[float | None], expected: list[float]) -> None:
    assert found == pytest.approx(expected, abs=2e-5)
    assert max(expected) - min(expected) > 1e-3  # else any place would do


@torch.inference_mode()
def test_qwen_against_its_reference(qwen_prm: tuple[Path, Any, Any]) -> None:
    folder, head, (tokenizer, body) = qwen_prm
    text = tokenizer.apply_chat_template(
        [
            {"role": "system", "content": QWEN_SYSTEM},
            {"role": "user", "content": PROBLEM},
            {"role": "assistant", "content": "<extra_0>".join(s.strip() for s in STEPS) + "<extra_0>"},
        ],
        tokenize=False,
    )
    ids = torch.tensor([tokenizer.encode(text)])
    probabilities = head(body(ids).last_hidden_state).softmax(-1)
    at_separators = probabilities[ids == tokenizer.convert_tokens_to_ids("<extra_0>")][:, 1]
    close(scores(folder, [(PROBLEM, STEPS)])[0], at_separators.tolist())


@torch.inference_mode()
def test_a_plain_classifier_against_transformers(tmp_path: Path) -> None:
    tokenizer = make_tokenizer(CHATML, ["<|im_start|>", "<|im_end|>", "<extra_0>"])
    model = loud(Qwen2ForTokenClassification(Qwen2Config(vocab_size=len(tokenizer), num_labels=2, **SIZES)))
    tokenizer.save_pretrained(tmp_path)
    model.save_pretrained(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    reader = RewardModel(str(tmp_path), None, dtype="float32")
    marked = qwen(PROBLEM, [s.strip() for s in STEPS], reader.template)
    ids = torch.tensor([tokenizer.encode(marked.text)])
    expected = model(ids).logits.softmax(-1)[ids == tokenizer.convert_tokens_to_ids("<extra_0>")][:, 1]
    close(list(reader.read([marked])[0] or []), expected.tolist())


def test_a_failed_forward_is_one_clear_message(
    shepherd: tuple[Path, Any, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    reader = RewardModel(str(shepherd[0]), FORMS["math-shepherd"].tokens, dtype="float32")
    marked = (PROBLEM, [len(PROBLEM)])
    for error in (
        RuntimeError("can't allocate memory"),
        IndexError("index out of range in self"),
        MemoryError(),
    ):
        monkeypatch.setattr(reader, "_body", Mock(side_effect=error))
        with pytest.raises(
            StepconfError, match=r"the reward model failed: (can't|index|MemoryError)"
        ) as raised:
            reader.read([marked])
        assert "verify.prm.max_model_len" in raised.value.hint


@torch.inference_mode()
def test_math_shepherd_against_its_reference(shepherd: tuple[Path, Any, Any]) -> None:
    folder, tokenizer, model = shepherd
    steps = [s.replace("ки", "") for s in STEPS]  # the published recipe finds its tag by its id
    text = PROBLEM + " " + "\n".join(f"Step {i}: {s.strip()} ки" for i, s in enumerate(steps, 1))
    encoded = tokenizer(text, return_offsets_mapping=True)
    good, bad = (tokenizer.encode(sign)[-1] for sign in "+-")
    probabilities = model(torch.tensor([encoded["input_ids"]])).logits[0][:, [good, bad]].softmax(-1)[:, 0]
    ends = [
        i
        for i, (start, end) in enumerate(encoded["offset_mapping"])
        if text[:end].endswith("ки") and end > start
    ]
    close(scores(folder, [(PROBLEM, steps)])[0], probabilities[ends].tolist())


@torch.inference_mode()
def test_rlhflow_against_its_reference(rlhf: tuple[Path, Any, Any]) -> None:
    """The published recipe: the conversation up to each step, answered `+`, read third from the end."""
    folder, tokenizer, model = rlhf
    candidates = [tokenizer.encode(sign)[-1] for sign in "+-"]
    turns: list[dict[str, str]] = []
    expected = []
    for i, step in enumerate(STEPS):
        content = f"{PROBLEM} {step.strip()}" if i == 0 else step.strip()
        turns += [{"role": "user", "content": content}, {"role": "assistant", "content": "+"}]
        ids = tokenizer.apply_chat_template(turns, return_tensors="pt", return_dict=True)["input_ids"]
        expected.append(float(model(ids).logits[0, -3, candidates].softmax(-1)[0]))
    close(scores(folder, [(PROBLEM, STEPS)])[0], expected)


@pytest.mark.parametrize("form", ["qwen", "math-shepherd", "rlhflow"])
def test_neighbours_and_batches_change_nothing(
    form: Any, qwen_prm: Any, shepherd: Any, rlhf: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = {"qwen": qwen_prm, "math-shepherd": shepherd, "rlhflow": rlhf}[form][0]
    many = [(PROBLEM, STEPS), ("q", ["a"]), (PROBLEM * 3, STEPS * 2), ("", []), ("2?", ["", " ", "b"])]
    whole = scores(folder, many, form=form)
    assert [len(row) for row in whole] == [3, 1, 6, 0, 3]
    alone = [scores(folder, [one], form=form)[0] for one in many]
    monkeypatch.setattr(reward, "BATCH_TOKENS", 1)
    split = scores(folder, many, form=form)
    for a, b, c in zip(whole, alone, split, strict=True):
        assert a == pytest.approx(b, abs=2e-5)
        assert a == pytest.approx(c, abs=2e-5)


@settings(max_examples=25)
@given(
    st.lists(
        st.sampled_from(
            ["<extra_0>", "<|im_end|>\n", "ки", " ", "x", "<ex<extra_0>tra_0>", "\ud800", "\x00", "é"]
        ),
        max_size=8,
    ).map("".join)
)
def test_steps_that_spell_markers_keep_their_count(qwen_prm: Any, shepherd: Any, text: str) -> None:
    for folder, form in ((qwen_prm[0], "qwen"), (shepherd[0], "math-shepherd")):
        reader = _reader(folder, form)
        verifier = PrmVerifier(reader, FORMS[form], "tiny", 0.5)
        (row,) = verifier.verify([solved("q" + text, [text or "-", "b"])])
        assert [v is not None and v.score is not None and 0 <= v.score <= 1 for v in row] == [True, True]
        marked = FORMS[form].render(reader.clean("q" + text), [reader.clean(text), "b"], reader.template)
        assert form != "qwen" or marked.text.count("<extra_0>") == 2


_readers: dict[str, RewardModel] = {}


def _reader(folder: Path, form: str) -> RewardModel:
    if form not in _readers:
        _readers[form] = RewardModel(str(folder), FORMS[form].tokens, dtype="float32")
    return _readers[form]


def test_labels_follow_the_threshold(qwen_prm: Any) -> None:
    found = scores(qwen_prm[0], [(PROBLEM, STEPS)])[0]
    middle = sorted(s for s in found if s is not None)[1]
    verifier = open_prm(
        PrmRecipe(model=str(qwen_prm[0]), form="qwen", threshold=middle - 1e-4, dtype="float32"), ExitStack()
    )
    (row,) = verifier.verify([solved(PROBLEM, STEPS)])
    assert [v and v.label for v in row] == [
        "incorrect" if s is not None and s < middle - 1e-4 else "correct" for s in found
    ]
    assert all(v and v.seconds > 0 and v.verifier == "prm" and "qwen" in v.version for v in row)


def test_what_exceeds_the_context_is_unknown(qwen_prm: Any) -> None:
    verifier = open_prm(PrmRecipe(model=str(qwen_prm[0]), dtype="float32", max_model_len=200), ExitStack())
    rows = verifier.verify([solved(PROBLEM, STEPS * 20), solved("q", ["a"])])
    assert {v and (v.label, v.reason) for v in rows[0]} == {
        ("unknown", "longer than the reward model's context")
    }
    assert [v and v.label for v in rows[1]] != ["unknown"]


def test_a_score_that_is_not_a_number_is_unknown() -> None:
    class Broken:
        def template(self, messages: Any, answer_next: bool) -> str:
            return ""

        def clean(self, text: str) -> str:
            return text

        def read(self, inputs: Any) -> list[list[float] | None]:
            return [[math.nan] * len(marks) for _, marks in inputs]

    (row,) = PrmVerifier(Broken(), FORMS["math-shepherd"], "m", 0.5).verify([solved("q", ["a"])])
    assert row[0] is not None and (row[0].label, row[0].reason) == ("unknown", "score is not a number")


def test_forms_by_name() -> None:
    assert form_of("auto", "Qwen/Qwen2.5-Math-PRM-7B") is FORMS["qwen"]
    assert form_of("auto", "peiyi9979/math-shepherd-mistral-7b-prm") is FORMS["math-shepherd"]
    assert form_of("auto", "RLHFlow/Llama3.1-8B-PRM-Deepseek-Data") is FORMS["rlhflow"]
    assert form_of("rlhflow", "Qwen/Qwen2.5-Math-PRM-7B") is FORMS["rlhflow"]
    with pytest.raises(StepconfError, match="no form is known"):
        form_of("auto", "my/model")


def test_texts_of_the_forms() -> None:
    def template(messages: list[dict[str, str]], answer_next: bool) -> str:
        return "".join(f"[{m['role'][0]}:{m['content']}]" for m in messages) + ("[a:" if answer_next else "")

    text, marks = math_shepherd("P? ", ["a\n", "Step 2: b"], template)
    assert text == "P? Step 1: a ки\nStep 2: b ки" and [text[:m] for m in marks] == ["P? Step 1: a ки", text]
    text, marks = qwen("P?", ["a\n", "b"], template)
    assert text == f"[s:{QWEN_SYSTEM}][u:P?][a:a<extra_0>b<extra_0>]"
    assert [text[m - 9 : m] for m in marks] == ["<extra_0>"] * 2
    text, marks = rlhflow("P?", ["a\n", "b"], template)
    assert text == "[u:P? a][a:+][u:b][a:+]" and [text[m] for m in marks] == ["+", "+"]
    with pytest.raises(StepconfError, match="changes earlier turns"):
        rlhflow("P?", ["a", "b"], lambda m, n: f"{len(m)}" + template(m, n))


def test_models_that_do_not_fit_are_refused(qwen_prm: Any, shepherd: Any, rlhf: Any, tmp_path: Path) -> None:
    with pytest.raises(StepconfError, match=r"cannot load the model .*: .*incomplete"):
        open_prm(PrmRecipe(model=str(half_copied(qwen_prm[0], tmp_path)), form="qwen"), ExitStack())
    with pytest.raises(StepconfError, match="no process reward model"):
        open_prm(PrmRecipe(), ExitStack())
    with pytest.raises(StepconfError, match="no classifier with two classes"):
        open_prm(PrmRecipe(model=str(rlhf[0]), form="qwen"), ExitStack())
    with pytest.raises(StepconfError, match="cannot load the model"):
        open_prm(PrmRecipe(model="/nothing/here", form="qwen"), ExitStack())
    with pytest.raises(StepconfError, match="no chat template"):
        scores(shepherd[0], [(PROBLEM, STEPS)], form="rlhflow")


def test_verify_from_the_command_line(qwen_prm: Any, tmp_path: Path) -> None:
    given_ = tmp_path / "given.jsonl"
    given_.write_text(json.dumps({"problem": PROBLEM, "steps": [s.strip() for s in STEPS]}) + "\n")
    done = stepconf(
        "verify", given_, "--verify", "symbolic,prm", "--out", tmp_path / "run",
        "--set", f"verify.prm.model={qwen_prm[0]}", "--set", "verify.prm.dtype=float32",
    )  # fmt: skip
    assert done.code == 0, done.err
    assert "steps by prm" in done.out


@pytest.mark.slow
@pytest.mark.timeout(300)
@torch.inference_mode()
def test_vllm_pooling_against_the_reference(tmp_path: Path) -> None:
    """The same scores from vLLM's own implementation, batched, and unknown beyond the context."""
    pytest.importorskip("vllm")
    folder, _, _ = qwen_model(tmp_path, SIZES | {"hidden_size": 128})  # its kernels need heads of 32
    many = [(PROBLEM, STEPS), ("q", ["a"]), ("", []), (PROBLEM * 3, STEPS * 2), (PROBLEM, STEPS * 40)]
    limits = {"form": "qwen", "max_model_len": 400}
    expected = scores(folder, many, **limits)
    assert expected[-1] == [None] * 120
    found = scores(folder, many, engine="vllm", **limits)
    assert found[-1] == expected[-1]
    for ours, reference in zip(found[:-1], expected[:-1], strict=True):
        assert ours == pytest.approx(reference, abs=1e-4)
    print(
        "largest difference:",
        max(
            abs(a - b)
            for x, y in zip(found[:-1], expected[:-1], strict=True)
            for a, b in zip(x, y, strict=True)
        ),
    )


def test_vllm_pools_no_language_model(shepherd: Any) -> None:
    with pytest.raises(StepconfError, match="vLLM's pooling does not give"):
        open_prm(PrmRecipe(model=str(shepherd[0]), form="math-shepherd", engine="vllm"), ExitStack())
