"""The forward of process reward models, in vLLM: its pooling runner gives the classifier's logits of every token."""

import os
from collections.abc import Sequence
from typing import Any

from stepconf.engines.reward_text import NO_CODE_HINT, RewardText
from stepconf.engines.vllm_start import cpu_defaults, dead_engine_as_error, import_vllm, start_failed
from stepconf.errors import StepconfError, model_not_found

_WORKER = "stepconf.engines.vllm_tap.EntropyTap"  # here only to end the workers with this process
_TASK = "token_classify"


class PooledRewardModel(RewardText):
    """A process reward model with a classifier, in vLLM. Not safe to call from two threads at once.

    Args:
        model: local folder or Hub id, of an architecture whose tokens vLLM classifies
            (`Qwen2ForProcessRewardModel`, `Qwen2ForTokenClassification`, ...).
        revision: Hub revision.
        dtype: `auto`, `float32`, `bfloat16` or `float16`.
        max_model_len: context limit in tokens; None for the model's own.
        options: any further argument of vLLM's `EngineArgs`, passed through.

    Raises:
        StepconfError: vLLM is not installed, or the model cannot be loaded or has no such classifier.
    """

    def __init__(
        self,
        model: str,
        *,
        revision: str | None = None,
        dtype: str = "auto",
        max_model_len: int | None = None,
        options: dict[str, Any] | None = None,
    ) -> None:
        vllm = import_vllm(model)
        try:
            super().__init__(model, revision)
        except (OSError, ValueError) as error:
            raise model_not_found(model, error, NO_CODE_HINT) from error
        arguments: dict[str, Any] = {
            "model": model,
            "revision": revision,
            "runner": "pooling",
            # All tokens, since forms differ in where they read; STEP would keep those of one id.
            "pooler_config": {"tok_pooling_type": "ALL"},
            "dtype": dtype,
            "max_model_len": max_model_len,
            "enable_prefix_caching": False,  # a cached token has no hidden state to classify
            "disable_log_stats": True,
            "use_tqdm_on_load": False,
            "worker_extension_cls": _WORKER,
        }
        arguments |= cpu_defaults(model, revision, max_model_len, False) | (options or {})
        arguments["trust_remote_code"] = False
        arguments = {name: value for name, value in arguments.items() if value is not None}
        try:
            self._llm = vllm.LLM(**arguments)
        except (OSError, ValueError, RuntimeError, TypeError) as error:
            raise start_failed(model, error) from error
        self._llm.collective_rpc("end_with", args=(os.getpid(),))
        self._params = vllm.PoolingParams(use_activation=False)
        self.max_model_len = int(self._llm.model_config.max_model_len)
        if _TASK not in self._llm.supported_tasks:
            self.close()
            raise StepconfError(
                f"vLLM classifies no tokens with {model!r}: it offers {', '.join(self._llm.supported_tasks)}.",
                "Type: --set verify.prm.engine=transformers",
            )

    def read(self, inputs: Sequence[tuple[str, list[int]]]) -> list[list[float] | None]:
        """As `engines.reward.RewardModel.read`."""
        encoded = [self.encoded(text, marks) for text, marks in inputs]
        scores: list[list[float] | None] = [
            None if len(ids) > self.max_model_len else [] for ids, _ in encoded
        ]
        fitting = [i for i, found in enumerate(scores) if found is not None and encoded[i][1]]
        prompts = [{"prompt_token_ids": encoded[i][0]} for i in fitting]
        if not fitting:
            return scores
        with dead_engine_as_error():
            outputs = self._llm.encode(prompts, self._params, pooling_task=_TASK, use_tqdm=False)
        for i, output in zip(fitting, outputs, strict=True):
            logits = output.outputs.data  # [tokens, 2]
            if logits.ndim != 2 or logits.shape[1] != 2:
                raise StepconfError(
                    f"the reward model has no classifier with two classes: its output has shape {logits.shape}."
                )
            scores[i] = logits[encoded[i][1]].float().softmax(-1)[:, 1].tolist()
        return scores

    def close(self) -> None:
        """End vLLM's processes."""
        self._llm.llm_engine.engine_core.shutdown()
