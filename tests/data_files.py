"""Folders and zips of small pictures."""

import io
import pathlib
import zipfile

import cv2
import numpy as np

CLASSES = ("Arborio", "Basmati", "Ipsala", "Jasmine", "Karacadag")


def picture(shade=100, size=12, suffix=".png"):
    """An encoded square of one colour, `shade` in red."""
    image = np.full((size, size, 3), (10, 60, shade), np.uint8)  # OpenCV's order: blue first
    return cv2.imencode(suffix, image)[1].tobytes()


def pictures(per_class=10, classes=CLASSES, suffix=".png"):
    """{'class/class (1).png': bytes}: the shade of a picture tells its class and number."""
    return {
        f"{label}/{label} ({number}){suffix}": picture(40 * index + number, suffix=suffix)
        for index, label in enumerate(classes)
        for number in range(1, per_class + 1)
    }


def write_folder(path: pathlib.Path, files):
    for name, content in files.items():
        file = path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
    return path


def write_zip(path: pathlib.Path, files, root="Rice_Image_Dataset/"):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(f"{root}Rice_Citation_Request.txt", "Cite us.")
        for name, content in files.items():
            archive.writestr(root + name, content)
    return path


def zip_of(members):
    """A zip in memory of (ZipInfo or name, bytes)."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in members:
            archive.writestr(name, content)
    return file.getvalue()


def read_all(opened):
    """{name: bytes} of all images of an archive."""
    return {member.name: opened.read(member) for member in opened.members}


def spoiled(total, bad):
    """Files of two classes, `total` of them, the first `bad` of each not images."""
    files = pictures(total // 2, ("a", "b"))
    for label in "ab":
        for number in range(1, bad + 1):
            files[f"{label}/{label} ({number}).png"] = b"not an image"
    return files
