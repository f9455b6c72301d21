"""The optimisation: what must not change its trajectory, what must stop it, what it leaves behind."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from stepconf.core.trees import Example
from stepconf.errors import StepconfError
from stepconf.recipe import TrainRecipe
from stepconf.training.checkpoint import _placed
from stepconf.training.loop import optimise, optimise_stages
from stepconf.training.models import identity_of_model, open_policy, save_policy
from stepconf.training.ranks import Ranks
from tests.engines.test_transformers import half_copied
from tests.tiny import VOCABULARY, tiny_model
from tests.training.test_policy import step_pairs

ALONE = Ranks(0, 1, "cpu")
BASE: dict[str, Any] = {"learning_rate": 1e-3, "batch_size": 8, "epochs": 2, "tokens_per_batch": 200}


def examples() -> list[Example]:
    return step_pairs(seed=4, n_solutions=5, step=6, vocabulary=VOCABULARY)


def run(
    folder: Path, *, stop_at: int | None = None, data: list[Example] | None = None, **options: Any
) -> Any:
    """Parameters and metric lines of a training; `stop_at` breaks it off after that step, as a kill would."""
    recipe = TrainRecipe(**(BASE | options))
    policy = open_policy(str(tiny_model()), None, recipe, ALONE)

    def report(metrics: dict[str, Any]) -> None:
        if stop_at is not None and metrics.get("step") == stop_at:
            raise InterruptedError

    try:
        optimise(policy, data or examples(), recipe, folder, "tiny", ALONE, report)
    except InterruptedError:
        assert stop_at is not None
    parameters = torch.cat([p.detach().flatten() for p in policy.parameters()])
    return parameters, lines(folder)


def lines(folder: Path) -> list[dict[str, Any]]:
    untimed = []
    for line in (folder / "metrics.jsonl").read_text().splitlines():
        metrics = json.loads(line)
        untimed.append({k: v for k, v in metrics.items() if not k.endswith("per_second")})
    return untimed


def test_a_model_that_does_not_load_is_named(tmp_path: Path) -> None:
    with pytest.raises(StepconfError, match=r"cannot load the model .*: PyTorch"):
        open_policy(str(tiny_model()), None, TrainRecipe(**BASE), Ranks(0, 1, "opencl"))
    with pytest.raises(StepconfError, match=f"cannot load the model '{tmp_path}': .*incomplete"):
        open_policy(str(half_copied(tiny_model(), tmp_path)), None, TrainRecipe(**BASE), ALONE)


@pytest.mark.parametrize("objective", ["dpo", "sft"])
def test_resumed_training_has_the_same_trajectory(objective: str, tmp_path: Path) -> None:
    whole, metrics = run(tmp_path / "a", objective=objective, checkpoint_every=2)
    for stop in (1, 2, 3):  # before the first checkpoint, at one, between two
        run(tmp_path / "b", objective=objective, checkpoint_every=2, stop_at=stop)
    again, metrics_again = run(tmp_path / "b", objective=objective, checkpoint_every=2)
    assert torch.equal(whole, again) and metrics == metrics_again
    assert [line["step"] for line in metrics] == list(range(1, len(metrics) + 1)) and len(metrics) > 4


def test_a_finished_training_is_not_done_again(tmp_path: Path) -> None:
    whole, metrics = run(tmp_path)
    again, metrics_again = run(tmp_path, stop_at=1)
    assert torch.equal(whole, again) and metrics == metrics_again


def test_steps_count_on_over_stages_and_where_one_is_continued(tmp_path: Path) -> None:
    recipe = TrainRecipe(**BASE | {"checkpoint_every": 2, "stages": [{"epochs": 1}, {"beta": 0.2}]})
    told: list[tuple[int, int]] = []

    def staged(stop_at: int | None = None) -> None:
        def report(metrics: dict[str, Any]) -> None:
            if "step" in metrics:
                told.append((metrics["stage"], metrics["steps_before"] + metrics["step"]))
                if metrics["stage"] == 2 and metrics["step"] == stop_at:
                    raise InterruptedError

        policy = open_policy(str(tiny_model()), None, recipe, ALONE)
        optimise_stages(policy, [examples()] * 2, recipe, tmp_path, "tiny", ALONE, report)

    with pytest.raises(InterruptedError):
        staged(stop_at=3)
    first = sum(stage == 1 for stage, _ in told)
    assert [step for _, step in told] == list(range(1, first + 4)) and first > 1
    told.clear()
    staged()
    assert [one for one in told if one[1] <= first + 2] == [], "they are in the checkpoint"
    assert [step for _, step in told] == list(range(first + 3, 3 * first + 1))


@pytest.mark.parametrize(("before", "now"), [(1, 2), (2, 1), (3, 2)])
def test_a_training_with_other_stages_is_not_lost(before: int, now: int, tmp_path: Path) -> None:
    def staged(n: int) -> None:
        recipe = TrainRecipe(**BASE | {"epochs": 1, "stages": [{"seed": i} for i in range(n)]})
        policy = open_policy(str(tiny_model()), None, recipe, ALONE)
        optimise_stages(policy, [examples()] * n, recipe, tmp_path, "tiny", ALONE, lambda _: None)

    staged(before)
    kept = sorted(tmp_path.rglob("checkpoint-*"))
    with pytest.raises(StepconfError, match="a training with other stages"):
        staged(now)
    assert sorted(tmp_path.rglob("checkpoint-*")) == kept != []


def test_a_fused_optimiser_gets_its_count_of_steps_on_the_device() -> None:
    count, parameter = torch.tensor(3.0), torch.empty(2, device="meta")
    assert _placed(count, parameter, fused=True).device == parameter.device
    assert _placed(count, parameter).device == count.device


@pytest.mark.parametrize("objective", ["dpo", "sft"])
def test_micro_batches_do_not_change_the_result(objective: str, tmp_path: Path) -> None:
    _, small = run(tmp_path / "a", objective=objective, tokens_per_batch=40)
    _, large = run(tmp_path / "b", objective=objective, tokens_per_batch=10_000)
    for a, b in zip(small, large, strict=True):
        assert a["loss"] == pytest.approx(b["loss"], rel=1e-4)
        assert a["grad_norm"] == pytest.approx(b["grad_norm"], rel=1e-3)


def test_gradient_checkpointing_changes_nothing(tmp_path: Path) -> None:
    plain, _ = run(tmp_path / "a", epochs=1)
    recomputed, _ = run(tmp_path / "b", epochs=1, gradient_checkpointing=True)
    torch.testing.assert_close(plain, recomputed, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("objective", ["dpo", "sft"])
def test_a_training_continues_in_less_memory(objective: str, tmp_path: Path) -> None:
    """What a user types after running out of memory: the result differs by rounding."""
    ample = {"objective": objective, "checkpoint_every": 2, "tokens_per_batch": 10_000}
    whole, metrics = run(tmp_path / "a", **ample)
    run(tmp_path / "b", **ample, stop_at=3)
    small = {"tokens_per_batch": 40, "gradient_checkpointing": True, "attention": "sdpa"}
    again, continued = run(tmp_path / "b", **(ample | small))
    torch.testing.assert_close(whole, again, rtol=1e-3, atol=1e-5)
    assert metrics[:2] == continued[:2] and len(metrics) == len(continued) > 4
    assert not torch.equal(whole, again), "its micro-batches are others"


def test_every_parameter_moves_and_pairs_are_learnt(tmp_path: Path) -> None:
    recipe = TrainRecipe(
        **BASE | {"epochs": 8, "learning_rate": 3e-3, "schedule": "constant", "nll_weight": 0.0}
    )
    policy = open_policy(str(tiny_model()), None, recipe, ALONE)
    before = {name: p.detach().clone() for name, p in policy.named_parameters()}
    metrics = optimise(policy, examples(), recipe, tmp_path, "tiny", ALONE, lambda _: None)
    assert all(not torch.equal(before[name], p) for name, p in policy.named_parameters())
    first = lines(tmp_path)[0]
    assert first["margin"] == 0 and first["loss"] == pytest.approx(0.6931, abs=1e-4)
    assert metrics["margin"] > 0 and metrics["loss"] < first["loss"] and metrics["accuracy"] > 0.9


def test_sft_is_the_mean_negative_log_likelihood_of_the_sides(tmp_path: Path) -> None:
    data = [Example(str(i), "p", (5, 6, 7), ((8, 9, 10 + i),)) for i in range(3)]
    recipe = TrainRecipe(**BASE | {"objective": "sft", "epochs": 1})
    policy = open_policy(str(tiny_model()), None, recipe, ALONE)
    plain = AutoModelForCausalLM.from_pretrained(tiny_model(), dtype=torch.float32)
    losses = []
    for one in data:
        ids = torch.tensor([one.prompt_ids + one.sides[0]])
        losses.append(plain(input_ids=ids, labels=ids.masked_fill(torch.arange(6) < 3, -100)).loss.item())
    metrics = optimise(policy, data, recipe, tmp_path, "tiny", ALONE, lambda _: None)
    assert metrics["loss"] == pytest.approx(sum(losses) / 3, rel=1e-5)


def test_a_loss_that_is_not_finite_stops_with_the_last_checkpoint_kept(tmp_path: Path) -> None:
    with pytest.raises(StepconfError, match=r"the loss is nan|gradient norm (nan|inf)") as error:
        run(tmp_path, learning_rate=1e30, checkpoint_every=1, schedule="constant", warmup_ratio=0.0)
    assert "examples" in error.value.problem and "learning_rate" in error.value.hint
    assert "with another --out" in error.value.hint  # this one is refused with other options
    kept = load_file(next(tmp_path.glob("checkpoint-*")) / "model.safetensors")
    assert kept and len(lines(tmp_path)) == 1


def test_a_checkpoint_of_something_else_is_refused(tmp_path: Path) -> None:
    run(tmp_path, epochs=1)
    with pytest.raises(StepconfError, match=r"differs in: train.beta \(there 0.1, now 0.2\)\."):
        run(tmp_path, epochs=1, beta=0.2)
    (tmp_path / "reference.safetensors").unlink()
    with pytest.raises(StepconfError, match="no reference log-probabilities of these examples"):
        run(tmp_path, epochs=1)
    run(tmp_path / "sft", objective="sft")
    with pytest.raises(StepconfError, match="of other examples, another model or another recipe"):
        run(tmp_path / "sft", objective="sft", data=examples()[:4])


TORN = ["model.safetensors", "optimizer.safetensors", "state.json", "reference.safetensors"]


@pytest.mark.parametrize("length", [0, 100])
@pytest.mark.parametrize("name", TORN)
def test_a_torn_file_is_one_clear_message(name: str, length: int, tmp_path: Path) -> None:
    """As a crash of the machine may leave it; what the message says to do leads to the same end."""
    whole, _ = run(tmp_path / "a", epochs=1)
    run(tmp_path / "b", epochs=1, checkpoint_every=1, stop_at=3)
    (checkpoint,) = (tmp_path / "b").glob("checkpoint-*")
    (file,) = (tmp_path / "b").rglob(name)
    os.truncate(file, length)
    said = "no reference log-prob" if name == "reference.safetensors" else f"{checkpoint.name} is damaged"
    with pytest.raises(StepconfError, match=said) as error:
        run(tmp_path / "b", epochs=1)
    assert "another --out" in error.value.hint or "Delete this checkpoint" in error.value.hint
    shutil.rmtree(checkpoint)
    again, _ = run(tmp_path / "b", epochs=1)
    assert torch.equal(whole, again)


def test_a_checkpoint_that_lacks_a_parameter_is_damaged(tmp_path: Path) -> None:
    run(tmp_path, epochs=1)
    (file,) = tmp_path.glob("checkpoint-*/model.safetensors")
    kept = load_file(file)
    kept.popitem()
    save_file(kept, file)
    with pytest.raises(StepconfError, match="is damaged: KeyError"):
        run(tmp_path, epochs=1)


def test_a_saved_policy_is_an_ordinary_checkpoint(tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    from stepconf.engines.tokenizer import Tokenizer

    recipe = TrainRecipe(**BASE)
    policy = open_policy(str(tiny_model()), None, recipe, ALONE)
    optimise(policy, examples(), recipe, tmp_path / "state", "tiny", ALONE, lambda _: None)
    save_policy(policy, str(tiny_model()), None, tmp_path / "model", "float32", ALONE)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    for name, parameter in loaded.named_parameters():
        assert torch.equal(parameter, policy.model.get_parameter(name)), name
    assert Tokenizer(str(tmp_path / "model")).digest == Tokenizer(str(tiny_model())).digest


def test_generation_settings_that_contradict_each_other_are_saved(tmp_path: Path) -> None:
    """Models were published with a temperature and without `do_sample`: they load, and transformers saves none such."""
    source = Path(shutil.copytree(tiny_model(), tmp_path / "source"))
    (source / "generation_config.json").write_text('{"temperature": 0.9, "top_p": 0.6}')
    policy = open_policy(str(source), None, TrainRecipe(**BASE), ALONE)
    save_policy(policy, str(source), None, tmp_path / "model", "float32", ALONE)
    kept = json.loads((tmp_path / "model/generation_config.json").read_text())
    assert kept["temperature"] == 0.9 and kept["top_p"] == 0.6
    (source / "generation_config.json").write_text('{"length_penalty": 2.0}')
    with pytest.raises(StepconfError, match=r"generation_config\.json"):
        open_policy(str(source), None, TrainRecipe(**BASE), ALONE)


def test_other_weights_of_one_name_are_another_model(tmp_path: Path) -> None:
    source = Path(shutil.copytree(tiny_model(), tmp_path / "source"))
    before = identity_of_model("m", source)
    assert before == identity_of_model("m", tiny_model()) != identity_of_model("n", source)
    weights = load_file(source / "model.safetensors")
    save_file({name: value * 1.01 for name, value in weights.items()}, source / "model.safetensors")
    assert identity_of_model("m", source) != before
    assert identity_of_model("org/name", Path("org/name")) != before


PROCESSES = """
import json, sys, torch
from pathlib import Path
from stepconf.recipe import TrainRecipe
from stepconf.training.loop import optimise
from stepconf.training.models import open_policy, save_policy
from stepconf.training.ranks import join
from tests.training.test_loop import examples
model, out, options = sys.argv[1], Path(sys.argv[2]), json.loads(sys.argv[3])
recipe, ranks = TrainRecipe(**options), join()
policy = open_policy(model, None, recipe, ranks)
for attempt in range(2):  # the second finds all done and reads the checkpoint back into the shards
    optimise(policy, examples(), recipe, out / "state", "tiny", ranks, lambda _: None)
save_policy(policy, model, None, out / "model", "float32", ranks)
torch.distributed.destroy_process_group()
"""


@pytest.mark.slow
def test_two_processes_have_the_trajectory_of_one(tmp_path: Path) -> None:
    recipe = BASE | {"checkpoint_every": 3}
    (tmp_path / "worker.py").write_text(PROCESSES)
    command = [
        sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2",
        tmp_path / "worker.py", tiny_model(), tmp_path / "two", json.dumps(recipe),
    ]  # fmt: skip
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2]), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr[-3000:]
    _, alone = run(tmp_path / "one", **recipe)
    together = lines(tmp_path / "two" / "state")
    assert len(alone) == len(together) > 4
    for a, b in zip(alone, together, strict=True):
        assert b["loss"] == pytest.approx(a["loss"], rel=1e-4)
        assert b["grad_norm"] == pytest.approx(a["grad_norm"], rel=1e-3)
        assert b["margin"] == pytest.approx(a["margin"], rel=1e-3, abs=1e-6)
    one, _ = run(tmp_path / "one", **recipe)
    two = load_file(tmp_path / "two" / "model" / "model.safetensors")
    assert sum(t.numel() for t in two.values()) == one.numel()
