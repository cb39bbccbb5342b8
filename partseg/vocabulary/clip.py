"""Text towers of open_clip."""

from __future__ import annotations

import logging
import threading
import urllib.request
import warnings
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from partseg.errors import RecipeError, WeightsError
from partseg.files import sha256_file

# Which published weights a bare model name stands for.
PUBLISHED = "openai"
TEXTS_AT_ONCE = 256
# Seconds the publisher's server may take to say that it is there; open_clip itself tries for a minute.
PATIENCE = 5.0
_LOCAL = "give a local file of this model's weights (OpenAI's {file}, or a state dict)"
# Tensors of a whole CLIP that its text tower does without; OpenAI's archives have the last three.
_NOT_TEXT = ("visual.", "logit_", "input_resolution", "context_length", "vocab_size")


def encode(texts: Sequence[str], *, model: str, weights: Path | None = None) -> NDArray[np.float32]:
    """Embed texts with the text tower of an open_clip model: [N, D] float32, not normalised.

    Args:
        texts: N texts.
        model: open_clip's name of the model; ``ViT-B/32`` is ``ViT-B-32``.
        weights: a local checkpoint; without it those that OpenAI published, downloaded by open_clip.

    Raises:
        RecipeError: open_clip is not installed, or has no such model.
        WeightsError: the weights cannot be had or do not fit.
    """
    try:
        import open_clip
        import torch
    except ImportError as error:
        raise RecipeError(
            "the encoder open_clip is not installed", fix="pip install 'partseg[text]'"
        ) from error
    model = model.replace("/", "-")
    if model not in open_clip.list_models():
        raise RecipeError(f"open_clip has no model {model!r}")
    if weights is not None and not weights.is_file():
        raise WeightsError("no such file of open_clip weights", where=weights)
    tower = _tower(open_clip, model, weights)
    tokens = open_clip.get_tokenizer(model)(list(texts))
    if len(texts) and isinstance(tower, open_clip.CLIP) and tower.text_pool_type == "argmax":
        tokens = _shortened(tower, tokens)
    with torch.inference_mode():
        rows = [
            tower.encode_text(tokens[start : start + TEXTS_AT_ONCE]).float().numpy()
            for start in range(0, len(texts), TEXTS_AT_ONCE)
        ]
    return np.concatenate(rows) if rows else np.zeros((0, 0), np.float32)


def _shortened(tower: Any, tokens: Any) -> Any:
    """Cut tower and tokens [N, L] after the last text's end; names have ten of CLIP's 77 tokens.

    A text is read where it ends, and no token looks at a later one: what pads it makes no difference.
    """
    import torch

    length = int(tokens.argmax(dim=1).max()) + 1  # the end has the largest number of all tokens
    tower.positional_embedding = torch.nn.Parameter(tower.positional_embedding[:length])
    tower.attn_mask = tower.attn_mask[:length, :length]
    return tokens[:, :length]


def _tower(open_clip: Any, model: str, weights: Path | None) -> Any:
    facts: Mapping[str, Any] = open_clip.get_pretrained_cfg(model, PUBLISHED) or {}
    path = weights or _published(model, facts)
    try:
        # OpenAI's networks have another activation than open_clip's models of the same names.
        quick = bool(facts.get("quick_gelu"))
        with _no_random_warning():
            tower = open_clip.create_model(
                model, pretrained=None, pretrained_text=False, force_quick_gelu=quick, precision="fp32"
            )
        report = tower.load_state_dict(_tensors(path), strict=False)
    except Exception as error:  # open_clip and torch pass on whatever a file makes them raise
        raise WeightsError(
            f"these weights cannot be used for open_clip:{model}", where=path, fix=_local(facts)
        ) from error
    wrong = [key for key in report.missing_keys + report.unexpected_keys if not key.startswith(_NOT_TEXT)]
    if wrong:
        raise WeightsError(
            f"these weights do not fit open_clip:{model} ({len(wrong)} tensors, first {wrong[0]})",
            where=path,
            fix=_local(facts),
        )
    return tower.eval()


@contextmanager
def _no_random_warning() -> Iterator[None]:
    """open_clip warns on the root logger that a model has no weights yet; here it gets them next."""

    def wanted(record: logging.LogRecord) -> bool:
        return "initialized randomly" not in record.getMessage()

    root = logging.getLogger()
    root.addFilter(wanted)
    try:
        yield
    finally:
        root.removeFilter(wanted)


def _local(facts: Mapping[str, Any]) -> str:
    return _LOCAL.format(file=Path(facts["url"]).name if "url" in facts else "checkpoint")


def _tensors(path: Path) -> dict[str, Any]:
    """The tensors of a .safetensors file, a checkpoint, or one of OpenAI's TorchScript archives."""
    import torch
    from safetensors.torch import load_file

    if path.suffix == ".safetensors":
        content: Any = load_file(path)
    elif _is_script(path):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            content = torch.jit.load(str(path), map_location="cpu").state_dict()  # type: ignore[no-untyped-call]
    else:
        content = torch.load(path, map_location="cpu", weights_only=True)
    content = content.get("state_dict", content)
    return {name.removeprefix("module."): tensor for name, tensor in content.items()}


def _is_script(path: Path) -> bool:
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith("/constants.pkl") for name in archive.namelist())


def _published(model: str, facts: Mapping[str, Any]) -> Path:
    """The published weights: those that CLIP or open_clip downloaded before, or a download.

    Raises:
        WeightsError: they are not here and cannot be had.
    """
    if not facts:
        raise WeightsError(f"OpenAI published no weights for open_clip:{model}", fix=_local(facts))
    import huggingface_hub
    from open_clip.constants import HF_SAFE_WEIGHTS_NAME
    from open_clip.pretrained import download_pretrained

    # CLIP keeps its downloads here; the folder before the name in the address is the file's digest.
    digest, name = str(facts["url"]).split("/")[-2:]
    earlier = Path("~/.cache/clip").expanduser() / name
    if earlier.is_file() and sha256_file(earlier) == digest:
        return earlier
    repository = str(facts["hf_hub"]).strip("/")
    here = huggingface_hub.try_to_load_from_cache(repository, HF_SAFE_WEIGHTS_NAME)
    if isinstance(here, str):
        return Path(here)
    problem = (
        "HF_HUB_OFFLINE is set"
        if huggingface_hub.constants.HF_HUB_OFFLINE
        else _unreachable(huggingface_hub.hf_hub_url(repository, HF_SAFE_WEIGHTS_NAME))
    )
    if not problem:
        try:
            return Path(download_pretrained(facts))
        except Exception as error:  # whatever the downloader raises
            problem = str(error) or type(error).__name__
    raise WeightsError(
        f"the weights of open_clip:{model} cannot be downloaded ({problem:.200})", fix=_local(facts)
    )


def _unreachable(url: str) -> str:
    """Why an address cannot be read; empty if it can. Never takes much longer than ``PATIENCE`` seconds."""
    answer = [f"no answer within {PATIENCE:.0f} s"]

    def ask() -> None:
        try:
            request = urllib.request.Request(url, method="HEAD")
            with urllib.request.urlopen(request, timeout=PATIENCE):
                answer[0] = ""
        except (OSError, ValueError) as error:
            answer[0] = str(error)

    # Looking up a name knows no time limit, a thread that is waited for does.
    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(PATIENCE)
    return answer[0]
