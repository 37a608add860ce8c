import subprocess
import sys

import pytest


def run(code):
    """Run `code` in a process of its own, since this one may have imported the compiler."""
    start = "import sys\nfrom transfer.runtime.compiler import defer_compiler\n"
    subprocess.run([sys.executable, "-c", start + code], check=True)


def test_a_decorated_function_runs_without_the_compiler():
    run(
        "with defer_compiler():\n"
        "    import torch\n"
        "    double = torch.compiler.disable(lambda x: 2 * x)\n"
        "    triple = torch.compiler.disable(recursive=False)(lambda x: 3 * x)\n"
        "    assert (double(2), triple(2)) == (4, 6)\n"
        "assert double(3) == 6\n"
        "assert 'torch._dynamo' not in sys.modules"
    )


@pytest.mark.slow
def test_the_compiler_itself_is_there_when_it_is_asked_for():
    run(
        "with defer_compiler():\n"
        "    import torch\n"
        "    import torchvision\n"
        "    double = torch.compiler.disable(lambda x: 2 * x)\n"
        "    first = torch._dynamo.reset  # an attribute that no import uses\n"
        "import torch._dynamo\n"
        "assert sys.modules['torch._dynamo'].__file__ and torch._dynamo.reset is first\n"
        "assert torch._dynamo.utils is sys.modules['torch._dynamo.utils']\n"
        "assert double(3) == 6\n"
        "seen = []\n"
        "def backend(graph, inputs):\n"
        "    seen.append(len(graph.graph.nodes))\n"
        "    return graph.forward\n"
        "f = torch.compile(lambda x: double(x + 1) + 1, backend=backend)\n"
        "assert torch.equal(f(torch.ones(2)), torch.full((2,), 5.0))\n"
        "assert len(seen) == 2, seen  # split at the function that is not compiled\n"
    )


def test_an_imported_compiler_stays():
    code = (
        "import types\n"
        "there = sys.modules['torch._dynamo'] = types.ModuleType('torch._dynamo')\n"
        "with defer_compiler():\n"
        "    assert sys.modules['torch._dynamo'] is there\n"
        "assert sys.modules['torch._dynamo'] is there\n"
        "assert 'torch._dynamo.utils' not in sys.modules"
    )
    run(code)


def test_torchvision_is_imported_without_the_exporter():
    run(
        "with defer_compiler():\n"
        "    import torchvision\n"
        "    assert 'torch.onnx' not in sys.modules\n"
        "import torch\n"
        "boxes = torch.tensor([[0.0, 0, 2, 2], [0, 0, 2, 1.9], [5, 5, 6, 6]])\n"
        "assert torchvision.ops.nms(boxes, torch.tensor([0.9, 0.8, 0.7]), 0.5).tolist() == [0, 2]\n"
        "from torchvision.ops import _register_onnx_ops\n"
        "assert _register_onnx_ops.__file__ and callable(torch.onnx.export)"
    )


def test_an_optimizer_takes_steps_without_the_compiler():
    """Also after the block, and as the formula says."""
    run(
        "import torch\n"
        "def step(optimizer):\n"
        "    optimizer.zero_grad()\n"
        "    (weight ** 2).sum().backward()\n"
        "    optimizer.step()\n"
        "weight = torch.nn.Parameter(torch.tensor([3.0]))\n"
        "with defer_compiler():\n"
        "    optimizer = torch.optim.SGD([weight], lr=0.25)\n"
        "    step(optimizer)\n"
        "    optimizer.load_state_dict(optimizer.state_dict())\n"
        "    assert weight.item() == 1.5\n"
        "optimizer.zero_grad()\n"
        "assert 'torch._dynamo' not in sys.modules\n"
        "step(optimizer)\n"
        "assert weight.item() == 0.75"
    )
