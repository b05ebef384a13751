"""The detector's pipeline once more, as plain numpy loops around the original nets in the TFLite runtime.

The oracle of tests/test_detect.py: no mip pyramid (plain bilinear crops), one search window, no JAX.
"""

import numpy as np
from ai_edge_litert.interpreter import Interpreter


class Net:
    """A .tflite model as a function of one (H, W, 3) array."""

    def __init__(self, model: bytes):
        self.interpreter = Interpreter(model_content=model, num_threads=1)
        self.interpreter.allocate_tensors()

    def __call__(self, image):
        run = self.interpreter
        run.set_tensor(run.get_input_details()[0]["index"], np.float32(image)[None])
        run.invoke()
        return [run.get_tensor(detail["index"])[0] for detail in run.get_output_details()]


def crop(image, centre, side, angle, size, zero_border):
    """Bilinear (size, size, 3) resample of a turned square, image in [0, 1]."""
    h, w = image.shape[:2]
    x, y = np.meshgrid(*[(np.arange(size) + 0.5) / size - 0.5] * 2)
    u = centre[0] + side * (np.cos(angle) * x - np.sin(angle) * y)
    v = centre[1] + side * (np.sin(angle) * x + np.cos(angle) * y)
    if zero_border:
        image = np.pad(image, ((1, 1), (1, 1), (0, 0)))
        u, v, h, w = u + 1, v + 1, h + 2, w + 2
    u, v = np.clip(u, 0, w - 1), np.clip(v, 0, h - 1)
    i, j = np.minimum(v.astype(int), h - 2), np.minimum(u.astype(int), w - 2)
    a, b = (v - i)[..., None], (u - j)[..., None]
    top = (1 - b) * image[i, j] + b * image[i, j + 1]
    return (1 - a) * top + a * ((1 - b) * image[i + 1, j] + b * image[i + 1, j + 1])


def faces(net, image):
    """[(score, row)]: rows of box (u0, v0, u1, v1) and six key points, pixels, best first."""
    h, w = image.shape[:2]
    side = max(h, w)
    centre = np.array([(w - 1) / 2, (h - 1) / 2])
    regressors, logits = net(2 * crop(image, centre, side, 0.0, 128, True) - 1)
    scores = 1 / (1 + np.exp(-np.float64(np.clip(logits[:, 0], -100, 100))))
    cells = [(16, 2), (8, 6)]
    anchors = np.array([((j + 0.5) / n, (i + 0.5) / n) for n, k in cells for i in range(n) for j in range(n)
                        for _ in range(k)])  # fmt: skip
    points = regressors.reshape(-1, 8, 2) / 128
    half = points[:, 1] / 2
    points = points + anchors[:, None]
    rows = np.concatenate([points[:, 0] - half, points[:, 0] + half, points[:, 2:].reshape(-1, 12)], 1)
    rows = rows * side + np.tile(centre - side / 2, 8)
    left = [k for k in np.argsort(-scores) if scores[k] >= 0.5]
    found = []
    while left:
        group = [k for k in left if k == left[0] or _iou(rows[left[0]], rows[k]) > 0.3]
        found.append((scores[left[0]], np.average(rows[group], 0, scores[group])))
        left = [k for k in left if k not in group]
    return found


def _iou(a, b):
    size = np.minimum(a[2:4], b[2:4]) - np.maximum(a[:2], b[:2])
    common = size.clip(0).prod()
    return common / ((a[2:4] - a[:2]).prod() + (b[2:4] - b[:2]).prod() - common)


def landmarks(nets, image):
    """(468, 3) photo pixels, z towards the camera, of the largest face, and presence; None when there is no face."""
    image = image / 255.0
    found = faces(nets["detector"], image)
    if not found:
        return None
    row = max(found, key=lambda face: (face[1][2:4] - face[1][:2]).prod())[1]
    centre, side = (row[:2] + row[2:4]) / 2, 1.5 * (row[2:4] - row[:2]).max()
    angle = np.arctan2(*(row[6:8] - row[4:6])[::-1])
    for _ in range(3):
        points, logit = nets["landmarks"](crop(image, centre, side, angle, 192, False))
        points = points.reshape(468, 3) / 192
        turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
        uv = centre + side * (points[:, :2] - 0.5) @ turn
        z = -side * points[:, 2]
        angle = np.arctan2(*(uv[263] - uv[33])[::-1])
        turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        local = uv @ turn
        centre = turn @ ((local.max(0) + local.min(0)) / 2)
        side = 1.5 * np.ptp(local, 0).max()
    return np.concatenate([uv, z[:, None]], 1), 1 / (1 + np.exp(-logit.item()))
