"""read_headers.py FOLDER: names, types and shapes of all tensors of all safetensors files, as safetensors itself reads them."""
import pathlib
import sys

from safetensors import safe_open

tensors = 0
for path in sorted(pathlib.Path(sys.argv[1]).rglob("*.safetensors")):
    with safe_open(path, framework="numpy") as file:
        for name in file.keys():
            piece = file.get_slice(name)
            piece.get_shape(), piece.get_dtype()
            tensors += 1
print(tensors)
