from transfer.backbones.engines.onnxruntime_engine import OnnxRuntimeEngine


def test_it_computes_what_torch_does_the_same_on_any_number_of_threads(check_rows):
    check_rows(OnnxRuntimeEngine)


def test_an_output_outlives_the_next_call(check_output):
    check_output(OnnxRuntimeEngine)
