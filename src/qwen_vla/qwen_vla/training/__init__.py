"""Training: a recipe (YAML) names data, weights of the losses and the schedule; `train` runs it, resumably."""
