"""A simulated CUDA device for machines without one: it computes on the CPU, and enforces the rules of CUDA.

    with fake_cuda(devices=1) as machine:
        ...  # torch.cuda is there, and tensors can be on "cuda:0"
    assert not machine.reports

Every tensor is a CPU tensor whose memory has a label, the device on which it would be. Kernels compute for real, so
that a whole run (stop rules, checkpoints, slots) with `device="cuda:0"` can be compared with the CPU's.

| module       | what it enforces                                                                                     |
|--------------|------------------------------------------------------------------------------------------------------|
| placement.py | operators refuse tensors of two devices, and of a device and the host                                |
| modes.py     | what makes the host wait is counted by line of code, and is refused during a capture                  |
| machine.py   | streams: memory that two streams use without an order between them, or that is freed while another   |
|              | stream uses it, is reported; copies into pinned memory deliver their values only when something that  |
|              | comes after them was waited for                                                                      |
| graphs.py    | a capture executes nothing; a replay repeats the same operators on the same addresses, whatever has  |
|              | become of the tensors; a graph's own memory is garbage between replays; graphs of one pool may not   |
|              | overlap; generators must be registered; a pool cannot be reused while memory of its dead graphs lives |
| torch_cuda.py| several devices: events and streams belong to the one that is current; TF32 rounds products where    |
|              | the flag says so when a kernel is launched or captured                                               |

Violations that CUDA answers with an error raise one; those that it answers with wrong numbers are in `reports`.

What it cannot see: kernels of a GPU (cuDNN and its choice of algorithms, fused recurrent layers, their rounding and
determinism, the memory formats that they prefer), CUDA's own limits within a capture, which stream a backward pass
runs in, memory in bytes and fragmentation, device-side asserts, and any speed.
"""

from tests.fake_cuda.machine import Machine
from tests.fake_cuda.torch_cuda import fake_cuda

__all__ = ["Machine", "fake_cuda"]
