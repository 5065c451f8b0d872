"""What is known of torch's operators: which wait for the device, which launch a kernel, what they write."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import torch

from tests.fake_cuda.placement import tensors, with_tensors

aten = torch.ops.aten
# Their results decide what the host does next, or how much memory it allocates.
WAITS = {
    aten._local_scalar_dense, aten.item, aten.is_nonzero, aten.equal, aten.nonzero, aten.nonzero_static,
    aten.masked_select, aten._unique2, aten.unique_dim, aten.unique_consecutive, aten.bincount,
    aten.repeat_interleave,
}  # fmt: skip
INDEXES = {aten.index, aten.index_put, aten.index_put_, aten._index_put_impl_}
MOVES = {aten.copy_, aten._to_copy}
PRODUCTS = {aten.mm, aten.addmm, aten.bmm, aten.baddbmm}  # of cuBLAS
ROUNDED_BY_TF32 = PRODUCTS | {aten.convolution, aten.convolution_backward}
NO_KERNEL = {aten.empty, aten.empty_like, aten.empty_strided, aten.new_empty, aten.new_empty_strided, aten.detach,
             aten._unsafe_view}  # fmt: skip


def waits(operator: Any, args: Sequence[Any]) -> bool:
    """Whether the host waits for its result; an index by a mask does, because the mask decides the shape."""
    packet = operator.overloadpacket
    return packet in WAITS or (
        packet in INDEXES and any(each.dtype in (torch.bool, torch.uint8) for each in tensors(args[1]))
    )


@cache
def launches(operator: Any) -> bool:
    """Whether it launches a kernel: views and allocations do not."""
    views = any(each.alias_info and not each.alias_info.is_write for each in operator._schema.returns)
    return not views and operator.overloadpacket not in NO_KERNEL


def written(operator: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> list[torch.Tensor]:
    """The arguments that it changes in place."""
    names = _written_names(operator)
    return tensors([args[k] if k < len(args) else kwargs.get(name) for k, name in names]) if names else []


@cache
def _written_names(operator: Any) -> list[tuple[int, str]]:
    arguments = enumerate(operator._schema.arguments)
    return [(k, each.name) for k, each in arguments if each.alias_info and each.alias_info.is_write]


def rounded_as_tf32(args: Any) -> Any:
    """Arguments of a product or convolution with floats rounded to ten bits, as tensor cores read them."""
    return with_tensors(_rounded, args)


def _rounded(tensor: torch.Tensor) -> torch.Tensor:
    if tensor.dtype != torch.float32:
        return tensor
    return (tensor.detach().contiguous().view(torch.int32) + 0x1000 & ~0x1FFF).view(torch.float32).view_as(tensor)
