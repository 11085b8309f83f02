"""The drawn films are what their truth says: who is where, how they move, whether the camera pans."""

import numpy as np
import pytest

from ami.worlds.films import RADIUS, SIZE, SPEED, TRUTH, Films, collect, draw, sample_films

COLUMN = {name: number for number, name in enumerate(TRUTH)}


def lone(camera: tuple[float, float] = (0.0, 0.0), shape: int = 0, bar: float = 0.0) -> Films:
    """One reddish mover beside a bluish one, far from any edge."""
    return Films(
        start=np.array([[[20.0, 30.0], [50.0, 50.0], [9.0, 9.0], [9.0, 9.0]]]),
        velocity=np.array([[[1.5, -0.5], [0.0, 0.0], [0.0, 0.0], [0.0, 0.0]]]),
        size=np.full((1, 4), 6.0),
        shape=np.full((1, 4), shape),
        colour=np.array([[[255.0, 0.0, 0.0], [0.0, 0.0, 255.0], [0.0, 255.0, 0.0], [0.0, 255.0, 0.0]]]),
        count=np.array([2]),
        camera=np.array([camera]),
        bar=np.array([[30.0, bar]]),
    )


def test_the_same_seed_draws_the_same_films_and_another_draws_others() -> None:
    one, same, other = collect(20, 6, 3), collect(20, 6, 3), collect(20, 6, 4)
    assert [film.digest for film in one] == [film.digest for film in same]
    assert not {film.digest for film in one} & {film.digest for film in other}


@pytest.mark.parametrize("shape", [0, 1, 2])
def test_a_mover_is_drawn_where_the_truth_says(shape: int) -> None:
    films = lone(shape=shape)
    video = next(draw(films, 8, np.random.default_rng(0))).astype(float)
    centres = films.paths(8)[0][0, 0]
    assert centres[-1] == pytest.approx((20 + 7 * 1.5, 30 - 7 * 0.5))
    for picture, centre in zip(video, centres, strict=True):
        red = (picture[..., 0] - picture[..., 1:].max(-1)) > 200  # no background is so red
        y, x = (axis + 0.5 for axis in np.nonzero(red))
        assert (x.min() + x.max()) / 2 == pytest.approx(centre[0], abs=0.6)
        # A triangle's tip is too fine to be of full colour.
        assert y.max() == pytest.approx(centre[1] + (4.8 if shape == 1 else 6.0), abs=1.1)
        assert (x.max() - x.min()) / 2 == pytest.approx(4.8 if shape == 1 else 6.0, abs=1.5)


def test_velocity_is_the_way_to_the_next_frame_and_movers_bounce() -> None:
    truth = np.stack([film.truth for film in collect(200, 16, 0)])
    for who in "ab":
        for axis in "xy":
            at, speed = truth[..., COLUMN[f"{who}_{axis}"]], truth[..., COLUMN[f"{who}_d{axis}"]]
            size = truth[..., COLUMN[f"{who}_size"]]
            assert ((at >= size - 1e-3) & (at <= SIZE - size + 1e-3)).all()
            straight = speed[:, :-1] == speed[:, 1:]
            assert np.diff(at)[straight] == pytest.approx(speed[:, :-1][straight], abs=1e-4)
            assert 0 < (~straight).mean() < 0.1
            assert (speed[:, :-1][~straight] == -speed[:, 1:][~straight]).all()
        pace = np.hypot(truth[..., COLUMN[f"{who}_dx"]], truth[..., COLUMN[f"{who}_dy"]])
        assert SPEED[0] - 1e-3 <= pace.min() < pace.max() <= SPEED[1] + 1e-3
        assert truth[..., COLUMN[f"{who}_size"]].min() >= RADIUS[0]


def test_the_camera_moves_in_half_of_the_films() -> None:
    films = sample_films(301, np.random.default_rng(0))
    assert np.any(films.camera, 1).sum() == 150
    assert (films.bar[:, 1] > 0).sum() == 101
    assert set(films.count) == {2, 3, 4}


def test_the_background_goes_against_the_camera_or_stands() -> None:
    """A film whose camera moves by whole pixels shows the same texture, shifted; movers stay out of the corner."""
    video = next(draw(lone(camera=(1.0, -1.0)), 6, np.random.default_rng(0))).astype(int)
    assert np.abs(video[1:, 55:63, 1:12] - video[:-1, 54:62, 2:13]).max() <= 1
    assert np.abs(video[1:, 55:63, 1:12] - video[:-1, 55:63, 1:12]).mean() > 5
    still = next(draw(lone(), 6, np.random.default_rng(0)))
    assert (still[1:, 55:63, 1:12] == still[:-1, 55:63, 1:12]).all()


def test_a_bar_hides_what_is_behind_it() -> None:
    video = next(draw(lone(bar=10.0), 8, np.random.default_rng(0)))
    assert (video[:, :, 30:40] == 30).all()
    assert not (next(draw(lone(), 8, np.random.default_rng(0)))[:, :, 30:40] == 30).all()


def test_movers_that_are_not_counted_are_not_there() -> None:
    video = next(draw(lone(), 2, np.random.default_rng(0))).astype(int)
    assert ((video[..., 1] - video[..., [0, 2]].max(-1)) < 250).all()


def test_nothing_is_refused_in_one_sentence() -> None:
    with pytest.raises(ValueError, match="0 films of 16 frames were asked for"):
        collect(0)
