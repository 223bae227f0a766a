# SPDX-License-Identifier: Apache-2.0
"""Renders cameras in their own thread, so that the physics never waits for an image.

The scene of a camera is captured immediately, in the caller's thread (0.1 ms); only the rendering runs in the rig's
thread, the only one that creates, uses and frees the GL contexts, as MuJoCo requires.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

import mujoco
import numpy as np

CLOSE_TIMEOUT = 10.0  # [s] a frame that takes longer is stuck in the driver; the thread does not keep the process alive

Publish = Callable[[str, int, np.ndarray], None]


class CameraRig:
    """A set of cameras of one MuJoCo model, exposed at the same instants.

    `publish(camera, stamp_ns, image)` is called in the rig's thread; `image` (height, width, 3) uint8 RGB is a buffer
    that the next exposure overwrites. Raises RuntimeError when no GL context is available.
    """

    def __init__(
        self, model: mujoco.MjModel, cameras: Sequence[str], height: int, width: int, publish: Publish
    ) -> None:
        self.failure: BaseException | None = None
        self._model, self._cameras, self._size = model, tuple(cameras), (height, width)
        self._publish = publish
        self._renderers: dict[str, mujoco.Renderer] = {}
        self._state = threading.Condition()
        self._pending_ns: int | None = None
        self._ready = self._closed = False
        self._thread = threading.Thread(target=self._run, name="cameras", daemon=True)
        self._thread.start()
        with self._state:
            self._state.wait_for(lambda: self._ready or self.failure)
        if self.failure:
            raise RuntimeError(
                f"no OpenGL context for the cameras ({self.failure}); install libegl1 and libegl-mesa0, or libosmesa6 "
                "with MUJOCO_GL=osmesa, or switch the cameras off with image_rate:=0.0"
            ) from self.failure

    def capture(self, data: mujoco.MjData, stamp_ns: int) -> bool:
        """Expose every camera now. False, and no exposure, while the previous one is still being rendered."""
        with self._state:
            if self._pending_ns is not None or self._closed:
                return False
            for camera, renderer in self._renderers.items():
                renderer.update_scene(data, camera=camera)
            self._pending_ns = stamp_ns
            self._state.notify_all()
            return True

    def wait_idle(self, timeout: float) -> bool:
        """Wait until everything captured is published; False after `timeout` [s]."""
        with self._state:
            return self._state.wait_for(lambda: self._pending_ns is None or self._closed, timeout)

    def close(self) -> None:
        """Finish the current exposure, free the GL contexts and end the thread."""
        with self._state:
            self._closed = True
            self._state.notify_all()
        self._thread.join(CLOSE_TIMEOUT)

    def _run(self) -> None:
        try:
            self._open()
            while (stamp_ns := self._next_exposure()) is not None:
                self._render(stamp_ns)
                with self._state:
                    self._pending_ns = None
                    self._state.notify_all()
        except Exception as error:  # of any kind: the owner must learn of it
            self.failure = error
        finally:
            for renderer in self._renderers.values():
                renderer.close()
            with self._state:
                self._closed = True
                self._state.notify_all()

    def _open(self) -> None:
        """Create the contexts and draw once: the first frame compiles the pipeline (0.2 s)."""
        data = mujoco.MjData(self._model)
        mujoco.mj_forward(self._model, data)
        self._image = np.empty((*self._size, 3), np.uint8)
        for camera in self._cameras:
            renderer = mujoco.Renderer(self._model, *self._size)
            self._renderers[camera] = renderer
            renderer.update_scene(data, camera=camera)
            renderer.render(out=self._image)
        with self._state:
            self._ready = True
            self._state.notify_all()

    def _next_exposure(self) -> int | None:
        """The stamp of what to render next [ns]; None when the rig is closed."""
        with self._state:
            self._state.wait_for(lambda: self._pending_ns is not None or self._closed)
            return None if self._closed else self._pending_ns

    def _render(self, stamp_ns: int) -> None:
        for camera, renderer in self._renderers.items():
            renderer.render(out=self._image)
            self._publish(camera, stamp_ns, self._image)
