"""The entries of a checkpoint file, which is a zip archive as ``torch.save`` writes it."""

import struct
import zipfile
from typing import BinaryIO

END, END_64, LOCATOR = 22, 56, 20
"""The sizes of what ends an archive: its last record, and the two before that in a large one."""


class BadArchive(Exception):
    """Why an archive isn't read."""


class Archive:
    """The archive in ``file``, of which nothing is unpacked.

    ``torch.load`` unpacks what is compressed, and finds the directory of an archive and the names in it by rules that
    differ from python's. So an archive must be as ``torch.save`` writes it: each entry stored as it is, none inside
    another, names that differ by more than their case, all in one folder, and the directory at the very end. Raises
    ``BadArchive`` for any other.
    """

    def __init__(self, file: BinaryIO) -> None:
        directory, self._file = _directory(file), file
        try:
            self._zip = zipfile.ZipFile(file)
        except Exception as error:  # many kinds, for a header that makes no sense
            raise BadArchive(str(error) or type(error).__name__) from error
        each = self._zip.infolist()
        if not each or self._zip.start_dir != directory:
            raise BadArchive("its directory isn't where it says")
        top = each[0].filename.partition("/")[0] + "/"
        end = 0
        for info in sorted(each, key=lambda info: info.header_offset):
            _check(info, top)
            if info.header_offset < end:
                raise BadArchive(f"{info.filename!r} lies inside another entry")
            end = info.header_offset + 30 + len(info.filename) + info.file_size
        if end > directory:
            raise BadArchive("its entries are longer than the file")
        if len({info.filename.lower() for info in each}) < len(each):
            raise BadArchive("two entries have the same name")
        self._top = top
        self.sizes = {info.filename.removeprefix(top): info.file_size for info in each}
        """Of each entry, in bytes, by its name."""

    def read(self, name: str) -> bytes:
        """An entry, compared with its checksum."""
        try:
            return self._zip.read(self._top + name)
        except Exception as error:
            raise BadArchive(str(error) or type(error).__name__) from error

    def start_of(self, name: str) -> int:
        """Where in the file the bytes of an entry begin."""
        start = self._zip.getinfo(self._top + name).header_offset
        self._file.seek(start)
        header = self._file.read(30)
        if len(header) < 30 or header[:4] != b"PK\3\4":
            raise BadArchive(f"{name!r} has no header")
        return int(start + 30 + sum(struct.unpack("<HH", header[26:30])))

    def verify(self) -> None:
        """Compare every entry with its checksum. An error of the disk is raised as it is."""
        try:
            bad = self._zip.testzip()
        except OSError:
            raise
        except Exception as error:
            raise BadArchive(str(error) or type(error).__name__) from error
        if bad is not None:
            raise BadArchive(bad)


def _check(info: zipfile.ZipInfo, top: str) -> None:
    if info.compress_type != zipfile.ZIP_STORED or info.compress_size != info.file_size or info.flag_bits & 1:
        raise BadArchive(f"{info.filename!r} is compressed")
    if not info.filename.startswith(top) or info.orig_filename != info.filename:
        raise BadArchive(f"{info.filename!r} is outside of {top!r}")


def _directory(file: BinaryIO) -> int:
    """Where the directory begins, which must end where the last records begin."""
    size = file.seek(0, 2)
    file.seek(max(0, size - END - LOCATOR - END_64))
    tail = file.read()
    if len(tail) < END or tail[-END:-18] != b"PK\5\6" or tail[-2:] != b"\0\0":
        raise BadArchive("it has no end")
    length, start = struct.unpack("<LL", tail[-10:-2])
    end = size - END
    if tail[-END - LOCATOR : -END - LOCATOR + 4] == b"PK\6\7":
        end -= LOCATOR + END_64
        record, (place,) = tail[-END - LOCATOR - END_64 :], struct.unpack("<Q", tail[-END - LOCATOR + 8 : -END - 4])
        if record[:4] != b"PK\6\6" or place != end or struct.unpack("<Q", record[4:12]) != (END_64 - 12,):
            raise BadArchive("it has two ends")
        length, start = struct.unpack("<QQ", record[40:56])
    if start + length != end:
        raise BadArchive("its directory isn't where it says")
    return int(start)
