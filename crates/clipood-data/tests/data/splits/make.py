import pickle, sys, types, os
mod = types.ModuleType("dassl.data.datasets.base_dataset")
class Datum:
    def __init__(self, impath="", label=0, domain=0, classname=""):
        self._impath = impath; self._label = label; self._domain = domain; self._classname = classname
Datum.__module__ = "dassl.data.datasets.base_dataset"
Datum.__qualname__ = "Datum"
mod.Datum = Datum
for n in ["dassl", "dassl.data", "dassl.data.datasets"]:
    sys.modules[n] = types.ModuleType(n)
sys.modules["dassl.data.datasets.base_dataset"] = mod
root = "/home/somebody/datasets/imagenet/images"
out = sys.argv[1]
os.makedirs(out, exist_ok=True)
classes = ["fish", "house", "star", "tree"]
def items(split, numbers):
    return [Datum(f"{root}/{split}/{c}/{i:02}.png", label, 0, c) for label, c in enumerate(classes) for i in numbers]
for protocol in (2, 4, 5):
    with open(f"{out}/shot_2-seed_1.protocol{protocol}.pkl", "wb") as f:
        pickle.dump({"train": items("train", [3, 1])}, f, protocol=protocol)
with open(f"{out}/preprocessed.pkl", "wb") as f:
    pickle.dump({"train": items("train", range(4)), "test": items("test", range(6))}, f, protocol=pickle.HIGHEST_PROTOCOL)
class Evil:
    def __reduce__(self):
        return (os.system, ("touch EXECUTED",))
with open(f"{out}/evil.pkl", "wb") as f:
    pickle.dump({"train": [Evil()]}, f, protocol=4)
