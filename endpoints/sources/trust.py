"""Which names a pickle of weights may import: what rebuilds arrays may, what reaches for the machine may not."""

from __future__ import annotations

import re
from typing import Final

HARMLESS, UNKNOWN, DANGEROUS = "harmless", "unknown", "dangerous"

_PLAIN: Final = "bool bytearray bytes complex dict float frozenset int list object range set slice str tuple"
_BUILTINS: Final = frozenset(_PLAIN.split())
_ARRAYS: Final = frozenset({"_reconstruct", "scalar"})
# Every name of these modules that is fine; any other of theirs is dangerous.
ALLOWED: Final = {
    "builtins": _BUILTINS,
    "__builtin__": _BUILTINS | {"long", "unicode", "xrange"},
    "collections": frozenset({"OrderedDict", "defaultdict", "Counter", "deque"}),
    "datetime": frozenset({"date", "datetime", "time", "timedelta", "timezone"}),
    "copyreg": frozenset({"_reconstructor", "__newobj__"}),
    "copy_reg": frozenset({"_reconstructor", "__newobj__"}),
    "_codecs": frozenset({"encode"}),
    "numpy.core.multiarray": _ARRAYS,
    "numpy._core.multiarray": _ARRAYS,
    "numpy.core.numeric": frozenset({"_frombuffer"}),
    "numpy._core.numeric": frozenset({"_frombuffer"}),
    "numpy.random._pickle": frozenset({"__bit_generator_ctor", "__generator_ctor", "__randomstate_ctor"}),
    "numpy.ma.core": frozenset({"_mareconstruct", "MaskedArray"}),
    "joblib.numpy_pickle": frozenset({"NumpyArrayWrapper"}),
    "torch.storage": frozenset(
        {"TypedStorage", "UntypedStorage", "_load_from_bytes"}
    ),  # its bytes are looked into
    "torch._tensor": frozenset({"_rebuild_from_type_v2"}),
    "torch.nn.parameter": frozenset({"Buffer", "Parameter"}),
    "torch.serialization": frozenset({"_get_layout"}),
}
_TORCH_TYPES: Final = re.compile(
    r"(\w+Storage|Size|Tensor|device|dtype|per_tensor_affine|per_channel_affine"
    r"|bool|u?int(8|16|32|64)|q?u?int\d+|b?float\d+(_e\dm\d\w*)?|complex\d+|half|double|long|short|strided|sparse_coo)"
)
_NUMPY_TYPES: Final = re.compile(
    r"ndarray|dtype|matrix|[A-Za-z]*?(bool_?|u?int\d*|float\d*|complex\d*|str_|bytes_|void|object_)"
)
# Classes of these are made as they were saved; what is written small in them are functions.
LIBRARIES: Final = re.compile(
    r"(numpy\.dtypes|torch\.nn\.modules|torch\.optim|sklearn|scipy\.(sparse|spatial|stats|interpolate)|pandas|xgboost"
    r"|lightgbm|catboost|transformers|tokenizers|timm|torchvision|datetime|decimal|fractions|uuid"
    r"|pathlib|argparse|ultralytics|pytorch_lightning|lightning)(\.|$)"
)
_CLASS: Final = re.compile(r"_*[A-Z]\w*")
_MACHINE: Final = """
os posix nt sys subprocess socket socketserver ssl shutil runpy importlib imp pty commands popen2 ctypes
_ctypes cffi code codeop pdb bdb timeit cProfile profile trace doctest webbrowser http urllib urllib2 requests
httpx aiohttp httpx2 asyncio _asyncio multiprocessing threading _thread concurrent signal pickle _pickle
cPickle dill cloudpickle marshal types functools operator _operator pip setuptools distutils venv ensurepip
pkgutil pydoc platform tempfile glob fileinput io _io zipimport zipfile tarfile inspect gc atexit site ftplib
smtplib telnetlib xmlrpc logging unittest test idlelib lib2to3 numpy torch joblib collections builtins
__builtin__ copyreg copy_reg _codecs codecs ast dis linecache tokenize tracemalloc resource fcntl mmap select
selectors readline getpass pwd shelve dbm sqlite3 antigravity turtle tkinter django celery endpoints accounts
gateway monitoring billing serving tir_console
"""
REACHES_OUT: Final = frozenset(_MACHINE.split())  # these and all beneath them


def judged(module: str, name: str) -> str:
    """HARMLESS, UNKNOWN or DANGEROUS. A dotted name reaches through an object, to anything."""
    if name in ALLOWED.get(module, ()):
        return HARMLESS
    if module == "torch" and _TORCH_TYPES.fullmatch(name):
        return HARMLESS
    if module == "torch._utils" and re.fullmatch(r"_rebuild_\w+", name):
        return HARMLESS
    if module == "numpy" and _NUMPY_TYPES.fullmatch(name):
        return HARMLESS
    if LIBRARIES.match(module) and _CLASS.fullmatch(name):
        return HARMLESS
    if module.split(".", maxsplit=1)[0] in REACHES_OUT or "." in name:
        return DANGEROUS
    return UNKNOWN
