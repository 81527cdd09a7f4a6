"""The benchmark measures what it says, and every committed result holds its conditions."""

from __future__ import annotations

import dataclasses
import importlib
import importlib.util
import json
import re
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
import torchvision

import xai_fast as xf
from xai_fast.engine import tiers

SIDES = ("prepared", "folded", "plain")
BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    names = [file.stem for file in BENCHMARKS.glob("*.py")]
    others = {name: sys.modules.pop(name) for name in names if name in sys.modules}  # such as the folder tests/methods

    def load(name: str) -> ModuleType:
        return importlib.import_module(name)

    yield load
    for name in names:
        sys.modules.pop(name, None)
    sys.modules.update(others)


def test_committed_results_hold_their_conditions(module) -> None:
    files = sorted((BENCHMARKS / "results").glob("**/*.json"))
    assert files
    for file in files:
        module("schema").check(json.loads(file.read_text()))


def test_a_number_without_conditions_is_refused(module) -> None:
    with pytest.raises(ValueError, match="conditions"):
        module("schema").check({"records": [{"case": "x"}]})


def test_a_part_or_a_forward_without_its_figures_is_refused(module) -> None:
    schema = module("schema")
    (file,) = (BENCHMARKS / "results" / "0.1.0").glob("methods--cpu.json")
    results = json.loads(file.read_text())
    results["records"][0]["part"] = {"units": 64}
    with pytest.raises(ValueError, match="part"):
        schema.check(results)
    spread = {"median": 1.0, "iqr": 0.1}
    forward = {
        **{"network": "n", "rows": 8, "bar": 1.0, "bar_compiled": None, "ratios": {"folded": 1.0}, "modes": {}},
        **{"first_seconds": {}, "preparation_seconds": 0.1, "errors": dict.fromkeys(SIDES, 1e-6)},
        "seconds": dict.fromkeys(SIDES, spread),
    }
    schema.check({"conditions": results["conditions"], "records": [forward]})
    del forward["errors"]["plain"]
    with pytest.raises(ValueError, match="errors"):
        schema.check({"conditions": results["conditions"], "records": [forward]})


def test_a_script_without_its_figures_is_refused(module) -> None:
    schema = module("schema")
    (file,) = (BENCHMARKS / "results" / "0.1.0").glob("methods--cpu.json")
    conditions, spread = json.loads(file.read_text())["conditions"], {"median": 1.0, "iqr": 0.1}
    sides, errors = ("plain", "accelerated"), {side: {"max": 1e-6, "rms": 1e-7} for side in ("ours", "peer")}
    record = {
        **{"dropin": "captum_occlusion", "of": "captum", "network": "resnet50", "size": 224, "bar": 3.5, "once": False},
        **{
            "rounds": dict.fromkeys(sides, 3),
            "seconds": dict.fromkeys(sides, spread),
            "ratio": 4.0,
            "ratio_first": 3.0,
        },
        **{"first": {}, "difference": 1e-6, "error": errors, "accelerated": 4, "passed_on": 0, "report": ["all"]},
    }
    schema.check({"conditions": conditions, "records": [record]})
    for field, without in (("error", None), ("seconds", {"plain": spread}), ("difference", None)):
        with pytest.raises(ValueError, match="captum_occlusion"):
            schema.check({"conditions": conditions, "records": [{**record, field: without}]})


def test_every_script_is_measured_and_compiles(module) -> None:
    dropin = module("dropin")
    files = {file.stem for file in dropin.SCRIPTS.glob("*.py")} - {"subject"}
    assert files == {case.name for case in dropin.CASES}
    for case in dropin.CASES:
        text = (dropin.SCRIPTS / f"{case.name}.py").read_text()
        compile(text, case.name, "exec")
        assert "xai_fast" not in text


def test_every_case_builds(module) -> None:
    cases = module("cases").CASES
    assert len({case.name for case in cases}) == len(cases)
    for name in {case.network for case in cases}:
        model = torchvision.models.get_model(name, weights=None).eval()
        for case in (case for case in cases if case.network == name):
            engine = xf.Engine(model, plan=case.plan)
            if case.name.startswith("ablation") and "AblationCAM" not in xf.__all__:
                continue
            assert case.method(engine).cost((case.batch, 3, case.size, case.size)).forwards >= case.batch
            if case.library == "shap":  # it runs the model when it is made; tested below
                continue
            if importlib.util.find_spec({"grad-cam": "pytorch_grad_cam"}.get(case.library, case.library)):
                assert callable(case.peer(model, case.default))


def test_sides_measure_equal_maps(module, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("captum")
    cases, sides = module("cases"), module("sides")
    case = cases.Case(
        "small",
        "resnet18",
        cases._occlusion(16, 16),
        "captum",
        module("peers").captum_occlusion(16, 16),
        sweep=(1, 4),
        size=64,
    )
    monkeypatch.setattr(sides, "SHORT_SECONDS", 0)  # no more rounds than asked for
    result = sides.pairs(case, 2)
    assert set(result["seconds"]) == {"ours", "default", "best", "channels_last"}
    assert 0 < result["floor_fraction"] < 2
    assert 0 < result["outside_share"] < 1
    error = sides.error(case)
    assert error["ours"]["rms"] <= max(2.5 * error["peer"]["rms"], 1e-6)


def few(cases, which: str):
    """A case whose calls take a moment."""
    perturbation = importlib.import_module("perturbation_cases")
    if which == "partition":
        return perturbation.partition("resnet18", 1.4, 64, 6)
    if which == "partition_of_all":
        return perturbation.partition_of_all("resnet18", 2.5, 64, 20)
    if which == "rise":
        return perturbation.rise("resnet18", None, 8, None, (4,), size=64)
    if which in ("Lime", "KernelShap", "ShapleySampling"):
        return perturbation.coalitions(
            which, "resnet18", which, "captum", which, 140, 1.5, size=64, few=2 if which == "ShapleySampling" else 140
        )
    if which == "shap_gradient":
        return cases.shap_gradient("resnet18", 2.0, 3.0, size=64, n_samples=6, outputs=2)
    return getattr(cases, which)("resnet18", 1.4, 1.8, 64, 6)


GRADIENTS = ["integrated_gradients", "smooth_grad", "gradient_shap", "shap_gradient"]


@pytest.mark.parametrize(
    "which", [*GRADIENTS, "partition", "partition_of_all", "rise", "Lime", "KernelShap", "ShapleySampling"]
)
def test_maps_are_compared_on_the_same_rows(module, which: str) -> None:
    case = few(module("cases"), which)
    pytest.importorskip(case.library)
    error = module("sides").error(case)
    assert max(error["ours"]["rms"], error["peer"]["rms"]) < 1e-3  # where a ReLU is near 0, single elements may jump


def test_outputs_that_are_left_out_cost_as_much_as_those_that_are_not(module, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("shap")
    sides, case = module("sides"), few(module("cases"), "shap_gradient")
    monkeypatch.setattr(sides, "SHORT_SECONDS", 0)
    rows = []
    model, x, target = sides._subject(case)
    model.fc.register_forward_hook(lambda _module, _args, output: rows.append(len(output)))
    explain = case.peer(model, 4)
    counts = []
    for outputs in (0, 1, None):
        rows.clear()
        explain(x, target, outputs)
        counts.append(rows.copy())
    assert counts == [[1], [1, 4, 2], [1, 4, 2, 4, 2]]
    assert set(sides.pairs(case, 1)["seconds"]) >= {"ours", "default", "best"}


def test_the_libraries_compute_what_we_do(module) -> None:
    """On draws of their own they are as far from ours as ours are from ours under another seed."""
    pytest.importorskip("captum")
    cases, case_module = module("cases"), module("case")
    case = few(cases, "integrated_gradients")
    model, x = case_module.network(case), case_module.inputs(case)
    assert all(parameter.requires_grad for parameter in model.parameters())
    target = case_module.targets(model, x)
    expected = case.method(model).attribute(x, target)
    for rows in case.sweep:
        found = case.peer(model, rows)(x, target)
        assert (found - expected).norm() < 0.03 * expected.norm()  # one ReLU that tips over is a hundredth
    for which in ("smooth_grad", "gradient_shap"):
        case = getattr(cases, which)("resnet18", 1.4, 1.8, 64, 16)
        ours = case.method(model)
        first, second = (dataclasses.replace(ours, seed=seed).attribute(x, target) for seed in (0, 1))
        torch.manual_seed(0)
        np.random.seed(0)
        chance = (first - second).norm()
        for rows in (8, 16):
            assert (case.peer(model, rows)(x, target) - first).norm() < 1.5 * chance


@pytest.mark.parametrize("library", ["torchcam", "grad-cam"])
def test_scaled_maps_are_compared_as_scaled(module, library: str) -> None:
    pytest.importorskip({"grad-cam": "pytorch_grad_cam"}.get(library, library))
    cases, sides, peers = module("cases"), module("sides"), module("peers")
    peer = {"torchcam": peers.torchcam_gradcam, "grad-cam": peers.gradcam_gradcam}[library]("layer4")
    case = cases.Case("small", "resnet18", cases._gradcam("layer4"), library, peer, size=64, batch=2, scaled=True)
    error = sides.error(case)
    assert error["ours"]["max"] < 1e-4
    assert error["peer"]["max"] < 1e-4


def test_a_part_of_ablation_scales_to_the_whole(module) -> None:
    pytest.importorskip("pytorch_grad_cam")
    peers = module("peers")
    from networks import awakened, photos

    rows = []
    model, x = awakened("resnet18"), photos(1, 64)
    model.fc.register_forward_hook(lambda _module, _args, output: rows.append(len(output)))
    explain = peers.gradcam_ablation("layer4")(model, 32)
    target = module("case").targets(model, x)
    counts = {}
    for channels in (0, 64, None):
        rows.clear()
        explain(x, target, channels)
        counts[channels] = rows.copy()
    assert counts[0] == [1, 1]
    assert counts[64] == [1, 1, 32, 32]
    assert counts[None] == [1, 1] + [32] * 16


def test_an_untimed_unit_is_counted_at_the_rate_of_the_timed_ones(module, monkeypatch: pytest.MonkeyPatch) -> None:
    sides, cases = module("sides"), module("cases")
    now = 0.0

    def run(units: int) -> None:
        nonlocal now
        now += 5 + 2 * units

    monkeypatch.setattr(sides.time, "perf_counter", lambda: now)
    assert sides._scaled(cases.Part(64, 2048), run) == 5 + 2 * 2048


def test_rise_as_its_authors_run_it_is_rise(module) -> None:
    """On masks of its own it is as far from ours as ours is from ours under another seed; a part asks about fewer."""
    perturbation, case_module = module("perturbation_cases"), module("case")
    case = perturbation.rise("resnet18", None, 400, 100, (50,), size=64)
    model, x = case_module.network(case), case_module.inputs(case)
    target = case_module.targets(model, x)
    ours = case.method(model)
    first, second = (dataclasses.replace(ours, seed=seed).attribute(x, target) for seed in (0, 1))
    rows = []
    model.fc.register_forward_hook(lambda _module, _args, output: rows.append(len(output)))
    explain = case.peer(model, 50)
    chance = (first - second).std()  # without the means, by which maps are off as a whole
    assert (explain(x, target) - first).std() < 1.5 * chance
    assert explain(x, target, 0).norm() == 0
    explain(x, target, 100)
    assert rows == [50] * 10


def test_forwards_agree(module) -> None:
    record = module("forwards").measure("resnet18", rows=2, size=64, rounds=2, compiling="none")
    assert set(record["seconds"]) == set(SIDES)
    assert max(record["errors"].values()) < 1e-4


def test_first_calls_are_compared_on_one_map(module) -> None:
    first, schema = module("first_calls"), module("schema")
    with tiers.assuming(None):
        found = first.measure("ours", "Saliency", "resnet18", 64)
    assert found["tier"] == "plain"
    assert first.largest_difference(found["map"], [2 * value for value in found["map"]]) == 0
    seconds = {clock: {side: first.spread([found[clock]]) for side in first.SIDES} for clock in ("cpu", "wall")}
    named = {"first_call": "Saliency", "network": "resnet18", "size": 64, "bar": 1.05, "tier": "plain"}
    record = {**named, "ratios": {"cpu": 1.0, "wall": 1.0}, "seconds": seconds, "difference": 0.0}
    conditions = module("methods").conditions(1)
    schema.check({"conditions": conditions, "records": [record]})
    del seconds["cpu"]["peer"]
    with pytest.raises(ValueError, match="peer cpu"):
        schema.check({"conditions": conditions, "records": [record]})


def test_plans_agree(module, monkeypatch: pytest.MonkeyPatch) -> None:
    plans = module("plans")
    small = plans.Case("resnet18", 2.0, None, size=64, window=15, stride=16, part=32)
    monkeypatch.setitem(plans.CASES, "small", small)
    record = plans.measure("small", rounds=1)
    assert record["windows"] == 16
    assert record["part"] == 4
    assert set(record["seconds"]) == {"local", "dense"}
    assert max(error["max"] for error in record["errors"].values()) < 1e-3
    module("schema").check({"conditions": module("methods").conditions(1), "records": [record]})


def test_modes_are_compared_on_the_same_photographs(module) -> None:
    modes = module("modes")
    values = torch.randn(50)
    assert modes.rank_correlation(values, values.exp()) == pytest.approx(1)
    assert modes.rank_correlation(values, -values) == pytest.approx(-1)
    record = modes.measure("SmoothGrad-demo", count=2, rows=4, size=64)
    assert record["correlation"]["least"] > 0.9
    assert 0 < record["error"]["largest"] < 0.2
    assert (record["dtypes"]["exact"], record["dtypes"]["bfloat16"]) == ("float32", "bfloat16")
    schema, conditions = module("schema"), module("methods").conditions(2)
    schema.check({"conditions": conditions, "records": [record]})
    del record["correlation"]["least"]
    with pytest.raises(ValueError, match="correlation"):
        schema.check({"conditions": conditions, "records": [record]})


def test_fixed_points_are_searched_until_the_tolerance_holds(module) -> None:
    adaptive = module("adaptive")
    lucky = {3: (0.001, 0.3)}  # a gap that is small by chance, and a map that is far off
    tried = adaptive.search(lambda n: lucky.get(n, (1 / n**2, 0.4 / n)), most=64)
    assert max(tried) == 10 + adaptive.STREAK - 1
    assert adaptive.best(tried, 0.01) == {"first": 3, "settled": 10, "map": 8, "both": 10}
    assert adaptive.best(tried, 0.05) == {"first": 3, "settled": 5, "map": 8, "both": 8}
    assert adaptive.best(adaptive.search(lambda _n: (0.5, 0.5), most=16), 0.01)["settled"] is None


def test_a_gap_is_judged_as_the_tolerance_is(module) -> None:
    model, x, target = module("trained").subjects("demo", 1, 64)
    method = xf.IntegratedGradients(model, n_steps=8)
    explanation = method(x, target)
    ends = method.engine.scores(torch.cat([x, torch.zeros_like(x)]), target.repeat(2))
    gap, error = module("adaptive").judged(explanation, explanation.values)
    difference = ends[0] - ends[1]
    assert gap == pytest.approx(((explanation.values.sum() - difference) / difference).abs().item(), rel=1e-3)
    assert error == 0


@pytest.mark.skipif(
    "tolerance" not in {field.name for field in dataclasses.fields(xf.IntegratedGradients)},
    reason="integrated gradients take no tolerance yet",
)
def test_adaptive_points_are_counted(module) -> None:
    records = module("adaptive").measure("demo", count=1, size=64, reference_steps=64, most=16)
    assert [record["tolerance"] for record in records] == list(module("adaptive").TOLERANCES)
    assert all(found["adaptive"]["passes"] >= 8 for record in records for found in record["photographs"])
    module("schema").check({"conditions": module("methods").conditions(1), "records": records})


def test_estimators_are_compared_with_what_they_tend_to(module, monkeypatch: pytest.MonkeyPatch) -> None:
    estimators, schema = module("estimators"), module("schema")
    monkeypatch.setattr(estimators, "BUDGETS", (64, 512))
    weights = torch.linspace(-0.3, 0.7, estimators.PLAYERS, dtype=torch.float64)
    table = torch.tanh(estimators.coalitions().double() @ weights)
    found = estimators.measure("KernelShap", [table], 3)
    assert all(few > many > 0 for few, many in found["errors"].values())
    stops = [estimators.stopped(name, [table], 20) for name in estimators.TURBO]
    for record in stops:
        assert record["evaluations"]["most"] < record["allowed"]
        assert 0.6 < record["error"] / record["stated"] < 1.6
        assert record["within"] > 0.8
    conditions = module("methods").conditions(1)
    schema.check({"conditions": conditions, "records": [found, *stops]})
    del stops[0]["within"]
    with pytest.raises(ValueError, match="within"):
        schema.check({"conditions": conditions, "records": stops})


def test_a_network_of_the_zoo_is_compared_with_float64(module) -> None:
    zoo, schema = module("zoo"), module("schema")
    record = zoo.measure("torchvision", "squeezenet", "squeezenet1_1")
    assert (record["captured"], record["gradient"], record["said"]) == ("trace", True, {})
    assert set(record["errors"]) == {"Saliency", "Occlusion", "GradCAM"}
    conditions = module("methods").conditions(1)
    schema.check({"conditions": conditions, "records": [record]})
    assert zoo.measure("torchvision", "none", "no_such_network")["captured"] == "not built"
    del record["errors"]["Saliency"]
    with pytest.raises(ValueError, match="Saliency"):
        schema.check({"conditions": conditions, "records": [record]})


def test_the_page_shows_every_record_beside_its_error_and_its_machine(module, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    folder = BENCHMARKS / "results" / "0.1.0"
    text = module("plots").page(folder)
    assert text.count("<svg") >= 3
    assert "<script" not in text
    assert not re.search(r"""(src|href)=["']?https?:|url\(http""", text)
    for file in folder.glob("*.json"):
        for record in json.loads(file.read_text())["records"]:
            if "library" in record:
                assert record["case"] in text
                assert module("plots").error(record["error"]["ours"]["rms"]) in text
            elif "memory" in record:
                assert f"<td>{record['memory']}" in text
                assert f"{record['growth_bytes'] / 1e6:.0f} MB" in text
    hostile = json.loads((folder / "methods--cpu.json").read_text())
    hostile["records"][0]["case"] = "<script>alert(1)</script>"
    (tmp_path / "one.json").write_text(json.dumps(hostile))
    assert "<script" not in module("plots").page(tmp_path)
    with pytest.raises(ValueError, match="no results"):
        module("plots").page(tmp_path / "none")


def test_weights_drawn_anew_change_a_map_by_the_class_and_leave_one_of_edges(module, monkeypatch) -> None:
    randomisation = module("randomisation")
    monkeypatch.setattr(randomisation, "REPLICAS", 1)
    model = randomisation.demo_model()
    counted = [mosaic for mosaic in randomisation.mosaics(8, seed=3) if randomisation.counts(model, mosaic)][:4]
    cam, edges = (randomisation.measure(name, model, counted) for name in ("GradCAM", "GuidedBackprop"))
    for record in (cam, edges):
        module("schema").check({"conditions": _conditions(module), "records": [record]})
        assert record["twin"]["ours"] == pytest.approx(record["twin"]["twin"], abs=1e-4)
    assert cam["share"] > 0.8
    assert cam["changes"]
    assert not edges["changes"]
    assert edges["likeness"]["random"] > cam["likeness"]["random"]


def _conditions(module) -> dict:
    return module("methods").conditions(1)


DRY = {"ops": 30, "plans": 3, "methods": 4, "bandwidth": 28, "fused": 20, "forwards": 12, "speed": 16, "libraries": 2}


LONG = ("plans", "fused", "forwards", "speed", "libraries")  # seconds each: whole networks, several times


@pytest.mark.parametrize("section", [pytest.param(name, marks=[pytest.mark.slow] * (name in LONG)) for name in DRY])
def test_sections_of_the_gpu_s_record_run_on_the_cpu(module, section: str, tmp_path: Path) -> None:
    """The code that measures a GPU, at small sizes: everything that it checks holds, and every figure has its error."""
    gpu, schema = module("gpu"), module("schema")
    for name in ("gpu_checks", "gpu_speed", "gpu_fused"):
        module(name)
    where, file = gpu.Where("cpu", dry=True), tmp_path / "items"
    parts = gpu.SECTIONS[section].parts
    for part in range(parts):
        assert gpu.child(section, f"{part}/{parts}", file, where, float("inf"), set()) == 0
    items = [json.loads(line) for line in file.read_text().splitlines()]
    assert len(items) >= DRY[section]
    assert len({item["name"] for item in items}) == len(items)
    assert [item for item in items if not item["ok"]] == []
    record = {"gpu": section, "status": "done", "device": "cpu", "dry": True, "seconds": 1.0, "error": None}
    schema.check({"conditions": gpu.conditions([]), "records": [{**record, "items": items}]})


def test_the_gpu_s_record_is_carried_on_with_and_keeps_what_failed(module, monkeypatch, tmp_path: Path) -> None:
    gpu = module("gpu")
    calls, file = [], tmp_path / "gpu.json"

    def process(name, part, where, until, known):
        calls.append((name, part, set(known)))
        item = {"name": f"{name} {part} {len(known)}", "ok": len(calls) != 1, "took": 0.1}
        lost = len(calls) == 1
        return [item], gpu.LOST if lost else "late" if name == "plans" and len(calls) < 5 else 0, "the log"

    monkeypatch.setattr(gpu, "_process", process)
    where = gpu.Where("cpu", dry=True)
    first = gpu.measure(file, ["plans", "forwards"], where, 100)
    plans, forwards = first["records"]
    assert (plans["status"], plans["error"]) == ("partial", "out of time")
    assert [item["ok"] for item in plans["items"]] == [False, True]  # the device was lost, another process went on
    assert forwards["status"] == "done"
    assert json.loads(file.read_text()) == first
    second = gpu.measure(file, ["plans", "forwards"], where, 100)
    calls.append(None)
    assert len(second["records"][0]["items"]) == 3
    assert [call[0] for call in calls[3:-1]] == ["plans"]  # what was done is not done again
    assert calls[3][2] == {item["name"] for item in plans["items"]}
    assert any("does not hold" in line for line in gpu.summary(second))
    assert gpu.measure(file, ["speed"], where, -1)["records"][-1]["status"] == "partial"


def test_a_process_that_dies_or_takes_too_long_leaves_what_it_found(module, tmp_path: Path) -> None:
    gpu = module("gpu")
    where = gpu.Where("cpu", dry=True)
    items, status, said = gpu._process("nothing of that name", "0/1", where, 10**12, set())
    assert (items, status) == ([], 1)
    assert "KeyError" in said
    known = {"copy of 1 MiB"}
    items, status, _ = gpu._process("bandwidth", "0/40", where, 10**12, known)
    assert (status, [item["name"] for item in items]) == (0, ["machine"])
    assert gpu._process("bandwidth", "0/1", where, 0.0, known)[:2] == ([], "late")


def test_floors_join_methods_with_the_best_forward(module) -> None:
    gpu = module("gpu")
    forwards = [
        {"name": "a", "what": "forward", "dtype": "float32", "best": 0.02},
        {"name": "b", "what": "forward", "dtype": "float32", "best": 0.01},
        {"name": "c", "what": "gradient", "dtype": "float32", "best": 0.03},
    ]
    speed = [{"name": "m", "rows": 100, "floor": "forward", "dtype": "float32", "seconds": {"median": 2.0}}]
    speed.append({"name": "half", "rows": 100, "floor": "forward", "dtype": "bfloat16", "seconds": {"median": 2.0}})
    gpu.floors([{"items": forwards}, {"items": speed}])
    assert speed[0]["of_floor"] == 0.5
    assert "of_floor" not in speed[1]


@pytest.mark.parametrize("name", ["hide_windows", "add_noise", "moments"])
def test_bars_of_kernels_are_measured(module, name: str) -> None:
    bars, schema = module("kernel_bars"), module("schema")
    if name in bars.FOLDING:
        record = bars.folded(name, 1.0, 32, 2)
        assert record["of_forward"] == record["seconds"]["kernel"]["median"] / record["rows"]
    else:
        record = bars.written(name, "bfloat16", "NHWC", 16 << 20, 2)
        assert record["of_copy"] > 0
        assert (record["times_normal"] is not None) == (name == "add_noise")
    schema.check({"conditions": module("methods").conditions(2), "records": [record]})
    bars.CONSOLE.print(bars.table([record]))
    with pytest.raises(ValueError, match="the time of a wrong result"):
        schema.check({"conditions": module("methods").conditions(2), "records": [{**record, "off": 1e9}]})


def test_every_op_has_bars_or_is_timed(module) -> None:
    """Those that write batches and those that fold answers have bars; all are timed on the cases of their tests."""
    assert set(module("kernels").OPS) == set(xf.ops.all_ops())
    bars = module("kernel_bars")
    # Not a method's.
    of_models = {"winograd_convolution", "sign_bits", "pass_bits", "relu_change", "bias_relu", "byte_hash"}
    of_models |= {"inverted_bottleneck", "gated_pointwise"}
    assert {*bars.WRITING, *bars.FOLDING} == set(xf.ops.all_ops()) - of_models
