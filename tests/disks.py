"""A disk in memory that knows what would be left of it after a crash.

POSIX promises little, and this promises no more: what was written since the last fsync of a file
may be there in part (any prefix of the writes, the next one torn or as zeros), and what was done to
names since the last fsync of the folder may be there in part (any prefix), independently.
"""

import errno
import os
from itertools import product
from pathlib import Path

from common.io.disk import Disk


class Inode:
    def __init__(self, data=b""):
        self.seen, self.kept, self.pending = bytearray(data), bytearray(data), []

    def left(self):
        """Every content that a crash may leave."""
        found = [bytes(self.kept)]
        data = bytearray(self.kept)
        for number, (offset, piece) in enumerate(self.pending):
            for torn in _torn(piece):
                found.append(bytes(_with(data, offset, torn)))
            data = _with(data, offset, piece)
            if number == len(self.pending) - 1:
                found.append(bytes(data))
        return list(dict.fromkeys(found))


def _torn(piece):
    """A write that got to the disk in part: its first bytes, or its length alone."""
    if piece is None:
        return []
    size = len(piece)
    cuts = {1, size - 1, *(size * part // 8 for part in range(1, 8))} - {0, size}
    return [piece[:cut] for cut in sorted(cuts)] + [bytes(size)]


def _with(data, offset, piece):
    data = bytearray(data)
    if piece is None:  # cut
        return data[:offset]
    data.extend(bytes(max(0, offset + len(piece) - len(data))))
    data[offset : offset + len(piece)] = piece
    return data


class MemoryDisk(Disk):
    """Args:
    files: content by path, all of it on disk.
    watch: called after every change.
    fault: called before every call with its name and path; may raise OSError.
    """

    def __init__(self, files=(), folders=(), *, watch=None, fault=None):
        self.inodes = {Path(path): Inode(data) for path, data in dict(files).items()}
        self.kept_names = dict(self.inodes)
        self.pending_names = []
        self.folders = {Path("/"), *map(Path, folders)}
        self.new_folders = set()
        self.watch, self.fault = watch or (lambda: None), fault or (lambda *_: None)
        self.descriptors, self.locked = {}, {}

    def read(self, path):
        self.fault("read", path)
        return bytes(self.inodes[path].seen) if path in self.inodes else None

    def names(self, folder):
        return sorted(path.name for path in self.inodes if path.parent == folder)

    def exists(self, path):
        return path in self.inodes or path in self.folders

    def mode(self, path):
        return 0o600

    def size(self, path):
        return len(self._inode(path).seen)

    def make_folder(self, path):
        self.fault("make_folder", path)
        if path not in self.folders:
            self.folders.add(path)
            self.new_folders.add(path)
            self.watch()

    def open(self, path, flags):
        self.fault("open", path)
        if path not in self.inodes:
            if not flags & os.O_CREAT:
                raise FileNotFoundError(errno.ENOENT, "No such file or directory", str(path))
            self._name(path, Inode())
        number = max(self.descriptors, default=2) + 1
        self.descriptors[number] = (self.inodes[path], path)
        if flags & os.O_TRUNC:
            self._change(self.inodes[path], 0, None)
        return number

    def write(self, descriptor, data, offset):
        inode, path = self.descriptors[descriptor]
        self.fault("write", path)
        self._change(inode, offset, bytes(data))
        return len(data)

    def allocate(self, descriptor, size):
        inode, path = self.descriptors[descriptor]
        self.fault("allocate", path)
        self._change(inode, len(inode.seen), bytes(max(0, size - len(inode.seen))))

    def truncate(self, descriptor, size):
        inode, path = self.descriptors[descriptor]
        self.fault("truncate", path)
        self._change(inode, size, None)

    def fsync(self, descriptor):
        inode, path = self.descriptors[descriptor]
        try:
            self.fault("fsync", path)
        except OSError:
            inode.pending.clear()  # the kernel takes the pages for clean: they may never be written
            raise
        for offset, piece in inode.pending:
            inode.kept = _with(inode.kept, offset, piece)
        inode.pending.clear()
        self.watch()

    def close(self, descriptor):
        del self.descriptors[descriptor]
        self.locked = {p: d for p, d in self.locked.items() if d != descriptor}

    def rename(self, source, target):
        self.fault("rename", source)
        inode = self._inode(source)
        del self.inodes[source]
        self.inodes[target] = inode
        self._pend({source: None, target: inode})

    def remove(self, path):
        self.fault("remove", path)
        self._inode(path)
        del self.inodes[path]
        self._pend({path: None})

    def fsync_folder(self, path):
        self.fault("fsync_folder", path)
        for change in [c for c in self.pending_names if _folder(c) == path]:
            self.kept_names = _renamed(self.kept_names, change)
        self.pending_names = [c for c in self.pending_names if _folder(c) != path]
        self.new_folders = {folder for folder in self.new_folders if folder.parent != path}
        self.watch()

    def lock(self, path):
        if path in self.locked:
            return None
        descriptor = self.open(path, os.O_CREAT)
        self.locked[path] = descriptor
        return descriptor

    def killed(self):
        """What is left when the process alone dies."""
        return {path: bytes(inode.seen) for path, inode in self.inodes.items()}

    def crashes(self):
        """Every disk that a crash at this moment may leave, as files by path."""
        for names in self._names_left():
            paths = sorted(names)
            for contents in product(*(names[path].left() for path in paths)):
                yield dict(zip(paths, contents, strict=True))

    def _names_left(self):
        """Names after any prefix of the changes in each folder; new folders are there or not."""
        by_folder = {}
        for change in self.pending_names:
            by_folder.setdefault(_folder(change), []).append(change)
        for lengths in product(*(range(len(changes) + 1) for changes in by_folder.values())):
            names = self.kept_names
            for changes, length in zip(by_folder.values(), lengths, strict=True):
                for change in changes[:length]:
                    names = _renamed(names, change)
            yield names
            if self.new_folders:
                gone = self.new_folders
                yield {p: inode for p, inode in names.items() if not gone & set(p.parents)}

    def _inode(self, path):
        if path not in self.inodes:
            raise FileNotFoundError(errno.ENOENT, "No such file or directory", str(path))
        return self.inodes[path]

    def _name(self, path, inode):
        self.inodes[path] = inode
        self._pend({path: inode})

    def _pend(self, change):
        self.pending_names.append(change)
        self.watch()

    def _change(self, inode, offset, piece):
        inode.seen = _with(inode.seen, offset, piece)
        inode.pending.append((offset, piece))
        self.watch()


def _renamed(names, change):
    return {path: inode for path, inode in {**names, **change}.items() if inode is not None}


def _folder(change):
    return next(iter(change)).parent
