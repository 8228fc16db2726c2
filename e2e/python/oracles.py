"""The formats' own light libraries as oracles: writes fresh checkpoints, and says what the libraries themselves make of them.

    oracles.py write DIR SEED   a folder DIR/<name> for each, and a line of JSON for each: what the library says is in it
    oracles.py read DIR         reads each folder again, and says whether its library could

Lines of `write`: {"folder", "format", "files", "tensors", "parameters", "dtypes"}; the last three are null where the format has no
tensors. `dtypes` counts parameters by the names of safetensors (F32, BF16, ...). Lines of `read`: {"folder", "ok"} and the `error`.
"""

import json
import math
import os
import pickle
import random
import sys
from collections import Counter

NAMES = {"f": "F", "i": "I", "u": "U", "b": "BOOL", "c": "C"}


def dtype_name(dtype):
    kind = NAMES.get(dtype.kind)
    return kind if kind == "BOOL" else f"{kind}{dtype.itemsize * 8}" if kind else str(dtype)


def summary(arrays):
    """What `status.contents` should say of these arrays."""
    counts = Counter()
    for array in arrays:
        counts[dtype_name(array.dtype)] += int(array.size)
    return {"tensors": len(arrays), "parameters": sum(counts.values()), "dtypes": dict(sorted(counts.items()))}


NOTHING = {"tensors": None, "parameters": None, "dtypes": None}


def shape(chance, most=3):
    return tuple(
        chance.choice([0, 1, 2, 3, 5, 8, 16]) if most > 1 else chance.randint(1, 40) for _ in range(chance.randint(0, most))
    )


def array(chance, kinds=("float32", "float16", "float64", "int64", "int32", "int16", "int8", "uint8", "bool")):
    import numpy as np

    dtype = np.dtype(chance.choice(kinds))
    sizes = shape(chance)
    numbers = np.frombuffer(chance.randbytes(math.prod(sizes)), np.uint8).reshape(sizes)
    # NumPy makes a number of its own kind of an array without axes.
    return np.asarray(numbers % 2 if dtype.kind == "b" else numbers).astype(dtype)


def name(chance, number):
    return f"{chance.choice(['model.', 'layer/', 'größe ', ''])}{chance.choice(['weight', 'bias', 'norm'])}.{number}"


# One function for each format: writes into the folder, returns the format's name and what is in it.


def safetensors(chance, folder):
    from safetensors.numpy import save_file

    tensors = {name(chance, number): array(chance) for number in range(chance.randint(0, 12))}
    metadata = {f"key{number}": chance.choice(["", "ü", "x" * 50]) for number in range(chance.randint(0, 3))}
    save_file(tensors, f"{folder}/model.safetensors", metadata=metadata or None)
    return "Safetensors", summary(list(tensors.values()))


def sharded(chance, folder):
    from safetensors.numpy import save_file

    total, everything, places = chance.randint(2, 5), [], {}
    for shard in range(1, total + 1):
        file = f"model-{shard:05}-of-{total:05}.safetensors"
        tensors = {f"block.{shard}.{number}": array(chance) for number in range(chance.randint(1, 4))}
        save_file(tensors, f"{folder}/{file}", metadata={"format": "pt"})
        places |= {tensor: file for tensor in tensors}
        everything += tensors.values()
    index = {"metadata": {"total_size": sum(tensor.nbytes for tensor in everything)}, "weight_map": places}
    with open(f"{folder}/model.safetensors.index.json", "w") as file:
        json.dump(index, file, indent=chance.choice([None, 2]))
    return "ShardedSafetensors", summary(everything)


def npy(chance, folder):
    import numpy as np

    made = array(chance)
    np.save(f"{folder}/array.npy", np.asfortranarray(made) if chance.random() < 0.5 else made)
    return "NumPy", summary([made])


def npz(chance, folder):
    import numpy as np

    arrays = {f"a{number}": array(chance) for number in range(chance.randint(1, 6))}
    chance.choice([np.savez, np.savez_compressed])(f"{folder}/arrays.npz", **arrays)
    return "NumPy", summary(list(arrays.values()))


def gguf(chance, folder):
    import gguf as library
    import numpy as np

    split = chance.choice([0, 2])
    writer = library.GGUFWriter(f"{folder}/model.gguf", "llama", split_max_tensors=split)
    writer.add_context_length(chance.randint(1, 4096))
    writer.add_token_list([f"t{number}" for number in range(chance.randint(1, 20))])
    counts = Counter()
    tensors = chance.randint(3, 6)
    for number in range(tensors):
        kind = chance.choice(["F32", "F16", "Q8_0", "Q4_0"])
        rows, columns = chance.randint(1, 6), 32 * chance.randint(1, 3)
        values = np.frombuffer(chance.randbytes(rows * columns), np.uint8).reshape(rows, columns).astype(np.float32)
        counts[kind] += values.size
        if kind == "F32":
            writer.add_tensor(f"blk.{number}.weight", values)
        elif kind == "F16":
            writer.add_tensor(f"blk.{number}.weight", values.astype(np.float16))
        else:
            quantised = library.GGMLQuantizationType[kind]
            writer.add_tensor(f"blk.{number}.weight", library.quants.quantize(values, quantised), raw_dtype=quantised)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return "Gguf", {"tensors": tensors, "parameters": sum(counts.values()), "dtypes": dict(sorted(counts.items()))}


def onnx(chance, folder):
    import numpy as np
    import onnx as library
    from onnx import TensorProto, helper, numpy_helper

    sizes = [chance.randint(1, 9) for _ in range(chance.randint(2, 5))]
    weights = [np.full(pair, chance.random(), np.float32) for pair in zip(sizes, sizes[1:])]
    nodes = [helper.make_node("MatMul", [f"x{n}", f"w{n}"], [f"x{n + 1}"]) for n in range(len(weights))]
    ends = [helper.make_tensor_value_info(f"x{n}", TensorProto.FLOAT, [1, sizes[n]]) for n in (0, len(weights))]
    tensors = [numpy_helper.from_array(weight, f"w{n}") for n, weight in enumerate(weights)]
    model = helper.make_model(helper.make_graph(nodes, "g", ends[:1], ends[1:], tensors))
    external = {"save_as_external_data": True, "size_threshold": 0, "all_tensors_to_one_file": chance.random() < 0.5}
    library.save(model, f"{folder}/model.onnx", **(external if chance.random() < 0.6 else {}))
    return "Onnx", summary(weights)


def data(chance, columns=3):
    import numpy as np

    numbers = np.random.default_rng(chance.getrandbits(32))
    return numbers.random((80, columns)), numbers.integers(0, 2, 80)


def lightgbm(chance, folder):
    import lightgbm as library

    parameters = {
        "objective": "binary",
        "verbose": -1,
        "min_data_in_leaf": 1,
        "num_leaves": chance.randint(2, 8),
        "num_threads": 1,
    }
    library.train(parameters, library.Dataset(*data(chance)), chance.randint(1, 5)).save_model(f"{folder}/model.txt")
    return "LightGbm", NOTHING


def xgboost(chance, folder):
    import xgboost as library

    kind = chance.choice(["gbtree", "dart", "gblinear"])
    depth = {} if kind == "gblinear" else {"max_depth": chance.randint(1, 4)}
    parameters = {"objective": "binary:logistic", "booster": kind, "nthread": 1, **depth}
    booster = library.train(parameters, library.DMatrix(*data(chance)), chance.randint(1, 5))
    booster.save_model(f"{folder}/model.{chance.choice(['json', 'ubj'])}")
    return "XgBoost", NOTHING


def estimator(chance):
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.linear_model import LogisticRegression

    return chance.choice([LogisticRegression(), RandomForestClassifier(chance.randint(1, 4))]).fit(*data(chance))


def sklearn(chance, folder):
    with open(f"{folder}/model.pkl", "wb") as file:
        pickle.dump(estimator(chance), file, protocol=chance.randint(2, 5))
    return "Pickle", NOTHING


def joblib(chance, folder):
    import joblib as library

    library.dump(
        estimator(chance),
        f"{folder}/model.joblib",
        compress=chance.choice([0, *((m, 3) for m in ("zlib", "gzip", "bz2", "lzma", "xz"))]),
    )
    return "Joblib", NOTHING


def skops(chance, folder):
    import skops.io

    skops.io.dump(estimator(chance), f"{folder}/model.skops")
    return "Skops", NOTHING


def mlflow(chance, folder):
    import mlflow.sklearn
    from mlflow.models import infer_signature

    os.rmdir(folder)
    features, labels = data(chance)
    serialization = chance.choice(["skops", "pickle", "cloudpickle"])
    # Types that skops knows only when told: the same in each version of MLflow.
    trusted = {"skops_trusted_types": ["numpy.dtype", "sklearn.tree._tree.Tree"]} if serialization == "skops" else {}
    options = {"signature": infer_signature(features, labels), "pip_requirements": ["scikit-learn"], **trusted}
    mlflow.sklearn.save_model(estimator(chance), folder, serialization_format=serialization, **options)
    return "MlflowModel", NOTHING


WRITERS = [safetensors, sharded, npy, npz, gguf, onnx, lightgbm, xgboost, sklearn, joblib, skops, mlflow]


def write(root, seed):
    import numpy as np

    for writer in WRITERS:
        # A format's folder depends on the seed alone, not on the formats before it.
        chance = random.Random(f"{writer.__name__} {seed}")
        np.random.seed(chance.getrandbits(32))
        folder = os.path.join(root, writer.__name__)
        os.makedirs(folder)
        kind, said = writer(chance, folder)
        files = sorted(os.path.relpath(os.path.join(at, file), folder) for at, _, names in os.walk(folder) for file in names)
        print(json.dumps({"folder": writer.__name__, "format": kind, "files": files, **said}, sort_keys=True), flush=True)


def load(kind, path):
    """Reads one folder with the library that owns its format, every value of it."""
    files = [os.path.join(path, file) for file in sorted(os.listdir(path))]
    if kind == "mlflow":
        import mlflow.pyfunc
        import numpy as np

        return mlflow.pyfunc.load_model(path).predict(np.zeros((1, 3)))
    if kind == "sharded":
        with open(f"{path}/model.safetensors.index.json") as file:
            places = json.load(file)["weight_map"]
        from safetensors import safe_open

        for tensor, file in places.items():
            with safe_open(f"{path}/{file}", "np") as opened:
                opened.get_tensor(tensor)
        return None
    for file in files:
        load_file(kind, file)


def load_file(kind, file):
    if kind == "safetensors":
        from safetensors.numpy import load_file as read

        read(file)
    elif kind in ("npy", "npz"):
        import numpy as np

        loaded = np.load(file)
        return [loaded[key] for key in loaded.files] if kind == "npz" else loaded
    elif kind == "gguf":
        import gguf as library

        library.GGUFReader(file)
    elif kind == "onnx":
        import onnx as library

        if file.endswith(".onnx"):
            library.checker.check_model(file)
            library.load(file)
    elif kind == "lightgbm":
        import lightgbm as library

        library.Booster(model_file=file)
    elif kind == "xgboost":
        import xgboost as library

        library.Booster().load_model(file)
    elif kind == "sklearn":
        with open(file, "rb") as opened:
            pickle.load(opened)
    elif kind == "joblib":
        import joblib as library

        library.load(file)
    elif kind == "skops":
        import skops.io

        skops.io.load(file, trusted=skops.io.get_untrusted_types(file=file))


def read(root):
    for folder in sorted(os.listdir(root)):
        try:
            load(folder, os.path.join(root, folder))
            answer = {"ok": True}
        except Exception as error:
            answer = {"ok": False, "error": f"{type(error).__name__}: {error}"[:300]}
        print(json.dumps({"folder": folder, **answer}, sort_keys=True), flush=True)


def main():
    if len(sys.argv) == 4 and sys.argv[1] == "write":
        write(sys.argv[2], int(sys.argv[3]))
    elif len(sys.argv) == 3 and sys.argv[1] == "read":
        read(sys.argv[2])
    else:
        sys.exit(__doc__)


if __name__ == "__main__":
    main()
