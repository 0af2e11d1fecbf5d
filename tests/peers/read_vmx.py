#!/usr/bin/env python3
"""Prints as JSON what dissect.hypervisor reads in a VMX: its keys, in lower case, and its disks.

usage: read_vmx.py FILE.vmx
"""

import json
import pathlib
import sys

from dissect.hypervisor.descriptor.vmx import VMX

vmx = VMX.parse(pathlib.Path(sys.argv[1]).read_text(encoding="utf-8"))
print(json.dumps({"keys": vmx.attr, "disks": vmx.disks()}))
