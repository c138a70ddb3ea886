"""The standalone host checks workflows before they run, and runs each node once."""

import gc
import math
import threading

import pytest
from counted import NODES, Changing, Counted, Shown, executor_in, graph
from pack.host.run import errors
from pack.host.standalone import session
from pack.host.standalone.executor import Executor, without_classes

quiet = {"report": lambda report: None}


@pytest.fixture
def executor(tmp_path):
    return executor_in(tmp_path)


def texts(results):
    return [text for result in results for text in result.texts]


# What is wrong with a workflow


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"1": {"class_type": "Nonsense", "inputs": {}}}, ["node 1 (Nonsense)", "no such node"]),
        ({"1": {"inputs": {}}}, ["node 1", "class_type"]),
        ({"1": {"class_type": "Counted", "inputs": {}}}, ["node 1 (Counted)", "'value'", "missing", "3"]),
        ({"2": {"class_type": "Shown", "inputs": {"number": 1}}}, ["node 2 (Shown)", "'factor'", "missing"]),
        ({"2": {"class_type": "Shown", "inputs": {"number": ["7", 0], "factor": 1}}}, ["node 2 (Shown)", "'number'", "node 7"]),
        ({"2": {"class_type": "Shown", "inputs": {"number": ["1", 2], "factor": 1}}}, ["'number'", "output 2", "has 2"]),
        ({"2": {"class_type": "Shown", "inputs": {"number": ["1", -1], "factor": 1}}}, ["'number'", "output -1"]),
        ({"2": {"class_type": "Shown", "inputs": {"number": ["1"], "factor": 1}}}, ["'number'", "a link is"]),
        ({"2": {"class_type": "Shown", "inputs": {"number": ["1", 1], "factor": 1}}}, ["'number'", "takes INT", "IMAGE"]),
        ({"1": {"class_type": "Counted", "inputs": {"value": 0}}}, ["'value'", "0", "least is 1"]),
        ({"1": {"class_type": "Counted", "inputs": {"value": 10}}}, ["'value'", "most is 9"]),
        ({"1": {"class_type": "Counted", "inputs": {"value": "many"}}}, ["'value'", "'many'", "whole number"]),
        ({"1": {"class_type": "Counted", "inputs": {"value": None}}}, ["'value'", "whole number"]),
        ({"1": {"class_type": "Counted", "inputs": {"value": 1, "kind": "odd"}}}, ["'kind'", "'odd'", "plain, fancy"]),
        ({"1": {"class_type": "Counted", "inputs": {"value": 1, "flag": "false"}}}, ["'flag'", "true or false"]),
        ({"2": {"class_type": "Shown", "inputs": {"number": 1, "factor": math.nan}}}, ["'factor'", "finite"]),
        ({"2": {"class_type": "Shown", "inputs": []}}, ["node 2 (Shown)", "inputs"]),
        ({"2": {"class_type": "SaveImage", "inputs": {"images": 3, "filename_prefix": "x"}}}, ["'images'", "a link", "IMAGE"]),
    ],
)
def test_a_bad_workflow_is_refused_before_anything_runs(executor, changes, words):
    with pytest.raises(errors.WorkflowError) as caught:
        executor.run(graph(**changes))
    assert len(caught.value.problems) == 1
    assert all(word in str(caught.value) for word in words), caught.value
    assert Counted.runs == []


def test_all_problems_are_collected(executor):
    bad = graph(
        **{"1": {"class_type": "Counted", "inputs": {"value": 0}}, "2": {"class_type": "Shown", "inputs": {"number": ["1", 0]}}}
    )
    assert len(executor.check(bad)) == 2


def test_cycles_name_their_nodes(executor):
    def through(source):
        return {"class_type": "ImageScaleBy", "inputs": {"image": [source, 0], "upscale_method": "area", "scale_by": 1.0}}

    cycle = {"1": through("2"), "2": through("1"), "3": {"class_type": "PreviewImage", "inputs": {"images": ["1", 0]}}}
    (problem,) = executor.check(cycle)
    assert "node 1 (ImageScaleBy)" in problem
    assert "node 2 (ImageScaleBy)" in problem


def test_nothing_to_run_is_said(executor):
    assert executor.check({}) == ["the workflow has no nodes"]
    assert "saves and shows nothing" in executor.check({"1": {"class_type": "Counted", "inputs": {"value": 4}}})[0]


def test_a_long_chain_is_no_problem(executor):
    step = {"upscale_method": "area", "scale_by": 1.0}
    chain = {"0": {"class_type": "Counted", "inputs": {"value": 4}}}
    chain |= {
        str(i): {"class_type": "ImageScaleBy", "inputs": {"image": [str(i - 1), int(i == 1)], **step}} for i in range(1, 3000)
    }
    chain["end"] = {"class_type": "PreviewImage", "inputs": {"images": ["2999", 0]}}
    assert executor.check(chain) == []


def test_video_nodes_without_pyav_say_what_to_install(tmp_path):
    bare = Executor({"Counted": Counted}, tmp_path, **quiet)
    assert "pip install av" in bare.check({"1": {"class_type": "CreateVideo", "inputs": {}}})[0]


# Running


def test_a_workflow_runs_and_says_its_result(executor):
    assert texts(executor.run(graph())) == ["8"]
    assert Counted.runs == [4, "shown"]


def test_notes_and_unused_nodes_do_not_run(executor):
    executor.run(graph(_note="for people", lonely={"class_type": "Counted", "inputs": {}}))
    assert Counted.runs == [4, "shown"]


def test_unchanged_nodes_are_not_run_again(executor):
    executor.run(graph())
    again = executor.run(graph())
    assert Counted.runs == [4, "shown"]
    assert texts(again) == ["8"] and not again[0].ran

    executor.run(graph(**{"2": {"class_type": "Shown", "inputs": {"number": ["1", 0], "factor": 3.0}}}))
    assert Counted.runs == [4, "shown", "shown"]
    executor.run(graph(**{"1": {"class_type": "Counted", "inputs": {"value": 5}}}))
    assert Counted.runs == [4, "shown", "shown", 5, "shown"]


def test_a_changed_fingerprint_runs_a_node_again(executor):
    changing = graph(**{"1": {"class_type": "Changing", "inputs": {}}})
    for Changing.fingerprint in (1, 1, 2, math.nan, math.nan):
        executor.run(changing)
    assert Counted.runs.count("changing") == 4


def test_a_node_outlives_its_id(executor):
    executor.run(graph())
    moved = {"first": graph()["1"], "2": {"class_type": "Shown", "inputs": {"number": ["first", 0], "factor": 2.0}}}
    executor.run(moved)
    assert Counted.runs == [4, "shown"]


def test_a_failing_node_is_named(executor):
    with pytest.raises(errors.NodeError) as caught:
        executor.run(graph(**{"1": {"class_type": "Counted", "inputs": {"value": 9}}}))
    assert str(caught.value) == "node 1 (Counted) failed: nine is too many"
    assert isinstance(caught.value.__cause__, ValueError)
    assert texts(executor.run(graph())) == ["8"]


def test_without_classes_takes_what_depends_on_them():
    kept, gone = without_classes({**graph(), "3": {"class_type": "Shown", "inputs": {"number": 1}}}, ["Counted"])
    assert list(kept) == ["3"]
    assert gone == ["1", "2"]


def test_cancel_stops_the_run_and_the_next_run_is_free(executor):
    executor.report = executor.session.report = lambda report: executor.cancel()

    class Slow(Shown):
        @classmethod
        def execute(cls, number, factor):
            session.Progress(2).update(1)
            Counted.runs.append("too far")

    executor.nodes = NODES | {"Shown": Slow}
    with pytest.raises(session.Interrupted):
        executor.run(graph())
    assert Counted.runs == [4]
    executor.nodes = NODES
    assert texts(executor.run(graph())) == ["8"]


def test_sessions_of_threads_do_not_mix(tmp_path):
    seen = {}

    def look(name):
        with session.Session(output=tmp_path / name).active():
            seen[name] = session.output_directory().name

    threads = [threading.Thread(target=look, args=(name,)) for name in ("a", "b")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == {"a": "a", "b": "b"}
    assert session.output_directory().name == "output"


def test_previews_have_a_folder_of_their_own_that_goes_with_the_executor():
    made = Executor(NODES, report=lambda report: None)
    folders = []
    for _ in range(2):
        with made.session.active():
            folders.append(session.temp_directory())
    assert folders[0] == folders[1]
    assert folders[0].is_dir()
    assert folders[0].stat().st_mode & 0o777 == 0o700
    with Executor(NODES).session.active():
        assert session.temp_directory() != folders[0]
    del made
    gc.collect()
    assert not folders[0].exists()
