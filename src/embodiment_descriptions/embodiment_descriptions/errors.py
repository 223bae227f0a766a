"""The exceptions of this package."""


class EmbodimentError(ValueError):
    """A description (URDF, xacro or YAML) is wrong; the message names what is wrong, its value and the remedy."""


class ResourceError(FileNotFoundError):
    """A file that ships with the suite is missing; the message names every place that was searched."""


class KinematicsError(ValueError):
    """A pose cannot be reached.

    Attributes:
        step: index of the pose in the requested path (0 for a single pose).
        error: remaining position error of the best configuration found [m].
        rotation_error: remaining rotation error of the best configuration found [rad].
    """

    def __init__(self, message: str, step: int, error: float, rotation_error: float) -> None:
        """Store where the path failed and by how much."""
        super().__init__(message, step, error, rotation_error)  # all of them, so that it can be pickled
        self.step = step
        self.error = error
        self.rotation_error = rotation_error

    def __str__(self) -> str:
        """Return the message alone."""
        return self.args[0]
