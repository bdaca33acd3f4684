"""Token ids by OpenCLIP's own tokenizer: the expectations of `loader/src/text/open_clip.rs`.

open_clip_tokens.py DIR      reads DIR/captions.json, a list of texts; writes DIR/tokens.i32, rows of 77, and
                             DIR/undecoded.i32, the same without the guess that text was decoded wrongly

The package `open_clip` imports PyTorch, which its tokenizer needs only to hold the result. So the tokenizer's file is
loaded alone, with NumPy's arrays in the place of tensors; all the rest of it is as published.
"""

import functools
import importlib.util
import json
import sys
import types
from pathlib import Path

import ftfy
import numpy as np

folder = Path(sys.argv[1])


def load():
    torch = types.ModuleType("torch")
    torch.Tensor = torch.LongTensor = np.ndarray
    torch.long = np.int64
    torch.zeros = lambda *shape, dtype: np.zeros(shape, dtype)
    torch.tensor = np.asarray
    sys.modules["torch"] = torch
    package = importlib.util.find_spec("open_clip").submodule_search_locations[0]
    spec = importlib.util.spec_from_file_location("tokenizer", Path(package) / "tokenizer.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.SimpleTokenizer()


captions = json.loads((folder / "captions.json").read_text(encoding="utf-8"))
tokenizer = load()
tokenizer(captions).astype(np.int32).tofile(folder / "tokens.i32")
ftfy.fix_text = functools.partial(ftfy.fix_text, fix_encoding=False)
tokenizer(captions).astype(np.int32).tofile(folder / "undecoded.i32")
