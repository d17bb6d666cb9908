"""Models that our own server can call: a folder's own model.py, a plain ONNX file, a transformers folder."""
