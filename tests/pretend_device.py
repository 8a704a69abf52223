"""A device that is not the CPU, for machines that have none: torch's "meta", with numbers in it.

Its tensors lie in the CPU's memory, and what a GPU would not do is refused: operations on tensors
of both devices, generators of the other one, `numpy()`. Kernels, precision and speed are the CPU's.
Numbers that nobody has set are nan. Models of transformers are loaded unwatched, on the CPU.
It lets pass what a GPU does not: a single number of the CPU, stacked or added to in place.
"""

from __future__ import annotations

import importlib
import math
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_leaves, tree_map
from transformers import PreTrainedModel

DEVICE = torch.device("meta")
OF_THE_CPU = torch.Generator
aten = torch.ops.aten
UNSET = {
    aten.empty.memory_format, aten.empty_like.default, aten.empty_strided.default,
    aten.new_empty.default, aten.new_empty_strided.default,
}  # fmt: skip
TAKE_BOTH = {aten.copy_.default, aten._to_copy.default, aten.set_.source_Tensor}
MAKES_TENSORS = ((torch, "tensor"), (torch, "as_tensor"), (safetensors.torch, "load_file"))
"""In C++ or Rust, unseen by a dispatch mode: on a meta device they would hold nothing."""
CHOOSES = ("prefrl.run", "prefrl.refit", "prefrl.loop.hardware")
LOADS = ("prefrl.loop.saving", "prefrl.rewards.model", "prefrl.language.trainer")


class There(Tensor):
    """A tensor on the device."""

    held: Tensor
    """On the CPU, what is in it."""
    is_meta = False  # to torch, "meta" is where nothing can be copied to

    @staticmethod
    def __new__(cls, held: Tensor) -> There:
        made = Tensor._make_wrapper_subclass(
            cls,
            held.size(),
            strides=held.stride(),
            storage_offset=held.storage_offset(),
            dtype=held.dtype,
            layout=held.layout,
            device=DEVICE,
        )
        made.held = held
        return made

    def __getitem__(self, index: Any) -> Any:
        return super().__getitem__(moved(index))

    def __setitem__(self, index: Any, value: Any) -> None:
        super().__setitem__(moved(index), value)

    def tolist(self) -> Any:
        return self.cpu().tolist()

    def numpy(self, **_: Any) -> np.ndarray:
        raise TypeError("a tensor of the device cannot be converted to numpy: .cpu() first")

    __array__ = numpy

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        raise RuntimeError(f"{func}: outside of `pretended_device`")


def moved(index: Any) -> Any:
    """Lists, arrays and tensors of the CPU go to the device, as torch has it for indices."""
    if isinstance(index, tuple):
        return tuple(moved(part) for part in index)
    if isinstance(index, (list, np.ndarray)):
        index = torch.tensor(index)
    return index.to(DEVICE) if isinstance(index, Tensor) else index


class Pretended(TorchDispatchMode):
    """Runs every operation on the CPU, and refuses those that mix devices."""

    def __init__(self) -> None:
        super().__init__()
        self.generators: list[torch.Generator] = []
        """Those of the device."""
        self.gradients = 0
        """Backward operations on the device so far."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        leaves = tree_leaves((args, kwargs))
        there = [x for x in leaves if isinstance(x, There)]
        here = [x for x in leaves if isinstance(x, Tensor) and not isinstance(x, There)]
        if any(x.device == DEVICE for x in here):
            raise RuntimeError(f"{func}: a tensor that was made unseen, and holds no numbers")
        if there and func not in TAKE_BOTH and any(x.dim() for x in here):
            shapes = [tuple(x.shape) for x in here]
            raise RuntimeError(f"{func}: tensors of two devices, on the CPU those of {shapes}")
        if "device" in kwargs and kwargs["device"] is not None:
            on_device = torch.device(kwargs["device"]).type == DEVICE.type
            kwargs["device"] = torch.device("cpu")
        elif func is aten.copy_.default:
            on_device = isinstance(args[0], There)
        else:
            on_device = bool(there)
        self._check_generators(func, leaves, on_device)
        self.gradients += on_device and "backward" in str(func)
        args, kwargs = tree_map(lambda x: x.held if isinstance(x, There) else x, (args, kwargs))
        out = func(*args, **kwargs)
        if func in UNSET and out.is_floating_point():
            out.fill_(math.nan)  # or whoever reads it would get by on some days
        return tree_map(wrapped, out) if on_device else out

    def _check_generators(self, func: Any, leaves: Sequence[Any], on_device: bool) -> None:
        ours = {generator._cdata for generator in self.generators}  # type: ignore[attr-defined]
        for x in leaves:
            if isinstance(x, OF_THE_CPU) and (x._cdata in ours) != on_device:  # type: ignore[attr-defined]
                raise RuntimeError(f"{func}: a generator of another device")


def wrapped(x: Any) -> Any:
    return There(x) if isinstance(x, Tensor) and not isinstance(x, There) else x


def sent_on(make: Callable[..., Any]) -> Callable[..., Any]:
    """`make`, on the CPU, and what it has made then goes to `device`."""

    def made(*args: Any, device: Any = None, **about: Any) -> Any:
        out = make(*args, **about)
        return out if device is None else tree_map(lambda x: x.to(device), out)

    return made


@contextmanager
def pretended_device(monkeypatch: pytest.MonkeyPatch) -> Iterator[Pretended]:
    """Inside, `--device auto` is the pretended one."""
    mode = Pretended()

    class Generator(OF_THE_CPU):  # type: ignore[misc]
        def __new__(cls, device: Any = "cpu") -> Any:
            made = OF_THE_CPU.__new__(cls)
            if torch.device(device).type == DEVICE.type:
                mode.generators.append(made)
            return made

    monkeypatch.setattr(torch, "Generator", Generator)
    for module, name in MAKES_TENSORS:
        monkeypatch.setattr(module, name, sent_on(getattr(module, name)))
    for name in LOADS:
        monkeypatch.setattr(importlib.import_module(name), "load_file", safetensors.torch.load_file)
    for name in CHOOSES:
        monkeypatch.setattr(importlib.import_module(name), "choose_device", lambda _: DEVICE)
    monkeypatch.setattr(
        sys.modules["torch.optim.optimizer"],
        "_get_fused_kernels_supported_devices",
        lambda: ["cpu", DEVICE.type],
    )
    load = PreTrainedModel.from_pretrained.__func__  # type: ignore[attr-defined]

    def loaded(cls: Any, *args: Any, **about: Any) -> Any:
        with _disable_current_modes():  # on the CPU first, and "meta" is what transformers means
            return load(cls, *args, **about)

    monkeypatch.setattr(PreTrainedModel, "from_pretrained", classmethod(loaded))
    with mode:
        yield mode
