"""The same image tower in onnxruntime: python encode_onnx.py FOLDER PIXELS FEATURES"""

import sys
from pathlib import Path

import numpy as np
import onnxruntime

from turns import take_turns


def main():
    folder, pixels, features = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
    session = onnxruntime.InferenceSession(folder / "visual.onnx", providers=["CPUExecutionProvider"])
    pixels = np.fromfile(pixels, np.float32).reshape(-1, *session.get_inputs()[0].shape[1:])
    run = lambda: session.run(["features"], {"pixels": pixels})
    run()[0].tofile(features)
    take_turns(run)


if __name__ == "__main__":
    main()
