"""Folders; ``root`` is set by the tests."""

import os

root = None


def get_output_directory():
    return os.path.join(root, "output")


def get_input_directory():
    return os.path.join(root, "input")


def get_save_image_path(prefix, folder):
    """The folder, the start of the file's name and the next free number."""
    place, name = os.path.join(folder, os.path.dirname(os.path.normpath(prefix))), os.path.basename(prefix)
    os.makedirs(place, exist_ok=True)
    taken = [int(one[len(name) + 1 :].partition("_")[0]) for one in os.listdir(place) if one.startswith(f"{name}_")]
    return place, name, max(taken, default=0) + 1, os.path.dirname(prefix), name


def get_filename_list(kind):
    place = os.path.join(get_output_directory(), kind)
    return sorted(os.path.relpath(os.path.join(at, one), place) for at, _, names in os.walk(place) for one in names)


def get_full_path(kind, name):
    return os.path.join(get_output_directory(), kind, name) if name in get_filename_list(kind) else None
