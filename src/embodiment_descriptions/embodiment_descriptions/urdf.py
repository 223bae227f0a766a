# SPDX-License-Identifier: Apache-2.0
"""A URDF as a checked tree of links and joints, from which the embodiment is derived."""

import math
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cached_property
from typing import Literal, get_args
from xml.etree import ElementTree

from embodiment_descriptions.errors import EmbodimentError, Problems

MovableType = Literal["revolute", "continuous", "prismatic"]
MOVABLE = get_args(MovableType)
XACRO = ("{http://ros.org/wiki/xacro}", "{http://www.ros.org/wiki/xacro}", "{http://wiki.ros.org/xacro}")
JOINT_TYPES = (*MOVABLE, "fixed", "floating", "planar")


@dataclass(frozen=True)
class Mimic:
    """What a joint follows: it stands at factor · position of `joint` + offset [rad | m]."""

    joint: str
    factor: float
    offset: float


@dataclass(frozen=True)
class UrdfJoint:
    """One joint element. Limits are None where the URDF has none; units m or rad, and per second."""

    name: str
    type: str
    parent: str
    child: str
    lower: float | None
    upper: float | None
    velocity: float | None
    effort: float | None
    mimic: Mimic | None  # never of a joint that cannot move: there it is a leftover

    @property
    def movable(self) -> bool:
        """Whether the joint has one degree of freedom of its own."""
        return self.type in MOVABLE and self.mimic is None

    @property
    def range(self) -> tuple[float, float] | None:
        """Both position limits; None where one is not stated, or they leave nothing between them."""
        if self.lower is None or self.upper is None or not self.lower < self.upper:
            return None
        return self.lower, self.upper


@dataclass(frozen=True)
class UrdfTree:
    """Links and joints by name, and the joint above every link but the root."""

    name: str
    root: str
    links: tuple[str, ...]
    joints: dict[str, UrdfJoint]
    above: dict[str, UrdfJoint]

    def chain(self, base: str, tip: str) -> list[UrdfJoint]:
        """List the joints from link base to link tip, base first.

        Raises:
            EmbodimentError: a link is unknown, or tip is not below base.
        """
        for link in (base, tip):
            if link != self.root and link not in self.above:
                raise EmbodimentError(f"the URDF of {self.name!r} has no link {link!r}{hint(link, self.links)}")
        chain: list[UrdfJoint] = []
        link = tip
        while link != base:
            if link not in self.above:
                raise EmbodimentError(
                    f"link {tip!r} is not below link {base!r} in the URDF of {self.name!r}: walking up from {tip!r} "
                    f"ends at the root {self.root!r}; choose a base_link on that chain"
                )
            chain.append(self.above[link])
            link = self.above[link].parent
        return chain[::-1]

    def below(self, link: str) -> list[UrdfJoint]:
        """List the joints whose parent is this link, in document order."""
        return self._below.get(link, [])

    def behind(self, link: str) -> list[UrdfJoint]:
        """List all joints behind a link, the nearest first."""
        links, behind = [link], []
        for nearer in links:  # grows
            joints = self.below(nearer)
            behind += joints
            links += [joint.child for joint in joints]
        return behind

    def followed(self, name: str) -> Mimic:
        """Resolve what a joint follows in the end: one that moves by itself, or with factor 0 the joint itself."""
        leader = self._leaders[name]
        return leader if self.joints[leader.joint].movable else Mimic(name, 0.0, leader.offset)

    def carries(self, joint: str, link: str) -> bool:
        """Whether a link is behind a joint."""
        first = self._places[self.joints[joint].child]
        return first <= self._places[link] < first + self._sizes[self.joints[joint].child]

    @cached_property
    def _leaders(self) -> dict[str, Mimic]:
        """What each joint follows in the end, by its name: a joint that mimics none, at first itself."""
        leaders: dict[str, Mimic] = {}
        for name in self.joints:
            followers, leading = [], name
            while leading not in leaders and (mimic := self.joints[leading].mimic) is not None:
                followers.append((leading, mimic))
                leading = mimic.joint
            leader = leaders.setdefault(leading, Mimic(leading, 1.0, 0.0))
            for follower, mimic in reversed(followers):
                offset = mimic.offset + mimic.factor * leader.offset
                leaders[follower] = leader = Mimic(leader.joint, mimic.factor * leader.factor, offset)
        return leaders

    @cached_property
    def _places(self) -> dict[str, int]:
        """The place of each link in a walk in which all that is behind a link comes right after it."""
        places, ahead = {}, [self.root]
        while ahead:
            link = ahead.pop()
            places[link] = len(places)
            ahead += [joint.child for joint in self.below(link)]
        return places

    @cached_property
    def _sizes(self) -> dict[str, int]:
        """How many links are behind each link, and itself."""
        sizes = dict.fromkeys(self.links, 1)
        for joint in reversed(self.behind(self.root)):
            sizes[joint.parent] += sizes[joint.child]
        return sizes

    @cached_property
    def _below(self) -> dict[str, list[UrdfJoint]]:
        below = defaultdict(list)
        for joint in self.joints.values():
            below[joint.parent].append(joint)
        return below


def hint(name: str, known: Sequence[str]) -> str:
    """The name that was probably meant, or all known ones, for the end of an error message."""
    close = get_close_matches(name, known, n=1)
    return f"; did you mean {close[0]!r}?" if close else f"; it has: {', '.join(known) or 'none'}"


def parse_urdf(text: str) -> UrdfTree:
    """Read URDF text into a checked tree.

    Raises:
        EmbodimentError: not XML, not a robot, an incomplete element, or not a single tree.
    """
    if not text.strip():
        raise EmbodimentError("the URDF is empty; was its file written to the end?")
    try:
        robot = ElementTree.fromstring(text)
    except ElementTree.ParseError as error:
        line, column = error.position
        raise EmbodimentError(f"the URDF is not well-formed XML, line {line}, column {column}: {error}") from error
    if robot.tag != "robot":
        raise EmbodimentError(f"a URDF has <robot> as its root element; this document has <{robot.tag}>")
    name = robot.get("name")
    if not name:
        raise EmbodimentError('the <robot> element has no name; write <robot name="...">')
    if any(element.tag.startswith(XACRO) for element in robot):
        raise EmbodimentError(
            "this is a xacro, not yet expanded; name it NAME.urdf.xacro, or expand it: xacro FILE > NAME.urdf"
        )
    links = tuple(_named(element, "link") for element in robot.findall("link"))
    _refuse_duplicates(links, "link")
    problems = Problems()
    found = [problems.check(_joint, element) for element in robot.findall("joint")]
    problems.refuse_any(f"the URDF of {name!r}")
    joints = [joint for joint in found if joint is not None]
    _refuse_duplicates([joint.name for joint in joints], "joint")
    return _tree(name, links, joints)


def give_one_position(joint: ElementTree.Element) -> bool:
    """Make pinocchio represent a joint by one position; False for a joint that does not move.

    It represents a continuous joint by two (cosine, sine); as a revolute joint without reachable limits it has one,
    like all others. It also rejects a whole robot for one incomplete limit; missing ones are checked where they matter.
    """
    if joint.get("type") not in MOVABLE:
        return False
    limit = joint.find("limit")
    limit = ElementTree.SubElement(joint, "limit") if limit is None else limit
    if joint.get("type") == "continuous":
        joint.set("type", "revolute")
        limit.attrib.update(lower="-1e9", upper="1e9")
    limit.attrib.update({key: limit.get(key, "0") for key in ("velocity", "effort")})
    return True


def _named(element: ElementTree.Element, kind: str) -> str:
    name = element.get("name")
    if not name:
        raise EmbodimentError(f"a <{kind}> of the URDF has no name")
    return name


def _refuse_duplicates(names: Sequence[str], kind: str) -> None:
    duplicates = sorted(name for name, count in Counter(names).items() if count > 1)
    if duplicates:
        raise EmbodimentError(f"the URDF has more than one {kind} {', '.join(duplicates)}; names must be unique")


def _joint(element: ElementTree.Element) -> UrdfJoint:
    name = _named(element, "joint")
    kind = element.get("type", "")
    if kind not in JOINT_TYPES:
        raise EmbodimentError(f"joint {name!r} has the type {kind!r}; URDF defines {', '.join(JOINT_TYPES)}")
    parent, child = (_end(element, end, name) for end in ("parent", "child"))
    limit, mimic = element.find("limit"), element.find("mimic") if kind in MOVABLE else None
    limits = (_number(limit, key, name) for key in ("lower", "upper", "velocity", "effort"))
    return UrdfJoint(name, kind, parent, child, *limits, mimic=None if mimic is None else _mimic(mimic, name))


def _end(element: ElementTree.Element, end: str, joint: str) -> str:
    found = element.find(end)
    link = found.get("link", "") if found is not None else ""
    if not link:
        raise EmbodimentError(f"joint {joint!r} names no {end} link")
    return link


def _mimic(element: ElementTree.Element, joint: str) -> Mimic:
    factor, offset = (_number(element, key, joint) for key in ("multiplier", "offset"))
    return Mimic(element.get("joint", ""), 1.0 if factor is None else factor, offset or 0.0)


def _number(element: ElementTree.Element | None, key: str, joint: str) -> float | None:
    if element is None or (text := element.get(key)) is None:
        return None
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise EmbodimentError(f"joint {joint!r}: {element.tag} {key}={text!r} is not a finite number")
    return value


def _tree(name: str, links: tuple[str, ...], joints: list[UrdfJoint]) -> UrdfTree:
    if not links:
        raise EmbodimentError(f"the URDF of {name!r} has no links")
    above, problems, known = {}, Problems(), dict.fromkeys(links)
    for joint in joints:
        problems.check(_check_ends, joint, above, known)
        above[joint.child] = joint
    problems.refuse_any(f"the URDF of {name!r}")
    _refuse_loops(links, above)
    roots = [link for link in links if link not in above]
    if len(roots) != 1:
        raise EmbodimentError(f"the URDF of {name!r} is not one tree: {', '.join(roots)} all have no joint above them")
    by_name = {joint.name: joint for joint in joints}
    resolved: set[str] = set()
    for joint in joints:
        problems.check(_refuse_wrong_mimic, joint, by_name, resolved)
    problems.refuse_any(f"the URDF of {name!r}")
    return UrdfTree(name, roots[0], links, by_name, above)


def _check_ends(joint: UrdfJoint, above: dict[str, UrdfJoint], links: dict[str, None]) -> None:
    for link in (joint.parent, joint.child):
        if link not in links:
            raise EmbodimentError(f"joint {joint.name!r} names the link {link!r}{hint(link, list(links))}")
    if joint.child in above:
        first = above[joint.child].name
        raise EmbodimentError(f"link {joint.child!r} is the child of two joints, {first!r} and {joint.name!r}")


def _refuse_wrong_mimic(joint: UrdfJoint, joints: dict[str, UrdfJoint], resolved: set[str]) -> None:
    """Follow a joint to one that mimics none, or one in `resolved`, where those on the way are added."""
    name, seen = joint.name, {}  # in order, and quick to look up
    try:
        while name not in resolved and (mimic := joints[name].mimic) is not None:
            seen[name] = None
            if mimic.joint not in joints:
                raise EmbodimentError(f"joint {name!r} mimics {mimic.joint!r}{hint(mimic.joint, list(joints))}")
            name = mimic.joint
            if name in seen:
                raise EmbodimentError(f"joints mimic each other: {' <- '.join([*seen, name])}")
    finally:
        resolved.update(seen)


def _refuse_loops(links: Sequence[str], above: dict[str, UrdfJoint]) -> None:
    rooted: set[str] = set()  # links of which the way up is known to end
    for link in links:
        way = {}  # in order, and quick to look up
        while link in above and link not in rooted:
            way[link] = None
            link = above[link].parent
            if link in way:
                raise EmbodimentError(f"the URDF has a loop: {' <- '.join([*way, link])}; a URDF must be a tree")
        rooted.update(way)
