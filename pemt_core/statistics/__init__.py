"""Statistics of a comparison of methods over seeds, test rows and targets. All scores and differences are points.

From results and their test answers to everything that a report shows, for one k:

    runs = target_runs((result, scored) for ...)      # Scored: predictions, references, groups and labels of a cell
    rules = Rules(method="pemt", references=("lora", "uniform"), confidence=0.95, margin=2.0, draws=10_000, seed=1)
    analysis = analyse(runs, rules)
    analysis.cells             # mean, Student interval, test-size error and two-way bootstrap of every cell
    analysis.floors            # which targets are at the majority class or at chance
    analysis.contrasts         # comparisons (Wilcoxon, Holm, Hodges-Lehmann, verdict) and ranking over all targets
    analysis.above_floor       # the same without the targets at the floor

`gate_layers` and `seed_agreement` take expert weights per row; `pscp` weighs a score against costs.
"""
