"""What layers are called: after the parameters that their kernels are made of."""

LEAVES = ("kernel", "weight", "weights", "w", "W", "embedding")
WRAPPERS = ("value", "raw_value")  # an NNX variable's array
COLLECTIONS = ("params",)


def layer_name(origin: frozenset[str]) -> str:
    """The common dotted path of some parameters, without the leaf's own name; "" where none."""
    paths = [path.split(".") for path in sorted(origin)]
    if not paths:
        return ""
    common = []
    for parts in zip(*paths, strict=False):
        if len(set(parts)) > 1:
            break
        common.append(parts[0])
    for endings in (WRAPPERS, LEAVES):
        if len(common) > 1 and common[-1] in endings:
            common.pop()
    if len(common) > 1 and common[0] in COLLECTIONS:
        common = common[1:]
    return ".".join(common)
