"""How the wheel and the sdist are built: the same files give the same bytes, wherever and whenever they are built.

The metadata is in pyproject.toml. What would differ otherwise: times of files and of the build, owners and modes, what
an earlier build left in ``build/`` and in its list of sources.
"""

import gzip
import os
import shutil
import tarfile
from pathlib import Path

from setuptools import setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.egg_info import egg_info
from setuptools.command.sdist import sdist

# the first date that a zip file knows, in seconds. A date given from outside wins; the wheel's writer reads it too
DATE = int(os.environ.setdefault("SOURCE_DATE_EPOCH", "315532800"))


class Wheel(bdist_wheel):
    """Made of the sources alone, each file with the same mode."""

    def run(self):
        for leftover in (self.get_finalized_command("build").build_lib, self.bdist_dir):
            shutil.rmtree(leftover, ignore_errors=True)
        super().run()

    def write_wheelfile(self, *args, **options):
        super().write_wheelfile(*args, **options)
        for path in Path(self.bdist_dir).rglob("*"):  # all files are there now, and none is in the archive yet
            path.chmod(0o755 if path.is_dir() else 0o644)


class Sources(egg_info):
    """Lists the sources that there are, not those of an earlier build."""

    def find_sources(self):
        Path(self.egg_info, "SOURCES.txt").unlink(missing_ok=True)
        super().find_sources()


class SourceArchive(sdist):
    """A .tar.gz in the order of names, without times, owners and modes."""

    def make_archive(self, base_name, format, root_dir=None, base_dir=None, owner=None, group=None):
        path = f"{base_name}.tar.gz"
        with (
            open(path, "wb") as file,
            gzip.GzipFile(filename="", mode="wb", fileobj=file, mtime=DATE) as packed,
            tarfile.open(fileobj=packed, mode="w") as archive,
        ):
            for member in sorted([Path(base_dir), *Path(base_dir).rglob("*")]):
                archive.add(member, recursive=False, filter=anonymous)
        return path


def anonymous(member):
    """An entry of the archive with nothing of this machine."""
    member.mtime, member.mode = DATE, 0o755 if member.isdir() else 0o644
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    return member


setup(cmdclass={"bdist_wheel": Wheel, "egg_info": Sources, "sdist": SourceArchive})
