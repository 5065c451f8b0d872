"""Random init, warm start, and shrink and perturb in an Avalanche loop, with one plugin that starts each experience.

Half of the digits arrive, then all of them. Avalanche's Naive trains each experience until 99 % of its training samples
are classified correctly. Offline, under a minute:

    python examples/avalanche_plugin.py
"""

import warnings

import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # Avalanche's own imports
    from avalanche.benchmarks import benchmark_from_datasets
    from avalanche.benchmarks.utils import as_classification_dataset
    from avalanche.evaluation.metrics import accuracy_metrics
    from avalanche.training.plugins import EvaluationPlugin
    from avalanche.training.supervised import Naive

from warmstart_sim import ShrinkPerturb
from warmstart_sim.avalanche import ConvergencePlugin, StrategyPlugin, training_metrics

SEEDS = range(3)
STRATEGIES = {
    "random init": "random_init",
    "warm start": "warm_start",
    "shrink and perturb": ShrinkPerturb(0.4, 0.1),
}


def dataset(images, labels):
    tensors = torch.utils.data.TensorDataset(torch.as_tensor(images / 16, dtype=torch.float32), torch.as_tensor(labels))
    tensors.targets = labels.tolist()
    return as_classification_dataset(tensors)


def half_then_all():
    images, labels = load_digits(return_X_y=True)
    images, test_images, labels, test_labels = train_test_split(images, labels, test_size=0.5, random_state=0)
    half = len(images) // 2
    return benchmark_from_datasets(
        train=[dataset(images[:half], labels[:half]), dataset(images, labels)], test=[dataset(test_images, test_labels)]
    )


def trained(benchmark, start, seed):
    """Returns (test accuracy, train seconds, epochs) of the last experience."""
    torch.manual_seed(seed)
    model = torch.nn.Sequential(
        torch.nn.Linear(64, 100), torch.nn.ReLU(), torch.nn.Linear(100, 100), torch.nn.ReLU(), torch.nn.Linear(100, 10)
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about missing loggers
        evaluator = EvaluationPlugin(accuracy_metrics(stream=True), training_metrics(), loggers=[])
    naive = Naive(
        model=model, optimizer=torch.optim.Adam(model.parameters()), train_mb_size=32, eval_mb_size=256,
        plugins=[StrategyPlugin(start, seed=seed), ConvergencePlugin(0.99)], evaluator=evaluator,
    )  # fmt: skip
    for experience in benchmark.train_stream:
        found = naive.train(experience, eval_streams=[])
    found = naive.eval(benchmark.test_stream)
    last = "train_phase/train_stream/Exp001"
    return (
        found["Top1_Acc_Stream/eval_phase/test_stream"],
        found[f"Train_Seconds_Exp/{last}"],
        found[f"Train_Epochs_Exp/{last}"],
    )


def main(seeds=SEEDS):
    benchmark = half_then_all()
    print(f"{'start of the second experience':32}{'test accuracy':>14}{'train seconds':>15}{'epochs':>8}")
    for label, start in STRATEGIES.items():
        runs = torch.tensor([trained(benchmark, start, seed) for seed in seeds], dtype=torch.float64)
        accuracy, seconds, epochs = runs.mean(0).tolist()
        print(f"{label:32}{accuracy:14.3f}{seconds:15.2f}{epochs:8.1f}")


if __name__ == "__main__":
    main()
