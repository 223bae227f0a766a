"""Cameras: they run, in colour, in focus of the clock, with the size that their calibration says."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations
from statistics import median

from embodiment_descriptions import Camera, Embodiment
from qwen_vla_control.observation.streams import MAX_SKEW
from qwen_vla_control.stamps import NANOSECONDS
from qwen_vla_ros.doctor.checks.streams import Need, check_stream
from qwen_vla_ros.doctor.facts import Arrival, Graph, Lens, Picture
from qwen_vla_ros.doctor.findings import Area, Finding
from qwen_vla_ros.doctor.interfaces import image_types, resolve

AREA = Area("Cameras")
DARK = 8  # [0..255] a picture without a brighter value shows nothing
LEAST_IMAGES_PER_AGE = 2  # images that should come within max_age_s, so that one may be lost


def check_cameras(robot: Embodiment, graph: Graph, namespace: str, image_size: int) -> Iterator[Finding]:
    """All checks of all cameras; `image_size` is what the model sees [pixels], 0 when that is not known."""
    for camera in robot.cameras:
        topic = resolve(namespace, camera.image_topic)
        need = Need(LEAST_IMAGES_PER_AGE / camera.max_age_s, camera.max_age_s, camera.max_age_s)
        start = f"start the driver of camera '{camera.tag}' or correct its topic in the YAML"
        yield from check_stream(AREA, camera.tag, graph, topic, image_types(camera), need, start)
        pictures = [a.content for a in graph.heard(topic)]
        if pictures:
            yield from check_pictures(camera, pictures, image_size, simulated=bool(graph.clock()))
            yield from check_info(camera, graph, namespace, pictures[0])
    yield from check_alignment(
        {camera.tag: graph.heard(resolve(namespace, camera.image_topic)) for camera in robot.cameras}
    )


def check_pictures(
    camera: Camera, pictures: Sequence[Picture], image_size: int, simulated: bool = False
) -> Iterator[Finding]:
    """Can the images be used, and do they change? Those of a simulated robot at rest need not."""
    first, label = pictures[0], f"{camera.tag}: image"
    fact = f"{first.width} x {first.height} {first.encoding}"
    if first.problem:
        yield AREA.fail(label, f"{fact}: {first.problem}", "set the driver to rgb8 or bgr8")
        return
    if len(pictures) > 2 and len({picture.digest for picture in pictures}) == 1 and not simulated:
        fact = f"{fact}, the same bytes {len(pictures)} times"
        yield AREA.warn(label, fact, "restart the driver: the images of a real camera always differ a little")
    elif first.brightest is not None and first.brightest < DARK:
        yield AREA.warn(label, f"{fact}, black", "remove the lens cap, switch on the light, check the exposure")
    elif min(first.width, first.height) < image_size:
        fact = f"{fact}, the model sees {image_size} x {image_size}"
        yield AREA.warn(label, fact, "set the camera to a larger size")
    else:
        yield AREA.ok(label, fact)


def check_info(camera: Camera, graph: Graph, namespace: str, picture: Picture) -> Iterator[Finding]:
    """Does the calibration belong to these images?"""
    topic, label = resolve(namespace, camera.info_topic), f"{camera.tag}: info"
    lenses: list[Lens] = [a.content for a in graph.heard(topic)]
    if not lenses:
        fact = f"nothing on {topic}"
        yield AREA.warn(
            label, fact, "the model does without; have the driver publish CameraInfo, or correct info_topic"
        )
    elif (lenses[0].width, lenses[0].height) != (picture.width, picture.height):
        fact = f"for {lenses[0].width} x {lenses[0].height}, images have {picture.width} x {picture.height}"
        yield AREA.fail(label, fact, "calibrate for the size that is used, or correct info_topic in the YAML")
    elif not lenses[0].calibrated:
        yield AREA.warn(label, "no calibration (K is all zero)", "the model does without; calibrate before you measure")
    else:
        yield AREA.ok(label, "calibrated for this size")


def check_alignment(arrivals: dict[str, Sequence[Arrival]]) -> Iterator[Finding]:
    """Are there images of all cameras from about the same time?"""
    stamps = {tag: [a.stamp for a in found if a.stamp] for tag, found in arrivals.items()}
    running = {tag: found for tag, found in stamps.items() if len(found) > 1}
    if len(running) < 2:
        return
    apart = {pair: _distance(running[pair[0]], running[pair[1]]) for pair in combinations(running, 2)}
    (first, second), worst = max(apart.items(), key=lambda item: item[1])
    if worst > 3600:
        return  # another clock, which is said elsewhere
    fact = f"{first} and {second} are {1e3 * worst:.0f} ms apart"
    if worst > MAX_SKEW:
        remedy = "synchronise or speed up the cameras; the policy waits for images of about the same time"
        yield AREA.fail("alignment", f"{fact} (limit {1e3 * MAX_SKEW:.0f} ms)", remedy)
    else:
        yield AREA.ok("alignment", fact)


def _distance(first: Sequence[int], second: Sequence[int]) -> float:
    """Return the median time from an image of the slower camera to the nearest one of the other [s]."""
    slow, fast = sorted((first, second), key=len)
    inner = [stamp for stamp in slow if min(fast) <= stamp <= max(fast)] or slow
    return median(min(abs(stamp - other) for other in fast) for stamp in inner) / NANOSECONDS
