import torch

from workbench.model.rope import rotate, rotation


def complex_rotation(x: torch.Tensor, position: torch.Tensor, theta: float) -> torch.Tensor:
    """Pairs (i, i + half) as complex numbers, multiplied by exp(i * position * theta^(-2i/Q))."""
    half = x.shape[-1] // 2
    frequency = theta ** (-torch.arange(half, dtype=torch.float64) / half)
    turn = torch.polar(torch.ones(()).double(), position.double()[:, None] * frequency).unsqueeze(1)
    turned = torch.complex(x[..., :half].double(), x[..., half:].double()) * turn
    return torch.cat((turned.real, turned.imag), dim=-1)


def test_it_is_a_complex_rotation(assert_close):
    x, position = torch.randn(6, 3, 8), torch.tensor([0, 1, 2, 50, 127, 7])
    for theta in (100.0, 10_000.0):
        assert_close(
            rotate(x, rotation(position, 8, theta)).double(), complex_rotation(x, position, theta), dtype=x.dtype
        )


def test_position_0_turns_nothing():
    x = torch.randn(2, 3, 8)
    assert torch.equal(rotate(x, rotation(torch.zeros(2, dtype=torch.long), 8, 1e4)), x)


def test_a_score_depends_on_the_distance_alone(assert_close):
    query, key = torch.randn(1, 1, 16), torch.randn(1, 1, 16)

    def score(at: int, of: int) -> torch.Tensor:
        turned = [rotate(x, rotation(torch.tensor([p]), 16, 1e4)) for x, p in ((query, at), (key, of))]
        return (turned[0] * turned[1]).sum()

    assert_close(score(9, 4), score(105, 100))
    assert abs(score(9, 4) - score(9, 5)) > 1e-3


def test_angles_of_far_positions_are_exact_in_float32():
    # an angle of 1e5 rad in bfloat16 would be off by hundreds; cosine and sine stay float32 until used.
    cosine, sine = rotation(torch.tensor([100_000]), 8, 1e4)
    assert cosine.dtype == sine.dtype == torch.float32
    assert torch.allclose(cosine[0, 0].double(), torch.tensor(100_000.0, dtype=torch.float64).cos(), atol=1e-6)


def test_the_dtype_is_that_of_the_queries():
    turn = rotation(torch.arange(3), 8, 1e4)
    assert rotate(torch.randn(3, 2, 8, dtype=torch.bfloat16), turn).dtype == torch.bfloat16
