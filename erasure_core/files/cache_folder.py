"""A folder of limited size with tensors by key, which several processes may read and write at once.

Each key has one safetensors file, written whole, with a checksum. What is damaged is never read: it counts as missing.
"""

from __future__ import annotations

import json
import logging
import os
import re
from collections.abc import Mapping
from contextlib import suppress
from hashlib import sha256
from pathlib import Path

from torch import Tensor

from .atomic import quoted_path, write_whole
from .safetensors_files import SUFFIX, read, write

log = logging.getLogger(__name__)
KEY, CHECKSUM = "key", "sha256"
NAME = re.compile(rf"[0-9a-f]{{64}}{re.escape(SUFFIX)}")


def prepare(path: Path) -> None:
    """Make the folder of a cache, where it is missing. Raises ``OSError`` where none can be made or written to."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except FileExistsError as error:
        raise NotADirectoryError(f"{quoted_path(path)} is a file; name a folder for the cache") from error
    except OSError as error:
        raise OSError(f"cannot make the folder {quoted_path(path)}: {error.strerror}") from error
    if not os.access(path, os.R_OK | os.W_OK | os.X_OK):
        raise PermissionError(f"cannot write into {quoted_path(path)}: it is read-only")


class CacheFolder:
    """Tensors by key in the files of a folder, at most ``most`` bytes: those that were written first are removed.

    A key is a SHA-256 in hexadecimal digits. Files of other names are left alone. Raises the errors of ``prepare``.
    """

    def __init__(self, path: Path, most: int):
        prepare(path)
        self._path, self._most = path, most

    def read(self, key: str) -> tuple[dict[str, str], dict[str, Tensor]] | None:
        """Return the metadata and the tensors of a key, or ``None`` where there are none.

        A damaged file, or one that is not of this key, is removed with a warning, and counts as missing.
        """
        path = self._file(key)
        try:
            metadata, tensors = read(path)
            content = {name: value for name, value in metadata.items() if name != CHECKSUM}
            if metadata.get(KEY) == key and metadata.get(CHECKSUM) == checksum(content, tensors):
                return content, tensors
            problem = "is not what was written there"
        except FileNotFoundError:
            return None
        except ValueError as error:
            if not path.exists():  # another process has removed it meanwhile
                return None
            problem = str(error)
        log.warning("%s %s; it is made anew.", quoted_path(path), problem)
        with suppress(FileNotFoundError):
            path.unlink()
        return None

    def write(self, key: str, metadata: Mapping[str, str], tensors: Mapping[str, Tensor]) -> None:
        """Write the tensors of a key, float16, float32 or float64; what another process has written meanwhile stays.

        Raises ``OSError`` when writing fails.
        """
        content = {**metadata, KEY: key}
        header = {**content, CHECKSUM: checksum(content, tensors)}
        with suppress(FileExistsError):
            write_whole(self._file(key), lambda file: write(file, tensors, header), overwrite=False)

    def trim(self) -> None:
        """Remove the files that were written first until the others fit into the folder's limit."""
        files = []
        for one in os.scandir(self._path):
            with suppress(FileNotFoundError):  # another process has removed it
                if NAME.fullmatch(one.name) and one.is_file(follow_symlinks=False):
                    status = one.stat()
                    files.append((status.st_mtime_ns, one.name, status.st_size))
        total = sum(size for *_, size in files)
        for _, name, size in sorted(files):
            if total <= self._most:
                return
            with suppress(FileNotFoundError, PermissionError):  # PermissionError: another process reads it, on Windows
                (self._path / name).unlink()
            total -= size

    def _file(self, key: str) -> Path:
        return self._path / f"{key}{SUFFIX}"


def checksum(metadata: Mapping[str, str], tensors: Mapping[str, Tensor]) -> str:
    """Return the SHA-256 of metadata and tensors, with their names, shapes and types."""
    digest = sha256(json.dumps(dict(metadata), sort_keys=True).encode())
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.numpy().reshape(-1).view("uint8").data)
    return digest.hexdigest()
