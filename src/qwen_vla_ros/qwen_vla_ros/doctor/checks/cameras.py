# SPDX-License-Identifier: Apache-2.0
"""Cameras: they publish, in color, at the current time, in the size of their calibration."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations
from statistics import median

from embodiment_descriptions import Camera, Embodiment
from qwen_vla_control.observation.streams import MAX_SKEW
from qwen_vla_control.stamps import NANOSECONDS
from qwen_vla_ros.doctor.checks.streams import Need, check_stream
from qwen_vla_ros.doctor.facts import Arrival, Graph, ImageFacts, Lens
from qwen_vla_ros.doctor.findings import Area, Finding
from qwen_vla_ros.doctor.interfaces import image_types
from qwen_vla_ros.ros.names import resolve

AREA = Area("Cameras")
DARK = 8  # [0..255] an image without a brighter value shows nothing
LEAST_IMAGES_PER_AGE = 2  # images expected within max_age_s, so that one may be lost


def check_cameras(robot: Embodiment, graph: Graph, namespace: str, image_size: int) -> Iterator[Finding]:
    """All checks of all cameras; `image_size` is the model's input [px], 0 when unknown."""
    for camera in robot.cameras:
        topic = resolve(namespace, camera.image_topic)
        need = Need(LEAST_IMAGES_PER_AGE / camera.max_age_s, camera.max_age_s, camera.max_age_s)
        start = f"start the driver of camera '{camera.tag}', or correct its topic in the YAML"
        yield from check_stream(AREA, camera.tag, graph, topic, image_types(camera), need, start)
        images = [a.content for a in graph.heard(topic)]
        if images:
            yield from check_images(camera, images, image_size, simulated=bool(graph.clock()))
            yield from check_info(camera, graph, namespace, images[0])
    yield from check_alignment(
        {camera.tag: graph.heard(resolve(namespace, camera.image_topic)) for camera in robot.cameras}
    )


def check_images(
    camera: Camera, images: Sequence[ImageFacts], image_size: int, simulated: bool = False
) -> Iterator[Finding]:
    """Are the images usable, and do they change? Those of a simulated robot at rest may not."""
    first, label = images[0], f"{camera.tag}: image"
    fact = f"{first.width} x {first.height} {first.encoding}"
    if first.problem:
        yield AREA.fail(label, f"{fact}: {first.problem}", "set the driver's encoding to rgb8 or bgr8")
        return
    if len(images) > 2 and len({image.digest for image in images}) == 1 and not simulated:
        fact = f"{fact}, {len(images)} identical images"
        yield AREA.warn(label, fact, "restart the driver: images of a real camera always differ slightly")
    elif first.brightest is not None and first.brightest < DARK:
        yield AREA.warn(label, f"{fact}, black", "remove the lens cap, turn on the light, or check the exposure")
    elif min(first.width, first.height) < image_size:
        fact = f"{fact}, the model's input is {image_size} x {image_size}"
        yield AREA.warn(label, fact, "set the camera to a higher resolution")
    else:
        yield AREA.ok(label, fact)


def check_info(camera: Camera, graph: Graph, namespace: str, image: ImageFacts) -> Iterator[Finding]:
    """Does the calibration match these images?"""
    topic, label = resolve(namespace, camera.info_topic), f"{camera.tag}: info"
    lenses: list[Lens] = [a.content for a in graph.heard(topic)]
    if not lenses:
        fact = f"no message on {topic}"
        yield AREA.warn(
            label, fact, "optional for the model; have the driver publish CameraInfo, or correct info_topic"
        )
    elif (lenses[0].width, lenses[0].height) != (image.width, image.height):
        fact = f"for {lenses[0].width} x {lenses[0].height}, images are {image.width} x {image.height}"
        yield AREA.fail(label, fact, "calibrate at the resolution in use, or correct info_topic in the YAML")
    elif not lenses[0].calibrated:
        yield AREA.warn(
            label, "no calibration (K is all zero)", "optional for the model; calibrate before measuring in images"
        )
    else:
        yield AREA.ok(label, "calibrated for this resolution")


def check_alignment(arrivals: dict[str, Sequence[Arrival]]) -> Iterator[Finding]:
    """Do all cameras have images of about the same time?"""
    stamps = {tag: [a.stamp for a in found if a.stamp] for tag, found in arrivals.items()}
    running = {tag: found for tag, found in stamps.items() if len(found) > 1}
    if len(running) < 2:
        return
    apart = {pair: _distance(running[pair[0]], running[pair[1]]) for pair in combinations(running, 2)}
    (first, second), worst = max(apart.items(), key=lambda item: item[1])
    if worst > 3600:
        return  # a different clock, which is reported elsewhere
    fact = f"{first} and {second} are {1e3 * worst:.0f} ms apart"
    if worst > MAX_SKEW:
        remedy = "synchronize the cameras or raise their rate; the policy waits for images of about the same time"
        yield AREA.fail("alignment", f"{fact} (limit {1e3 * MAX_SKEW:.0f} ms)", remedy)
    else:
        yield AREA.ok("alignment", fact)


def _distance(first: Sequence[int], second: Sequence[int]) -> float:
    """Return the median time from an image of the slower camera to the nearest one of the other [s]."""
    slow, fast = sorted((first, second), key=len)
    inner = [stamp for stamp in slow if min(fast) <= stamp <= max(fast)] or slow
    return median(min(abs(stamp - other) for other in fast) for stamp in inner) / NANOSECONDS
