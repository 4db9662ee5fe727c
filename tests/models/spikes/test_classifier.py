def test_a_trained_classifier_names_held_out_spikes(spike_models):
    model, _, _ = spike_models["classifier"]
    rows = model.results()
    assert [r["target"] for r in rows] == ["D2", "D5"]
    assert rows[0]["accuracy"] > 0.35  # five neurons, a few steps
    assert model.media()["confusion"]["tables"]["held-out spikes"].sum() == sum(r["spikes"] for r in rows)
    assert model.tune(None) == {"targets": {}}
