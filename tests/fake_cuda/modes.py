"""Torch's two modes see every call: functions in Python, and the operators that functions, backward passes and
optimisers call.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from tests.fake_cuda import operators
from tests.fake_cuda.machine import Machine, line
from tests.fake_cuda.operators import aten
from tests.fake_cuda.placement import HOST, is_pinned, label, name, on_cuda, pin, place, storage, tensors

FROM_HOST = (torch.tensor, torch.as_tensor, torch.asarray)
PROPERTIES = {getattr(torch.Tensor, each).__get__: each for each in ("device", "is_cuda", "is_cpu")}


class Functions(TorchFunctionMode):
    """Where tensors are asked to be, where they say they are, and what only Python sees of waiting."""

    def __init__(self, machine: Machine) -> None:
        super().__init__()
        self._machine = machine

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if self._machine.is_paused:
            return function(*args, **kwargs)
        called = getattr(function, "__name__", "")
        if called == "__get__" and function in PROPERTIES:
            device = label(args[0]) or HOST
            asked = PROPERTIES[function]
            return device if asked == "device" else (device.type == "cuda") == (asked == "is_cuda")
        if called in ("tolist", "numpy", "__array__"):
            self._read_on_host(args[0], called)
        elif called in ("to", "cpu", "cuda"):
            return self._moved(function, called, args[0], list(args[1:]), kwargs)
        elif called == "pin_memory":
            return pin(args[0])
        elif called == "__deepcopy__":
            return place(function(*args, **kwargs), label(args[0]) or HOST)
        return self._made(function, args, kwargs)

    def _made(self, function: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        """Calls it on the CPU, and places a new tensor: where `device=` says, or where the arguments are."""
        device, pinned = kwargs.get("device"), kwargs.pop("pin_memory", False)
        if device is not None:
            device, kwargs["device"] = self._machine.device(device), HOST
        result = function(*args, **kwargs)
        if not isinstance(result, torch.Tensor) or result.is_meta:
            return result
        if device is not None:
            place(result, device)
            if device.type == "cuda":
                self._made_on_device(function, result, device)
        elif label(result) is None:
            places = {label(each) for each in tensors((args, kwargs))} - {None, HOST}
            place(result, places.pop() if places else HOST)
        return pin(result) if pinned else result

    def _made_on_device(self, function: Any, result: torch.Tensor, device: torch.device) -> None:
        if function in FROM_HOST:
            self._machine.wait("copy pageable host memory to device", self._machine.stream(device))
        if self._machine.capture is None:
            self._machine.used(
                self._machine.use_of(storage(result), name(result)), self._machine.launch(device), writes=True
            )

    def _read_on_host(self, tensor: torch.Tensor, how: str) -> None:
        if hasattr(storage(tensor), "awaits_copy"):
            self._machine.report(f"pinned memory is read ({how}) before the copy into it is known to be done")
        if on_cuda(tensor):
            if how != "tolist":
                raise TypeError("can't convert cuda tensor to numpy")
            self._machine.wait(how, self._machine.stream(label(tensor)))

    def _moved(
        self, function: Any, called: str, tensor: torch.Tensor, args: list[Any], kwargs: dict[str, Any]
    ) -> torch.Tensor:
        """`tensor.to(...)`, `.cpu()` and `.cuda()`: a copy if the device changes."""
        machine, source = self._machine, label(tensor) or HOST
        wanted: Any = {"cpu": HOST, "cuda": "cuda"}.get(called, kwargs.get("device"))
        for k, each in enumerate(args if called == "to" else ()):
            if isinstance(each, (torch.device, str)):
                wanted, args[k] = each, HOST
            elif isinstance(each, torch.Tensor):
                wanted = label(each) or HOST
        device = source if wanted is None else machine.device(wanted)
        if device == source:
            if called != "to":
                return tensor
            if "device" in kwargs:
                kwargs["device"] = HOST
            result = function(tensor, *args, **kwargs)
            return result if label(result) else place(result, source)
        dtype = next((each for each in args if isinstance(each, torch.dtype)), kwargs.get("dtype", tensor.dtype))
        with machine.paused():
            result = place(tensor.detach().to(dtype, copy=True), device)
        cuda, memory = (device, result) if device.type == "cuda" else (source, tensor)
        machine.used(machine.use_of(storage(memory), name(memory)), machine.launch(cuda), writes=memory is result)
        if source.type == "cuda" or not (kwargs.get("non_blocking") and is_pinned(tensor)):
            way = "device to host" if source.type == "cuda" else "pageable host memory to device"
            machine.wait(f"copy {way}", machine.stream(cuda))
        return result.requires_grad_(tensor.requires_grad)


class Operators(TorchDispatchMode):
    """Placement, waits, the order of streams, and the log of a capture."""

    def __init__(self, machine: Machine) -> None:
        super().__init__()
        self._machine = machine

    def __torch_dispatch__(self, operator: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if self._machine.is_paused or operator.namespace != "aten":
            return operator(*args, **kwargs)
        given = tensors((args, kwargs))
        devices = {label(each) for each in given} - {None, HOST}
        if not devices:
            return self._on_host(operator, args, kwargs, given)
        if len(devices) > 1:
            raise RuntimeError(f"tensors are on different devices: {devices}, {operator}, {line()}")
        (device,) = devices
        if operator.overloadpacket is aten.copy_:
            return self._copied(operator, args, kwargs, device)
        self._check(operator, args, given, device)
        return self._called(operator, args, kwargs, device)

    def _on_host(self, operator: Any, args: Any, kwargs: Any, given: list[torch.Tensor]) -> Any:
        """Without a tensor of a device: work on the host, or what a composite operator makes on its way."""
        made_by_composite = not any(label(each) == HOST for each in given)
        if made_by_composite and self._machine.capture is not None:
            return self._machine.capture.run(operator, args, kwargs, tf32=False)
        result = operator(*args, **kwargs)
        if given and not made_by_composite:
            for each in tensors(result):
                if label(each) is None:
                    place(each, HOST)
        return result

    def _check(self, operator: Any, args: Any, given: list[torch.Tensor], device: torch.device) -> None:
        """Refuses arrays of the host, and waits where the operator does."""
        machine, packet = self._machine, operator.overloadpacket
        on_host = any(label(each) == HOST and each.ndim for each in given)
        if on_host and packet in operators.INDEXES:
            machine.wait("indices on the host", machine.stream(device))
        elif on_host and packet not in operators.MOVES:
            raise RuntimeError(f"tensors are on different devices: {device} and cpu, {operator}, {line()}")
        if operators.waits(operator, args):
            machine.wait(str(packet), machine.stream(device))

    def _called(self, operator: Any, args: Any, kwargs: Any, device: torch.device) -> Any:
        machine = self._machine
        tf32 = operator.overloadpacket in operators.ROUNDED_BY_TF32 and _uses_tf32(operator)
        if machine.capture is not None:
            if machine.stream(device) != machine.capture.stream:
                machine.report("a kernel outside the stream that is being captured")
            result = machine.capture.run(operator, args, kwargs, tf32=tf32)
        else:
            result = operator(*(operators.rounded_as_tf32(args) if tf32 else args), **kwargs)
        for each in tensors(result):
            if label(each) is None:
                place(each, device)
        if operators.launches(operator) and machine.capture is None:
            self._note_uses(operator, args, kwargs, result, device)
        return result

    def _note_uses(self, operator: Any, args: Any, kwargs: Any, result: Any, device: torch.device) -> None:
        machine = self._machine
        moment = machine.launch(device)
        machine.launches += 1
        results = tensors(result)
        changed = {id(storage(each)) for each in (*operators.written(operator, args, kwargs), *results)}
        used = {id(storage(each)): each for each in (*tensors((args, kwargs)), *results) if on_cuda(each)}
        for key, each in used.items():
            machine.used(machine.use_of(storage(each), name(each)), moment, writes=key in changed)
        if operator.overloadpacket in operators.PRODUCTS:
            machine.used(machine.workspace(moment[0]), moment, writes=True)

    def _copied(self, operator: Any, args: Any, kwargs: Any, device: torch.device) -> Any:
        """`target.copy_(source)`: the host waits unless the copy is non-blocking and its side of it is pinned."""
        machine = self._machine
        target, source = args[:2]
        non_blocking = kwargs.get("non_blocking", args[2] if len(args) > 2 else False)
        if label(target) is None:
            place(target, device)
        ends = [each for each in (target, source) if not on_cuda(each)]
        a_number = label(source) is None and source.ndim == 0
        if ends and not a_number:
            if not (non_blocking and is_pinned(ends[0])):
                machine.wait("copy between the device and pageable host memory", machine.stream(device))
            elif ends[0] is target:
                moment = machine.launch(device)
                machine.used(machine.use_of(storage(source), name(source)), moment, writes=False)
                machine.copy_to_pinned(target, source, moment)
                return target
        return self._called(operator, args, kwargs, device)


def _uses_tf32(operator: Any) -> bool:
    backends: Any = torch.backends
    library = backends.cuda.matmul if operator.overloadpacket in operators.PRODUCTS else backends.cudnn.conv
    return library.fp32_precision == "tf32"
