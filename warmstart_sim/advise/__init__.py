"""Advice on how the next training run should start: plays the past of a user's data, and checks the choice.

`question` is what is asked: data, model, training. `plan` fits rounds, seeds and settings into a budget. `play` runs
them as scenarios, `halving` drops settings that cannot win, `answer` says what the check has shown, `snippets` and
`savings` what to do with it. `advisor.advise` puts them together.
"""

from warmstart_sim.advise.advisor import Outcome, advise

__all__ = ["Outcome", "advise"]
