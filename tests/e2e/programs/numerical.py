"""Numerical libraries, loaded before the snapshot."""

from __future__ import annotations

import ctypes
import importlib.metadata
import os
from typing import Any

import squall

COUNTS = {"OMP_NUM_THREADS": "3", "MKL_NUM_THREADS": "2", "NUMEXPR_NUM_THREADS": "4", "OPENCV_FOR_THREADS_NUM": "5"}
LOADED_BYTES = 200_000_000
SIDE = 600

debian = squall.Image.debian_slim("3.11")
with_torch = debian.pip_install("torch==2.13.0", "numpy", "numexpr", "opencv-python-headless").env(COUNTS)
with_mkl = debian.pip_install("mkl").env(COUNTS)
app = squall.App("numerical")


def private_bytes() -> int:
    """Of this process, what no other one shares."""
    with open("/proc/self/smaps_rollup") as file:
        return sum(int(line.split()[1]) for line in file if line.startswith("Private_")) * 1024


@app.cls(image=with_torch, enable_memory_snapshot=True, single_use_containers=True)
class Torch:
    @squall.enter(snap=True)
    def load(self) -> None:
        import cv2  # type: ignore[import-not-found]
        import numexpr  # type: ignore[import-not-found]
        import numpy
        import torch

        self.cv2, self.numexpr, self.numpy, self.torch = cv2, numexpr, numpy, torch
        self.loaded = torch.ones(LOADED_BYTES // 8, dtype=torch.float64)
        self.left = torch.arange(SIDE * SIDE, dtype=torch.float64).reshape(SIDE, SIDE) % 7
        self.product = self.left @ self.left

    @squall.method()
    def told(self) -> dict[str, Any]:
        numbers = self.numpy.arange(100_000, dtype=float)
        grown = self.numexpr.evaluate("numbers * 2 + 1", {"numbers": numbers})
        picture = self.numpy.full((500, 500), 9, dtype=self.numpy.uint8)
        omp = ctypes.CDLL(next(path for path in _libraries() if "libgomp" in path))
        private = private_bytes()
        return {
            "container": os.environ["SQUALL_CONTAINER_ID"],
            "rand": self.torch.rand(3).tolist(),
            "sum": float(self.loaded.sum()),
            "private_bytes": private,
            "is_right": {
                "torch": bool((self.left @ self.left == self.product).all()),
                "numexpr": bool((grown == numbers * 2 + 1).all()),
                "cv2": bool((self.cv2.GaussianBlur(picture, (5, 5), 0) == 9).all()),
            },
            "threads": {
                "torch": self.torch.get_num_threads(),
                "omp": omp.omp_get_max_threads(),
                "numexpr": self.numexpr.get_num_threads(),
                "cv2": self.cv2.getNumThreads(),
            },
        }


@app.cls(image=with_mkl, enable_memory_snapshot=True, single_use_containers=True)
class Mkl:
    @squall.enter(snap=True)
    def load(self) -> None:
        files = importlib.metadata.files("mkl") or ()
        path = next(str(file.locate()) for file in files if "libmkl_rt.so" in file.name)
        self.mkl = ctypes.CDLL(path, mode=os.RTLD_GLOBAL)
        self.squares()

    def squares(self) -> bool:
        """Whether a matrix times the one with twos on its diagonal is twice itself."""
        matrix = ctypes.c_double * (SIDE * SIDE)
        left = matrix(*(float(number % 7) for number in range(SIDE * SIDE)))
        twos = matrix(*(2.0 if row == column else 0.0 for row in range(SIDE) for column in range(SIDE)))
        product = matrix()
        one, none = ctypes.c_double(1.0), ctypes.c_double(0.0)
        self.mkl.cblas_dgemm(101, 111, 111, SIDE, SIDE, SIDE, one, left, SIDE, twos, SIDE, none, product, SIDE)
        return list(product) == [2 * number for number in left]

    @squall.method()
    def told(self) -> dict[str, Any]:
        count = self.mkl.MKL_Get_Max_Threads()
        return {"container": os.environ["SQUALL_CONTAINER_ID"], "threads": count, "is_right": self.squares()}


def _libraries() -> list[str]:
    with open("/proc/self/maps") as file:
        return sorted({line.split(None, 5)[5].strip() for line in file if line.count("/")})


@app.local_entrypoint()
def of_torch(count: int = 3) -> None:
    import json

    print(json.dumps([Torch().told.remote() for _ in range(count)]))


@app.local_entrypoint()
def of_mkl(count: int = 3) -> None:
    import json

    print(json.dumps([Mkl().told.remote() for _ in range(count)]))
