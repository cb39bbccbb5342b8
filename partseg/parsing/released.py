"""Names of tensors in the files that the authors of DINOv2 and DINOv3 released.

timm runs the same networks under names of its own. DINO's names are timm's, and so are those of DINOv2
without registers, but for a token that only training needs.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from timm.models.eva import Eva
from torch import Tensor

from partseg.errors import WeightsError
from partseg.parsing.forward import Transformer

# Needed by training only, or made anew by timm.
_UNUSED = ("mask_token", "bias_mask", "rope_embed.periods", "local_cls_norm.weight", "local_cls_norm.bias")
# Of networks with gated layers: (released, timm's), the first that is in a name applies.
_DINOV2 = (("mlp.w12.", "mlp.fc1."), ("mlp.w3.", "mlp.fc2."))
_DINOV3 = (
    ("storage_tokens", "reg_token"),
    ("ls1.gamma", "gamma_1"),
    ("ls2.gamma", "gamma_2"),
    ("mlp.w1.", "mlp.fc1_g."),
    ("mlp.w2.", "mlp.fc1_x."),
    ("mlp.w3.", "mlp.fc2."),
)


def timm_names(tensors: Mapping[str, Tensor], model: Transformer, where: Path) -> dict[str, Tensor]:
    """Released tensors under timm's names; those that have them already stay as they are.

    Args:
        tensors: what the file holds.
        model: timm's model that they are for.
        where: the file, for messages.

    Raises:
        WeightsError: the file has biases that the model leaves out.
    """
    kept = {name: value for name, value in tensors.items() if not name.endswith(_UNUSED)}
    if isinstance(model, Eva):
        return _split_biases({_renamed(k, _DINOV3): v for k, v in kept.items()}, model, where)
    if "register_tokens" in kept:
        # timm keeps the position of the class token in that token, and registers have none.
        kept["reg_token"] = kept.pop("register_tokens")
        positions = kept.pop("pos_embed")
        kept["cls_token"] = kept["cls_token"] + positions[:, :1]
        kept["pos_embed"] = positions[:, 1:]
    return {_renamed(name, _DINOV2): value for name, value in kept.items()}


def _renamed(name: str, rules: tuple[tuple[str, str], ...]) -> str:
    for released, ours in rules:
        if released in name:
            return name.replace(released, ours)
    return name


def _split_biases(tensors: dict[str, Tensor], model: Eva, where: Path) -> dict[str, Tensor]:
    """Biases as timm has them: of queries and of values, or none. That of keys is masked out as released."""
    wanted = model.state_dict().keys()
    result = {}
    for name, value in tensors.items():
        if not name.endswith("attn.qkv.bias") or name in wanted:
            result[name] = value
            continue
        query, _, values = value.chunk(3)
        stem = name.removesuffix("qkv.bias")
        if f"{stem}q_bias" in wanted:
            result |= {f"{stem}q_bias": query, f"{stem}v_bias": values}
        elif query.any() or values.any():
            raise WeightsError(
                f"{name} is not zero, and this model has no such bias",
                where=where,
                fix="choose timm's model whose name has _qkvb",
            )
    return result
