#!/usr/bin/env python3
"""Prints the volume name of an ISO 9660 image, and the names and contents of its files as hex, one
file a line: by their Joliet names, then by their plain ones."""

import io
import sys

import pycdlib


def content(iso, **path):
    out = io.BytesIO()
    iso.get_file_from_iso_fp(out, **path)
    return out.getvalue().hex()


iso = pycdlib.PyCdlib()
iso.open(sys.argv[1])
print(iso.pvd.volume_identifier.decode().strip())
for child in iso.list_children(joliet_path="/"):
    name = child.file_identifier().decode("utf-16_be")
    if child.is_file():
        print("joliet", name, content(iso, joliet_path="/" + name))
for child in iso.list_children(iso_path="/"):
    name = child.file_identifier().decode()
    if child.is_file():
        print("iso", name, content(iso, iso_path="/" + name))
