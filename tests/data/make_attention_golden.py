"""Records what MediaPipe itself computes with face_landmark_with_attention.tflite: tests/data/attention_golden.npz.

    python3.11 -m venv V && V/bin/pip install mediapipe==0.10.21 "numpy<2" pillow
    V/bin/python tests/data/make_attention_golden.py

Needs an environment of its own (mediapipe is no dependency of this project). The net's three custom operators exist in
MediaPipe's runtime alone, so its outputs are taken from a graph of MediaPipe's calculators; whole photos go through
FaceMesh(refine_landmarks=True). It is not run by the tests.
"""

import pathlib

import mediapipe as mp
import numpy as np
from PIL import Image

ROOT = pathlib.Path(__file__).parents[2]
MODEL = "mediapipe/modules/face_landmark/face_landmark_with_attention.tflite"
# The model's outputs in its own order; "left" is the left side of an unmirrored picture, the subject's right.
OUTPUTS = ("mesh", "lips", "right_eye", "left_eye", "right_iris", "left_iris", "presence")
# Photo of docs, degrees it is turned by, crop (u0, v0, u1, v1) of 192 x 192. The last cuts an eye and the mouth off.
CROPS = (
    ("photos/mouth_open", 0, (104, 62, 296, 254)),
    ("photos_astronaut/astronaut", 25, (106, 27, 298, 219)),
    ("photos_astronaut/astronaut", 0, (212, -50, 404, 142)),
)
PHOTOS = ("frontal", "mouth_open", "turned_left")

GRAPH = f"""
input_stream: "image"
node {{
  calculator: "ImageToTensorCalculator" input_stream: "IMAGE:image" output_stream: "TENSORS:input"
  options {{ [mediapipe.ImageToTensorCalculatorOptions.ext] {{
    output_tensor_width: 192 output_tensor_height: 192 output_tensor_float_range {{ min: 0.0 max: 1.0 }} }} }}
}}
node {{
  calculator: "TfLiteCustomOpResolverCalculator" output_side_packet: "OP_RESOLVER:resolver"
  options {{ [mediapipe.TfLiteCustomOpResolverCalculatorOptions.ext] {{ use_gpu: false }} }}
}}
node {{
  calculator: "InferenceCalculator" input_stream: "TENSORS:input" output_stream: "TENSORS:output"
  input_side_packet: "OP_RESOLVER:resolver"
  options {{ [mediapipe.InferenceCalculatorOptions.ext] {{ model_path: "{MODEL}" delegate {{ tflite {{}} }} }} }}
}}
node {{
  calculator: "SplitTensorVectorCalculator" input_stream: "output"
  {" ".join(f'output_stream: "{name}_tensor"' for name in OUTPUTS)}
  options {{ [mediapipe.SplitVectorCalculatorOptions.ext] {{
    {" ".join(f"ranges {{ begin: {i} end: {i + 1} }}" for i in range(len(OUTPUTS)))} }} }}
}}
""" + "".join(
    f'node {{ calculator: "TensorsToFloatsCalculator" input_stream: "TENSORS:{name}_tensor" '
    f'output_stream: "FLOATS:{name}" }}\n'
    for name in OUTPUTS
)


def raw_outputs(crop: np.ndarray) -> dict[str, np.ndarray]:
    """The model's seven outputs for one (192, 192, 3) uint8 crop."""
    graph, out = mp.CalculatorGraph(graph_config=GRAPH), {}

    def keep(name, packet):
        out[name] = np.float32(mp.packet_getter.get_float_list(packet))

    for name in OUTPUTS:
        graph.observe_output_stream(name, keep)
    graph.start_run()
    image = mp.Image(image_format=mp.ImageFormat.SRGB, data=np.ascontiguousarray(crop))
    graph.add_packet_to_input_stream("image", mp.packet_creator.create_image(image).at(0))
    graph.close_all_packet_sources()
    graph.wait_until_done()
    return out


def picture(name: str) -> Image.Image:
    """A photo of docs."""
    return Image.open(ROOT / f"docs/{name}.jpg")


def whole_photo(photo: np.ndarray) -> np.ndarray:
    """(478, 3) photo pixels and z away from the camera in the same scale, as FaceMesh says it."""
    with mp.solutions.face_mesh.FaceMesh(static_image_mode=True, refine_landmarks=True) as net:
        found = net.process(photo).multi_face_landmarks[0].landmark
    height, width = photo.shape[:2]
    return np.float32([[width * p.x, height * p.y, width * p.z] for p in found])


def main():
    """Crops and their mirror images, and whole photos."""
    crops = [np.asarray(picture(name).rotate(angle, Image.Resampling.BICUBIC).crop(box)) for name, angle, box in CROPS]
    outputs = [[raw_outputs(image) for image in (crop, crop[:, ::-1])] for crop in crops]
    arrays = {name: np.stack([[out[name] for out in pair] for pair in outputs]) for name in OUTPUTS}
    for name in PHOTOS:
        arrays[f"photo_{name}"] = whole_photo(np.asarray(picture(f"photos/{name}")))
    np.savez_compressed(ROOT / "tests/data/attention_golden.npz", crops=np.stack(crops), **arrays)


if __name__ == "__main__":
    main()
