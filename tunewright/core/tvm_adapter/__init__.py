"""The only door to TVM: importing this package imports TVM, with torch hidden from it.

tvm_ffi imports torch where it is installed: 3 s and 515 MB instead of 1.1 s and 266 MB. Nothing here
needs it, so torch is hidden while TVM loads, unless the process has loaded it already.
"""

from tunewright.core.tvm_adapter import _loading

_loading.load_tvm()
