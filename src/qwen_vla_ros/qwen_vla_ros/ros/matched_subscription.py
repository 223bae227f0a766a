# SPDX-License-Identifier: Apache-2.0
"""A subscription whose quality of service follows its publishers, and that can explain why no messages arrive.

A reliable subscription receives nothing from a best-effort publisher, and a best-effort one loses parts of large images
that a reliable one would not: so the graph decides, again whenever the publishers change.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy

from qwen_vla_control.observation.streams import IS_THE_DRIVER_RUNNING
from qwen_vla_rclpy.guarded_node import LARGEST, GuardedNode
from qwen_vla_rclpy.qos import matching


@dataclass(frozen=True)
class Offer:
    """The offer of one publisher."""

    node: str
    kind: str
    reliability: ReliabilityPolicy
    durability: DurabilityPolicy

    def __str__(self) -> str:
        """Return it as text."""
        return f"{self.node} ({quality(self.reliability, self.durability)})"


def quality(reliability: ReliabilityPolicy, durability: DurabilityPolicy) -> str:
    """Return two policies as text."""
    return ", ".join(policy.name.lower().replace("_", " ") for policy in (reliability, durability))


def offers_on(node: GuardedNode, topic: str) -> list[Offer]:
    """All discovered publishers of a topic, in a stable order; `topic` is resolved and remapped."""
    found = [
        Offer(
            f"{info.node_namespace.rstrip('/')}/{info.node_name}",
            info.topic_type,
            info.qos_profile.reliability,
            info.qos_profile.durability,
        )
        for info in node.get_publishers_info_by_topic(topic)
    ]
    return sorted(found, key=lambda offer: (offer.node, offer.kind, offer.reliability, offer.durability))


class MatchedSubscription:
    """One subscription; `check` must be called periodically, among the callbacks of the node.

    Attributes:
        topic: its full name after remapping.
        offers: publishers at the last check.
        callback: called with every message.
    """

    def __init__(
        self,
        node: GuardedNode,
        kind: type,
        topic: str,
        callback: Callable[[Any], None],
        depth: int,
        alternatives: Sequence[tuple[str, str]] = (),
        largest: int | None = LARGEST,
    ) -> None:
        """Subscribe.

        Args:
            node: the node.
            kind: message type.
            topic: relative or absolute name.
            callback: called with every message.
            depth: of the queue.
            alternatives: topics that may exist instead, each with the remedy.
            largest: see GuardedNode.create_subscription.
        """
        self._node, self._kind, self.callback = node, kind, callback
        self._depth, self._largest = depth, largest
        self._alternatives = [(node.resolve_topic_name(name), advice) for name, advice in alternatives]
        self._name, self.topic = topic, node.resolve_topic_name(topic)
        package, _, name = kind.__module__.partition(".")
        self.kind = f"{package}/msg/{kind.__name__}"
        self.offers = offers_on(node, self.topic)
        self._subscribe(matching(self._heard, depth))

    @property
    def _heard(self) -> list[Offer]:
        return [offer for offer in self.offers if offer.kind == self.kind]

    def _subscribe(self, qos: QoSProfile) -> None:
        self._qos = qos
        self._subscription = self._node.create_subscription(
            self._kind, self._name, self.callback, qos, largest=self._largest
        )

    def check(self) -> None:
        """Query the graph, and subscribe again where another quality fits better."""
        self.offers = offers_on(self._node, self.topic)
        if not self._heard:
            return  # a publisher that comes back probably has the same quality
        wanted = matching(self._heard, self._depth)
        if (wanted.reliability, wanted.durability) != (self._qos.reliability, self._qos.durability):
            before = self.quality
            self._node.destroy_subscription(self._subscription)
            self._subscribe(wanted)
            self._node.get_logger().info(
                f"{self.topic}: subscribed again as {self.quality} (was {before}), as offered by its publishers"
            )

    @property
    def quality(self) -> str:
        """The quality of the subscription, as text."""
        return quality(self._qos.reliability, self._qos.durability)

    @property
    def publishers(self) -> str:
        """The publishers as text, including those of other types."""
        return "; ".join(str(o) if o.kind == self.kind else f"{o}, of type {o.kind}" for o in self.offers) or "none"

    def remedy(self) -> str:
        """What to check when no messages arrive."""
        if self._heard:
            return IS_THE_DRIVER_RUNNING
        if self.offers:
            kinds = ", ".join(sorted({offer.kind for offer in self.offers}))
            return f"it carries {kinds}, not {self.kind}{self._advice(kinds)}"
        for topic, advice in self._alternatives:
            if self._node.count_publishers(topic):
                return f"it has no publisher, but {topic} does; {advice}"
        elsewhere = self._elsewhere()
        if elsewhere:
            return f"it has no publisher, but {elsewhere} does; is the namespace correct?"
        return f"it has no publisher; {IS_THE_DRIVER_RUNNING}"

    def _advice(self, kinds: str) -> str:
        if self.kind.endswith("/Image") and "CompressedImage" in kinds:
            return "; set its transport to compressed"
        return "; use a topic of that type"

    def _elsewhere(self) -> str:
        """A published topic of the same name and type in another namespace."""
        for topic, kinds in self._node.get_topic_names_and_types():
            same_name = topic.endswith(f"/{self._name.lstrip('/')}") or self.topic.endswith(topic)
            if topic != self.topic and same_name and self.kind in kinds and self._node.count_publishers(topic):
                return topic
        return ""

    def destroy(self) -> None:
        """Unsubscribe."""
        self._node.destroy_subscription(self._subscription)
