"""The files of a checkpoint: what each must be, and the loading of a model after they were judged."""
