# SPDX-License-Identifier: Apache-2.0
"""The files of a checkpoint: what each must be, and the loading of a model after they were judged."""
