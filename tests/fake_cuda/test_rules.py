"""Each rule of the simulated device, on a few numbers."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from tests.fake_cuda import Machine, fake_cuda

HERE = "cuda:0"


@pytest.fixture
def machine() -> Iterator[Machine]:
    with fake_cuda(devices=2) as machine:
        yield machine


def captured(work, generators=(), pool=None, stream=None) -> torch.cuda.CUDAGraph:
    graph = torch.cuda.CUDAGraph()
    for generator in generators:
        graph.register_generator_state(generator)
    with torch.cuda.graph(graph, pool, stream):
        work()
    return graph


# Placement


def test_tensors_say_where_they_are(machine):
    here = torch.ones(3, device=HERE)
    assert here.is_cuda
    assert str(here[1:].device) == str((here + 1).device) == str(torch.nn.Parameter(here).device) == HERE
    assert here.cpu().device.type == torch.ones(3).device.type == "cpu"
    assert str(torch.ones(3).to("cuda:1").device) == "cuda:1"
    with torch.cuda.device(1):
        assert str(torch.ones(3, device="cuda").device) == "cuda:1"


@pytest.mark.parametrize("other", ["cpu", "cuda:1"])
def test_an_operator_refuses_tensors_of_two_devices(machine, other):
    with pytest.raises(RuntimeError, match="different devices"):
        torch.ones(3, device=HERE) + torch.ones(3, device=other)


def test_a_number_of_the_host_goes_everywhere(machine):
    assert (torch.ones(3, device=HERE) * torch.tensor(2.0)).tolist() == [2.0] * 3


def test_numpy_refuses_a_tensor_of_a_device(machine):
    with pytest.raises(TypeError, match="can't convert cuda"):
        torch.ones(3, device=HERE).numpy()


# Waits

WAITING = {
    "item": lambda x: x.sum().item(),
    "tolist": lambda x: x.tolist(),
    "float": lambda x: float(x.sum()),
    "bool": lambda x: bool((x > 0).any()),
    "cpu": lambda x: x.cpu(),
    "mask": lambda x: x[x > 0],
    "nonzero": lambda x: x.nonzero(),
    "indices of the host": lambda x: x[torch.tensor([0, 1])],
    "pageable memory": lambda x: torch.ones(3).to(x.device),
    "a list": lambda x: torch.tensor([1.0, 2.0], device=x.device),
    "synchronize": lambda x: torch.cuda.synchronize(),
}


@pytest.mark.parametrize("what", WAITING)
def test_what_waits_is_counted_and_refused_in_a_capture(machine, what):
    x = torch.ones(3, device=HERE)
    before = machine.waits.total()
    WAITING[what](x)
    assert machine.waits.total() == before + 1
    with pytest.raises(RuntimeError, match="previous error during capture"):
        captured(lambda: WAITING[what](x))
    assert machine.captures == 0


def test_nothing_else_waits(machine):
    x = torch.ones(3, device=HERE)
    torch.ones(3).pin_memory().to(HERE, non_blocking=True)
    (x.sum() + x[1:].mean()).sqrt()
    x.index_select(0, torch.zeros(2, dtype=torch.int64, device=HERE))
    assert not machine.waits


def test_pinned_memory_holds_its_values_only_after_a_wait(machine):
    values = torch.zeros(2, pin_memory=True)
    values.copy_(torch.tensor([1.0, 2.0], device=HERE), non_blocking=True)
    event = torch.cuda.Event()
    event.record()
    assert not event.query()
    assert all(number != number for number in values.tolist())  # not a number
    assert len(machine.reports) == 1
    event.synchronize()
    assert values.tolist() == [1.0, 2.0]
    assert len(machine.reports) == 1


# Streams


def test_two_streams_need_an_order(machine):
    one, other = torch.cuda.Stream(), torch.cuda.Stream()
    x = torch.ones(3, device=HERE)
    one.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(one):
        x.add_(1)
    assert not machine.reports
    with torch.cuda.stream(other):
        x.add_(1)
    assert any("race" in report for report in machine.reports)
    machine.reports.clear()
    torch.cuda.current_stream().wait_stream(other)
    torch.cuda.current_stream().wait_stream(one)
    x.add_(1)
    torch.cuda.synchronize()
    with torch.cuda.stream(torch.cuda.Stream()):
        x.add_(1)  # the host knows that all is done
    assert not machine.reports


def test_two_streams_may_read_at_once(machine):
    x = torch.ones(3, device=HERE)
    torch.cuda.synchronize()
    for _ in range(2):
        with torch.cuda.stream(torch.cuda.Stream()):
            x + 1
    assert not machine.reports


def test_memory_that_is_freed_while_another_stream_uses_it_is_reported(machine):
    x, stream = torch.ones(3, device=HERE), torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        x + 1
    del x
    assert any("freed in use" in report for report in machine.reports)


def test_events_and_streams_belong_to_the_current_device(machine):
    event = torch.cuda.Event()
    torch.ones(3, device="cuda:1")
    event.record()
    assert event.query()  # it says nothing of the other device
    event.record(torch.cuda.current_stream("cuda:1"))
    assert not event.query()


# Graphs


def test_a_capture_executes_nothing_and_a_replay_repeats_it_on_the_same_addresses(machine):
    values = {"rate": 2.0, "input": torch.ones(1, device=HERE), "weight": torch.ones(1, device=HERE)}
    output = torch.zeros(1, device=HERE)
    graph = captured(lambda: output.copy_(values["weight"] * values["input"] * values["rate"]))
    assert output.item() == 0.0
    values["rate"] = 3.0  # a Python number
    graph.replay()
    assert output.item() == 2.0
    values["input"].fill_(5.0)  # in place
    graph.replay()
    assert output.item() == 10.0
    values["input"] = torch.ones(1, device=HERE)  # another tensor
    with pytest.raises(RuntimeError, match="memory that was freed"):
        graph.replay()
    assert len(machine.reports) == 1


def test_a_replay_draws_anew_and_leaves_garbage_in_its_own_memory(machine):
    generator, output, kept = torch.Generator(HERE), torch.zeros(3, device=HERE), []

    def work() -> None:
        kept[:] = [torch.rand(3, generator=generator, device=HERE)]
        output.copy_(kept[0])

    graph = captured(work, [generator])
    for seed in (0, 1):
        generator.manual_seed(seed)
        graph.replay()
        expected = torch.rand(3, generator=torch.Generator().manual_seed(seed))
        assert output.tolist() == expected.tolist()
    assert kept[0].isnan().all()
    with pytest.raises(RuntimeError, match="previous error during capture"):
        captured(work)  # without its generator


def test_graphs_of_one_pool_must_not_overlap(machine):
    x, y = torch.zeros(3, device=HERE), torch.zeros(3, device=HERE)
    pool = torch.cuda.graph_pool_handle()
    graphs = [captured(lambda each=each: each.add_(1), pool=pool) for each in (x, y)]
    torch.cuda.synchronize()
    for graph in graphs:
        with torch.cuda.stream(torch.cuda.Stream()):
            graph.replay()
    assert any("memory that graphs share" in report for report in machine.reports)


def test_a_pool_cannot_be_used_again_while_memory_of_its_dead_graphs_lives(machine):
    x, pool, kept = torch.ones(3, device=HERE), torch.cuda.graph_pool_handle(), []
    graph = captured(lambda: kept.append(x + 1), pool=pool)
    captured(lambda: x.add_(1), pool=pool)  # while the first graph is there
    del graph
    with pytest.raises(RuntimeError, match="INTERNAL ASSERT"):
        captured(lambda: x.add_(1), pool=pool)
    kept.clear()
    captured(lambda: x.add_(1), pool=pool)


def test_a_captured_backward_pass_must_not_wait_either(machine):
    class Scaled(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.clone()

        @staticmethod
        def backward(ctx, gradient):
            return gradient * gradient.sum().item()

    weight = torch.ones(3, device=HERE).requires_grad_()
    with pytest.raises(RuntimeError, match="previous error during capture"):
        captured(lambda: Scaled.apply(weight).sum().backward())


def test_a_product_is_rounded_by_the_flag_at_its_capture(machine):
    precision = torch.backends.cuda.matmul
    a, output = torch.full((1, 1), 1 + 2**-12, device=HERE), torch.zeros(1, 1, device=HERE)
    precision.fp32_precision = "tf32"
    graph = captured(lambda: torch.mm(a, a, out=output))
    precision.fp32_precision = "ieee"
    graph.replay()
    assert output.item() == 1.0
    assert (a @ a).item() > 1.0
