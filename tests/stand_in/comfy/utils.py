"""Names, attributes and progress."""

from functools import reduce


def unet_to_diffusers(config):
    return config.get("names", {})


def get_attr(owner, path):
    return reduce(getattr, path.split("."), owner)


class ProgressBar:
    shown = []

    def __init__(self, total):
        self.total = total

    def update_absolute(self, value, total=None):
        ProgressBar.shown.append((value, total))
