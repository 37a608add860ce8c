import threading

import pytest
import torch
from torch.nn import functional as F

from transfer.probes.lbfgs import LinearProblem, make_dense_preconditioner
from transfer.probes.side_by_side import run_beside, run_side_by_side


@pytest.fixture(params=[1, 2, 5])
def cores(request):
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def test_each_job_has_one_core_and_they_run_together(cores):
    met = threading.Barrier(min(cores, 3))

    def job(number):
        met.wait(timeout=30)
        return number, torch.get_num_threads()

    jobs = [lambda number=number: job(number) for number in range(3 if cores > 2 else cores)]
    assert run_side_by_side(jobs) == [(number, 1) for number in range(len(jobs))]
    assert torch.get_num_threads() == cores
    assert run_side_by_side([]) == []


def test_an_error_of_a_job_is_raised(cores):
    with pytest.raises(ZeroDivisionError):
        run_side_by_side([lambda: 1, lambda: 1 // 0, lambda: 2])
    assert torch.get_num_threads() == cores


def test_jobs_may_have_jobs_of_their_own(cores):
    assert run_side_by_side([lambda: run_side_by_side([torch.get_num_threads] * 2)] * 2) == [[1, 1]] * 2


def test_a_solve_has_the_same_bits_whatever_runs_beside_it(cores):
    x = torch.randn(1500, 256, generator=torch.Generator().manual_seed(0))
    labels = (x[:, :24] + 0.5 * torch.randn(1500, 24, generator=torch.Generator().manual_seed(1))).argmax(1)
    root = make_dense_preconditioner(x)(1.0)

    def solve(classes):
        problem = LinearProblem(x, classes, lambda out: F.cross_entropy(out, labels % classes), lambda l2: root)
        problem.minimise(0.01, fine=True)
        return problem.point.tobytes()

    alone = {classes: run_side_by_side([lambda classes=classes: solve(classes)])[0] for classes in (24, 5, 3)}
    for order in ((24, 5, 3), (3, 3, 24, 5), (5, 24)):
        together = run_side_by_side([lambda classes=classes: solve(classes) for classes in order])
        assert together == [alone[classes] for classes in order]


def test_a_job_runs_beside_the_block_where_there_are_two_cores(cores):
    met = threading.Event()

    def job():
        alone = not met.wait(timeout=0 if cores == 1 else 30)
        return alone, torch.get_num_threads(), threading.current_thread() is threading.main_thread()

    with run_beside(job) as get_result:
        met.set()
        run_side_by_side([int, int])
    assert get_result() == (cores == 1, cores, cores == 1)
    with run_beside(threading.current_thread, beside=False) as get_result:
        pass
    assert get_result() is threading.main_thread()


def test_random_numbers_beside_a_block_change_no_later_one(cores):
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    with run_beside(lambda: torch.rand(1000)) as get_result:
        torch.rand(10)
    assert len(get_result()) == 1000
    assert torch.equal(torch.rand(4), expected)


def test_an_error_beside_a_block_is_raised_with_the_result_and_one_of_the_block_at_its_end(cores):
    ended = []
    if cores > 1:
        with run_beside(lambda: 1 // 0) as get_result:
            ended.append("block")
        with pytest.raises(ZeroDivisionError):
            get_result()
    with pytest.raises(KeyError), run_beside(lambda: ended.append("job")):
        raise KeyError
    assert ended[-1] == "job"
    assert torch.get_num_threads() == cores
