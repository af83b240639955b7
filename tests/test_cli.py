"""The command ``fnn``: what it trains on, what it prints, and what it refuses."""

import subprocess
import sys

import numpy as np
import pytest

import fnn_core as fnn
from fnn_core.cli import main

pandas = pytest.importorskip("pandas")
pytest.importorskip("sklearn")

FAST = ["--layers", "16", "--epochs", "40", "--threads", "1", "--learning-rate", "0.01"]


@pytest.fixture
def fnn_command(capsys):
    """Runs the command, and gives its exit code, its output and its errors."""

    def run(*arguments):
        try:
            code = main([str(argument) for argument in arguments])
        except SystemExit as stop:
            code = stop.code
        out, err = capsys.readouterr()
        return code, out, err

    return run


@pytest.fixture
def frame(rng):
    """Flowers of three kinds that one number and one category nearly tell apart."""
    kind = rng.integers(0, 3, 150)
    return pandas.DataFrame(
        {
            "kind": np.array(["iris", "lily", "rose"])[kind],
            "height": 100.0 + 30.0 * kind + rng.standard_normal(150),
            "colour": np.where(kind == 2, "red", "blue"),
            "wild": rng.integers(0, 2, 150).astype(bool),
        }
    )


@pytest.fixture
def line(rng):
    """Features far from zero and of unlike scales, and a target that is linear in them."""
    features = rng.standard_normal((200, 3)) * [1.0, 50.0, 0.01] + [5.0, -300.0, 2.0]
    return features, 1000.0 + features @ [40.0, 2.0, 3000.0]


def score(out):
    return float(next(row for row in out.splitlines() if "validation" in row).split()[-1])


def test_digits_are_the_default(fnn_command):
    code, out, _ = fnn_command("train", *FAST, "--epochs", "5")
    assert code == 0
    rows = out.splitlines()
    assert rows[0] == (
        "digits: 1437 samples to train on, 360 to validate on, 64 features, 10 classes"
    )
    assert score("\n".join(rows[1:])) > 0.9
    assert any(row.startswith("samples a second ") for row in rows)
    plan = fnn.Network(
        [fnn.Dense(16, "relu"), fnn.Dense(10)],
        input_shape=64, loss="softmax_cross_entropy", n_threads=1,
    ).memory_plan(batch_size=32, optimizer="adam", update="auto")  # fmt: skip
    assert str(plan) in out


def test_quiet_prints_only_the_score_and_the_speed(fnn_command):
    code, out, err = fnn_command("train", *FAST, "--epochs", "1", "--quiet")
    assert code == 0
    assert [row.split()[0] for row in out.splitlines()] == ["validation", "samples"]
    assert err == ""


def test_same_seed_same_score(fnn_command):
    scores = [score(fnn_command("train", *FAST, "--epochs", 2, "--quiet")[1]) for _ in range(2)]
    assert scores[0] == scores[1]


@pytest.mark.parametrize("ending", ["csv", "parquet"])
@pytest.mark.parametrize("target", ["kind", "0"])
def test_tables_with_names_and_categories(fnn_command, frame, tmp_path, ending, target):
    path = tmp_path / f"flowers.{ending}"
    if ending == "csv":
        frame.to_csv(path, index=False)
    else:
        pytest.importorskip("pyarrow")
        frame.to_parquet(path)
    code, out, _ = fnn_command("train", path, "--target", target, *FAST)
    assert code == 0
    assert "120 samples to train on, 30 to validate on, 4 features, 3 classes" in out
    assert score(out) > 0.9


def test_the_last_column_is_the_target_and_a_header_may_be_missing(fnn_command, line, tmp_path):
    features, target = line
    path = tmp_path / "line.csv"
    np.savetxt(path, np.column_stack([features, target]), delimiter=",")
    code, out, _ = fnn_command("train", path, *FAST)
    assert code == 0
    assert "160 samples to train on, 40 to validate on, 3 features, regression" in out
    assert score(out) > 0.95


def test_a_header_of_column_numbers(fnn_command, line, tmp_path):
    """As pandas writes it of an array: no sample."""
    path = tmp_path / "line.csv"
    pandas.DataFrame(np.column_stack(line)).to_csv(path, index=False)
    code, out, _ = fnn_command("train", path, *FAST)
    assert code == 0
    assert "160 samples to train on, 40 to validate on, 3 features, regression" in out


@pytest.mark.parametrize("first", ["0,1", "0.0,1.0,2.0", "0,1,1"])
def test_first_samples_that_are_no_header(fnn_command, first, tmp_path):
    path = tmp_path / "few.csv"
    path.write_text("\n".join([first] * 10) + "\n")
    _, out, _ = fnn_command("train", path, "--task", "regression", *FAST)
    assert "8 samples to train on, 2 to validate on" in out


def test_npy(fnn_command, line, tmp_path):
    features, target = line
    np.save(tmp_path / "line.npy", np.column_stack([target, features]))
    code, out, _ = fnn_command("train", tmp_path / "line.npy", "--target", "0", *FAST)
    assert code == 0
    assert score(out) > 0.95


def test_npz_with_images_and_another_target(fnn_command, rng, tmp_path):
    labels = np.repeat([3, 8], 50)
    images = rng.standard_normal((100, 4, 4)) + labels[:, np.newaxis, np.newaxis]
    np.savez(tmp_path / "images.npz", X=images, label=labels)
    code, out, _ = fnn_command("train", tmp_path / "images.npz", "--target", "label", *FAST)
    assert code == 0
    assert "16 features, 2 classes" in out
    assert score(out) == 1.0


def test_several_regression_targets(fnn_command, line, tmp_path):
    features, target = line
    np.savez(tmp_path / "two.npz", X=features, y=np.column_stack([target, -target]))
    code, out, _ = fnn_command("train", tmp_path / "two.npz", *FAST)
    assert code == 0
    assert score(out) > 0.95


def test_every_flag_reaches_the_net(fnn_command, line, tmp_path, monkeypatch):
    features, target = line
    np.savez(tmp_path / "line.npz", X=features, y=target)
    seen = {}
    network, fit = fnn.Network.__init__, fnn.Network.fit

    def watch_network(self, layers, **options):
        seen.update(options, layers=layers)
        network(self, layers, **options)

    def watch_fit(self, *data, **options):
        seen.update(options)
        return fit(self, *data, **options)

    monkeypatch.setattr(fnn.Network, "__init__", watch_network)
    monkeypatch.setattr(fnn.Network, "fit", watch_fit)
    code, _, _ = fnn_command(
        "train", tmp_path / "line.npz", "--quiet", "--layers", "8,4", "--activation", "tanh",
        "--dropout", "0.1", "--memory", "store", "--update", "immediate", "--optimizer", "sgd",
        "--learning-rate", "0.001", "--epochs", "3", "--batch-size", "16", "--threads", "1",
        "--seed", "5", "--dtype", "float64",
    )  # fmt: skip
    assert code == 0
    assert [type(layer) for layer in seen["layers"]] == [
        fnn.Dense, fnn.Dropout, fnn.Dense, fnn.Dropout, fnn.Dense
    ]  # fmt: skip
    assert isinstance(seen["optimizer"], fnn.SGD)
    expected = {
        "memory": "store", "update": "immediate", "epochs": 3, "batch_size": 16,
        "n_threads": 1, "seed": 5, "dtype": "float64", "loss": "squared_error", "progress": False,
    }  # fmt: skip
    assert {name: seen[name] for name in expected} == expected


def test_saved_net_takes_and_gives_raw_numbers(fnn_command, line, tmp_path):
    features, target = line
    np.savez(tmp_path / "line.npz", X=features, y=target)
    saved = tmp_path / "line.safetensors"
    code, _, _ = fnn_command(
        "train", tmp_path / "line.npz", *FAST, "--dtype", "float64", "--save", saved
    )
    assert code == 0
    error = fnn.load(saved).predict(features)[:, 0] - target
    assert np.var(error) < 0.05 * np.var(target)


def test_saved_classifier_gives_classes_in_sorted_order(fnn_command, frame, tmp_path):
    frame.to_csv(tmp_path / "flowers.csv", index=False)
    saved = tmp_path / "flowers.safetensors"
    code, _, _ = fnn_command(
        "train", tmp_path / "flowers.csv", "--target", "kind", *FAST, "--save", saved
    )
    assert code == 0
    columns = pandas.get_dummies(frame.drop(columns="kind")).to_numpy(dtype="float32")
    predicted = np.array(["iris", "lily", "rose"])[fnn.load(saved).predict(columns).argmax(axis=1)]
    assert np.mean(predicted == frame["kind"]) > 0.9


def test_plan_prints_every_mode(fnn_command):
    code, out, err = fnn_command(
        "plan", "--inputs", "784", "--layers", "256,128", "--outputs", "10", "--batch-size", "128"
    )
    assert code == 0
    assert err == ""
    net = fnn.Network(
        [fnn.Dense(256, "relu"), fnn.Dense(128, "relu"), fnn.Dense(10)],
        input_shape=784, loss="softmax_cross_entropy",
    )  # fmt: skip
    for mode in ("recompute", "store", "reuse", "auto"):
        net.memory = mode
        plan = net.memory_plan(batch_size=128, optimizer="adam", update="auto")
        assert f"{mode}: {plan.total_bytes:,} bytes in all\n{plan}\n" in out


def test_plan_says_which_mode_an_activation_cannot_have(fnn_command):
    code, out, _ = fnn_command("plan", "--inputs", 8, "--outputs", 2, "--activation", "gelu")
    assert code == 0
    (refused,) = [row for row in out.splitlines() if "not possible" in row]
    assert refused.startswith("reuse: not possible: ")
    assert "gelu" in refused
    assert "auto: " in out


def test_version(fnn_command):
    assert fnn_command("--version")[:2] == (0, f"fnn_core {fnn.__version__}\n")


def test_any_seed_will_do(fnn_command):
    code, out, _ = fnn_command("train", "--seed", 2**70, "--epochs", "1", "--threads", "1")
    assert code == 0
    assert "validation accuracy" in out


def test_module_runs_as_the_command():
    command = [sys.executable, "-m", "fnn_core", "plan", "--inputs", "4", "--outputs", "1"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("recompute: ")


def test_a_net_is_saved_before_its_score_is_printed(tmp_path):
    """Whoever reads the output may have left by then."""
    saved = tmp_path / "net.safetensors"
    command = [sys.executable, "-u", "-m", "fnn_core", "train", "--epochs", "1", "--save", saved]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        process.stdout.readline()
        process.stdout.close()
    assert fnn.load(saved).input_shape == (64,)


def test_a_reader_that_has_seen_enough():
    """As of `fnn plan ... | head -1`: the end is quiet."""
    command = [sys.executable, "-m", "fnn_core", "plan", "--inputs", "64", "--outputs", "10"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 141


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ([], "COMMAND"),
        (["frain"], "frain"),
        (["train", "--layers", "8,x"], "'x'"),
        (["train", "--layers", "8,0"], "'0'"),
        (["train", "--activation", "step"], "step"),
        (["train", "--epochs", "0"], "--epochs: expected a whole number >= 1, got '0'"),
        (["train", "--batch-size", "1.5"], "--batch-size"),
        (["train", "--learning-rate", "nan"], "--learning-rate"),
        (["train", "--learning-rate", "-1"], "--learning-rate"),
        (["train", "--dropout", "1"], "--dropout: expected a number >= 0 and < 1, got '1'"),
        (["train", "--validation", "0"], "--validation"),
        (["train", "--validation", "0.001"], "cannot be split"),
        (["train", "--target", "y"], "--target needs a FILE"),
        (["train", "--threads", "0"], "--threads"),
        (["train", "--threads", "1000000"], "n_threads = 1000000: expected an int in 1..4096"),
        (["train", "--seed", "-1"], "--seed"),
        (["train", "--optimizer", "newton"], "newton"),
        (["train", "--memory", "reuse", "--activation", "gelu"], "gelu"),
        (["train", "--save", "net.pickle"], ".safetensors"),
        (["train", "--save", "no/such/folder/net.safetensors"], "cannot be written"),
        (["train", "missing.csv"], "missing.csv: no such file"),
        (["train", "table.xlsx"], "must end in one of .csv, .parquet, .npy, .npz"),
        (["plan", "--inputs", "3"], "--outputs"),
        (["plan", "--inputs", "0", "--outputs", "1"], "--inputs"),
    ],
)
def test_bad_flags_get_one_line_and_code_2(fnn_command, arguments, complaint):
    code, out, err = fnn_command(*arguments)
    assert code == 2
    assert out == ""
    assert err.count("\n") == 1
    assert err.startswith("fnn")
    assert complaint in err


@pytest.mark.parametrize(
    ("name", "content", "complaint"),
    [
        ("empty.csv", b"", "No columns"),
        ("one.csv", b"a\n1\n2\n", "at least 2 columns, got 1"),
        ("short.csv", b"a,b\n1,2\n", "at least 2 rows, got 1"),
        ("ragged.csv", b"a,b\n1,2\n1,2,3,4\n", "ragged.csv: "),
        ("binary.csv", b"\xff\xfe\x00\x81,\n", "binary.csv: "),
        ("gap.csv", b"age,b\n1,2\n,3\n4,5\n", "column 'age' has 1 missing values of 3"),
        ("huge.csv", b"a,b\ninf,2\n2,3\n4,5\n", "column 'a' has infinite values: 1 of 3"),
        ("lone.csv", b"a,b\n1,x\n2,y\n3,y\n4,y\n", "class x has one sample"),
        ("same.csv", b"a,b\n1,x\n2,x\n", "every target is x"),
        ("foreign.npy", b"not an array", "foreign.npy: "),
        ("cut.npy", b"\x93NUMPY\x01\x00", "cut.npy: "),
        ("foreign.npz", b"not an archive", "not an NPZ archive"),
        ("foreign.parquet", b"not a table", "foreign.parquet: "),
    ],
)
def test_bad_files_get_one_line_and_code_2(fnn_command, tmp_path, name, content, complaint):
    path = tmp_path / name
    path.write_bytes(content)
    saved = tmp_path / "net.safetensors"
    code, out, err = fnn_command("train", path, "--save", saved)
    assert code == 2
    assert out == ""
    assert err.count("\n") == 1
    assert complaint in err
    assert list(tmp_path.iterdir()) == [path]


def test_a_diverging_run_is_one_line_and_saves_nothing(fnn_command, line, tmp_path):
    features, target = line
    np.savez(tmp_path / "line.npz", X=features, y=target)
    code, _, err = fnn_command(
        "train", tmp_path / "line.npz", "--quiet", "--optimizer", "sgd", "--learning-rate", "1e30",
        "--save", tmp_path / "net.safetensors",
    )  # fmt: skip
    assert code == 1
    assert err.count("\n") == 1
    assert "lower --learning-rate" in err
    assert not (tmp_path / "net.safetensors").exists()


def test_an_interrupted_run_saves_nothing(fnn_command, tmp_path, monkeypatch):
    def interrupted(self, *data, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(fnn.Network, "fit", interrupted)
    code, _, err = fnn_command("train", "--quiet", "--save", tmp_path / "net.safetensors")
    assert code == 130
    assert "nothing was saved" in err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("module", ["sklearn", "pandas", "pyarrow"])
def test_a_missing_extra_is_named(fnn_command, line, tmp_path, monkeypatch, module):
    path = tmp_path / "line.parquet"
    pandas.DataFrame({"a": [1.0, 2.0], "b": [3.0, 4.0]}).to_parquet(path)
    for name in [name for name in sys.modules if name.partition(".")[0] == module]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, module, None)
    code, out, err = fnn_command("train", *([] if module == "sklearn" else [path]))
    assert code == 2
    assert out == ""
    assert err == f"fnn train: error: {module} is not installed: pip install 'fnn_core[train]'\n"
