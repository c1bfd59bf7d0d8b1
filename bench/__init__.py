"""Measurements. Each module here has `run() -> dict`, which measures us beside our peers in one run, interleaved, and returns medians:

    {"title": "topic record, 1 KiB", "unit": "records/s",
     "rows": [{"work": "seal, batch 64",
               "values": {"broker_crypto": 61000.0, "floor": 98000.0, "kafkacrypto": 41000.0},
               "targets": [{"of": "floor", "at_least": 0.5}, {"of": "kafkacrypto", "at_least": 1.0}]}]}

`values` holds what each did of `unit`, more is better; the first key is ours. `targets` are ratios of ours to a peer, or a `figure`
that ours is to reach, or one that it is to be `at_most`. `notes` are printed below the table, `scale` is that of the plot. More
keys are kept in the JSON. `python -m bench` (`make bench`) prints the table, writes bench/out/*.json and draws bench/out/bench.png.
"""
