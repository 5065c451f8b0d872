"""A mistake in a scenario ends in one line: the file, the key, what was found, what is allowed, the nearest match."""

from __future__ import annotations

import pytest

from warmstart_sim import registry
from warmstart_sim import scenario as scenarios
from warmstart_sim.errors import WarmstartError
from warmstart_sim.scenario import parsing

inf, nan = float("inf"), float("nan")
SECTIONS = f"(allowed here: {', '.join(parsing.SECTIONS)})"
DATA = "(allowed here: name, validation_fraction, normalize, train_samples, test_samples, label_noise"
DATA_KEYS, ARRAYS_KEYS = f"{DATA})", f"{DATA}, path, classes, test_fraction, arrival)"
CHUNK_KEYS = "(allowed here: name, rounds, changes, chunk_size, order)"
TRAINING_KEYS = (
    "(allowed here: optimizer, schedule, batch_size, bucketing, until, precision, compile, threads, report, "
    "optimizer_state, later_rounds)"
)
OPTIMIZER_KEYS = "(allowed here: name, lr, momentum, weight_decay, decay_biases)"
ANALYSES = f"(there are: {', '.join(registry.ANALYSES.names())})"
PARTS = f"(there are: {', '.join(registry.PARTS.names())})"
NOT_NEGATIVE = "(allowed: a number >= 0)"
ONE_TABLE = "a run has one table of each analysis"
GAP_KEYS = "(allowed here: axis, to)"
LAMBDAS = "accuracy_against_lambda.lambdas"
ARM = f"(allowed here: start, stages, model, training, {', '.join(registry.PARTS.names())}"
ARM_KEYS, SHRINK_KEYS = f"{ARM})", f"{ARM}, lambda, sigma, noise, parameters, buffers, affine)"
RANDOM_KEYS = f"{ARM}, draw)"
AUGMENT_KEYS = "(allowed here: random_crop, horizontal_flip, color_jitter, rotation, enlarged_crop)"
NAMES = ", ".join(registry.STRATEGIES.names())
STARTS = f"(there are: {NAMES})"
LABEL = f"(a label of your own needs `start:` with one of {NAMES})"
PROBES = f"(there are: {', '.join(registry.PROBES.names())})"
STREAMS = f"(there are: {', '.join(registry.STREAMS.names())})"
MODELS = f"(there are: {', '.join(registry.MODELS.names())})"
ACTIVATIONS = "(allowed: 'tanh', 'relu', 'aid', 'crelu')"
ROTATION = "(allowed: true or false or a number >= 0 and <= 180)"
OPTIMIZERS = "(allowed: 'adam', 'adamw', 'sgd')"
SEEDS = "(allowed: a list of one or more, each a whole number >= 0)"
WIDTHS = "(allowed: a list of one or more, each a whole number >= 1)"
REPEATS = WIDTHS.replace("a list", "a whole number >= 1 or a list")
SHAPE = "(allowed: a list of 3, each a whole number > 0)"
ROW = "text that matches ^[A-Z]-[A-Z]+[0-9]*[a-z]?$"
SAMPELS = "unknown key; did you mean 'samples'? (allowed here: every, samples)"
EVERY = "gradient_norm.every"
AT_LEAST_1 = "(allowed: a whole number >= 1)"
SIZE = "(allowed: a whole number > 0 or a list of 2, each a whole number > 0)"
RULES = "train_accuracy, running_accuracy, plateau, validation_patience, epochs, steps"
VALIDATION = "needs validation data; set data.validation_fraction above 0"

# What is put at which key, and what the line says after the file's name; ~ stands for the key.
MISTAKES = [
    # The head of the file.
    ("naem", "x", f"~: unknown key; did you mean 'name'? {SECTIONS}"),
    ("name", 5, "~: found 5 (allowed: text that matches ^[A-Za-z0-9][A-Za-z0-9._-]*$)"),
    ("name", "a/b", "~: found 'a/b' (allowed: text that matches ^[A-Za-z0-9][A-Za-z0-9._-]*$)"),
    ("title", 3, "~: found 3 (allowed: text)"),
    ("reproduces", "A-F2", f"~: found 'A-F2' (allowed: a list, each {ROW})"),
    ("reproduces", ["A-F2", "Figure 2"], f"~[1]: found 'Figure 2' (allowed: {ROW})"),
    ("scenario", "static", "~: is called `stream` now"),
    ("rows", ["A-F2"], "~: is called `reproduces` now"),
    ("vary", {"scenario.chunk_size": [1, 2]}, "~.scenario.chunk_size: `scenario` is called `stream` now"),
    ("vary", {"a": {"b": {"scenario": "static"}}}, "~.a.b.scenario: `scenario` is called `stream` now"),
    ("seeds", [], f"~: found [] {SEEDS}"),
    ("seeds", 5, f"~: found 5 {SEEDS}"),
    ("seeds", [1, 1], "~: [1, 1] has a seed twice; each must be given once"),
    ("seeds", [0, -1], "~[1]: found -1 (allowed: a whole number >= 0)"),
    ("seeds", [True], "~[0]: found true (allowed: a whole number >= 0)"),
    ("seeds", [1.5], "~[0]: found 1.5 (allowed: a whole number >= 0)"),
    ("metric", "acc", "~: found 'acc' (allowed: 'validation_accuracy', 'test_accuracy')"),
    ("metric", "validation_accuracy", f"~: validation_accuracy {VALIDATION}"),
    ("measure.each_epoch", ["accurac"], f"~[0]: unknown probe 'accurac'; did you mean 'accuracy'? {PROBES}"),
    ("measure.each_epok", [], "~: unknown key; did you mean 'each_epoch'? (allowed here: each_epoch, each_round)"),
    ("measure.each_epoch", [{"gradient_norm": {"sampels": 3}}], f"~[0].gradient_norm.sampels: {SAMPELS}"),
    ("measure.each_round", [{"gradient_norm": {"every": 3}}], f"~[0].{EVERY}: unknown key (allowed here: samples)"),
    ("measure.each_epoch", [{"gradient_norm": {"every": 0}}], f"~[0].{EVERY}: found 0 {AT_LEAST_1}"),
    ("measure.each_epoch", [{"gradient_norm": 3}], "~[0].gradient_norm: found 3 (allowed: a mapping)"),
    ("measure.each_epoch", [{"a:b": {}, "c:d": {}}], "~[0]: expected a name, or one name with its options"),
    ("analyze", ["gap_against", "gap_against"], f"~: 'gap_against' is there twice; {ONE_TABLE}"),
    ("analyze", ["gap_agains"], f"~[0]: unknown analysis 'gap_agains'; did you mean 'gap_against'? {ANALYSES}"),
    ("analyze", [{"gap_against": {"axs": "x"}}], f"~[0].gap_against.axs: unknown key; did you mean 'axis'? {GAP_KEYS}"),
    ("analyze", [{"accuracy_against_lambda": {"lambdas": [-1]}}], f"~[0].{LAMBDAS}[0]: found -1 {NOT_NEGATIVE}"),
    # Data.
    ("data", None, "~: is missing"),
    ("data", [], "~: found [] (allowed: a name, or a mapping)"),
    ("data.name", 5, "~: found 5 (allowed: the name of a data set)"),
    ("data.naem", 5, f"~: unknown key; did you mean 'name'? {DATA_KEYS}"),
    ("data.validation_fraction", 1.0, "~: found 1.0 (allowed: a number >= 0 and < 1)"),
    ("data.validation_fraction", "0.5", "~: found '0.5' (allowed: a number >= 0 and < 1)"),
    ("data.train_samples", 0, "~: found 0 (allowed: a whole number > 0)"),
    ("data", {"name": "noisy_digits", "noise": -1}, "~.noise: found -1 (allowed: a number >= 0)"),
    ("data", {"name": "arrays"}, "~.path: is missing (expected a path)"),
    ("data", {"name": "arrays", "pth": "x.npz"}, f"~.pth: unknown key; did you mean 'path'? {ARRAYS_KEYS}"),
    ("data", {"name": "image_folder", "path": "x", "size": "3"}, f"~.size: found '3' {SIZE}"),
    ("data", {"name": "image_folder", "path": "x", "size": [3]}, f"~.size: found [3] {SIZE}"),
    ("data", {"name": "synthetic", "shape": [3, 8]}, f"~.shape: found [3, 8] {SHAPE}"),
    # Scenario and model.
    ("stream", [], "~: found [] (allowed: a name, or a mapping)"),
    ("stream", "onlin", f"~.name: unknown stream 'onlin'; did you mean 'online'? {STREAMS}"),
    ("stream.chunk_size", 0, "~: found 0 (allowed: a whole number >= 1)"),
    ("stream.chunksize", 9, f"~: unknown key; did you mean 'chunk_size'? {CHUNK_KEYS}"),
    ("stream.rounds", 0, "~: found 0 (allowed: a whole number > 0)"),
    ("stream.order", "random ", "~: found 'random '; did you mean 'random'? (allowed: 'random', 'balanced', 'given')"),
    ("model", "ResNet-18", f"~.name: unknown model 'ResNet-18'; did you mean 'resnet18'? {MODELS}"),
    ("model.widths", [], f"~: found [] {WIDTHS}"),
    ("model.widths", 8, f"~: found 8 {WIDTHS}"),
    ("model.widths", [8, 0], "~[1]: found 0 (allowed: a whole number >= 1)"),
    ("model.activation", "rleu", f"~: found 'rleu'; did you mean 'relu'? {ACTIVATIONS}"),
    ("model.bias", 1, "~: found 1 (allowed: true or false)"),
    ("model", "a:b:c", "~.name: found 'a:b:c'; your own model is named module:attribute"),
    ("model", ":build", "~.name: found ':build'; your own model is named module:attribute"),
    # Training.
    ("training", [], "~: found [] (allowed: a mapping)"),
    ("training.batchsize", 1, f"~: unknown key; did you mean 'batch_size'? {TRAINING_KEYS}"),
    ("training.batch_size", 0, "~: found 0 (allowed: a whole number > 0)"),
    ("training.batch_size", True, "~: found true (allowed: a whole number > 0)"),
    ("training.batch_size", "128", "~: found '128' (allowed: a whole number > 0)"),
    ("training.batch_size", [128], "~: found [128] (allowed: a whole number > 0)"),
    ("training.optimizer", "adam", "~: found 'adam' (allowed: a mapping)"),
    ("training.optimizer.name", "adm", f"~: found 'adm'; did you mean 'adam'? {OPTIMIZERS}"),
    ("training.optimizer.lr", 0, "~: found 0 (allowed: a number > 0)"),
    ("training.optimizer.lr", inf, "~: found inf (allowed: a finite number > 0)"),
    ("training.optimizer.lr", nan, "~: found nan (allowed: a finite number > 0)"),
    ("training.optimizer.moment", 0.9, f"~: unknown key; did you mean 'momentum'? {OPTIMIZER_KEYS}"),
    ("training.optimizer.momentum", 0.9, "training.optimizer: momentum is an option of sgd, not of adam"),
    ("training.schedule.every", 5, "training.schedule: every is an option of the step schedule, not of constant"),
    (
        "training.schedule.gamma",
        0.5,
        "training.schedule: gamma is an option of the step or reduce_on_plateau schedule, not of constant",
    ),
    (
        "training.schedule",
        {"name": "reduce_on_plateau"},
        "~: a reduce_on_plateau schedule needs `patience`, the epochs without an improvement",
    ),
    (
        "training.schedule",
        {"name": "reduce_on_plateau", "patience": 20},
        f"~: {VALIDATION} (strategy 'random_init')",
    ),
    ("training.schedule", {"name": "step"}, "~: a step schedule needs `every`, the epochs between two drops"),
    ("training.until", {}, f"~: needs at least one rule: {RULES}"),
    ("training.until", {"max_epochs": 3}, f"~: needs at least one rule: {RULES}"),
    ("training.until.train_accuracy", 99, "~: found 99 (allowed: a number > 0 and <= 1)"),
    ("training.until.plateau", True, "~: found true (allowed: a mapping)"),
    ("training.until.give_up", {"epochs": 2}, "~.below: is missing (expected a number > 0 and < 1)"),
    ("training.report", "best_validation", f"~: {VALIDATION} (strategy 'random_init')"),
    ("parts.augmentt", {}, f"~: unknown part 'augmentt'; did you mean 'augment'? {PARTS}"),
    ("strategies.random_init.stages", 2, "~: is for `stream: stages`; it is online"),
    ("training.until.validation_patience", 3, f"~: {VALIDATION} (strategy 'random_init')"),
    # Strategies.
    ("strategies", {}, f"~: there is none; there are: {NAMES}"),
    ("strategies", 5, "~: found 5 (allowed: a mapping of labels to options)"),
    ("strategies", ["a"], "~: found ['a'] (allowed: a mapping of labels to options)"),
    ("strategies.warm_strat", {}, f"~: unknown strategy 'warm_strat'; did you mean 'warm_start'? {LABEL}"),
    ("strategies.mine.start", "warm_strt", f"~: unknown strategy 'warm_strt'; did you mean 'warm_start'? {STARTS}"),
    ("strategies.mine.start", 5, "~: found 5 (allowed: the name of a strategy)"),
    ("strategies.mine", 5, "~: found 5 (allowed: a strategy's name, or a mapping)"),
    ("strategies.a/b", {}, "strategies: 'a/b' cannot be a label: a label is text without a slash"),
    ("strategies.shrink_perturb.lamda", 0.5, f"~: unknown key; did you mean 'lambda'? {SHRINK_KEYS}"),
    # Python's word for lambda is not one of the file's: with both there, one would win in silence.
    ("strategies.shrink_perturb.lam", 0.5, f"~: unknown key; did you mean 'lambda'? {SHRINK_KEYS}"),
    ("strategies.shrink_perturb.lambda", 1.5, "~: found 1.5 (allowed: a number >= 0 and <= 1)"),
    ("strategies.shrink_perturb.sigma", -0.1, "~: found -0.1 (allowed: a number >= 0)"),
    ("strategies.welsr", {"fraction": 1.1}, "~.fraction: found 1.1 (allowed: a number >= 0 and <= 1)"),
    ("strategies.layerwise", {"repeats": 0}, f"~.repeats: found 0 {REPEATS}"),
    ("strategies.layerwise", {"repeats": [2, 0]}, f"~.repeats: found [2, 0] {REPEATS}"),
    ("strategies.layerwise", {"freeze": True, "head_as_block": True},
     "~: freeze and head_as_block exclude each other: above the head there is nothing to train"),
    ("strategies.random_init.lambda", 0.5, f"~: unknown key {RANDOM_KEYS}"),
    ("strategies.random_init.draw", "fresh", "~: found 'fresh' (allowed: 'initial')"),
    ("strategies.mine.redo.every", "epochs", "~: found 'epochs' (allowed: a whole number >= 1 or 'epoch')"),
    ("strategies.mine.continual_backprop.rho", 2, "~: found 2 (allowed: a number >= 0 and <= 1)"),
    ("strategies.mine.upgd.decay", 1, "~: found 1 (allowed: a number >= 0 and < 1)"),
    ("strategies.mine.augmnt", [], f"~: unknown key; did you mean 'augment'? {ARM_KEYS}"),
    ("strategies.mine.augment", True, "~: found true (allowed: a list of names, or a mapping)"),
    ("strategies.mine.augment", ["rotaton"], f"~.rotaton: unknown key; did you mean 'rotation'? {AUGMENT_KEYS}"),
    ("strategies.mine.augment.rotation", -1, f"~: found -1 {ROTATION}"),
    ("strategies.mine.training", {"batch_size": 0}, "~.batch_size: found 0 (allowed: a whole number > 0)"),
]  # fmt: skip


@pytest.mark.parametrize(("key", "value", "line"), MISTAKES, ids=[f"{key}={value}" for key, value, _ in MISTAKES])
def test_a_mistake_is_one_line_that_says_what_to_do(edited, key, value, line):
    with pytest.raises(WarmstartError) as caught:
        scenarios.plan(edited({key: value}), "f.yaml")
    assert str(caught.value) == f"f.yaml: {line.replace('~', key)}"
    assert caught.value.exit_code == 2


def test_a_misspelt_key_goes_before_what_is_missing_for_its_sake(edited):
    with pytest.raises(WarmstartError, match=r"data\.pth: unknown key; did you mean 'path'"):
        scenarios.plan(edited({"data": {"name": "arrays", "pth": "x.npz"}}), "f.yaml")


def test_found_values_are_quoted_briefly(edited):
    with pytest.raises(WarmstartError) as caught:
        scenarios.plan(edited({"training.batch_size": list(range(1000))}), "f.yaml")
    assert str(caught.value) == "f.yaml: training.batch_size: found a list of 1000 values (allowed: a whole number > 0)"


def test_null_stands_for_the_default(edited):
    nulls = dict.fromkeys(("title", "reproduces", "seeds", "measure", "metric", "model", "training", "vary"))
    scenario, cells = scenarios.plan(edited(nulls), "f.yaml")
    absent = {key: value for key, value in edited().items() if key not in nulls}
    assert [cell.id for cell in cells] == [cell.id for cell in scenarios.plan(absent, "f.yaml")[1]]
    assert scenario.model.name == "small_cnn"
