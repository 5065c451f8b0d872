"""Trains an Avalanche benchmark in our engine, and converts a scenario to a benchmark. Offline, under a minute.

python examples/avalanche_benchmark.py
"""

import warnings

import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # Avalanche's own imports
    from avalanche.benchmarks import new_instances_benchmark
    from avalanche.benchmarks.utils import as_classification_dataset

import warmstart_sim
from warmstart_sim.avalanche import from_benchmark, to_benchmark


def dataset(images, labels):
    tensors = torch.utils.data.TensorDataset(torch.as_tensor(images / 16, dtype=torch.float32), torch.as_tensor(labels))
    tensors.targets = labels.tolist()
    return as_classification_dataset(tensors)


def main(seeds=(0, 1, 2), experiences=4, out=None):
    images, labels = load_digits(return_X_y=True)
    images, test_images, labels, test_labels = train_test_split(images, labels, test_size=0.5, random_state=0)
    theirs = new_instances_benchmark(
        dataset(images, labels), dataset(test_images, test_labels), num_experiences=experiences, seed=0
    )

    # Their benchmark in our engine: the data accumulate, and every arm of a seed sees the same batches.
    scenario = from_benchmark(theirs, name="digits_in_parts", model="mlp", seeds=list(seeds))
    results = warmstart_sim.run(scenario, out=out, quiet=True)
    last = results.rounds[results.rounds["round"] == experiences - 1]
    print(last.groupby("strategy")[["test_accuracy", "train_seconds", "epochs"]].mean().round(3).to_string(), "\n")

    # Our scenario as an Avalanche benchmark, with new samples only, as Cumulative and Replay expect.
    ours = to_benchmark("digits_online", seed=0, accumulate=False)
    for stream in ours.streams.values():
        sizes = [len(experience.dataset) for experience in stream]
        print(f"{stream.name}: {len(sizes)} experience{'s' * (len(sizes) > 1)} of {sorted(set(sizes))} samples")


if __name__ == "__main__":
    main()
