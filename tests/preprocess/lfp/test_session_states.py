"""The state of an animal from those of its shanks."""

from src.preprocess.lfp.session_states import HEADER, SESSION_STATES


def shank(folder, *cells):
    folder.mkdir()
    rows = [f"{4 * epoch},4,{stage},{sure}" for epoch, (stage, sure) in enumerate(cells)]
    (folder / "hypnogram.csv").write_text("\n".join([HEADER, *rows]) + "\n")
    return folder


def test_the_state_with_most_confidence_wins(tmp_path):
    inputs = {
        "a_sh0": shank(tmp_path / "0", ("Wake", 0.9), ("NREM", 0.5), ("NREM", 0.9), ("REM", 0.9)),
        "a_sh1": shank(tmp_path / "1", ("Wake", 0.7), ("REM", 0.8), ("NREM", 0.5)),
    }
    (tmp_path / "out").mkdir()
    facts = SESSION_STATES.run(inputs, {"epoch_s": 4.0}, tmp_path / "out", None)
    rows = (tmp_path / "out" / "hypnogram.csv").read_text().splitlines()
    assert rows == [HEADER, "0,4,Wake,0.800", "4,4,REM,0.400", "8,4,NREM,0.700"]
    assert facts["shanks_agree"] == 0.6667
    assert "agree in 67% of the epochs" in facts["warnings"][0]
