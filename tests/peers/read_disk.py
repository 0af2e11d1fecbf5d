#!/usr/bin/env python3
"""Prints the SHA-256 of a disk as another implementation reads it.

usage: read_disk.py pyvmdk|pyvhdi|dissect IMAGE [PARENT...]
"""

import hashlib
import pathlib
import sys

CHUNK = 1 << 20


def pyvmdk_disk(paths):
    import pyvmdk

    handles = []
    for path in paths:
        handle = pyvmdk.handle()
        handle.open(str(path))
        handle.open_extent_data_files()
        handles.append(handle)
    for child, parent in zip(handles, handles[1:]):
        child.set_parent(parent)
    disk = handles[0]
    return disk.get_media_size(), disk.read_buffer


def pyvhdi_disk(paths):
    import pyvhdi

    files = []
    for path in paths:
        file = pyvhdi.file()
        file.open(str(path))
        files.append(file)
    for child, parent in zip(files, files[1:]):
        child.set_parent(parent)
    # A child reads through its parent as long as that is there.
    pyvhdi_disk.files = files
    return files[0].get_media_size(), files[0].read_buffer


def dissect_disk(paths):
    path = paths[0]
    if path.suffix == ".qcow2":
        from dissect.hypervisor.disk.qcow2 import QCow2

        disk = QCow2(path)
        stream = disk.open()
    elif path.suffix == ".vdi":
        from dissect.hypervisor.disk.vdi import VDI

        disk = VDI(path)
        stream = disk.open()
    elif path.suffix == ".vhd":
        from dissect.hypervisor.disk.vhd import VHD

        stream = disk = VHD(path.open("rb"))
    elif path.suffix == ".vhdx":
        from dissect.hypervisor.disk.vhdx import VHDX

        stream = disk = VHDX(path)
    else:
        from dissect.hypervisor.disk.vmdk import VMDK

        stream = disk = VMDK(path)
        if hasattr(disk, "open"):
            stream = disk.open()
    return disk.size, stream.read


def main():
    reader = {"pyvmdk": pyvmdk_disk, "pyvhdi": pyvhdi_disk, "dissect": dissect_disk}[sys.argv[1]]
    size, read = reader([pathlib.Path(name) for name in sys.argv[2:]])
    digest = hashlib.sha256()
    left = size
    while left:
        piece = read(min(CHUNK, left))
        if not piece:
            sys.exit(f"the disk ends {left} bytes early")
        digest.update(piece)
        left -= len(piece)
    print(digest.hexdigest())


main()
