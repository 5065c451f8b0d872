"""When to retrain, and how to start: the costs of `warmstart-sim advise`, given to RetrainOpt's planner.

python examples/when_and_how.py runs/advise-digits/costs.json --price 0.0001
"""

import argparse
import json
from pathlib import Path


def state_costs(table, price):
    """One start's costs as `retrainopt.core.dp` takes them: by (step, samples), with `price` errors for a second."""
    return {
        (model["step"], model["n_samples"]): {
            "training_cost": price * model["training_cost"],
            "future_losses": {int(step): loss for step, loss in model["future_losses"].items()},
        }
        for model in table["models"]
    }


def schedules(costs, price):
    """Yields for each start its cheapest schedule, and the cost of it."""
    from retrainopt.core.dp import solve_exact_schedule

    for start, table in costs.items():
        total, decisions, *_ = solve_exact_schedule(table["num_steps"], state_costs(table, price))
        yield start, [decision.action.value for decision in decisions], total


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("costs", type=Path, help="costs.json of an advice")
    parser.add_argument("--price", type=float, default=1e-4, help="what a second of training costs, in test errors")
    arguments = parser.parse_args()
    costs = json.loads(arguments.costs.read_text())
    try:
        for start, actions, total in schedules(costs, arguments.price):
            print(f"{start}: {', '.join(actions)}; cost {total:.3f}")
    except ModuleNotFoundError as error:
        parser.exit(1, f"{error}: pip install retrainopt\n")
