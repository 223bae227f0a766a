# SPDX-License-Identifier: Apache-2.0
"""Training: a recipe (YAML) defines data, loss weights and schedule; `train` runs it and can resume."""
