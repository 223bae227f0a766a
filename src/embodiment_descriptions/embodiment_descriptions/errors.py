"""The exceptions of this package."""


class EmbodimentError(ValueError):
    """A description (URDF, xacro or YAML) is wrong; the message names what, its value and the way out."""


class ResourceError(FileNotFoundError):
    """A file that ships with the suite is missing; the message names every place that was searched."""


class KinematicsError(ValueError):
    """A pose cannot be reached.

    Attributes:
        step: index of the pose in the path that was asked for (0 for a single pose).
        error: what remains at the best configuration found, position [m].
        rotation_error: what remains at the best configuration found, angle [rad].
    """

    def __init__(self, message: str, step: int, error: float, rotation_error: float) -> None:
        """Store where the path failed and by how much."""
        super().__init__(message, step, error, rotation_error)  # all of it: so it survives the way between processes
        self.step = step
        self.error = error
        self.rotation_error = rotation_error

    def __str__(self) -> str:
        """Return the message alone."""
        return self.args[0]
