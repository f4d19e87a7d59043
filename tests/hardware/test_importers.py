"""Other tools' figures: CNNParted's layer tables."""

from pathlib import Path

import pytest

from afpjax.hardware import (
    LayerRow,
    cost_tables,
    load_platform,
    read_layer_table,
    replace_column,
)
from afpjax.inputs.errors import InputError

HEAD = "No.;Layer;Latency [ms];Energy [mJ]\n"
TABLE = HEAD + (
    "1;/features/features.0/Conv;2.36544;0.445161340739008\n"
    "2;/features/features.3/Conv;9.331199999999999;1.53367165783872\n"
)


def written(folder: Path, text: str, name: str = "table.csv") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def test_a_cnnparted_table_is_read_in_its_order(tmp_path):
    assert read_layer_table(written(tmp_path, TABLE)) == (
        LayerRow("/features/features.0/Conv", 2.36544, 0.445161340739008),
        LayerRow("/features/features.3/Conv", 9.331199999999999, 1.53367165783872),
    )


def test_a_table_saved_by_a_spreadsheet_is_read(tmp_path):
    """With a byte order mark, CRLF, blanks around names and columns in another order."""
    text = "\ufeffLayer ; Energy [mJ];Latency [ms]\r\n fc1 ;2;1e-3\r\n"
    assert read_layer_table(written(tmp_path, text)) == (LayerRow("fc1", 1e-3, 2.0),)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        # CNNParted ships one: alexnet_test_mnsim_layers.csv.
        (HEAD + "2;/features/features.2/MaxPool;-0.0868;0.0026\n",
         r"table\.csv, line 2: `Latency \[ms\]` is '-0\.0868': give a number, zero or more"),
        (HEAD + "1;a;1;0.1\n2;b;1;nan\n", r"table\.csv, line 3: `Energy \[mJ\]` is 'nan'"),
        (HEAD + "1;a;inf;0.1\n", r"`Latency \[ms\]` is 'inf'"),
        (HEAD + "1;a;1,5;0.1\n", r"`Latency \[ms\]` is '1,5'"),
        (HEAD + "1;a;1\n", r"`Energy \[mJ\]` is None"),
        (HEAD, r"table\.csv: the table has no rows"),
        ("", r"table\.csv: no column `Layer`"),
        ("No.,Layer,Latency [ms],Energy [mJ]\n1,a,1,1\n", r"no column `Layer`; give a table"),
        ("No.;Layer;Latency [s];Energy [mJ]\n1;a;1;1\n", r"no column `Latency \[ms\]`"),
    ],
)  # fmt: skip
def test_a_bad_table_says_where(tmp_path, text, message):
    with pytest.raises(InputError, match=message):
        read_layer_table(written(tmp_path, text))


@pytest.fixture
def tables_of():
    platform = load_platform(("eyeriss", "simba"), "ucie")
    return lambda graph: cost_tables(graph, platform)


def rows(*names: str) -> tuple[LayerRow, ...]:
    """Row i costs i + 1 ms and ten times that in mJ."""
    return tuple(LayerRow(n, i + 1.0, 10.0 * (i + 1)) for i, n in enumerate(names))


SMALL = (("a", 3, 5, 3, 4, 5, 1), ("b.a", 4, 5, 3, 4, 5, 1), ("b.c", 4, 5, 3, 4, 5, 1))


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (("b.c", "a", "b.a"), [2, 3, 1]),  # by name
        (("/b/c/Conv", "/a/Conv", "/b/a/Conv"), [2, 3, 1]),  # by ONNX path
        (("/b/b.c/Conv", "/a/Conv", "/b/b.a/Conv"), [2, 3, 1]),  # of a list's children
        (("a/b.c/y", "a/z", "b.a"), [2, 3, 1]),  # by the innermost part of the path
        (("one", "two", "three"), [1, 2, 3]),  # no name known: in order
    ],
)
def test_rows_are_matched_to_layers(chain_of, tables_of, names, expected):
    graph = chain_of(SMALL)
    own = tables_of(graph)
    got = replace_column(own, 1, graph, rows(*names), batch=2)
    assert got.latency_ms[:, 1].tolist() == [2.0 * value for value in expected]
    assert got.energy_mj[:, 1].tolist() == [20.0 * value for value in expected]
    assert got.latency_ms[:, 0].tolist() == own.latency_ms[:, 0].tolist()
    assert got.energy_mj[:, 0].tolist() == own.energy_mj[:, 0].tolist()


def test_lists_within_lists_and_within_modules_find_their_layers(chain_of, tables_of):
    """torchvision's ResNet and MobileNet, as torch.onnx names them: nested ones were not found."""
    known = ("layer1.0.conv1", "layer1.0.downsample.0", "features.1.conv.0.0", "features.1.conv.1")
    paths = (
        "/features/features.1/conv/conv.1/Conv",
        "/features/features.1/conv/conv.0/conv.0.0/Conv",
        "/layer1/layer1.0/downsample/downsample.0/Conv",
        "/layer1/layer1.0/conv1/Conv",
    )
    graph = chain_of([(name, 4, 5, 3, 4, 5, 1) for name in known])
    got = replace_column(tables_of(graph), 0, graph, rows(*paths))
    assert got.latency_ms[:, 0].tolist() == [4.0, 3.0, 2.0, 1.0]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("a", "b.a"), "layer table: no row for layer `b.c`"),
        (("a", "b.a", "b.c", "/relu/Relu"), "row `/relu/Relu` names no layer"),
        (("a", "b.a", "b.c", "/x/a/Conv"), "two rows for layer `a`"),
        (("one", "two"), "2 rows, none named after a layer, for 3 layers"),
    ],
)
def test_rows_that_do_not_match_are_refused(chain_of, tables_of, names, message):
    graph = chain_of(SMALL)
    with pytest.raises(InputError, match=message):
        replace_column(tables_of(graph), 1, graph, rows(*names))
