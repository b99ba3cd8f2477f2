"""What commands say, and where."""

from workbench.terminal import Conversion, say, write


def test_words_of_a_model_and_words_about_it_go_different_ways(capsys):
    write("once upon ")
    write("a time")
    say("3 tokens/s")
    say("")
    assert capsys.readouterr() == ("once upon a time", "3 tokens/s\n")


def test_a_conversion_shows_how_far_it_is(capsys):
    bar = Conversion()
    for done in (1, 2, 3):
        bar(done, 3)
    out, err = capsys.readouterr()
    assert out == "" and "converting: 100%" in err and "3/3" in err


def test_no_conversion_shows_nothing(capsys):
    Conversion()
    assert capsys.readouterr() == ("", "")
